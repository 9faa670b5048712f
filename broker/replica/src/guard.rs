//! Looks at every message before raft-rs does, which ends the process on some that cannot come
//! from a replica that is well.
//!
//! What raft-rs 0.7 does not survive, and is refused here: a commit beyond the log (`commit_to`);
//! entries that leave a gap or overflow (`maybe_append`, `truncate_and_append`), and a term of 0,
//! which matches any index beyond the log (`term`); a term of 0 in a vote (`send`); members that
//! contradict each other (`confchange::restore`); winning an election before what is in the log is
//! synced (`become_leader`, `ready`); starting one while a snapshot is being installed (`hup`).
//! Besides, what it would take though it is wrong: entries of a later term than their leader's, a
//! second leader in a term, an answer about entries that do not exist, a rejection that an
//! acceptance has overtaken.

use millrace_types::{LogIndex, ReplicaId, Term};
use raft::{RawNode, StateRole};

use super::entry::{Entry, Mark};
use super::error::StepError;
use super::log::Log;
use super::message::{Message, Payload, Verdict};
use super::options::NUMBER_MAX;

/// What the guard has to know besides raft-rs.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Pace {
    /// Nothing that was handed out to be written is still on its way, but for hard states.
    pub(crate) is_synced: bool,
    /// Entries may be taken: not too many wait to be applied.
    pub(crate) has_room: bool,
}

/// Whether raft-rs can be given a message.
///
/// # Errors
/// Why not.
pub(crate) fn check(node: &RawNode<Log>, message: &Message, pace: Pace) -> Result<(), StepError> {
    let raft = &node.raft;
    check_ends(raft.id, message)?;
    check_numbers(message)?;
    let (from, term) = (message.from.get(), message.term.get());
    let is_current = term >= raft.term;
    match &message.payload {
        Payload::Append { prev, entries, .. } => {
            check_entries(*prev, entries, message.term)?;
            check_leader(node, message)?;
            if is_current && !entries.is_empty() && !pace.has_room {
                return Err(StepError::Busy);
            }
        }
        Payload::Heartbeat { commit, .. } => {
            check_leader(node, message)?;
            let last = raft.raft_log.last_index();
            if is_current && commit.get() > last {
                let (commit, last) = (*commit, LogIndex::new(last));
                return Err(StepError::CommitBeyondLog { commit, last });
            }
        }
        Payload::Snapshot { point } => {
            check_leader(node, message)?;
            point.members.check()?;
            if point.mark.index.get() == 0 || point.mark.term > message.term {
                return Err(StepError::Number);
            }
        }
        Payload::Accepted { last, commit } => {
            check_member(node, message.from)?;
            if term == raft.term {
                check_known(node, message.from, (*last).max(*commit))?;
            }
        }
        Payload::Rejected { prev, hint, commit } => {
            check_member(node, message.from)?;
            if hint.index > *prev {
                return Err(StepError::Number);
            }
            if term == raft.term {
                check_known(node, message.from, (*prev).max(*commit))?;
                check_rejection(node, from, prev.get(), *hint)?;
            }
        }
        Payload::HeartbeatAnswer { commit, .. } => {
            check_member(node, message.from)?;
            if term == raft.term {
                check_known(node, message.from, *commit)?;
            }
        }
        Payload::VoteAnswer { verdict, .. } => {
            check_member(node, message.from)?;
            // Nobody was asked yet.
            if *verdict == Verdict::Granted && (!pace.is_synced || !raft.promotable()) {
                return Err(StepError::Stale);
            }
        }
        Payload::TimeoutNow => {
            if !may_campaign(node) || (is_alone(node) && !pace.is_synced) {
                return Err(StepError::Busy);
            }
        }
        Payload::Vote { .. } => {}
    }
    Ok(())
}

/// Whether an election may be started: not while a snapshot is being installed, when the entries
/// between what is applied and it are nowhere.
pub(crate) fn may_campaign(node: &RawNode<Log>) -> bool {
    let log = &node.raft.raft_log;
    node.raft.promotable()
        && log.unstable.snapshot.is_none()
        && log.applied + 1 >= log.first_index()
}

/// Whether this replica wins every election by itself, also in the middle of a change in two steps.
pub(crate) fn is_alone(node: &RawNode<Log>) -> bool {
    let voters = node.raft.prs().conf().voters().ids();
    voters.len() == 1 && voters.contains(node.raft.id)
}

fn check_ends(id: u64, message: &Message) -> Result<(), StepError> {
    let (from, to) = (message.from, message.to);
    if to.get() != id {
        return Err(StepError::NotForUs { to });
    }
    if from.get() == 0 || from.get() == id {
        return Err(StepError::Sender { from });
    }
    Ok(())
}

fn check_numbers(message: &Message) -> Result<(), StepError> {
    let term = |term: Term| (1..=NUMBER_MAX).contains(&term.get());
    let index = |index: LogIndex| index.get() <= NUMBER_MAX;
    // Both or none: a place in a log has a term.
    let mark = |mark: Mark| match (mark.index.get(), mark.term.get()) {
        (0, 0) => true,
        (at, of) => (1..=NUMBER_MAX).contains(&at) && (1..=NUMBER_MAX).contains(&of),
    };
    let fine = match &message.payload {
        Payload::Append {
            prev,
            commit,
            entries,
        } => mark(*prev) && index(*commit) && entries.iter().all(|entry| mark(entry.mark())),
        Payload::Accepted { last, commit } => index(*last) && index(*commit),
        Payload::Rejected { prev, hint, commit } => {
            // A follower whose log begins later may not know the term.
            index(*prev) && index(*commit) && index(hint.index) && hint.term.get() <= NUMBER_MAX
        }
        Payload::Heartbeat { commit, .. } | Payload::HeartbeatAnswer { commit, .. } => {
            index(*commit)
        }
        Payload::Vote { last, commit, .. } => mark(*last) && mark(*commit),
        Payload::VoteAnswer { verdict, .. } => match verdict {
            Verdict::Granted => true,
            Verdict::Refused { commit } => mark(*commit),
        },
        Payload::Snapshot { point } => mark(point.mark),
        Payload::TimeoutNow => true,
    };
    if fine && term(message.term) {
        Ok(())
    } else {
        Err(StepError::Number)
    }
}

fn check_entries(prev: Mark, entries: &[Entry], leads: Term) -> Result<(), StepError> {
    if prev.term > leads {
        return Err(StepError::Number);
    }
    let mut last = prev;
    for entry in entries {
        let follows = entry.index == last.index.next() && entry.term >= last.term;
        if !follows || entry.term > leads || !entry.is_well_formed() {
            let index = entry.index;
            return Err(StepError::Entry { index });
        }
        last = entry.mark();
    }
    Ok(())
}

/// A leader that we do not know may be right, our members may be old ones; a second one is not.
fn check_leader(node: &RawNode<Log>, message: &Message) -> Result<(), StepError> {
    let raft = &node.raft;
    let leader = raft.leader_id;
    if message.term.get() == raft.term && leader != 0 && leader != message.from.get() {
        return Err(StepError::TwoLeaders {
            leader: ReplicaId::new(leader),
            other: message.from,
            term: message.term,
        });
    }
    Ok(())
}

fn check_member(node: &RawNode<Log>, from: ReplicaId) -> Result<(), StepError> {
    if node.raft.prs().get(from.get()).is_none() {
        return Err(StepError::NotMember { from });
    }
    Ok(())
}

fn check_known(node: &RawNode<Log>, from: ReplicaId, index: LogIndex) -> Result<(), StepError> {
    let last = LogIndex::new(node.raft.raft_log.last_index());
    if node.raft.state == StateRole::Leader && index > last {
        return Err(StepError::BeyondLog { from, index, last });
    }
    Ok(())
}

/// A rejection of what was accepted since is an old one. raft-rs would go back behind what it
/// knows to match (its #557, fixed after 0.7.0).
fn check_rejection(node: &RawNode<Log>, from: u64, prev: u64, hint: Mark) -> Result<(), StepError> {
    let log = &node.raft.raft_log;
    let matched = node
        .raft
        .prs()
        .get(from)
        .map_or(0, |follower| follower.matched);
    let is_below = hint.index.get() < matched;
    let of_older = matched > 0
        && hint.term.get() > 0
        && log.term(matched).is_ok_and(|term| hint.term.get() < term);
    if node.raft.state == StateRole::Leader && (prev <= matched || is_below || of_older) {
        return Err(StepError::Stale);
    }
    Ok(())
}
