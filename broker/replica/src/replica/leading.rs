//! What only a leader does: take commands and changes of members, hand over, answer reads.

use bytes::Bytes;
use millrace_types::{LogIndex, ReplicaId, Term};
use raft::ProgressState;
use raft::eraftpb::{Entry, EntryType};

use super::Replica;
use crate::change::{self, Change};
use crate::error::{ChangeError, NotLeader, ProposeError, TransferError};
use crate::log::Log;
use crate::members::Seat;
use crate::output::{Flow, Progress, ReadToken};

impl Replica {
    /// Takes a command. It is sent with the next `ready`, so that what is proposed in one turn
    /// travels together; it may still be lost, when another replica comes to lead: an entry of
    /// another term at its index says so.
    ///
    /// # Errors
    /// When this replica does not lead, is handing over, has no room, or the command is too large.
    pub fn propose(
        &mut self,
        header: Bytes,
        body: Bytes,
    ) -> Result<(Term, LogIndex), ProposeError> {
        self.check_leads()?;
        if let Some(to) = self.heir() {
            return Err(ProposeError::Transferring { to });
        }
        if header.is_empty() {
            return Err(ProposeError::NoHeader);
        }
        let (bytes, max) = (
            (header.len() + body.len()) as u64,
            self.options.entry_bytes_max,
        );
        if bytes > max {
            return Err(ProposeError::TooLarge { bytes, max });
        }
        let (waiting, max) = (self.unapplied_bytes(), self.options.unapplied_bytes_max);
        // The first one always fits.
        if waiting > 0 && waiting + bytes > max {
            return Err(ProposeError::Full {
                bytes: waiting,
                max,
            });
        }
        Ok(self.add(Entry {
            context: header,
            data: body,
            ..Entry::default()
        }))
    }

    /// Takes a change of members; several together are made in two steps. It is done when an entry
    /// of kind `Members` is applied and `members` is not joint any more. Who is removed while it
    /// leads steps down: hand over first.
    ///
    /// # Errors
    /// When this replica does not lead, another change is under way, or this one cannot be made.
    pub fn change_members(&mut self, changes: &[Change]) -> Result<(Term, LogIndex), ChangeError> {
        self.check_leads()?;
        if let Some(to) = self.heir() {
            return Err(ChangeError::Transferring { to });
        }
        if self.node.raft.has_pending_conf() {
            return Err(ChangeError::Pending);
        }
        change::check(changes, &self.members)?;
        let mut entry = Entry::default();
        entry.set_entry_type(EntryType::EntryConfChangeV2);
        entry.context = change::encode(changes);
        let (term, index) = self.add(entry);
        self.node.raft.pending_conf_index = index.get();
        Ok((term, index))
    }

    /// Asks a voter to lead. Until it does, or an election's time has passed, no command is taken.
    ///
    /// # Errors
    /// When this replica does not lead or the other cannot.
    pub fn transfer_to(&mut self, replica: ReplicaId) -> Result<(), TransferError> {
        self.check_leads()?;
        let member = self.members.find(replica);
        if !member.is_some_and(|member| matches!(member.seat, Seat::Voter | Seat::Joining)) {
            return Err(TransferError::NotVoter { replica });
        }
        // What was proposed has to be there before the other can win.
        self.send_unsent();
        self.node.transfer_leader(replica.get());
        self.settle();
        Ok(())
    }

    /// Asks from which index on the state has everything that was acknowledged until now. The
    /// answer is in a later `ready`, also when leadership is lost.
    ///
    /// # Errors
    /// When this replica does not lead, or too many wait already.
    pub fn read_index(&mut self, token: ReadToken) -> Result<(), NotLeader> {
        self.check_leads()?;
        if self.reads.len() >= self.options.reads_max {
            return Err(NotLeader { leader: None });
        }
        self.reads.add(token);
        Ok(())
    }

    /// How far each member is, as a leader knows; empty otherwise.
    #[must_use]
    pub fn progress(&self) -> Vec<Progress> {
        if !self.leads() {
            return Vec::new();
        }
        let of = |(id, follower): (&u64, &raft::Progress)| Progress {
            replica: ReplicaId::new(*id),
            matched: LogIndex::new(follower.matched),
            flow: match follower.state {
                ProgressState::Probe => Flow::Probing,
                ProgressState::Replicate => Flow::Replicating,
                ProgressState::Snapshot => Flow::Snapshot,
            },
            active: follower.recent_active || *id == self.options.id.get(),
            has: LogIndex::new(match follower.state {
                ProgressState::Snapshot => follower.pending_snapshot.max(follower.matched),
                ProgressState::Probe | ProgressState::Replicate => follower.matched,
            }),
        };
        let mut progress: Vec<Progress> = self.node.raft.prs().iter().map(of).collect();
        progress.sort_unstable_by_key(|progress| progress.replica);
        progress
    }

    /// To whom leadership is being handed over.
    #[must_use]
    pub fn heir(&self) -> Option<ReplicaId> {
        self.node.raft.lead_transferee.map(ReplicaId::new)
    }

    fn add(&mut self, entry: Entry) -> (Term, LogIndex) {
        let raft = &mut self.node.raft;
        let taken = raft.append_entry(&mut [entry]);
        assert!(taken, "raft-rs has no limit of its own");
        self.unsent = true;
        let (term, last) = (raft.term, raft.raft_log.last_index());
        (Term::new(term), LogIndex::new(last))
    }

    /// Sends followers what they can take of what was added since, and how far the log is
    /// committed: that travels with entries, and alone only where there are none. raft-rs would
    /// tell each commit by itself, which doubles the messages of a busy shard.
    pub(super) fn send_unsent(&mut self) {
        let adds = std::mem::take(&mut self.unsent);
        if !self.leads() {
            return;
        }
        let raft = &mut self.node.raft;
        let committed = raft.raft_log.committed;
        let commits = std::mem::replace(&mut self.told_commit, committed) < committed;
        if !adds && !commits {
            return;
        }
        let own = raft.id;
        let mut ids: Vec<u64> = raft.prs().iter().map(|(id, _)| *id).collect();
        ids.retain(|id| *id != own);
        ids.sort_unstable();
        for id in ids {
            let sent = adds && send_entries(raft, id);
            // Who is paused hears of it with the next entries, or a heartbeat.
            if commits && !sent {
                raft.send_append(id);
            }
        }
    }

    /// Begins a round for reads that wait, once it is known what earlier leaders committed.
    pub(super) fn ask_for_reads(&mut self) {
        let raft = &self.node.raft;
        if self.reads.wants_round() && self.leads() && raft.commit_to_current_term() {
            let round = self.reads.begin(raft.term);
            if millrace_types::mutant!(StaleRead) {
                self.reads
                    .confirmed(round, LogIndex::new(raft.raft_log.committed));
                return;
            }
            self.node.read_index(crate::convert::context(round));
        }
    }
}

/// Sends a follower all the entries that it can take; whether there were any.
fn send_entries(raft: &mut raft::Raft<Log>, id: u64) -> bool {
    let last = raft.raft_log.last_index();
    let next = |raft: &raft::Raft<_>| {
        let follower = raft.prs().get(id);
        follower.map_or((u64::MAX, true), |f| (f.next_idx, f.is_paused()))
    };
    let mut sent = false;
    loop {
        let (before, paused) = next(raft);
        if paused || before > last {
            return sent;
        }
        raft.send_append(id);
        sent = true;
        if next(raft).0 == before {
            return sent;
        }
    }
}
