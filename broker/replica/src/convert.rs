//! Between our messages and those of raft-rs. Nothing is ever encoded as protobuf, or decoded.

use millrace_types::{LogIndex, ReplicaId, Term};
use raft::eraftpb::{self, EntryType, MessageType, Snapshot};

use super::entry::{Entry, EntryKind, Mark};
use super::message::{Message, Payload, Round, Stage, Verdict};
use super::output::HardState;
use super::recovered::Point;

/// What raft-rs puts into a vote request that its leader asked for; the same bytes as
/// `raft::CAMPAIGN_TRANSFER`, which is hidden.
const TRANSFER: &[u8] = b"CampaignTransfer";

/// For raft-rs.
pub(crate) fn to_raft_entry(entry: Entry) -> eraftpb::Entry {
    let mut raw = eraftpb::Entry::default();
    raw.set_entry_type(match entry.kind {
        EntryKind::Command | EntryKind::Lead => EntryType::EntryNormal,
        EntryKind::Members => EntryType::EntryConfChangeV2,
    });
    raw.term = entry.term.get();
    raw.index = entry.index.get();
    raw.context = entry.header;
    raw.data = entry.body;
    raw
}

/// For raft-rs.
pub(crate) fn to_raft_hard_state(state: HardState) -> eraftpb::HardState {
    eraftpb::HardState {
        term: state.term.get(),
        vote: state.vote.map_or(0, ReplicaId::get),
        commit: state.commit.get(),
        ..eraftpb::HardState::default()
    }
}

/// From raft-rs.
pub(crate) fn from_raft_entry(raw: eraftpb::Entry) -> Entry {
    let kind = match raw.get_entry_type() {
        EntryType::EntryNormal if raw.context.is_empty() => EntryKind::Lead,
        EntryType::EntryNormal => EntryKind::Command,
        EntryType::EntryConfChange | EntryType::EntryConfChangeV2 => EntryKind::Members,
    };
    Entry {
        term: Term::new(raw.term),
        index: LogIndex::new(raw.index),
        kind,
        header: raw.context,
        body: raw.data,
    }
}

/// A point for raft-rs; the nodes travel in its data.
pub(crate) fn snapshot(point: &Point) -> Snapshot {
    let mut snapshot = Snapshot::default();
    let metadata = snapshot.mut_metadata();
    metadata.index = point.mark.index.get();
    metadata.term = point.mark.term.get();
    metadata.set_conf_state(point.members.conf_state());
    snapshot.data = point.encode();
    snapshot
}

/// The point that `snapshot` made.
pub(crate) fn point(snapshot: &Snapshot) -> Point {
    Point::decode(&snapshot.data).expect("the snapshot was made from a point in this process")
}

/// For raft-rs; it has been checked.
pub(crate) fn to_raft(message: Message) -> eraftpb::Message {
    let mut raw = eraftpb::Message {
        from: message.from.get(),
        to: message.to.get(),
        term: message.term.get(),
        ..eraftpb::Message::default()
    };
    match message.payload {
        Payload::Append {
            prev,
            commit,
            entries,
        } => {
            raw.set_msg_type(MessageType::MsgAppend);
            (raw.index, raw.log_term) = (prev.index.get(), prev.term.get());
            raw.commit = commit.get();
            let entries: Vec<_> = entries.into_iter().map(to_raft_entry).collect();
            raw.set_entries(entries.into());
        }
        Payload::Accepted { last, commit } => {
            raw.set_msg_type(MessageType::MsgAppendResponse);
            (raw.index, raw.commit) = (last.get(), commit.get());
        }
        Payload::Rejected { prev, hint, commit } => {
            raw.set_msg_type(MessageType::MsgAppendResponse);
            raw.reject = true;
            (raw.index, raw.commit) = (prev.get(), commit.get());
            (raw.reject_hint, raw.log_term) = (hint.index.get(), hint.term.get());
        }
        Payload::Heartbeat { commit, round } => {
            raw.set_msg_type(MessageType::MsgHeartbeat);
            raw.commit = commit.get();
            raw.context = context(round).into();
        }
        Payload::HeartbeatAnswer { commit, round } => {
            raw.set_msg_type(MessageType::MsgHeartbeatResponse);
            raw.commit = commit.get();
            raw.context = context(round).into();
        }
        Payload::Vote {
            stage,
            last,
            commit,
        } => {
            ask_for_vote(&mut raw, stage);
            (raw.index, raw.log_term) = (last.index.get(), last.term.get());
            (raw.commit, raw.commit_term) = (commit.index.get(), commit.term.get());
        }
        Payload::VoteAnswer { stage, verdict } => {
            raw.set_msg_type(match stage {
                Stage::Pre => MessageType::MsgRequestPreVoteResponse,
                Stage::Real | Stage::Transfer => MessageType::MsgRequestVoteResponse,
            });
            if let Verdict::Refused { commit } = verdict {
                raw.reject = true;
                (raw.commit, raw.commit_term) = (commit.index.get(), commit.term.get());
            }
        }
        Payload::Snapshot { point } => {
            raw.set_msg_type(MessageType::MsgSnapshot);
            raw.set_snapshot(snapshot(&point));
        }
        Payload::TimeoutNow => raw.set_msg_type(MessageType::MsgTimeoutNow),
    }
    raw
}

fn ask_for_vote(raw: &mut eraftpb::Message, stage: Stage) {
    raw.set_msg_type(match stage {
        Stage::Pre => MessageType::MsgRequestPreVote,
        Stage::Real | Stage::Transfer => MessageType::MsgRequestVote,
    });
    if stage == Stage::Transfer {
        raw.context = TRANSFER.into();
    }
}

/// From raft-rs; `None` for what this crate never lets it send to others.
pub(crate) fn from_raft(mut raw: eraftpb::Message) -> Option<Message> {
    let mark = |index, term| Mark::new(index, term);
    let commit = LogIndex::new(raw.commit);
    let payload = match raw.get_msg_type() {
        MessageType::MsgAppend => Payload::Append {
            prev: mark(raw.index, raw.log_term),
            commit,
            entries: raw
                .take_entries()
                .into_iter()
                .map(from_raft_entry)
                .collect(),
        },
        MessageType::MsgAppendResponse if raw.reject => Payload::Rejected {
            prev: LogIndex::new(raw.index),
            hint: mark(raw.reject_hint, raw.log_term),
            commit,
        },
        MessageType::MsgAppendResponse => Payload::Accepted {
            last: LogIndex::new(raw.index),
            commit,
        },
        MessageType::MsgHeartbeat => Payload::Heartbeat {
            commit,
            round: round(&raw.context),
        },
        MessageType::MsgHeartbeatResponse => Payload::HeartbeatAnswer {
            commit,
            round: round(&raw.context),
        },
        MessageType::MsgRequestVote | MessageType::MsgRequestPreVote => Payload::Vote {
            stage: stage(&raw),
            last: mark(raw.index, raw.log_term),
            commit: mark(raw.commit, raw.commit_term),
        },
        MessageType::MsgRequestVoteResponse | MessageType::MsgRequestPreVoteResponse => {
            Payload::VoteAnswer {
                stage: stage(&raw),
                verdict: if raw.reject {
                    let commit = mark(raw.commit, raw.commit_term);
                    Verdict::Refused { commit }
                } else {
                    Verdict::Granted
                },
            }
        }
        MessageType::MsgSnapshot => Payload::Snapshot {
            point: point(raw.get_snapshot()),
        },
        MessageType::MsgTimeoutNow => Payload::TimeoutNow,
        MessageType::MsgHup
        | MessageType::MsgBeat
        | MessageType::MsgPropose
        | MessageType::MsgUnreachable
        | MessageType::MsgSnapStatus
        | MessageType::MsgCheckQuorum
        | MessageType::MsgTransferLeader
        | MessageType::MsgReadIndex
        | MessageType::MsgReadIndexResp => return None,
    };
    Some(Message {
        from: ReplicaId::new(raw.from),
        to: ReplicaId::new(raw.to),
        term: Term::new(raw.term),
        payload,
    })
}

fn stage(raw: &eraftpb::Message) -> Stage {
    match raw.get_msg_type() {
        MessageType::MsgRequestPreVote | MessageType::MsgRequestPreVoteResponse => Stage::Pre,
        _ if raw.context == TRANSFER => Stage::Transfer,
        _ => Stage::Real,
    }
}

/// A round as raft-rs carries it.
pub(crate) fn context(round: Round) -> Vec<u8> {
    if round == Round::default() {
        return Vec::new();
    }
    round.0.to_le_bytes().to_vec()
}

/// The round in what raft-rs carried.
pub(crate) fn round(context: &[u8]) -> Round {
    let bytes = <[u8; 8]>::try_from(context);
    bytes.map_or_else(
        |_| Round::default(),
        |bytes| Round(u64::from_le_bytes(bytes)),
    )
}
