//! From names to log ids: what each data shard has to be told about each log. Compared with what it
//! was told last, so that an object that appears or goes also changes those that refer to it.

use alloc::collections::BTreeMap;
use alloc::vec::Vec;

use millrace_types::{Address, LogId, ShardId};

use super::{
    Catalogue, DeclaredQueue, DeclaredSpec, Log, LogSpec, LogState, Placed, PlacedState, problem,
};
use crate::spec::{BoundPartition, Filter, QueueSpec, Target};

impl Catalogue {
    /// Brings the logs in line with the objects; says whether any shard has to be told.
    pub(super) fn compile(&mut self, revision: u64) -> bool {
        let mut left: BTreeMap<LogId, Log> = core::mem::take(&mut self.logs);
        let mut logs = BTreeMap::new();
        let mut told = false;
        for placed in self.objects.values() {
            for (at, (shard, id)) in placed.logs().enumerate() {
                let old = left.remove(&id);
                let (log, changed) = self.compile_one(placed, at, shard, old, revision);
                told |= changed;
                logs.insert(id, log);
            }
        }
        for (id, mut log) in left {
            if log.state != LogState::Removed {
                log.state = LogState::Removed;
                log.revision = revision;
                told = true;
            }
            logs.insert(id, log);
        }
        self.logs = logs;
        told
    }

    fn compile_one(
        &self,
        placed: &Placed,
        at: usize,
        shard: ShardId,
        old: Option<Log>,
        revision: u64,
    ) -> (Log, bool) {
        if let (PlacedState::Orphaned, Some(mut log)) = (placed.state, old.clone()) {
            let changed = log.state != LogState::Frozen;
            if changed {
                log.state = LogState::Frozen;
                log.revision = revision;
            }
            return (log, changed);
        }
        let spec = match &placed.spec {
            DeclaredSpec::Queue(queue) => LogSpec::Queue(self.queue_spec(&placed.address, queue)),
            DeclaredSpec::Topic(topic) => LogSpec::Partition {
                number: u32::try_from(at).unwrap_or(u32::MAX),
                spec: topic.partition.clone(),
            },
        };
        match old {
            Some(log) if log.state == LogState::Active && log.spec == spec => (log, false),
            _ => {
                let log = Log {
                    shard,
                    address: placed.address.clone(),
                    spec,
                    state: LogState::Active,
                    revision,
                };
                (log, true)
            }
        }
    }

    fn queue_spec(&self, address: &Address, queue: &DeclaredQueue) -> QueueSpec {
        QueueSpec {
            bindings: self.bindings(queue),
            lease_ms: queue.lease_ms,
            in_flight_max: queue.in_flight_max,
            deliveries_max: queue.deliveries_max,
            backoff_initial_ms: queue.backoff_initial_ms,
            backoff_max_ms: queue.backoff_max_ms,
            backoff_factor_milli: queue.backoff_factor_milli,
            messages_max: queue.limits.messages_max,
            bytes_max: queue.limits.bytes_max,
            message_bytes_max: queue.limits.message_bytes_max,
            dead_letter: problem::dead_letter_target(address, queue).map(|target| Target {
                log: problem::dead_letter_log(self, address, &target),
                address: target,
            }),
        }
    }

    /// One for each partition of each bound topic, with all filters on that topic. An orphaned
    /// topic stays bound: its cursors must be there when it returns.
    fn bindings(&self, queue: &DeclaredQueue) -> Vec<BoundPartition> {
        let mut topics: BTreeMap<&Address, Vec<Filter>> = BTreeMap::new();
        for binding in &queue.bindings {
            let filters = topics.entry(&binding.topic).or_default();
            filters.push(binding.filter.clone());
        }
        let mut bound = Vec::new();
        for (topic, filters) in topics {
            let partitions = self.objects.get(topic).map_or(&[][..], Placed::partitions);
            for ((_, log), partition) in partitions.iter().zip(0_u32..) {
                bound.push(BoundPartition {
                    topic: topic.clone(),
                    partition,
                    log: *log,
                    filters: filters.clone(),
                });
            }
        }
        bound
    }
}
