//! Who does not serve has a reason, and names it: a shard of which nothing is damaged never suffers
//! from what is damaged elsewhere, and damage at rest is found before anybody needs the message.

use super::Invariant;
use crate::event::Event;
use crate::facts::Facts;

/// See above.
pub(super) struct Quarantine;

impl Invariant for Quarantine {
    fn name(&self) -> &'static str {
        "quarantine"
    }

    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String> {
        match event {
            Event::Figures { shards, .. } => shards.iter().try_for_each(|figures| {
                let why = figures.unavailable.as_deref();
                why.map_or(Ok(()), |why| facts.damage.say(figures.shard, why))
            }),
            Event::Unreadable { shard, why } if facts.damage.scrubbed => Err(format!(
                "shard {shard} serves, and what it holds cannot be read: {why}"
            )),
            _ => Ok(()),
        }
    }
}
