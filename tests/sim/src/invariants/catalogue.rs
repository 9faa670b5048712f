//! What was declared and confirmed is there after every restart.

use super::Invariant;
use crate::event::Event;
use crate::facts::Facts;

/// See above.
#[derive(Default)]
pub(super) struct Catalogue {
    /// The highest revision that was confirmed, and after how many events.
    confirmed: (u64, u64),
}

impl Invariant for Catalogue {
    fn name(&self) -> &'static str {
        "catalogue"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Confirmed { revision } => {
                let (before, _) = self.confirmed;
                if *revision < before {
                    return Err(format!("revision {revision} came after {before}"));
                }
                self.confirmed = (*revision, facts.events);
                Ok(())
            }
            Event::Started { revision, asked } => {
                let (confirmed, at) = self.confirmed;
                if *revision < confirmed && at < *asked {
                    return Err(format!(
                        "the topology is at revision {revision} after a restart, {confirmed} was \
                         confirmed"
                    ));
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}
