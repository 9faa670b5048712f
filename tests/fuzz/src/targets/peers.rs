//! What a peer may send: bytes that are no frames, frames of damaged messages, and whole messages
//! that no replica which is well would send; all of it to a voter of three.

use bytes::Bytes;
use millrace_peers::fuzz;
use millrace_replica::{
    Body, Entry, EntryKind, Mark, Members, Message, Payload, Point, Recovered, Replica,
    ReplicaOptions, Round, ShardMessage, Stage, Verdict,
};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId, Term};

use crate::input::Input;

/// Pieces of an input, by their first byte.
const TICKS: u8 = 0;
const FRAME: u8 = 1;
const MESSAGE: u8 = 2;
const PIECES: u8 = 3;
/// Ticks of a piece: enough for an election.
const TICKS_MAX: u8 = 32;
const SHARD: ShardId = ShardId::new(1);
/// Us, and two others.
const REPLICAS: [u64; 3] = [1, 2, 3];

/// A replica and what it has promised.
struct Voter {
    replica: Replica,
    committed: LogIndex,
    term: Term,
}

impl Voter {
    fn new() -> Self {
        let founders = REPLICAS.map(|id| (ReplicaId::new(id), NodeId::new(id)));
        let members = Members::founders(founders).expect("three make a shard");
        let recovered = Recovered::founding(members).expect("members that make sense");
        let options = ReplicaOptions::new(SHARD, ReplicaId::new(REPLICAS[0]));
        Self {
            replica: Replica::open(options, recovered, 1).expect("a first start"),
            committed: LogIndex::default(),
            term: Term::default(),
        }
    }

    fn hear(&mut self, messages: Vec<ShardMessage>) {
        for message in messages {
            if let Body::Raft(message) = message.body {
                // A refusal harms nobody.
                self.replica.step(message).ok();
                self.settle();
            }
        }
    }

    /// Does what it asks for, on a disk that is at once.
    fn settle(&mut self) {
        while let Some(ready) = self.replica.ready() {
            if let Some(write) = ready.write {
                self.replica.synced(write.number);
            }
            for load in ready.loads {
                self.replica.entries_loaded(load.from, Vec::new()).ok();
            }
            if let Some(last) = ready.committed.last() {
                self.replica.applied(last.index);
            }
        }
        let (committed, term) = (self.replica.committed(), self.replica.status().term);
        assert!(committed >= self.committed, "what is committed stays so");
        assert!(term >= self.term, "terms go up");
        (self.committed, self.term) = (committed, term);
    }
}

/// Pieces one after the other: time that passes, frames, messages.
pub(crate) fn frames(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut voter = Voter::new();
    voter.settle();
    while !input.is_empty() {
        match input.byte() % PIECES {
            TICKS => {
                for _ in 0..input.byte() % TICKS_MAX {
                    voter.replica.tick();
                    voter.settle();
                }
            }
            FRAME => {
                let length = usize::from(input.byte()) << 2;
                voter.hear(fuzz::messages(Bytes::copy_from_slice(input.take(length))));
            }
            _ => {
                let message = message(&mut input);
                let sent = fuzz::frame(vec![message.clone()]);
                let came = fuzz::messages(sent.into());
                assert!(
                    came.is_empty() || came == [message],
                    "the wire changes nothing"
                );
                voter.hear(came);
            }
        }
    }
}

fn message(input: &mut Input<'_>) -> ShardMessage {
    let from = ReplicaId::new(1 + u64::from(input.byte() % 4));
    let term = Term::new(input.byte().into());
    let payload = payload(input, term);
    ShardMessage {
        shard: SHARD,
        body: Body::Raft(Message {
            from,
            to: ReplicaId::new(REPLICAS[0]),
            term,
            payload,
        }),
    }
}

/// Small numbers, which mean something, and now and then the largest there is.
fn number(input: &mut Input<'_>) -> u64 {
    match input.byte() {
        u8::MAX => u64::MAX,
        small => small.into(),
    }
}

fn index(input: &mut Input<'_>) -> LogIndex {
    LogIndex::new(number(input))
}

fn mark(input: &mut Input<'_>) -> Mark {
    Mark::new(number(input), number(input))
}

fn payload(input: &mut Input<'_>, term: Term) -> Payload {
    let stage = |input: &mut Input<'_>| match input.byte() % 3 {
        0 => Stage::Pre,
        1 => Stage::Real,
        _ => Stage::Transfer,
    };
    match input.byte() % 9 {
        0 => append(input, term),
        1 => Payload::Accepted {
            last: index(input),
            commit: index(input),
        },
        2 => Payload::Rejected {
            prev: index(input),
            hint: mark(input),
            commit: index(input),
        },
        3 => Payload::Heartbeat {
            commit: index(input),
            round: Round(number(input)),
        },
        4 => Payload::HeartbeatAnswer {
            commit: index(input),
            round: Round(number(input)),
        },
        5 => Payload::Vote {
            stage: stage(input),
            last: mark(input),
            commit: mark(input),
        },
        6 => Payload::VoteAnswer {
            stage: stage(input),
            verdict: if input.byte().is_multiple_of(2) {
                Verdict::Granted
            } else {
                Verdict::Refused {
                    commit: mark(input),
                }
            },
        },
        7 => snapshot(input),
        _ => Payload::TimeoutNow,
    }
}

fn append(input: &mut Input<'_>, term: Term) -> Payload {
    let prev = mark(input);
    let commit = index(input);
    let mut entries = Vec::new();
    for n in 1..=u64::from(input.byte() % 4) {
        let kind = EntryKind::from_number(1 + input.byte() % 3).expect("one of the three");
        entries.push(Entry {
            // Mostly the leader's own.
            term: match input.byte() {
                0 => Term::new(number(input)),
                _ => term,
            },
            index: LogIndex::new(prev.index.get().wrapping_add(n)),
            kind,
            header: Bytes::copy_from_slice(input.take(usize::from(kind == EntryKind::Command))),
            body: Bytes::new(),
        });
    }
    Payload::Append {
        prev,
        commit,
        entries,
    }
}

fn snapshot(input: &mut Input<'_>) -> Payload {
    let mark = mark(input);
    let count = 1 + input.byte() % 4;
    let founders = (1..=u64::from(count)).map(|id| (ReplicaId::new(id), NodeId::new(id)));
    Payload::Snapshot {
        point: Point {
            mark,
            members: Members::founders(founders).expect("a few make a shard"),
        },
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    // From replica 2 in term 2: its first entry, a command, a heartbeat; a vote; a snapshot.
    let leads = [MESSAGE, 1, 2, 0, 1, 1, 1, 1, 1, 1];
    let commands = [MESSAGE, 1, 2, 0, 2, 2, 2, 1, 0, 1, b'c'];
    let beats = [MESSAGE, 1, 2, 3, 3, 0];
    let votes = [MESSAGE, 2, 3, 5, 1, 9, 9, 1, 1];
    let installs = [MESSAGE, 1, 5, 7, 40, 4, 2];
    let elects = [TICKS, 30, MESSAGE, 1, 2, 6, 0, 0, MESSAGE, 1, 2, 6, 1, 0];
    let frame = fuzz::frame(vec![message(&mut Input::new(&leads[1..]))]);
    let length = u8::try_from(frame.len().div_ceil(4)).expect("a small frame");
    vec![
        [&leads[..], &commands, &beats, &votes].concat(),
        [&leads[..], &installs, &beats].concat(),
        elects.to_vec(),
        [&[FRAME, length], &frame[..]].concat(),
    ]
}
