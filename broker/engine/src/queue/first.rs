//! A queue as snapshots of version 1 have it: without dedup ids.

use alloc::collections::BTreeMap;
use alloc::sync::Arc;

use millrace_types::{Address, LogId, Offset};
use serde::Deserialize;

use super::{Arrivals, Ledger, Outbox, Queue};
use crate::codec::first;
use crate::dedup::Seen;
use crate::session::Sessions;
use crate::spec::DeadLetters;

/// Field by field; nobody was asked to remember what was published.
#[derive(Deserialize)]
pub(crate) struct First {
    log: LogId,
    address: Address,
    revision: u64,
    spec: first::Queue,
    dead_letters: DeadLetters,
    frozen: bool,
    ledger: Ledger,
    sessions: Sessions,
    outbox: Outbox,
    cursors: BTreeMap<LogId, Offset>,
    arrivals: Arrivals,
    leaders: u64,
    starved: bool,
}

impl From<First> for Queue {
    fn from(old: First) -> Self {
        Self {
            log: old.log,
            address: old.address,
            revision: old.revision,
            spec: Arc::new(old.spec.into()),
            dead_letters: old.dead_letters,
            frozen: old.frozen,
            ledger: old.ledger,
            sessions: old.sessions,
            outbox: old.outbox,
            cursors: old.cursors,
            arrivals: old.arrivals,
            seen: Seen::default(),
            leaders: old.leaders,
            starved: old.starved,
            unfinished: false,
            notes: None,
        }
    }
}
