//! What questions and answers look like on the wire: nodes of two versions understand each other
//! as long as these bytes stay. `MILLRACE_WRITE_GOLDEN=1 cargo test -p millrace-node calls` writes
//! the file when it is missing.

use std::path::PathBuf;

use millrace_engine::catalogue::{CatalogueCommand, Roster};
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{Outcome, QueueStats, Room};
use millrace_types::{ErrorCode, LogId, LogIndex, Offset, Refusal, ReplicaId, ShardId, Term, Wall};

use super::*;
use crate::facts::PartitionFacts;
use crate::log_facts::{LogFacts, LogFactsOf};
use crate::placement::standing::{MemberStanding, ShardStanding};

const SHARD: ShardId = ShardId::new(3);
const LOG: LogId = LogId::new(7);

/// One question of every kind, in the order of the enum.
fn questions() -> Vec<Question> {
    vec![
        Question::Propose {
            shard: SHARD,
            command: Command::AcceptDead {
                queue: LOG,
                source: LogId::new(8),
                number: 5,
                batch: BatchHeader { count: 2, bytes: 4 },
            },
        },
        Question::Configure {
            shard: SHARD,
            commands: vec![Command::Tick, Command::Configured { revision: 9 }],
        },
        Question::Catalogue(CatalogueCommand::Init { data_shards: 4 }),
        Question::Room {
            shard: SHARD,
            queue: LOG,
        },
        Question::Sends {
            shard: SHARD,
            queue: LOG,
        },
        Question::Read {
            shard: SHARD,
            partition: LOG,
            from: Offset::new(12),
        },
        Question::Extents {
            shard: SHARD,
            partitions: vec![LOG],
        },
        Question::Cursors {
            shard: SHARD,
            partitions: vec![LOG],
        },
        Question::Standing,
        Question::HandOver {
            shard: SHARD,
            to: NodeId::new(8),
        },
        Question::Short {
            free_bytes: 11,
            reserve_bytes: 12,
        },
        Question::ReadIndex { shard: SHARD },
        Question::Roster { known: 8 },
        Question::Revision,
        Question::Figures {
            shard: SHARD,
            logs: vec![LOG],
        },
    ]
}

fn answers() -> Vec<Bytes> {
    let room = Room {
        messages: 1,
        bytes: 2,
        awaited: true,
    };
    let refusal = Refusal::new(ErrorCode::NotLeader, "no").with("leader", "9");
    vec![
        encode_answer(&Ok(Outcome::Numbered(7))),
        encode_answer::<Outcome>(&Err(refusal.unknown())),
        encode_answer(&Ok(())),
        encode_answer(&Ok(Some(room))),
        encode_answer(&Ok(Sends {
            revision: 4,
            to: Some(LOG),
        })),
        encode_answer(&Ok(Records {
            first: Offset::new(1),
            end: Offset::new(3),
            messages: vec![(Offset::new(2), b"m".to_vec())],
        })),
        encode_answer(&Ok(vec![Some(Offset::new(1)..Offset::new(3)), None])),
        encode_answer(&Ok(Cursors {
            revision: 4,
            lowest: vec![None, Some(Offset::new(2))],
        })),
        encode_answer(&Ok(vec![standing()])),
        encode_answer(&Ok(Some(Roster::default()))),
        encode_answer(&Ok(figures())),
    ]
}

fn figures() -> LogFactsOf {
    let queue = QueueStats {
        ready: 1,
        in_flight: 2,
        delayed: 3,
        dying: 4,
        bytes: 5,
        oldest: Some(Wall::from_millis(6)),
        consumers: 7,
    };
    let partition = PartitionFacts {
        partition: 1,
        shard: SHARD,
        offsets: Offset::new(2)..Offset::new(3),
        bytes: 4,
        oldest: None,
    };
    let (queue, partition) = (LogFacts::Queue(queue), LogFacts::Partition(partition));
    vec![(LOG, queue), (LogId::new(8), partition)]
}

fn standing() -> ShardStanding {
    ShardStanding {
        shard: SHARD,
        leader: Some(NodeId::new(8)),
        term: Term::new(2),
        last: LogIndex::new(30),
        applied: LogIndex::new(29),
        changing: true,
        members: vec![MemberStanding {
            replica: ReplicaId::new(5),
            node: NodeId::new(8),
            votes: true,
            lag: 1,
            active: true,
        }],
    }
}

#[test]
fn questions_and_answers_of_calls_stay_what_they_are() {
    let questions = questions();
    let questions = questions.iter().map(|question| encode(question, b"body"));
    let mut all = Vec::new();
    for bytes in questions.chain(answers()) {
        all.extend_from_slice(&u32::try_from(bytes.len()).unwrap().to_le_bytes());
        all.extend_from_slice(&bytes);
    }
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("src/calls/golden.v1");
    if !path.exists() && std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, &all).unwrap();
    }
    let golden = std::fs::read(&path).unwrap();
    assert!(golden == all, "calls between nodes are encoded otherwise");
}

#[test]
fn a_question_comes_back_with_the_records_behind_it() {
    for question in questions() {
        let (decoded, body) = decode(&encode(&question, b"records")).unwrap();
        assert_eq!((decoded, &*body), (question, &b"records"[..]));
    }
}

#[test]
fn what_is_not_understood_is_no_question_and_no_answer() {
    for bytes in [
        &b""[..],
        b"\x02\x00",
        b"\x01",
        b"\x01\xff\xff\xff",
        b"\x01\x7f",
    ] {
        assert_eq!(decode(&Bytes::from_static(bytes)), None);
        assert_eq!(decode_answer::<Outcome>(bytes), None);
    }
}
