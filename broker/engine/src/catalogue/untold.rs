//! What data shards have still to be told about their logs.

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
    owner: Option<Address>,
}

impl Catalogue {
    /// The logs of a data shard that changed after what it did last, in order of log id. Once it
    /// has been told what `command_for` makes of each, at whatever time, it has done everything up
    /// to the revision of now.
    #[must_use]
    pub fn untold(&self, shard: ShardId, applied: u64) -> Vec<Untold> {
        let range = (shard, LogId::new(0))..=(shard, LogId::new(u64::MAX));
        let removed = self.removed.range(range);
        let removed = removed.filter(|(_, revision)| **revision > applied);
        let mut untold: Vec<Untold> = removed
            .map(|((_, log), _)| Untold {
                log: *log,
                owner: None,
            })
            .collect();
        if applied >= self.topology.done(shard) {
            let changed = self.index.untold(shard);
            let changed = changed.filter(|(log, owner)| self.is_untold(*log, owner, applied));
            untold.extend(changed.map(|(log, owner)| Untold {
                log,
                owner: Some(owner.clone()),
            }));
        } else {
            // It has done less than it once said, which only a test can make happen.
            for placed in self.topology.objects.iter() {
                let lanes = placed.lanes();
                let changed = lanes.filter(|lane| lane.shard == shard && lane.told > applied);
                untold.extend(changed.map(|lane| Untold {
                    log: lane.log,
                    owner: Some(placed.address.clone()),
                }));
            }
        }
        untold.sort_unstable_by_key(|untold| untold.log);
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
        let untold = self.untold(shard, applied);
        let commands = untold.iter().filter_map(|log| self.command_for(shard, log));
        commands.chain([Command::Configured { revision }]).collect()
    }

    pub(super) fn is_untold(&self, log: LogId, owner: &Address, applied: u64) -> bool {
        let placed = self.topology.objects.get(owner);
        let lane = placed.and_then(|placed| placed.lane(log));
        lane.is_some_and(|lane| lane.told > applied)
    }
}
