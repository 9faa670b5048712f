//! What must always hold, one file each. An invariant sees every event before the facts take note
//! of it, and says what is wrong. It judges by what clients know for sure, so it cannot be wrong
//! about an operation whose outcome is unknown.

mod attempts;
mod bodies;
mod catalogue;
mod checksums;
mod dead_letters;
mod kept;
mod leases;
mod monotonic;
mod offsets;
mod order;
mod pointers;
mod quarantine;
mod settled;
mod transfers;

use crate::event::Event;
use crate::facts::Facts;

/// Something that must always hold.
pub(crate) trait Invariant: Send {
    /// Short; names it in reports.
    fn name(&self) -> &'static str;

    /// Whether it holds even where damage cannot be told from a crash: there, what was acknowledged
    /// may be gone without a word, and its place be given away again. Damage that is noticed
    /// excuses nothing that is handed out.
    fn outlives_damage(&self) -> bool {
        false
    }

    /// Looks at the next event.
    ///
    /// # Errors
    /// What is wrong.
    fn check(&mut self, facts: &Facts, event: &Event) -> Result<(), String>;
}

/// All of them.
#[must_use]
pub(crate) fn all() -> Vec<Box<dyn Invariant>> {
    vec![
        Box::new(bodies::Bodies),
        Box::new(offsets::Offsets::default()),
        Box::new(monotonic::Monotonic::default()),
        Box::new(order::Order::default()),
        Box::new(leases::Leases),
        Box::new(settled::Settled::default()),
        Box::new(attempts::Attempts),
        Box::new(dead_letters::DeadLetters::default()),
        Box::new(transfers::Transfers::default()),
        Box::new(kept::Kept),
        Box::new(catalogue::Catalogue::default()),
        Box::new(pointers::Pointers::default()),
        Box::new(checksums::Checksums::default()),
        Box::new(quarantine::Quarantine),
    ]
}
