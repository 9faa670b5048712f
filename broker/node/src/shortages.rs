//! Other nodes whose disks are nearly full. A leader refuses publishes when a voter has no room for
//! them: what is acknowledged has to fit everybody who counts. Settling and deleting go on.
//!
//! Who is short of room says so again and again, to those who lead; who has not for a while has
//! room again, or cannot be reached and does not matter. So it costs nothing while all is well.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use millrace_types::{ErrorCode, NodeId, Refusal, ShardId};

/// How often who is short says so.
pub(super) const TOLD_EVERY: Duration = Duration::from_secs(1);
/// How long that counts: two may be lost.
const COUNTS_FOR: Duration = Duration::from_secs(3);
/// Room on a disk does not come back at once.
const RETRY_AFTER_MS: u64 = 1_000;

/// What others have told.
#[derive(Debug, Default)]
pub(super) struct Shortages {
    /// Whether there is any, so that nobody has to look.
    any: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    short: BTreeMap<NodeId, Short>,
    /// Of shards that are led here: where the others are that vote.
    voters: BTreeMap<ShardId, Vec<NodeId>>,
}

/// What one node has told.
#[derive(Clone, Copy, Debug)]
struct Short {
    free_bytes: u64,
    reserve_bytes: u64,
    until: Instant,
}

impl Shortages {
    /// A node has said that less is free than it keeps in reserve.
    pub(super) fn note(&self, node: NodeId, free_bytes: u64, reserve_bytes: u64, now: Instant) {
        let short = Short {
            free_bytes,
            reserve_bytes,
            until: now + COUNTS_FOR,
        };
        if self.state().short.insert(node, short).is_none() {
            tracing::warn!(%node, free_bytes, reserve_bytes, "a node is short of disk space");
        }
        self.any.store(true, Ordering::Release);
    }

    /// Who votes in a shard that is led here, besides this node.
    pub(super) fn set_voters(&self, shard: ShardId, voters: Vec<NodeId>) {
        self.state().voters.insert(shard, voters);
    }

    /// Whether all who vote in a shard have room for another publish.
    ///
    /// # Errors
    /// `DISK_FULL`, naming the first that has not.
    pub(super) fn check(&self, shard: ShardId, now: Instant) -> Result<(), Refusal> {
        if !self.any.load(Ordering::Acquire) {
            return Ok(());
        }
        let mut state = self.state();
        state.short.retain(|_, short| short.until > now);
        if state.short.is_empty() {
            self.any.store(false, Ordering::Release);
        }
        let voters = state.voters.get(&shard).into_iter().flatten();
        let mut short = voters.filter_map(|node| Some((node, state.short.get(node)?)));
        let Some((node, short)) = short.next() else {
            return Ok(());
        };
        let (free, reserve) = (short.free_bytes, short.reserve_bytes);
        let message = format!(
            "node {node}, which has a replica of shard {shard}, has {free} bytes free on its \
             disk; publishing needs the reserve of {reserve}"
        );
        Err(Refusal::new(ErrorCode::DiskFull, message)
            .with("node", node.to_string())
            .with("limit", reserve.to_string())
            .with("actual", free.to_string())
            .retry_after_millis(RETRY_AFTER_MS))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Whole after each statement.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_voter_without_room_counts_for_its_shards_until_it_is_silent() {
        let (now, shortages) = (Instant::now(), Shortages::default());
        let (one, two) = (ShardId::new(1), ShardId::new(2));
        let node = NodeId::new(7);
        shortages.set_voters(one, vec![NodeId::new(6), node]);
        shortages.set_voters(two, vec![NodeId::new(6)]);
        assert!(shortages.check(one, now).is_ok());

        shortages.note(node, 5, 10, now);

        let refusal = shortages.check(one, now).unwrap_err();
        assert_eq!(refusal.code, ErrorCode::DiskFull);
        assert_eq!(refusal.metadata["node"], "7");
        assert!(shortages.check(two, now).is_ok());
        assert!(shortages.check(one, now + COUNTS_FOR).is_ok());
    }
}
