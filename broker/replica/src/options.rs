//! How a replica behaves. The defaults suit a broker; tests want smaller numbers.

use millrace_types::{ReplicaId, ShardId};

use super::error::OpenError;

/// Members of a shard: each node of a cluster has a copy of the metadata shard, and all of them may
/// be on their way to other nodes. Who places voters sees to it that they are few.
pub const MEMBERS_MAX: usize = 64;
/// Ticks between heartbeats: three may be lost before an election.
pub const HEARTBEAT_TICKS: usize = 2;
/// Terms and indexes beyond this are nonsense: no log lives that long, and below it no sum of two
/// overflows.
pub(crate) const NUMBER_MAX: u64 = 1 << 62;

/// What a replica is told at its start.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Its id; another one after its disk lost anything.
    pub id: ReplicaId,
    /// For what it logs.
    pub shard: ShardId,
    /// Ticks without a leader before an election; the time is drawn from here to twice as much. At
    /// 100 ms a tick a dead leader is replaced after 0.8 to 1.6 s, and a leader that sees no
    /// majority steps down within 0.8 s.
    pub election_ticks: usize,
    /// Ticks between heartbeats.
    pub heartbeat_ticks: usize,
    /// Entries of one message, unless a single one is larger: large enough that a busy stream has
    /// few messages, small enough that a heartbeat does not wait long behind one.
    pub append_bytes_max: u64,
    /// Messages with entries on their way to one follower: with the above, what a slow link holds.
    pub in_flight_max: usize,
    /// Entries handed out in one `Ready` to apply, unless a single one is larger: bounds a turn.
    pub apply_bytes_max: u64,
    /// Entries not yet applied; beyond, a leader refuses commands. A follower refuses entries when
    /// so many of those that are committed are not applied.
    pub unapplied_bytes_max: u64,
    /// Entries kept in memory for followers that are a little behind, besides what is unapplied.
    pub window_bytes_max: u64,
    /// One entry, header and body: what a journal record may have.
    pub entry_bytes_max: u64,
    /// Reads that wait for a majority; each is a few bytes, and the limit is there to have one.
    pub reads_max: usize,
}

impl ReplicaOptions {
    /// The defaults.
    #[must_use]
    pub const fn new(shard: ShardId, id: ReplicaId) -> Self {
        Self {
            id,
            shard,
            election_ticks: 8,
            heartbeat_ticks: HEARTBEAT_TICKS,
            append_bytes_max: 1 << 20,
            in_flight_max: 64,
            apply_bytes_max: 4 << 20,
            unapplied_bytes_max: 64 << 20,
            window_bytes_max: 16 << 20,
            entry_bytes_max: 32 << 20,
            reads_max: 64 << 10,
        }
    }

    pub(crate) fn check(&self) -> Result<(), OpenError> {
        let bad = if self.id.get() == 0 {
            "the replica's id is 0"
        } else if self.heartbeat_ticks == 0 || self.election_ticks <= self.heartbeat_ticks {
            "an election must take longer than a heartbeat"
        } else if self.in_flight_max == 0 {
            "a follower needs a message in flight"
        } else {
            return Ok(());
        };
        Err(OpenError::Options(bad))
    }

    /// For raft-rs.
    pub(crate) fn config(&self, applied: u64) -> raft::Config {
        raft::Config {
            id: self.id.get(),
            election_tick: self.election_ticks,
            heartbeat_tick: self.heartbeat_ticks,
            applied,
            max_size_per_msg: self.append_bytes_max,
            max_inflight_msgs: self.in_flight_max,
            max_committed_size_per_ready: self.apply_bytes_max,
            check_quorum: true,
            pre_vote: true,
            // `send_unsent` tells a commit, with the entries that leave at the same time.
            skip_bcast_commit: true,
            ..raft::Config::default()
        }
    }
}
