//! How long a failed message waits: exponential, with a jitter that every replica computes alike.

use millrace_types::{DELAY_MS_MAX, LogId, Offset};

use crate::spec::QueueSpec;

/// Multiplications at most: a factor close to 1 would need more, and stays a little short of its
/// power beyond.
const STEPS_MAX: u32 = 256;
/// Thousandths in one.
const MILLI: u64 = 1000;
/// The jitter is at most one part in so many, either way.
const JITTER_PARTS: u64 = 10;

/// Milliseconds to wait after so many failures: `initial * factor^(attempts - 1)`, at most the
/// queue's longest delay, then up to a tenth more or less.
pub(crate) fn backoff_ms(spec: &QueueSpec, log: LogId, offset: Offset, attempts: u32) -> u64 {
    let longest = spec.backoff_max_ms.min(DELAY_MS_MAX);
    let factor = u64::from(spec.backoff_factor_milli).max(MILLI);
    let mut milli = spec.backoff_initial_ms.min(longest).saturating_mul(MILLI);
    for _ in 1..attempts.min(STEPS_MAX) {
        if milli >= longest.saturating_mul(MILLI) {
            break;
        }
        milli = milli.saturating_mul(factor) / MILLI;
    }
    let delay = (milli / MILLI).min(longest);
    let reach = delay / JITTER_PARTS;
    let jitter = scramble(log, offset, attempts) % (2 * reach + 1);
    delay - reach + jitter
}

/// A number that looks random and is the same everywhere (SplitMix64's finalizer).
fn scramble(log: LogId, offset: Offset, attempts: u32) -> u64 {
    let mix = |x: u64| {
        let x = (x ^ (x >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let x = (x ^ (x >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        x ^ (x >> 31)
    };
    let seed = mix(log.get().wrapping_add(0x9e37_79b9_7f4a_7c15));
    mix(mix(seed ^ offset.get()).wrapping_add(u64::from(attempts)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::spec::testing::queue_spec;

    fn delay(attempts: u32, offset: u64) -> u64 {
        let spec = QueueSpec {
            backoff_initial_ms: 1000,
            backoff_max_ms: 60_000,
            backoff_factor_milli: 2000,
            ..queue_spec()
        };
        backoff_ms(&spec, LogId::new(7), Offset::new(offset), attempts)
    }

    #[test]
    fn the_delay_doubles_up_to_the_longest_one() {
        for (attempts, middle) in [(1, 1000), (2, 2000), (4, 8000), (7, 60_000), (9999, 60_000)] {
            for offset in 0..100 {
                let got = delay(attempts, offset);
                assert!(
                    got.abs_diff(middle) <= middle / 10,
                    "{got} is far off {middle}"
                );
            }
        }
    }

    #[test]
    fn neighbours_do_not_come_back_together() {
        let delays: alloc::collections::BTreeSet<_> = (0..100).map(|o| delay(6, o)).collect();
        assert!(delays.len() > 50, "{delays:?}");
    }

    #[test]
    fn extreme_settings_do_not_overflow() {
        for (initial, max, factor) in [
            (u64::MAX, u64::MAX, u32::MAX),
            (0, 0, 0),
            (0, u64::MAX, u32::MAX),
            (u64::MAX, 0, 1),
            (1, u64::MAX, 1001),
        ] {
            let spec = QueueSpec {
                backoff_initial_ms: initial,
                backoff_max_ms: max,
                backoff_factor_milli: factor,
                ..queue_spec()
            };
            for attempts in [0, 1, 2, u32::MAX] {
                let got = backoff_ms(&spec, LogId::new(1), Offset::new(u64::MAX), attempts);
                assert!(got <= DELAY_MS_MAX + DELAY_MS_MAX / 10);
            }
        }
    }
}
