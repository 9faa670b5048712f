//! How a worker comes to its end on purpose: what it leads goes to other nodes, what is under way
//! finishes, and what nobody else leads gets a last checkpoint.
//!
//! A shard that this node only follows keeps nobody waiting: its journal has everything, and what
//! its leader goes on sending would never be covered.

use std::time::{Duration, Instant};

use super::Worker;
use crate::data_shard::DataShard;
use crate::input::Input;
use crate::metadata_shard::MetadataShard;
use crate::reply::Reply;

/// How often a worker that drains looks whether the journal gets on.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// A journal that gets nothing done for this long, on a full disk or a dead one, keeps a node from
/// draining no longer: time for a checkpoint to give some room back. Nobody was told that what
/// waits is stored.
const IN_VAIN: Duration = Duration::from_secs(10);
/// Leadership that nobody has taken over by then ends with the node: a few elections.
const HAND_OVER_WITHIN: Duration = Duration::from_secs(5);

/// Somebody waits until everything that is in flight has finished.
pub(super) struct Draining {
    reply: Reply<()>,
    pub(super) look_at: Instant,
    /// When the journal was last seen to get on, or had nothing to do.
    pub(super) moved_at: Instant,
    hand_over_until: Instant,
}

impl Draining {
    pub(super) fn new(reply: Reply<()>, now: Instant) -> Self {
        Self {
            reply,
            look_at: now,
            moved_at: now,
            hand_over_until: now + HAND_OVER_WITHIN,
        }
    }

    /// Whether what is in flight has waited for as long as anybody cares.
    fn is_in_vain(&mut self, in_flight: bool, now: Instant) -> bool {
        self.look_at = now + LOOK_EVERY;
        if !in_flight {
            self.moved_at = now;
        }
        now.saturating_duration_since(self.moved_at) >= IN_VAIN
    }
}

impl Worker {
    /// Once asked to: hands over, lets what is in flight finish, then makes last checkpoints, then
    /// answers. A checkpoint that cannot be made (the disk is full) is left out: the journal has
    /// everything.
    pub(super) fn go_on_draining(&mut self, now: Instant) {
        let Some(mut draining) = self.draining.take() else {
            return;
        };
        let leaves = now < draining.hand_over_until && self.leave();
        let is_last = |follows: bool, idle: bool| !follows && idle;
        if let Some(metadata) = &mut self.metadata
            && is_last(metadata.log().follows(), metadata.is_idle())
        {
            metadata.checkpoint(true, now);
        }
        for shard in self.shards.values_mut() {
            if is_last(shard.log().follows(), shard.is_idle()) {
                shard.checkpoint(true, now);
            }
        }
        let done = !leaves && self.has_finished(now);
        let in_flight = self
            .metadata
            .as_ref()
            .is_some_and(MetadataShard::is_writing)
            || self.shards.values().any(DataShard::is_writing);
        if done || draining.is_in_vain(in_flight, now) {
            draining.reply.answer(Ok(()));
        } else {
            self.draining = Some(draining);
        }
    }

    /// Has other nodes lead what is led here; whether some are about to.
    fn leave(&mut self) -> bool {
        let metadata = self.metadata.as_mut();
        let mut leaves = metadata.is_some_and(|metadata| metadata.log().leave());
        for shard in self.shards.values_mut() {
            leaves |= shard.log().leave();
        }
        leaves
    }

    fn has_finished(&mut self, now: Instant) -> bool {
        let from_peers = |input: &Input| matches!(input, Input::Peer(_));
        let metadata = self.metadata.as_mut().is_none_or(|metadata| {
            metadata.log().follows() || (metadata.is_idle() && metadata.is_covered(now))
        });
        metadata
            && self.waiting.iter().all(from_peers)
            && self
                .shards
                .values_mut()
                .all(|shard| shard.log().follows() || (shard.is_idle() && shard.is_covered(now)))
    }
}
