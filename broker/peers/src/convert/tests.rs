//! What is on the wire is what it was, and whatever comes is taken or refused.

use std::fmt::Write as _;
use std::path::Path;

use bytes::Bytes;
use millrace_proto::peer::decode_frame;
use millrace_replica::{
    Body, Entry, EntryKind, Mark, Members, Message, Next, Payload, Point, Round, ShardMessage,
    SnapshotAck, SnapshotChunk, Stage, Verdict,
};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId, Term};
use proptest::collection::vec;
use proptest::prelude::*;
use prost::Message as _;

use super::*;
use crate::error::Reason;
use crate::limits::MESSAGE_BYTES_MAX;

const ENDS: (ReplicaId, ReplicaId) = (ReplicaId::new(11), ReplicaId::new(12));

fn raft_message(payload: Payload) -> ShardMessage {
    let (from, to) = ENDS;
    ShardMessage {
        shard: ShardId::new(3),
        body: Body::Raft(Message {
            from,
            to,
            term: Term::new(7),
            payload,
        }),
    }
}

fn entry(kind: EntryKind, header: &'static [u8], body: &'static [u8]) -> Entry {
    Entry {
        term: Term::new(6),
        index: LogIndex::new(42),
        kind,
        header: Bytes::from_static(header),
        body: Bytes::from_static(body),
    }
}

type Named<T> = Vec<(&'static str, T)>;

/// How far somebody knows the log to be committed.
const COMMIT: LogIndex = LogIndex::new(40);

fn of_the_log() -> Named<Payload> {
    let append = Payload::Append {
        prev: Mark::new(41, 6),
        commit: COMMIT,
        entries: vec![
            entry(EntryKind::Lead, b"", b""),
            entry(EntryKind::Command, b"head", b"body"),
            entry(EntryKind::Members, b"change", b""),
        ],
    };
    let accepted = Payload::Accepted {
        last: LogIndex::new(42),
        commit: COMMIT,
    };
    let rejected = Payload::Rejected {
        prev: LogIndex::new(41),
        hint: Mark::new(30, 2),
        commit: COMMIT,
    };
    let members = [(1, 21), (2, 22)];
    let members = members.map(|(replica, node)| (ReplicaId::new(replica), NodeId::new(node)));
    let point = Point {
        mark: Mark::new(40, 5),
        members: Members::founders(members).unwrap(),
    };
    vec![
        ("append", append),
        ("accepted", accepted),
        ("rejected", rejected),
        ("snapshot", Payload::Snapshot { point }),
    ]
}

fn of_elections() -> Named<Payload> {
    let (commit, round) = (COMMIT, Round(9));
    let vote = |stage| Payload::Vote {
        stage,
        last: Mark::new(42, 6),
        commit: Mark::new(39, 4),
    };
    let answer = |stage, verdict| Payload::VoteAnswer { stage, verdict };
    let refused = Verdict::Refused {
        commit: Mark::new(39, 4),
    };
    vec![
        ("heartbeat", Payload::Heartbeat { commit, round }),
        (
            "heartbeat_answer",
            Payload::HeartbeatAnswer { commit, round },
        ),
        ("vote_pre", vote(Stage::Pre)),
        ("vote_real", vote(Stage::Real)),
        ("vote_transfer", vote(Stage::Transfer)),
        ("vote_granted", answer(Stage::Pre, Verdict::Granted)),
        ("vote_refused", answer(Stage::Real, refused)),
        ("timeout_now", Payload::TimeoutNow),
    ]
}

/// One of every kind of message, by name.
fn messages() -> Named<ShardMessage> {
    let shard = ShardId::new(3);
    let (from, to) = ENDS;
    let chunk = Body::Chunk(SnapshotChunk {
        from,
        to,
        id: 77,
        offset: 10,
        total: 14,
        data: Bytes::from_static(b"data"),
    });
    let ack = |next| {
        Body::Ack(SnapshotAck {
            from,
            to,
            id: 77,
            next,
        })
    };
    let raft = of_the_log().into_iter().chain(of_elections());
    let mut all: Vec<_> = raft
        .map(|(name, payload)| (name, raft_message(payload)))
        .collect();
    for (name, body) in [
        ("chunk", chunk),
        ("ack", ack(Next::From(14))),
        ("ack_refused", ack(Next::Refused)),
    ] {
        all.push((name, ShardMessage { shard, body }));
    }
    all
}

fn frames() -> Named<Frame> {
    let hello = Hello {
        identity: Identity {
            cluster_id: "c1".to_owned(),
            node: NodeId::new(21),
            versions: 1..=2,
            feature_level: 3,
            build: "0.1.0".to_owned(),
        },
        to: NodeId::new(22),
        lane: Lane::Appends,
    };
    let refusal = Refusal::new(Reason::Superseded, "two of one id");
    let repeat = Frame {
        repeat: 2,
        ..Frame::default()
    };
    let mut frames = vec![
        ("hello", hello.into()),
        ("refused", Frame::from(&refusal)),
        ("ping", sealed(Some(5), Vec::new())),
        ("pong", pong(proto::Ping { id: 5 })),
        ("repeat", repeat),
    ];
    for (name, message) in messages() {
        frames.push((name, sealed(None, vec![message.into()])));
    }
    let (_, beat) = of_elections().remove(0);
    let mut remembered = sealed(None, vec![raft_message(beat).into()]);
    remembered.remember = 2;
    frames.push(("remember", remembered));
    frames
}

#[test]
fn frames_of_version_1_are_what_they_were_and_are_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/frames-v1.txt");
    let mut now = String::new();
    for (name, frame) in frames() {
        let hex = |mut text: String, byte: u8| {
            write!(text, "{byte:02x}").unwrap();
            text
        };
        let encoded = frame.encode_to_vec().into_iter().fold(String::new(), hex);
        writeln!(now, "{name} {encoded}").unwrap();
    }
    if !path.exists() && std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &now).unwrap();
    }
    let written = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(
        written, now,
        "nodes of another version send and read the former"
    );
    for (name, message) in messages() {
        let line = written
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        let hex = line.unwrap();
        let byte = |at: usize| u8::from_str_radix(&hex[at..at + 2], 16).unwrap();
        let encoded: Vec<u8> = (0..hex.len()).step_by(2).map(byte).collect();
        let mut frame = decode_frame(encoded.into()).unwrap();
        assert_eq!(
            unpacked(frame.messages.remove(0)).unwrap(),
            message,
            "{name}"
        );
    }
}

#[test]
fn every_message_has_a_lane_and_its_ends() {
    for (name, message) in messages() {
        let lane = match name {
            "append" | "accepted" | "rejected" => Lane::Appends,
            "snapshot" | "chunk" | "ack" | "ack_refused" => Lane::Snapshots,
            _ => Lane::Votes,
        };
        assert_eq!(message.lane(), lane, "{name}");
        assert_eq!(message.ends(), ENDS, "{name}");
    }
}

#[test]
fn a_refusal_is_read_as_it_was_meant_and_its_text_is_bounded() {
    for reason in [
        Reason::Cluster,
        Reason::Node,
        Reason::Itself,
        Reason::Version,
        Reason::Superseded,
        Reason::Protocol,
        Reason::Busy,
        Reason::Closing,
        Reason::Unknown,
    ] {
        let sent = Refusal::new(reason, "why");
        assert_eq!(refusal(&mut Frame::from(&sent)), Some(sent));
    }
    let newer = proto::Refused {
        reason: 99,
        message: "ä".repeat(10_000),
    };
    let mut frame = Frame {
        refused: Some(newer),
        ..Frame::default()
    };
    let read = refusal(&mut frame).unwrap();
    assert_eq!(read.reason, Reason::Unknown);
    assert_eq!(read.text.chars().count(), TEXT_CHARS_MAX);
}

#[test]
fn fields_that_only_a_newer_version_knows_are_skipped() {
    // Field 1000, four bytes.
    let unknown = [0xc2, 0x3e, 4, 1, 2, 3, 4];
    for (name, frame) in frames() {
        let encoded = [frame.encode_to_vec().as_slice(), &unknown].concat();
        assert_eq!(decode_frame(encoded.into()), Ok(frame), "{name}");
    }
}

/// What somebody may do to the bytes of a frame.
fn damage() -> impl Strategy<Value = Vec<(prop::sample::Index, u8)>> {
    vec((any::<prop::sample::Index>(), any::<u8>()), 0..8)
}

/// Takes a frame apart as a session does.
fn take(bytes: Vec<u8>) {
    let Ok(mut frame) = decode_frame(bytes.into()) else {
        return;
    };
    let _refusal = refusal(&mut frame);
    let messages = std::mem::take(&mut frame.messages);
    let _hello = Hello::try_from(frame);
    for message in messages {
        if let Ok(message) = unpacked(message) {
            // What was taken can be sent on, and comes to the same.
            let sent = Packed::from(message.clone());
            assert_eq!(unpacked(sent.sealed()), Ok(message));
        }
    }
}

proptest! {
    #[test]
    fn no_bytes_do_any_harm(bytes in vec(any::<u8>(), 0..512)) {
        take(bytes);
    }

    #[test]
    fn no_damaged_frame_does_any_harm(
        frame in prop::sample::select(frames()),
        damage in damage(),
        end in any::<prop::sample::Index>(),
    ) {
        let mut bytes = frame.1.encode_to_vec();
        for (at, byte) in damage {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        let cut = bytes[..=end.index(bytes.len())].to_vec();
        take(bytes);
        take(cut);
    }

    #[test]
    fn a_message_takes_no_more_of_a_frame_than_it_says(
        sizes in vec((0_usize..400, 0_usize..20_000), 0..40),
    ) {
        let entry = |(header, body)| Entry {
            term: Term::new(u64::MAX),
            index: LogIndex::new(u64::MAX),
            kind: EntryKind::Command,
            header: vec![1; header].into(),
            body: vec![2; body].into(),
        };
        let message = raft_message(Payload::Append {
            prev: Mark::new(1, 1),
            commit: LogIndex::new(1),
            entries: sizes.into_iter().map(entry).collect(),
        });
        let packed = Packed::from(message);
        let (bytes, entries) = (packed.bytes, packed.entries);
        let actual = sealed(None, vec![packed]).encoded_len();
        prop_assert!(bytes <= MESSAGE_BYTES_MAX);
        prop_assert!(actual <= bytes, "{actual} of {bytes}");
        prop_assert!(bytes <= actual + 20 + 2 * entries, "{actual} of {bytes}");
    }
}
