//! What comes out: what is to be written, sent, applied and told.
//!
//! A message that promises something ("I have this", "I vote for you") is held until everything
//! handed out to be written before it is synced. A leader's entries go at once, in parallel with
//! its own writing, but not before the term it leads is synced: a lone voter leads without asking
//! anybody, and would otherwise lead the same term again after a crash.

use millrace_types::{LogIndex, ReplicaId, Term};
use raft::ReadState;
use raft::eraftpb;

use super::{Replica, Unsynced};
use crate::convert::{self, from_raft, from_raft_entry};
use crate::entry::{Entry, EntryKind};
use crate::message::{Message, Payload};
use crate::output::{HardState, Load, Ready, ReadyNumber, Status, Write};
use crate::recovered::Point;

impl Replica {
    /// What to do next; `None` when there is nothing. To be asked again until there is none.
    pub fn ready(&mut self) -> Option<Ready> {
        self.send_unsent();
        self.ask_for_reads();
        if !self.has_news() {
            return None;
        }
        let mut ready = Ready {
            messages: std::mem::take(&mut self.released),
            ..Ready::default()
        };
        if self.node.has_ready() {
            self.take_raw(&mut ready);
        }
        let store = self.node.mut_store();
        let load = |(from, to, bytes_max)| Load {
            from: LogIndex::new(from),
            to: LogIndex::new(to),
            bytes_max,
        };
        ready.loads = store.take_loads().into_iter().map(load).collect();
        ready.wants_snapshot = store.take_wants_snapshot();
        ready.reads = self.reads.take_answers();
        ready.status = self.news_of_status();
        Some(ready)
    }

    /// What a `Ready` asked to write is durable, and so is all before it. With an install: the
    /// state machine has it, too.
    ///
    /// # Panics
    /// When nothing of that number waits.
    pub fn synced(&mut self, number: ReadyNumber) {
        let number = number.0;
        let mut last = 0;
        let mut installed = None;
        let mut known = false;
        while let Some(write) = self.unsynced.pop_front_if(|write| write.number <= number) {
            known = write.number == number;
            if write.first.is_some() {
                last = write.last;
            }
            installed = write.install.or(installed);
        }
        assert!(known, "write {number} was not waited for");
        // What has been replaced meanwhile is not what raft-rs means by that index. A later number
        // includes this one.
        let replaced = |write: &Unsynced| write.first.is_some_and(|first| first <= last);
        if !self.unsynced.iter().any(replaced) {
            self.node.on_persist_ready(number);
        }
        if let Some(index) = installed {
            self.installed(index);
        }
        while let Some((_, message)) = self.held.pop_front_if(|(after, _)| *after <= number) {
            self.released.push(message);
        }
        self.settle();
    }

    fn has_news(&self) -> bool {
        self.node.has_ready()
            || !self.released.is_empty()
            || self.reads.has_answers()
            || self.node.store().asks()
            || self.status() != self.told
    }

    fn news_of_status(&mut self) -> Option<Status> {
        let status = self.status();
        (std::mem::replace(&mut self.told, status) != status).then_some(status)
    }

    fn take_raw(&mut self, ready: &mut Ready) {
        let mut raw = self.node.ready();
        let number = raw.number();
        let install = (!raw.snapshot().is_empty()).then(|| convert::point(raw.snapshot()));
        if let Some(point) = &install {
            self.begin_install(point);
        }
        let entries = raw.take_entries();
        let written: Vec<Entry> = entries.iter().cloned().map(from_raft_entry).collect();
        let states = raw.take_read_states();
        let committed = raw.take_committed_entries();
        let mut messages = raw.take_messages();
        messages.append(&mut raw.take_persisted_messages());
        self.node.mut_store().append(entries);
        self.node.advance_append_async(raw);

        self.note_write(number, install, written, ready);
        self.pass(messages, ready);
        self.hand_out(committed, ready);
        for ReadState { index, request_ctx } in states {
            let round = convert::round(&request_ctx);
            self.reads.confirmed(round, LogIndex::new(index));
        }
        #[cfg(feature = "mutants")]
        self.misbehave(number, ready);
    }

    /// What is to be written, if anything.
    fn note_write(
        &mut self,
        number: u64,
        install: Option<Point>,
        entries: Vec<Entry>,
        ready: &mut Ready,
    ) {
        let adds = install.is_some() || !entries.is_empty();
        let hard_state = self.hard_state_to_write(adds);
        if !adds && hard_state.is_none() {
            if self.unsynced.is_empty() {
                self.node.on_persist_ready(number);
            }
            return;
        }
        let votes = hard_state.is_some_and(|state| {
            let old = self.written;
            (state.term, state.vote) != (old.term, old.vote)
        });
        self.written = hard_state.unwrap_or(self.written);
        let at = install.as_ref().map(|point| point.mark.index.get());
        let first = at.or_else(|| entries.first().map(|entry| entry.index.get()));
        let last = entries.last().map(|entry| entry.index.get()).or(at);
        self.unsynced.push_back(Unsynced {
            number,
            first,
            last: last.unwrap_or_default(),
            install: at,
            votes,
        });
        ready.write = Some(Write {
            number: ReadyNumber(number),
            hard_state,
            install,
            entries,
        });
    }

    /// A new term or vote is written. So is a commit, when entries are written anyway: whoever
    /// accepts a change of members must know, also after a crash, that the one before it was
    /// committed, or it would elect a leader by a majority that is no longer one.
    fn hard_state_to_write(&self, adds: bool) -> Option<HardState> {
        let raw = self.node.raft.hard_state();
        let state = HardState {
            term: Term::new(raw.term),
            vote: (raw.vote != 0).then(|| ReplicaId::new(raw.vote)),
            commit: LogIndex::new(raw.commit),
        };
        let old = self.written;
        let votes = (state.term, state.vote) != (old.term, old.vote);
        let commits =
            adds && state.commit != old.commit && !millrace_types::mutant!(CommitNotWritten);
        (votes || commits).then_some(state)
    }

    /// Sends what may go, holds the rest.
    fn pass(&mut self, messages: Vec<eraftpb::Message>, ready: &mut Ready) {
        let last = self.unsynced.back().map(|write| write.number);
        let unsure = self.unsynced.iter().any(|write| write.votes)
            && !millrace_types::mutant!(LeadBeforeSync);
        for message in messages.into_iter().filter_map(from_raft) {
            // Nothing of raft-rs makes one; a follower would refuse it.
            let Payload::Append { entries, .. } = &message.payload else {
                self.pass_one(message, last, unsure, ready);
                continue;
            };
            if entries
                .last()
                .is_none_or(|entry| entry.term <= message.term)
            {
                self.pass_one(message, last, unsure, ready);
            }
        }
    }

    fn pass_one(&mut self, message: Message, last: Option<u64>, unsure: bool, ready: &mut Ready) {
        match last {
            Some(number) if promises(&message.payload, unsure) => {
                self.held.push_back((number, message));
            }
            _ => ready.messages.push(message),
        }
    }

    fn hand_out(&mut self, committed: Vec<eraftpb::Entry>, ready: &mut Ready) {
        for raw in committed {
            self.handed = raw.index;
            let entry = from_raft_entry(raw);
            if entry.kind == EntryKind::Members {
                self.changes.push_back(entry.clone());
            }
            ready.committed.push(entry);
        }
    }

    #[cfg(feature = "mutants")]
    fn misbehave(&mut self, number: u64, ready: &mut Ready) {
        if let Some(point) = self.stale.take()
            && ready
                .write
                .as_ref()
                .is_none_or(|write| write.install.is_none())
        {
            let write = ready.write.get_or_insert(Write {
                number: ReadyNumber(number),
                hard_state: None,
                install: None,
                entries: Vec::new(),
            });
            write.install = Some(point);
            if self
                .unsynced
                .back()
                .is_none_or(|write| write.number != number)
            {
                self.unsynced.push_back(Unsynced {
                    number,
                    first: None,
                    last: 0,
                    install: None,
                    votes: false,
                });
            }
        }
        if millrace_types::mutant!(AppliedBeforeSync) {
            self.node.on_persist_ready(number);
        }
        if millrace_types::mutant!(CommittedAlone) && self.leads() {
            let synced = self.node.raft.raft_log.persisted;
            self.node.raft.raft_log.commit_to(synced);
        }
        if millrace_types::mutant!(CommitOfOldTerm) && self.leads() {
            let (index, _) = self.node.raft.mut_prs().maximal_committed_index();
            let last = self.node.raft.raft_log.last_index();
            self.node.raft.raft_log.commit_to(index.min(last));
        }
    }
}

/// Whether a message promises something that a crash must not make untrue. A leader's do when its
/// term is not synced.
fn promises(payload: &Payload, unsure: bool) -> bool {
    match payload {
        Payload::Append { .. }
        | Payload::Heartbeat { .. }
        | Payload::Snapshot { .. }
        | Payload::TimeoutNow => unsure,
        Payload::Accepted { .. } => !millrace_types::mutant!(AcceptedBeforeSync),
        Payload::Vote { .. } | Payload::VoteAnswer { .. } => {
            !millrace_types::mutant!(VotedBeforeSync)
        }
        Payload::Rejected { .. } | Payload::HeartbeatAnswer { .. } => true,
    }
}
