//! One copy of a shard's log: inputs here; what comes out of them in `replica/ready.rs`, what
//! happens when entries are applied in `replica/applying.rs`, what only a leader does in
//! `replica/leading.rs`.

mod applying;
mod leading;
mod ready;

use std::collections::VecDeque;

use millrace_types::{LogIndex, ReplicaId, ShardId, Term};
use raft::{RaftState, RawNode, StateRole};

use super::convert::{to_raft, to_raft_entry, to_raft_hard_state};
use super::entry::{Entry, EntryKind, Mark};
use super::error::{LoadError, NotLeader, OpenError, StepError};
use super::guard::{self, Pace};
use super::log::Log;
use super::logging;
use super::lots::Lots;
use super::members::Members;
use super::message::Message;
use super::options::ReplicaOptions;
use super::output::{HardState, Role, Status};
use super::reads::Reads;
use super::recovered::{Point, Recovered};

/// One copy of one shard's log.
pub struct Replica {
    node: RawNode<Log>,
    options: ReplicaOptions,
    lots: Lots,
    members: Members,
    /// The last hard state that was handed out to be written.
    written: HardState,
    /// Handed out to be written, not synced.
    unsynced: VecDeque<Unsynced>,
    /// Messages that promise something, and what has to be synced first.
    held: VecDeque<(u64, Message)>,
    /// They may go.
    released: Vec<Message>,
    /// Changes of members that were handed out to apply.
    changes: VecDeque<Entry>,
    /// The last entry that was handed out to apply.
    handed: u64,
    reads: Reads,
    /// Entries were added that nobody was sent.
    unsent: bool,
    /// How far followers were told that the log is committed.
    told_commit: u64,
    told: Status,
    #[cfg(feature = "mutants")]
    stale: Option<Point>,
}

/// Handed out to be written.
#[derive(Clone, Copy, Debug)]
struct Unsynced {
    number: u64,
    /// The first index that it changes, if it has entries or a snapshot.
    first: Option<u64>,
    /// The last one.
    last: u64,
    /// The snapshot's place.
    install: Option<u64>,
    /// It has a term or a vote.
    votes: bool,
}

impl Replica {
    /// Goes on from what is on disk. The seed decides when it starts elections: each replica has
    /// another one.
    ///
    /// # Errors
    /// When that cannot be what this replica wrote, or an option makes no sense.
    pub fn open(
        options: ReplicaOptions,
        recovered: Recovered,
        seed: u64,
    ) -> Result<Self, OpenError> {
        options.check()?;
        recovered.check()?;
        let hard_state = recovered.hard_state();
        let conf_state = recovered.point.members.conf_state();
        let initial = RaftState::new(to_raft_hard_state(hard_state), conf_state);
        let applied = recovered.applied;
        let is_applied = |entry: &&Entry| entry.index <= applied && is_change(entry);
        let in_memory = recovered.entries.iter().filter(is_applied);
        let mut changes = recovered.passed.changes.clone();
        changes.extend(in_memory.cloned());
        let members = recovered.point.members.clone();
        let mut log = Log::new(recovered.point, &recovered.passed, initial);
        log.append(recovered.entries.into_iter().map(to_raft_entry).collect());
        let logger = logging::logger(options.shard, options.id);
        let node = RawNode::new(&options.config(applied.get()), log, &logger)
            .map_err(|error| OpenError::Refused(error.to_string()))?;
        let term = hard_state.term;
        let mut replica = Self {
            node,
            options,
            lots: Lots::new(seed),
            members,
            written: recovered.hard_state.unwrap_or_default(),
            unsynced: VecDeque::new(),
            held: VecDeque::new(),
            released: Vec::new(),
            changes: VecDeque::new(),
            handed: applied.get(),
            reads: Reads::default(),
            unsent: false,
            told_commit: 0,
            told: Status {
                role: Role::Follower,
                term,
                leader: None,
            },
            #[cfg(feature = "mutants")]
            stale: None,
        };
        // The point may be older than what is applied.
        for change in &changes {
            replica.change(change);
        }
        replica.settle();
        Ok(replica)
    }

    /// Time has passed. Costs a leader a counter, and a heartbeat for each member every few ticks;
    /// a follower a counter; a leader without other members a counter.
    pub fn tick(&mut self) {
        let leads = self.leads();
        let is_alone = guard::is_alone(&self.node);
        if leads || (!is_alone && guard::may_campaign(&self.node)) {
            if self.node.tick() && !leads {
                self.lots.tried();
            }
        } else {
            // Alone, an election is a matter of `settle`; a learner and who installs a snapshot
            // start none, but must know when they have not heard from a leader for long, or they
            // would refuse their vote to the next one.
            let elapsed = &mut self.node.raft.election_elapsed;
            *elapsed = elapsed.saturating_add(1);
        }
        self.settle();
    }

    /// A message has arrived.
    ///
    /// # Errors
    /// When it is not taken: most often because it came late, sometimes because the sender or this
    /// disk is not what it says. Nothing has changed then.
    pub fn step(&mut self, message: Message) -> Result<(), StepError> {
        guard::check(&self.node, &message, self.pace())?;
        #[cfg(feature = "mutants")]
        self.remember_stale(&message);
        // What raft-rs still refuses is an answer from who is no member.
        let result = self.node.raft.step(to_raft(message));
        self.settle();
        result.map_err(|_| StepError::Stale)
    }

    /// Starts an election, if this replica votes and does not lead.
    pub fn campaign(&mut self) {
        if !guard::is_alone(&self.node) && guard::may_campaign(&self.node) {
            self.lots.tried();
            // Refused only while leading.
            self.node.campaign().ok();
        }
        self.settle();
    }

    /// A follower could not be reached: what was sent to it is probably lost.
    pub fn unreachable(&mut self, replica: ReplicaId) {
        self.node.report_unreachable(replica.get());
        self.settle();
    }

    /// A snapshot has arrived at a follower.
    pub fn snapshot_sent(&mut self, replica: ReplicaId) {
        let done = raft::SnapshotStatus::Finish;
        self.node.report_snapshot(replica.get(), done);
        self.settle();
    }

    /// A snapshot has not arrived; another one will be sent.
    pub fn snapshot_failed(&mut self, replica: ReplicaId) {
        let failed = raft::SnapshotStatus::Failure;
        self.node.report_snapshot(replica.get(), failed);
        self.settle();
    }

    /// There is a checkpoint that can be sent; its point is what `point` said when it was begun.
    pub fn snapshot_made(&mut self, point: Point) {
        self.node.mut_store().snapshot_made(point);
    }

    /// Entries up to and including one are gone from the journal. Not beyond what is applied and in
    /// the last snapshot: the rest is kept.
    pub fn compact(&mut self, upto: LogIndex) {
        let applied = self.node.raft.raft_log.applied;
        self.node.mut_store().compact(upto.get().min(applied));
    }

    /// Entries that a `Load` asked for, from its first on; none when they are gone, so that a
    /// snapshot is sent.
    ///
    /// # Errors
    /// When they are not what the log has there.
    pub fn entries_loaded(&mut self, from: LogIndex, entries: Vec<Entry>) -> Result<(), LoadError> {
        let mut index = from;
        let mut wrong = None;
        for entry in &entries {
            let term = self.node.store().term_of(index.get());
            if entry.index != index || term != Some(entry.term.get()) || !entry.is_well_formed() {
                wrong = Some(index);
                break;
            }
            index = index.next();
        }
        let raw = match wrong {
            Some(_) => Vec::new(),
            None => entries.into_iter().map(to_raft_entry).collect(),
        };
        let contexts = self.node.mut_store().stage(from.get(), raw);
        if wrong.is_none() {
            for context in contexts {
                self.node.on_entries_fetched(context);
            }
        }
        self.node.mut_store().unstage();
        self.settle();
        wrong.map_or(Ok(()), |index| Err(LoadError::Other { index }))
    }

    /// Role, term and leader.
    #[must_use]
    pub fn status(&self) -> Status {
        let raft = &self.node.raft;
        Status {
            role: match raft.state {
                StateRole::Follower => Role::Follower,
                StateRole::Candidate | StateRole::PreCandidate => Role::Candidate,
                StateRole::Leader => Role::Leader,
            },
            term: Term::new(raft.term),
            leader: self.leader(),
        }
    }

    /// Its id.
    #[must_use]
    pub const fn id(&self) -> ReplicaId {
        self.options.id
    }

    /// Whose log it is.
    #[must_use]
    pub const fn shard(&self) -> ShardId {
        self.options.shard
    }

    /// The members, as of what is applied.
    #[must_use]
    pub const fn members(&self) -> &Members {
        &self.members
    }

    /// What is applied, as far as the caller has said, and the members then: what a checkpoint that
    /// is begun now keeps. `None` while a snapshot is being installed: the log has gone on already.
    #[must_use]
    pub fn point(&self) -> Option<Point> {
        let index = self.node.raft.raft_log.applied;
        let mark = Mark::new(index, self.node.store().term_of(index)?);
        Some(Point {
            mark,
            members: self.members.clone(),
        })
    }

    /// The last entry, synced or not.
    #[must_use]
    pub fn last(&self) -> LogIndex {
        LogIndex::new(self.node.raft.raft_log.last_index())
    }

    /// The last entry that is applied, as far as the caller has said.
    #[must_use]
    pub fn applied_to(&self) -> LogIndex {
        LogIndex::new(self.node.raft.raft_log.applied)
    }

    /// The last entry that is synced here.
    #[must_use]
    pub fn synced_to(&self) -> LogIndex {
        LogIndex::new(self.node.raft.raft_log.persisted)
    }

    /// How far it knows the log to be committed.
    #[must_use]
    pub fn committed(&self) -> LogIndex {
        LogIndex::new(self.node.raft.raft_log.committed)
    }

    /// The last entry that is gone from its log.
    #[must_use]
    pub fn compacted(&self) -> LogIndex {
        LogIndex::new(self.node.store().gone())
    }

    /// Bytes of entries that are not applied.
    #[must_use]
    pub fn unapplied_bytes(&self) -> u64 {
        let log = &self.node.raft.raft_log;
        self.node.store().bytes_after(log.applied) + log.unstable.entries_size as u64
    }

    fn leader(&self) -> Option<ReplicaId> {
        let leader = self.node.raft.leader_id;
        (leader != 0).then(|| ReplicaId::new(leader))
    }

    fn leads(&self) -> bool {
        self.node.raft.state == StateRole::Leader
    }

    fn check_leads(&self) -> Result<(), NotLeader> {
        if self.leads() {
            return Ok(());
        }
        let leader = self.leader().filter(|leader| *leader != self.options.id);
        Err(NotLeader { leader })
    }

    fn pace(&self) -> Pace {
        let log = &self.node.raft.raft_log;
        let unstable = &log.unstable;
        let store = self.node.store();
        // Without what is uncommitted: it may take more of it to commit, and leaders bound it.
        let waiting = store.bytes_after(log.applied) - store.bytes_after(log.committed);
        let on_its_way = self.unsynced.iter().any(|write| write.first.is_some());
        Pace {
            is_synced: !on_its_way && unstable.entries.is_empty() && unstable.snapshot.is_none(),
            has_room: waiting < self.options.unapplied_bytes_max,
        }
    }

    /// What follows from every input.
    fn settle(&mut self) {
        self.step_down();
        self.lead_if_alone();
        let raft = &mut self.node.raft;
        let ticks = self.lots.ticks(raft.term, self.options.election_ticks);
        raft.set_randomized_election_timeout(ticks);
        let lost = self.check_leads().err();
        self.reads.settle(self.node.raft.term, lost);
    }

    /// A leader that is not to vote any more cannot lead; raft-rs would go on, and fail.
    fn step_down(&mut self) {
        let raft = &mut self.node.raft;
        if raft.state == StateRole::Leader && !raft.promotable() {
            let term = raft.term;
            raft.become_follower(term, 0);
        }
    }

    /// Who is the only voter needs no time to find out that nobody else leads. Only when all is
    /// synced, for it wins at once; and not before changes of members that it knows of are applied.
    fn lead_if_alone(&mut self) {
        if self.leads() || !guard::is_alone(&self.node) {
            return;
        }
        let log = &self.node.raft.raft_log;
        let pending = self.node.store().has_change(log.applied, log.committed);
        if guard::may_campaign(&self.node) && self.pace().is_synced && !pending {
            // Refused only while leading.
            self.node.campaign().ok();
        }
    }

    #[cfg(feature = "mutants")]
    fn remember_stale(&mut self, message: &Message) {
        if let super::message::Payload::Snapshot { point } = &message.payload
            && millrace_types::mutant!(SnapshotOverNewerLog)
            && point.mark.index.get() <= self.node.raft.raft_log.committed
        {
            self.stale = Some(point.clone());
        }
    }
}

impl std::fmt::Debug for Replica {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Replica")
            .field("shard", &self.options.shard)
            .field("id", &self.options.id)
            .field("status", &self.status())
            .field("last", &self.last())
            .field("committed", &self.committed())
            .finish_non_exhaustive()
    }
}

const fn is_change(entry: &Entry) -> bool {
    matches!(entry.kind, EntryKind::Members)
}
