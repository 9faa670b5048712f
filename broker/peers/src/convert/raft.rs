//! Raft's messages. What is wrong in a way that Raft itself looks at (terms, indexes, who may say
//! what) passes: the replica checks it.

use millrace_proto::peer::v1 as proto;
use millrace_proto::peer::v1::raft_message::Payload as Wire;
use millrace_replica::{Entry, EntryKind, Mark, Message, Payload, Point, Round, Stage, Verdict};
use millrace_types::{LogIndex, ReplicaId, Term};

use super::message::BadMessage;

/// A message for the wire, its entries still without checksums.
pub(super) fn to_wire(message: Message) -> proto::RaftMessage {
    let payload = match message.payload {
        Payload::Append {
            prev,
            commit,
            entries,
        } => Wire::Append(proto::Append {
            prev: Some(mark_to_wire(prev)),
            commit: commit.get(),
            entries: entries.into_iter().map(entry_to_wire).collect(),
        }),
        Payload::Accepted { last, commit } => Wire::Accepted(proto::Accepted {
            last: last.get(),
            commit: commit.get(),
        }),
        Payload::Rejected { prev, hint, commit } => Wire::Rejected(proto::Rejected {
            prev: prev.get(),
            hint: Some(mark_to_wire(hint)),
            commit: commit.get(),
        }),
        Payload::Heartbeat { commit, round } => Wire::Heartbeat(proto::Heartbeat {
            commit: commit.get(),
            round: round.0,
        }),
        Payload::HeartbeatAnswer { commit, round } => {
            Wire::HeartbeatAnswer(proto::HeartbeatAnswer {
                commit: commit.get(),
                round: round.0,
            })
        }
        Payload::Vote {
            stage,
            last,
            commit,
        } => Wire::Vote(proto::Vote {
            stage: stage_to_wire(stage),
            last: Some(mark_to_wire(last)),
            commit: Some(mark_to_wire(commit)),
        }),
        Payload::VoteAnswer { stage, verdict } => Wire::VoteAnswer(vote_answer(stage, verdict)),
        Payload::Snapshot { point } => Wire::Snapshot(point_to_wire(&point)),
        Payload::TimeoutNow => Wire::TimeoutNow(proto::TimeoutNow {}),
    };
    proto::RaftMessage {
        term: message.term.get(),
        payload: Some(payload),
    }
}

/// A message as it came, its checksums compared.
pub(super) fn from_wire(
    from: ReplicaId,
    to: ReplicaId,
    message: proto::RaftMessage,
) -> Result<Message, BadMessage> {
    let payload = match message.payload.ok_or(BadMessage::Unknown)? {
        Wire::Append(append) => Payload::Append {
            prev: mark(append.prev),
            commit: LogIndex::new(append.commit),
            entries: append
                .entries
                .into_iter()
                .map(entry)
                .collect::<Result<_, _>>()?,
        },
        Wire::Accepted(accepted) => Payload::Accepted {
            last: LogIndex::new(accepted.last),
            commit: LogIndex::new(accepted.commit),
        },
        Wire::Rejected(rejected) => Payload::Rejected {
            prev: LogIndex::new(rejected.prev),
            hint: mark(rejected.hint),
            commit: LogIndex::new(rejected.commit),
        },
        Wire::Heartbeat(heartbeat) => Payload::Heartbeat {
            commit: LogIndex::new(heartbeat.commit),
            round: Round(heartbeat.round),
        },
        Wire::HeartbeatAnswer(answer) => Payload::HeartbeatAnswer {
            commit: LogIndex::new(answer.commit),
            round: Round(answer.round),
        },
        Wire::Vote(vote) => Payload::Vote {
            stage: stage(vote.stage())?,
            last: mark(vote.last),
            commit: mark(vote.commit),
        },
        Wire::VoteAnswer(answer) => Payload::VoteAnswer {
            stage: stage(answer.stage())?,
            verdict: if answer.granted {
                Verdict::Granted
            } else {
                let commit = mark(answer.commit);
                Verdict::Refused { commit }
            },
        },
        Wire::Snapshot(snapshot) => Payload::Snapshot {
            point: point(&snapshot)?,
        },
        Wire::TimeoutNow(proto::TimeoutNow {}) => Payload::TimeoutNow,
    };
    Ok(Message {
        from,
        to,
        term: Term::new(message.term),
        payload,
    })
}

/// What an entry's checksum has to be.
pub(super) fn checksum(entry: &proto::Entry) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(&entry.header), &entry.body)
}

fn entry_to_wire(entry: Entry) -> proto::Entry {
    let kind = match entry.kind {
        EntryKind::Command => proto::entry::Kind::Command,
        EntryKind::Lead => proto::entry::Kind::Lead,
        EntryKind::Members => proto::entry::Kind::Members,
    };
    proto::Entry {
        term: entry.term.get(),
        index: entry.index.get(),
        kind: kind.into(),
        header: entry.header,
        body: entry.body,
        crc32c: 0,
    }
}

fn entry(entry: proto::Entry) -> Result<Entry, BadMessage> {
    let kind = match entry.kind() {
        proto::entry::Kind::Unspecified => return Err(BadMessage::Unknown),
        proto::entry::Kind::Command => EntryKind::Command,
        proto::entry::Kind::Lead => EntryKind::Lead,
        proto::entry::Kind::Members => EntryKind::Members,
    };
    if entry.crc32c != checksum(&entry) {
        return Err(BadMessage::Damaged);
    }
    Ok(Entry {
        term: Term::new(entry.term),
        index: LogIndex::new(entry.index),
        kind,
        header: entry.header,
        body: entry.body,
    })
}

const fn mark_to_wire(mark: Mark) -> proto::Mark {
    proto::Mark {
        index: mark.index.get(),
        term: mark.term.get(),
    }
}

fn mark(mark: Option<proto::Mark>) -> Mark {
    let mark = mark.unwrap_or_default();
    Mark::new(mark.index, mark.term)
}

fn stage_to_wire(stage: Stage) -> i32 {
    let stage = match stage {
        Stage::Pre => proto::Stage::Pre,
        Stage::Real => proto::Stage::Real,
        Stage::Transfer => proto::Stage::Transfer,
    };
    stage.into()
}

const fn stage(stage: proto::Stage) -> Result<Stage, BadMessage> {
    match stage {
        proto::Stage::Unspecified => Err(BadMessage::Unknown),
        proto::Stage::Pre => Ok(Stage::Pre),
        proto::Stage::Real => Ok(Stage::Real),
        proto::Stage::Transfer => Ok(Stage::Transfer),
    }
}

fn vote_answer(stage: Stage, verdict: Verdict) -> proto::VoteAnswer {
    let (granted, commit) = match verdict {
        Verdict::Granted => (true, None),
        Verdict::Refused { commit } => (false, Some(mark_to_wire(commit))),
    };
    proto::VoteAnswer {
        stage: stage_to_wire(stage),
        granted,
        commit,
    }
}

fn point_to_wire(point: &Point) -> proto::SnapshotPoint {
    let members = postcard::to_allocvec(&point.members).expect("members are plain data");
    proto::SnapshotPoint {
        mark: Some(mark_to_wire(point.mark)),
        members: members.into(),
    }
}

fn point(point: &proto::SnapshotPoint) -> Result<Point, BadMessage> {
    // A newer version may know more of members than we do.
    let members = postcard::from_bytes(&point.members).map_err(|_| BadMessage::Unknown)?;
    let mark = mark(point.mark);
    Ok(Point { mark, members })
}
