//! What keeps an object from working as declared although it was taken: references to objects that
//! are not there, which work as soon as those appear, and a class of shards other than that of the
//! shards which it is on.

use alloc::format;
use alloc::string::String;
use alloc::vec::Vec;

use millrace_types::{Address, LogId};

use super::declared::{DeclaredQueue, DeclaredSpec};
use super::placed::{Placed, PlacedState};
use super::topology::Scene;

/// Dead-letter queues that may follow one another. A longer chain is taken for a cycle: each hop
/// costs a transfer between shards, and following it has to end.
pub const DEAD_LETTER_HOPS_MAX: usize = 16;

/// One problem.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// For programs.
    pub kind: ProblemKind,
    /// For people: names the address.
    pub message: String,
}

/// Stable reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProblemKind {
    /// A binding's topic is not there, or orphaned.
    TopicNotFound,
    /// The dead-letter queue is not there, or orphaned: dead letters wait.
    DeadLetterQueueNotFound,
    /// Dead letters would come back, or go on for too long: they wait.
    DeadLetterCycle,
    /// It was placed when it asked for another replication, and stays where it is.
    ReplicationUnchanged,
}

impl ProblemKind {
    /// The stable reason, as it goes over the wire.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::TopicNotFound => "TopicNotFound",
            Self::DeadLetterQueueNotFound => "DeadLetterQueueNotFound",
            Self::DeadLetterCycle => "DeadLetterCycle",
            Self::ReplicationUnchanged => "ReplicationUnchanged",
        }
    }
}

pub(super) fn problems(scene: &Scene<'_>, address: &Address) -> Vec<Problem> {
    let Some(placed) = scene.declared(address) else {
        return Vec::new();
    };
    if placed.state != PlacedState::Active {
        return Vec::new();
    }
    let mut found = match &*placed.spec {
        DeclaredSpec::Queue(queue) => dangling(scene, address, queue),
        DeclaredSpec::Topic(_) => Vec::new(),
    };
    found.extend(misplaced(placed));
    found
}

/// Messages do not move to other shards.
fn misplaced(placed: &Placed) -> Option<Problem> {
    let (has, asks) = (placed.class.replication, placed.spec.class().replication);
    let said = |replication: Option<u32>| match replication {
        Some(replication) => format!("a replication of {replication}"),
        None => String::from("the cluster's replication"),
    };
    (has != asks).then(|| Problem {
        kind: ProblemKind::ReplicationUnchanged,
        message: format!(
            "it was declared with {} and keeps that; {} needs another queue or topic, or that its \
             messages are deleted",
            said(has),
            said(asks)
        ),
    })
}

/// References to what is not there, and dead letters that would come back.
fn dangling(scene: &Scene<'_>, address: &Address, queue: &DeclaredQueue) -> Vec<Problem> {
    let is_there = |address: &Address| scene.object(address).is_some_and(|o| !o.orphaned);
    let mut topics: Vec<&Address> = queue.bindings.iter().map(|b| &b.topic).collect();
    topics.sort_unstable();
    topics.dedup();
    let missing = topics.into_iter().filter(|topic| !is_there(topic));
    let mut found: Vec<Problem> = missing
        .map(|topic| Problem {
            kind: ProblemKind::TopicNotFound,
            message: format!("{topic} is not declared; nothing is copied from it"),
        })
        .collect();
    if let Some(target) = dead_letter_target(address, queue) {
        if !is_there(&target) {
            found.push(Problem {
                kind: ProblemKind::DeadLetterQueueNotFound,
                message: format!("{target} is not declared; dead letters wait"),
            });
        } else if is_cycle(scene, address, &target) {
            found.push(Problem {
                kind: ProblemKind::DeadLetterCycle,
                message: format!("dead letters sent to {target} would come back; they wait"),
            });
        }
    }
    found
}

/// Where a queue's dead letters go; nowhere from an implicit dead-letter queue.
pub(super) fn dead_letter_target(address: &Address, queue: &DeclaredQueue) -> Option<Address> {
    let implicit = address.dead_letter()?;
    Some(queue.dead_letter.queue.clone().unwrap_or(implicit))
}

/// The log of a dead-letter queue; `None` while dead letters have to wait. An orphan keeps its log:
/// it refuses them itself.
pub(super) fn dead_letter_log(
    scene: &Scene<'_>,
    address: &Address,
    target: &Address,
) -> Option<LogId> {
    let log = scene.queue(target)?;
    (!is_cycle(scene, address, target)).then_some(log)
}

/// Whether a chain of dead-letter queues does not end.
fn is_cycle(scene: &Scene<'_>, address: &Address, target: &Address) -> bool {
    let mut at = target.clone();
    for _ in 0..DEAD_LETTER_HOPS_MAX {
        if at == *address {
            return true;
        }
        // Nothing is declared under the address of an implicit one: a chain ends there.
        let next = match scene.declared(&at).map(|placed| &*placed.spec) {
            Some(DeclaredSpec::Queue(queue)) => dead_letter_target(&at, queue),
            Some(DeclaredSpec::Topic(_)) | None => None,
        };
        match next {
            Some(next) => at = next,
            None => return false,
        }
    }
    true
}
