//! Waiting for a condition, with a limit. The one place in this crate that sleeps.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// How long to wait between two looks: short against everything that is waited for.
const PAUSE: Duration = Duration::from_millis(250);

/// Looks until `look` finds something, at most `limit`. Errors count as not yet; the last one is
/// told.
///
/// # Errors
/// When the limit is over.
pub(crate) fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>>,
) -> Result<T> {
    let start = Instant::now();
    loop {
        let seen = look();
        if let Ok(Some(found)) = seen {
            return Ok(found);
        }
        if start.elapsed() >= limit {
            match seen {
                Err(error) => bail!("not within {limit:?}: {what}: {error:#}"),
                Ok(_) => bail!("not within {limit:?}: {what}"),
            }
        }
        thread::sleep(PAUSE); // polls
    }
}

/// Waits until `holds` is true.
///
/// # Errors
/// When the limit is over.
pub(crate) fn until_true(
    what: &str,
    limit: Duration,
    mut holds: impl FnMut() -> Result<bool>,
) -> Result<()> {
    until(what, limit, || Ok(holds()?.then_some(())))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_error_is_told_when_the_limit_is_over() {
        let error = until::<()>("the moon", Duration::ZERO, || bail!("clouds")).unwrap_err();
        assert_eq!(error.to_string(), "not within 0ns: the moon: clouds");
    }

    #[test]
    fn errors_on_the_way_are_no_end() {
        let mut looks = 0;
        let found = until("two", Duration::from_secs(5), || {
            looks += 1;
            if looks < 2 {
                bail!("not yet")
            } else {
                Ok(Some(looks))
            }
        });
        assert_eq!(found.unwrap(), 2);
    }
}
