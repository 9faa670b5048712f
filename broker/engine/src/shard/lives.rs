//! How queues and partitions come, change, freeze and go, as the catalogue has it. All of it can be
//! said twice.

use alloc::sync::Arc;

use millrace_types::LogId;

use super::{Changes, Shard, own};
use crate::command::Command;
use crate::outcome::{BodyChange, Effect, Outcome};
use crate::partition::{Configuration, Partition};
use crate::queue::{self, Queue};
use crate::refusal;

impl Shard {
    pub(super) fn change_life(&mut self, command: &Command, changes: &mut Changes) -> Outcome {
        match command {
            Command::ConfigureQueue { log, .. } if self.partitions.contains_key(log) => {
                return Outcome::Refused(refusal::invalid(alloc::format!(
                    "log id {log} is a partition"
                )));
            }
            Command::ConfigurePartition { log, .. } if self.queues.contains_key(log) => {
                return Outcome::Refused(refusal::invalid(alloc::format!(
                    "log id {log} is a queue"
                )));
            }
            Command::ConfigureQueue { .. } => self.configure_queue(command, changes),
            Command::ConfigurePartition {
                log,
                address,
                partition,
                revision,
                spec,
            } => {
                let configuration = Configuration {
                    topic: address,
                    partition: *partition,
                    revision: *revision,
                    spec,
                };
                self.configure_partition(*log, &configuration, changes);
            }
            Command::Freeze { log, revision } => self.freeze_log(*log, *revision, changes),
            Command::Remove { log, revision } => self.remove(*log, *revision, changes),
            Command::Configured { revision } => {
                self.configured = self.configured.max(*revision);
            }
            _ => {}
        }
        Outcome::Done
    }

    fn configure_queue(&mut self, command: &Command, changes: &mut Changes) {
        let Command::ConfigureQueue {
            log,
            address,
            revision,
            spec,
            dead_letters,
        } = command
        else {
            return;
        };
        let configuration = queue::Configuration {
            address,
            revision: *revision,
            spec: self.specs.share(spec),
            dead_letters: *dead_letters,
        };
        let (log, now) = (*log, self.stamp.elapsed);
        if !self.queues.contains_key(&log) {
            if *revision <= self.configured {
                // Said again after the log was removed.
                return;
            }
            let queue = Queue::new(log, &configuration);
            self.queues.insert(log, Arc::new(queue));
        }
        self.on_queue(log, changes, |queue, _| {
            queue.configure(&configuration, now);
            Outcome::Done
        });
        self.recount(log, self.dedup_ids_of(log));
        changes.effects.push(Effect::Reconfigured { log });
        if let Some(queue) = self.queues.get(&log) {
            queue.outstanding(&mut changes.effects);
        }
    }

    fn configure_partition(
        &mut self,
        log: LogId,
        configuration: &Configuration<'_>,
        changes: &mut Changes,
    ) {
        match own(&mut self.partitions, log) {
            Some(partition) => partition.configure(configuration),
            None if configuration.revision <= self.configured => return,
            None => {
                let partition = Partition::new(log, configuration);
                self.partitions.insert(log, Arc::new(partition));
            }
        }
        self.recount(log, self.dedup_ids_of(log));
        changes.effects.push(Effect::Reconfigured { log });
    }

    fn freeze_log(&mut self, log: LogId, revision: u64, changes: &mut Changes) {
        if let Some(partition) = own(&mut self.partitions, log) {
            partition.freeze(revision);
        } else if self.queues.contains_key(&log) {
            self.on_queue(log, changes, |queue, _| {
                queue.freeze(revision);
                Outcome::Done
            });
        } else {
            return;
        }
        changes.effects.push(Effect::Reconfigured { log });
    }

    fn remove(&mut self, log: LogId, revision: u64, changes: &mut Changes) {
        let newer = self.queue(log).map(Queue::revision);
        let newer = newer.or(self.partition(log).map(Partition::revision));
        if newer.is_none_or(|known| known > revision) {
            return;
        }
        let dedup_ids = self.dedup_ids_of(log);
        if let Some(queue) = self.queues.remove(&log) {
            for view in queue.sessions() {
                let session = view.session;
                self.sessions.remove(&session);
                changes.effects.push(Effect::SessionClosed { session });
            }
            self.deadlines.set(log, None);
            let arrivals = queue.arrivals();
            if arrivals.len() > 0 {
                self.departed.insert(log, arrivals);
            }
        }
        self.partitions.remove(&log);
        self.recount(log, dedup_ids);
        changes.bodies.push(BodyChange::DiscardAll { log });
        changes.effects.push(Effect::Reconfigured { log });
    }
}
