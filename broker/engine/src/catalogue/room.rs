//! Whether the catalogue has room for what a delta adds: each limit that the whole of it has.

use alloc::collections::{BTreeMap, BTreeSet};
use alloc::format;
use alloc::string::ToString;

use millrace_types::{Address, ErrorCode, Refusal};

use super::declared::{Declared, DeclaredSpec, DeletionPolicy};
use super::index::references;
use super::placed::Placed;
use super::{BOUND_QUEUES_MAX, Catalogue, LOGS_MAX, OBJECTS_MAX};

/// Logs of a queue: its own, and that of its dead letters.
const QUEUE_LOGS: usize = 2;

/// What there will be.
#[derive(Default)]
struct Sums<'a> {
    objects: usize,
    logs: usize,
    /// By topic: queues that are bound to it and were not.
    bound: BTreeMap<&'a Address, usize>,
}

/// Refuses a delta that goes beyond a limit of the whole. `gone` are the addresses it removes.
pub(super) fn check(
    catalogue: &Catalogue,
    upserts: &[Declared],
    gone: &BTreeSet<&Address>,
) -> Result<(), Refusal> {
    let objects = &catalogue.topology.objects;
    let mut sums = Sums {
        objects: objects.len(),
        logs: catalogue.index.logs(),
        ..Sums::default()
    };
    let is_deleted = |placed: &Placed| {
        gone.contains(&*placed.address) && placed.spec.deletion() == DeletionPolicy::Delete
    };
    for placed in gone.iter().filter_map(|address| objects.get(address)) {
        if is_deleted(placed) {
            sums.objects = sums.objects.saturating_sub(1);
            sums.logs = sums.logs.saturating_sub(placed.lanes().count());
        }
    }
    for declared in upserts {
        let old = objects
            .get(&declared.address)
            .filter(|old| !is_deleted(old));
        sums.objects += usize::from(old.is_none());
        let (had, has) = (
            old.map_or(0, |old| old.lanes().count()),
            logs(&declared.spec),
        );
        sums.logs += has.saturating_sub(had);
        let topics = references(&declared.spec).into_iter();
        for topic in topics.filter(|address| !address.is_queue()) {
            if !catalogue.index.refers(&declared.address, topic) {
                *sums.bound.entry(topic).or_default() += 1;
            }
        }
    }
    sums.check(catalogue, upserts.is_empty())
}

impl Sums<'_> {
    fn check(&self, catalogue: &Catalogue, only_removes: bool) -> Result<(), Refusal> {
        if only_removes {
            return Ok(());
        }
        within("objects of the cluster", self.objects, OBJECTS_MAX)?;
        within("queues and partitions of the cluster", self.logs, LOGS_MAX)?;
        for (topic, new) in &self.bound {
            let bound = catalogue.index.referrers_len(topic) + new;
            let what = format!("queues bound to {topic}");
            within(&what, bound, BOUND_QUEUES_MAX)
                .map_err(|refusal| refusal.with("address", topic.to_string()))?;
        }
        Ok(())
    }
}

const fn logs(spec: &DeclaredSpec) -> usize {
    match spec {
        DeclaredSpec::Queue(_) => QUEUE_LOGS,
        DeclaredSpec::Topic(topic) => topic.partitions as usize,
    }
}

fn within(what: &str, actual: usize, limit: usize) -> Result<(), Refusal> {
    if actual <= limit {
        return Ok(());
    }
    let message = format!("{what}: {actual} would be more than {limit}");
    Err(Refusal::new(ErrorCode::LimitReached, message)
        .with("limit", limit.to_string())
        .with("actual", actual.to_string()))
}
