//! Bytes: what is written is read again, garbage is refused, and each version stays what it is.
//!
//! The golden files were written by the version they are named after. `MILLRACE_WRITE_GOLDEN=1
//! cargo test -p millrace-engine formats` writes those that are missing; one that is there is never
//! replaced.

use std::path::PathBuf;

use millrace_engine::catalogue::Object;
use millrace_engine::command::{Command, Dedup, DedupId, Entry, SentLeases, Settle, Settlement};
use millrace_engine::spec::QueueSpec;
use millrace_engine::{Catalogue, CatalogueCommand, CatalogueEntry, DecodeError, Shard};
use millrace_types::{DedupKey, Elapsed, LogIndex, SessionId, Stamp, Wall};
use proptest::prelude::*;

use crate::catalogue::{Desk, bound_to, queue, topic};
use crate::support::{
    Bench, DEAD, PARTITION, QUEUE, at, batch, bound, held, queue_spec, retry, window,
};

/// One command of every kind, in the order of the enum.
fn commands() -> Vec<Command> {
    [
        message_commands(),
        session_commands(),
        lease_commands(),
        dead_letter_commands(),
    ]
    .concat()
}

fn message_commands() -> Vec<Command> {
    vec![
        Command::Tick,
        crate::support::configure(
            QUEUE,
            "queue/test/jobs",
            2,
            QueueSpec {
                bindings: vec![bound(&[PARTITION])],
                messages_max: Some(100),
                ..queue_spec()
            },
        ),
        crate::support::configure_partition(2, crate::support::partition_spec()),
        Command::Freeze {
            log: DEAD,
            revision: 2,
        },
        Command::Remove {
            log: DEAD,
            revision: 1,
        },
        Command::Configured { revision: 2 },
        Command::Publish {
            log: QUEUE,
            batch: batch(9),
            dedup: Some(Dedup {
                id: DedupId::Batch {
                    producer: DedupKey::new([7; 16]),
                    sequence: 3,
                    floor: 2,
                },
                age_ms: 5,
            }),
        },
        Command::Transfer {
            queue: QUEUE,
            revision: 2,
            partition: PARTITION,
            from: at(0),
            to: at(5),
            batch: Some(batch(2)),
        },
        Command::AcceptDead {
            queue: QUEUE,
            source: DEAD,
            number: 0,
            batch: batch(1),
        },
        Command::ConfirmDead {
            queue: QUEUE,
            number: 0,
        },
    ]
}

fn session_commands() -> Vec<Command> {
    let session = SessionId::new(11);
    vec![
        Command::OpenSession {
            session,
            queue: QUEUE,
            consumer: "c".into(),
            window: window(6),
            ttl_ms: 1000,
        },
        Command::AttachSession {
            session,
            window: window(7),
            held: vec![held(1, 1)],
        },
        Command::DetachSession { session, epoch: 1 },
        Command::SetWindow {
            session,
            window: window(5),
        },
        Command::CloseSession {
            session: SessionId::new(12),
        },
    ]
}

fn lease_commands() -> Vec<Command> {
    let owner = SessionId::new(11);
    let settle = |offset, settle| Settlement {
        owner,
        held: held(offset, 1),
        settle,
    };
    let note = || String::from("why");
    vec![
        Command::Acquire {
            queue: QUEUE,
            owner: SessionId::new(13),
            messages_max: 1,
            bytes_max: 1,
            lease_ms: Some(2000),
        },
        Command::Settle {
            queue: QUEUE,
            settlements: vec![
                settle(0, Settle::Accept),
                settle(1, Settle::Release { delay_ms: 70 }),
                settle(
                    2,
                    Settle::Retry {
                        delay_ms: Some(90),
                        note: note(),
                    },
                ),
                settle(3, Settle::Reject { note: note() }),
                settle(4, Settle::Extend),
                settle(5, retry()),
            ],
        },
        Command::Trim {
            partition: PARTITION,
            first: at(0),
        },
        Command::Lead,
    ]
}

fn dead_letter_commands() -> Vec<Command> {
    vec![
        Command::RecallDead {
            queue: QUEUE,
            source: DEAD,
            number: 4,
        },
        Command::RedirectDead {
            queue: QUEUE,
            from: DEAD,
            first: 0,
            arrived: 0,
        },
        Command::ForgetDead {
            queue: QUEUE,
            sources: vec![DEAD],
        },
        Command::NoteSent {
            sent: vec![SentLeases {
                session: SessionId::new(11),
                epoch: 2,
                held: vec![held(1, 1), held(3, 1)],
            }],
        },
    ]
}

fn entries() -> Vec<Entry> {
    let commands = commands().into_iter().enumerate();
    commands
        .map(|(n, command)| Entry {
            stamp: Stamp {
                wall: Wall::from_millis(1_700_000_000_000 + n as u64),
                elapsed: Elapsed::from_millis(n as u64),
            },
            command,
        })
        .collect()
}

fn busy_shard(commands: impl IntoIterator<Item = Command>) -> Shard {
    let mut bench = Bench::new(queue_spec());
    for command in commands {
        bench.now += 10;
        bench.apply(command);
    }
    bench.shard
}

/// As brokers knew them that had no dedup ids.
fn forgetful(mut command: Command) -> Command {
    if let Command::Publish { dedup, .. } = &mut command {
        *dedup = None;
    }
    command
}

fn busy_catalogue() -> Catalogue {
    let mut desk = declared_catalogue();
    for command in crate::roster::commands() {
        desk.apply(command.into());
    }
    desk.catalogue
}

/// Without nodes and replicas.
fn declared_catalogue() -> Desk {
    let mut desk = Desk::new(2);
    let upserts = vec![
        bound_to("queue/t/a", "topic/t/x"),
        topic("topic/t/x", 3),
        queue("queue/t/b"),
    ];
    desk.change(upserts, Vec::new()).unwrap();
    let removed = millrace_engine::catalogue::Removed {
        address: crate::support::address("queue/t/b"),
        uid: "uid of queue/t/b".into(),
    };
    desk.change(Vec::new(), vec![removed]).unwrap();
    desk.apply(CatalogueCommand::ShardConfigured {
        shard: millrace_types::ShardId::new(1),
        revision: 1,
    });
    desk
}

fn catalogue_entries() -> Vec<CatalogueEntry> {
    let commands = [
        CatalogueCommand::ApplyTopology {
            base_revision: 7,
            upserts: vec![bound_to("queue/t/a", "topic/t/x"), topic("topic/t/x", 3)],
            removals: vec![millrace_engine::catalogue::Removed {
                address: crate::support::address("queue/t/b"),
                uid: "u".into(),
            }],
        },
        CatalogueCommand::ShardConfigured {
            shard: millrace_types::ShardId::new(1),
            revision: 1,
        },
        CatalogueCommand::Init { data_shards: 4 },
    ];
    let stamp = Stamp::default();
    let roster = crate::roster::commands().into_iter();
    let commands = commands
        .into_iter()
        .chain(roster.map(CatalogueCommand::from));
    commands
        .map(|command| CatalogueEntry { stamp, command })
        .collect()
}

/// Frames as (u32 length, bytes), so that one file holds several.
fn framed<B: AsRef<[u8]>>(frames: impl IntoIterator<Item = B>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for frame in frames {
        let frame = frame.as_ref();
        bytes.extend(u32::try_from(frame.len()).unwrap().to_le_bytes());
        bytes.extend(frame);
    }
    bytes
}

fn golden(name: &str, now: &[u8]) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden", name]
        .iter()
        .collect();
    if !path.exists() && std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, now).unwrap();
    }
    let written = std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    assert!(written == now, "{name}: the format of version 2 changed");
    written
}

#[test]
fn entries_of_version_2_are_what_they_were() {
    let encoded = entries().into_iter().map(|entry| entry.encode());
    golden("entries.v2", &framed(encoded));
    let encoded = catalogue_entries().into_iter().map(|entry| entry.encode());
    golden("catalogue_entries.v2", &framed(encoded));
}

fn version_1(name: &str) -> Vec<u8> {
    let path: PathBuf = [env!("CARGO_MANIFEST_DIR"), "tests/golden", name]
        .iter()
        .collect();
    std::fs::read(path).unwrap()
}

/// What version 1 wrote, in frames.
fn frames_of_version_1(name: &str) -> Vec<Vec<u8>> {
    let bytes = version_1(name);
    let mut frames = Vec::new();
    let mut rest = &bytes[..];
    while let Some((length, more)) = rest.split_first_chunk() {
        let (frame, more) = more.split_at(u32::from_le_bytes(*length) as usize);
        frames.push(frame.to_vec());
        rest = more;
    }
    frames
}

/// The tests' declarations say what they are in the debugger's words, which change.
fn without_wire(mut entry: CatalogueEntry) -> CatalogueEntry {
    if let CatalogueCommand::ApplyTopology { upserts, .. } = &mut entry.command {
        upserts
            .iter_mut()
            .for_each(|declared| declared.wire.clear());
    }
    entry
}

#[test]
fn entries_of_version_1_are_read_as_what_they_meant() {
    let frames = frames_of_version_1("entries.v1");
    assert_eq!(frames.len(), entries().len());
    for (frame, mut entry) in frames.iter().zip(entries()) {
        assert_eq!(frame[0], 1);
        entry.command = forgetful(entry.command);
        assert_eq!(Entry::decode(frame), Ok(entry));
        assert!(Entry::decode(&frame[..frame.len() - 1]).is_err());
        let longer = [&frame[..], &[0]].concat();
        assert_eq!(Entry::decode(&longer), Err(DecodeError::Trailing(1)));
    }
    let frames = frames_of_version_1("catalogue_entries.v1");
    for (frame, entry) in frames.iter().zip(catalogue_entries()) {
        let read = CatalogueEntry::decode(frame).unwrap();
        assert_eq!(without_wire(read), without_wire(entry));
    }
}

#[test]
fn snapshots_of_version_2_are_what_they_were_and_are_read() {
    let shard = busy_shard(commands());
    let written = golden("shard.v2", &shard.snapshot());
    let read = Shard::restore(&written).unwrap();
    assert_eq!(read, shard);
    assert_eq!(read.checksum(), shard.checksum());

    let catalogue = busy_catalogue();
    let written = golden("catalogue.v2", &catalogue.snapshot());
    assert_eq!(Catalogue::restore(&written), Ok(catalogue));
}

#[test]
fn snapshots_of_version_1_are_read_as_what_they_meant() {
    let written = version_1("shard.v1");
    assert_eq!(written[0], 1);
    let meant = busy_shard(commands().into_iter().map(forgetful));
    assert_eq!(Shard::restore(&written), Ok(meant));

    let written = version_1("catalogue.v1");
    assert_eq!(written[0], 1);
    let (read, meant) = (
        Catalogue::restore(&written).unwrap(),
        declared_catalogue().catalogue,
    );
    assert_eq!(read.topology().revision(), meant.topology().revision());
    assert_eq!(read.topology().data_shards(), 2);
    assert!(!read.roster().is_founded());
    assert_eq!(read.applied(), meant.applied());
    let objects = |catalogue: &Catalogue| {
        let topology = catalogue.topology();
        let one = |(address, object): (&millrace_types::Address, Object<'_>)| {
            format!("{address} {:?} {}", object.kind, object.orphaned)
        };
        topology.iter().map(one).collect::<Vec<String>>()
    };
    assert_eq!(objects(&read), objects(&meant));
}

#[test]
fn no_part_of_a_snapshot_of_version_1_is_taken_for_a_whole_one() {
    for name in ["shard.v1", "catalogue.v1"] {
        let written = version_1(name);
        let restore = |bytes: &[u8]| match name {
            "shard.v1" => Shard::restore(bytes).map(drop),
            _ => Catalogue::restore(bytes).map(drop),
        };
        for length in 0..written.len() {
            assert!(restore(&written[..length]).is_err());
        }
        let longer = [&written[..], &[0]].concat();
        assert_eq!(restore(&longer), Err(DecodeError::Trailing(1)));
    }
}

#[test]
fn every_command_survives_its_encoding() {
    for entry in entries() {
        assert_eq!(Entry::decode(&entry.encode()), Ok(entry));
    }
    for entry in catalogue_entries() {
        assert_eq!(CatalogueEntry::decode(&entry.encode()), Ok(entry));
    }
}

#[test]
fn the_golden_files_have_every_command_and_no_other_is_known() {
    let stamp = Stamp::default();
    let kinds = commands().into_iter().map(|command| {
        let entry = Entry { stamp, command };
        // After the version and the two times of a stamp at zero.
        entry.encode()[3]
    });
    let kinds: Vec<u8> = kinds.collect();
    let all = u8::try_from(kinds.len()).unwrap();
    assert_eq!(kinds, (0..all).collect::<Vec<u8>>());
    for unknown in [all, all + 1, 127] {
        let mut bytes = vec![2, 0, 0, unknown];
        bytes.resize(100, 0);
        let error = Entry::decode(&bytes).unwrap_err();
        assert!(
            matches!(error, DecodeError::Malformed(_)),
            "{unknown}: {error}"
        );
    }
}

#[test]
fn the_golden_files_have_every_change_of_nodes_and_replicas() {
    let kinds = catalogue_entries().into_iter().map(|entry| entry.encode());
    let kinds = kinds.filter(|bytes| bytes[3] == 3).map(|bytes| bytes[4]);
    let kinds: Vec<u8> = kinds.collect();
    let all = u8::try_from(kinds.len()).unwrap();
    assert_eq!(kinds, (0..all).collect::<Vec<u8>>());
    let mut unknown = vec![2, 0, 0, 3, all];
    unknown.resize(100, 0);
    let error = CatalogueEntry::decode(&unknown).unwrap_err();
    assert!(matches!(error, DecodeError::Malformed(_)), "{error}");
}

#[test]
fn a_length_that_no_bytes_follow_is_refused() {
    // `Settle`, `AttachSession`, `ForgetDead` and `NoteSent` carry lists; a snapshot begins its
    // maps after five numbers.
    let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x01];
    for head in [
        &[2, 0, 0, 16, 1][..],
        &[2, 0, 0, 11, 1, 1, 1],
        &[2, 0, 0, 21, 1],
        &[2, 0, 0, 22],
    ] {
        let bytes = [head, &huge].concat();
        let error = Entry::decode(&bytes).unwrap_err();
        assert!(
            matches!(error, DecodeError::Malformed(_)),
            "{head:?}: {error}"
        );
    }
    let bytes = [&[2, 1, 0, 0, 0, 0][..], &huge].concat();
    assert!(matches!(
        Shard::restore(&bytes),
        Err(DecodeError::Malformed(_))
    ));
}

#[test]
fn what_is_cut_short_or_too_long_or_newer_is_refused() {
    for entry in entries() {
        let bytes = entry.encode();
        for length in 0..bytes.len() {
            assert!(Entry::decode(&bytes[..length]).is_err());
        }
        let mut longer = bytes.to_vec();
        longer.push(0);
        assert_eq!(Entry::decode(&longer), Err(DecodeError::Trailing(1)));
        let mut newer = bytes.to_vec();
        newer[0] = 3;
        let (found, known) = (3, 2);
        let error = DecodeError::Version { found, known };
        assert_eq!(Entry::decode(&newer), Err(error.clone()));
        assert_eq!(Shard::restore(&newer), Err(error.clone()));
        assert_eq!(Catalogue::restore(&newer), Err(error));
    }
    assert_eq!(Entry::decode(&[]), Err(DecodeError::Empty));
}

/// A snapshot with a few bytes changed.
fn damaged(bytes: &[u8], damage: &[(prop::sample::Index, u8)]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for (at, byte) in damage {
        let at = at.index(bytes.len());
        bytes[at] = *byte;
    }
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn no_bytes_make_decoding_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        if let Some(version) = bytes.first_mut() {
            *version = 1 + *version % 2;
        }
        drop(Entry::decode(&bytes));
        drop(CatalogueEntry::decode(&bytes));
        drop(Shard::restore(&bytes));
        drop(Catalogue::restore(&bytes));
    }

    #[test]
    fn no_decoded_entry_makes_a_shard_panic(
        frames in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..60), 1..20),
    ) {
        let mut shard = busy_shard(commands());
        for (n, frame) in frames.iter().enumerate() {
            // Most random bytes are a small command: the first ones are stamp and kind.
            let mut bytes = vec![2, 0, 0];
            bytes.extend(frame);
            while !bytes.is_empty() {
                if let Ok(entry) = Entry::decode(&bytes) {
                    shard.apply(LogIndex::new(n as u64 + 100), &entry);
                    break;
                }
                bytes.pop();
            }
        }
        prop_assert_eq!(Shard::restore(&shard.snapshot()), Ok(shard));
    }

    #[test]
    fn a_damaged_snapshot_is_refused_or_works(
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let snapshot = busy_shard(commands()).snapshot();
        if let Ok(mut shard) = Shard::restore(&damaged(&snapshot, &damage)) {
            for (n, entry) in entries().iter().enumerate() {
                shard.apply(LogIndex::new(n as u64 + 100), entry);
            }
        }
        if let Ok(mut catalogue) =
            Catalogue::restore(&damaged(&busy_catalogue().snapshot(), &damage))
        {
            for (n, entry) in catalogue_entries().iter().enumerate() {
                catalogue.apply(LogIndex::new(n as u64 + 100), entry);
            }
        }
    }
}
