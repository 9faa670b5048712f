//! How long a replica waits for a leader. raft-rs draws that from the system's chance, and what it
//! draws is replaced: by a number that follows from the seed, the term and how often it has waited
//! in vain. So it does not matter when raft-rs draws.

/// A replica's seed and how often it has waited in vain.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Lots {
    seed: u64,
    tries: u64,
}

impl Lots {
    pub(crate) const fn new(seed: u64) -> Self {
        Self { seed, tries: 0 }
    }

    /// It has waited in vain: the next time is another.
    pub(crate) const fn tried(&mut self) {
        self.tries = self.tries.wrapping_add(1);
    }

    /// Ticks, from `least` to twice as much.
    pub(crate) fn ticks(&self, term: u64, least: usize) -> usize {
        let drawn = mix(self.seed ^ mix(term) ^ mix(self.tries ^ TRIES));
        let span = least.max(1) as u64;
        let more = usize::try_from(drawn % span).expect("less than a usize");
        least + more
    }
}

/// Tells tries from terms.
const TRIES: u64 = 0x7472_6965_7300_0000;

/// `SplitMix64`: every bit of the result depends on every bit of the number.
const fn mix(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
