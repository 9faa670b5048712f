//! A partition as snapshots of version 1 have it: without dedup ids.

use millrace_types::{Address, LogId, Offset};
use serde::Deserialize;

use super::Partition;
use crate::codec::first;
use crate::dedup::Seen;
use crate::spans::Spans;

/// Field by field; nobody was asked to remember what was published.
#[derive(Deserialize)]
pub(crate) struct First {
    log: LogId,
    topic: Address,
    partition: u32,
    revision: u64,
    spec: first::Partition,
    frozen: bool,
    first: Offset,
    end: Offset,
    spans: Spans,
}

impl From<First> for Partition {
    fn from(old: First) -> Self {
        Self {
            log: old.log,
            topic: old.topic,
            partition: old.partition,
            revision: old.revision,
            spec: old.spec.into(),
            frozen: old.frozen,
            first: old.first,
            end: old.end,
            spans: old.spans,
            seen: Seen::default(),
        }
    }
}
