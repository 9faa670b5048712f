//! What data shards have still to be told about their logs.

use alloc::sync::Arc;
use alloc::vec::Vec;

use millrace_types::{Address, LogId, ShardId};

use super::Catalogue;
use super::compile;
use super::topology::Scene;
use crate::command::Command;

/// A log that a shard has to be told about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Untold {
    log: LogId,
    /// Whose it is; `None` when it was removed.
    owner: Option<Arc<Address>>,
}

impl Untold {
    /// Which log.
    #[must_use]
    pub const fn log(&self) -> LogId {
        self.log
    }
}

impl Catalogue {
    /// Up to `max` logs of a data shard after one that changed after what it did last, in order of
    /// log id; fewer at the end. Once it has been told what `command_for` makes of each, page by
    /// page, it has done everything up to the revision at which the first page was made.
    #[must_use]
    pub fn untold(
        &self,
        shard: ShardId,
        applied: u64,
        after: Option<LogId>,
        max: usize,
    ) -> Vec<Untold> {
        let first = after.map_or(0, |after| after.get().saturating_add(1));
        let range = (shard, LogId::new(first))..=(shard, LogId::new(u64::MAX));
        let removed = self.removed.range(range);
        let removed = removed.filter(|(_, revision)| **revision > applied);
        let mut untold: Vec<Untold> = removed
            .take(max)
            .map(|((_, log), _)| Untold {
                log: *log,
                owner: None,
            })
            .collect();
        if applied >= self.topology.done(shard) {
            let changed = self.index.untold(shard, after);
            let changed = changed.filter(|(_, change)| change.told > applied);
            untold.extend(changed.take(max).map(|(log, change)| Untold {
                log,
                owner: Some(Arc::clone(&change.owner)),
            }));
        } else {
            // It has done less than it once said, which only a test can make happen.
            for placed in self.topology.objects.iter() {
                let lanes = placed.lanes();
                let of_shard = lanes.filter(|lane| lane.shard == shard && lane.log.get() >= first);
                let changed = of_shard.filter(|lane| lane.told > applied);
                untold.extend(changed.map(|lane| Untold {
                    log: lane.log,
                    owner: Some(Arc::clone(&placed.address)),
                }));
            }
        }
        untold.sort_unstable_by_key(|untold| untold.log);
        untold.truncate(max);
        untold
    }

    /// What to tell a shard about a log, as of now; `None` when there is nothing to tell any more.
    #[must_use]
    pub fn command_for(&self, shard: ShardId, untold: &Untold) -> Option<Command> {
        let log = untold.log;
        if let Some(revision) = self.removed.get(&(shard, log)) {
            let revision = *revision;
            return Some(Command::Remove { log, revision });
        }
        let objects = &self.topology.objects;
        let placed = objects.get(untold.owner.as_ref()?)?;
        let lane = placed.lane(log)?;
        Some(compile::command(&Scene::now(objects), placed, lane))
    }

    /// What a data shard has to be told that did everything up to `applied`: one command for each
    /// of its logs that changed since, in order of log id, and `Configured` at the end. Empty when
    /// it has done everything. Saying it twice does nothing.
    #[must_use]
    pub fn commands_for(&self, shard: ShardId, applied: u64) -> Vec<Command> {
        let revision = self.revision();
        if applied >= revision {
            return Vec::new();
        }
        let untold = self.untold(shard, applied, None, usize::MAX);
        let commands = untold.iter().filter_map(|log| self.command_for(shard, log));
        commands.chain([Command::Configured { revision }]).collect()
    }
}
