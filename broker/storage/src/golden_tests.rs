//! The formats, byte for byte: a change of one shows here, and what was written is still read. The
//! files in `golden/` were written by version 1 and never change; a new version adds its own.

use std::io::IoSlice;
use std::path::Path;
use std::sync::Arc;

use millrace_types::{
    Founder, Founding, FoundingDraft, LogId, LogIndex, NodeId, ReplicaId, ShardId, Term, Wall,
};

use crate::checkpoint::{self, ListedLog, ListedSegment};
use crate::journal::format::{BatchHeader, BatchPlace, Encoded, FileHeader, decode_frame};
use crate::store::index::{self, Block};
use crate::store::run::Run;
use crate::store::segment::{self, FrameHeader};
use crate::testing::{data_path, entry, open_dir, random};
use crate::{
    Checkpoint, Covered, DataDir, Disk, Expect, Manifest, MemoryDisk, OpenMode, Random, data_dir,
};

/// What version 1 wrote. Written here only when it is missing, so that adding one is deliberate.
fn golden(name: &str, written: &[u8]) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("golden")
        .join(name);
    if !path.exists() {
        std::fs::write(&path, written).unwrap();
        panic!("{} was missing and is written; commit it", path.display());
    }
    std::fs::read(path).unwrap()
}

fn put(disk: &MemoryDisk, path: &Path, bytes: &[u8]) {
    let file = disk.open(path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
}

#[test]
fn a_journal_file_is_as_it_was() {
    let header = FileHeader {
        number: 3,
        nonce: 0x1122_3344_5566_7788,
        file_bytes: 64 << 20,
    };
    let records = [entry(1, 7, 30), entry(4, 2, 0)];
    let place = BatchPlace {
        nonce: header.nonce,
        previous: 2,
        sequence: 9,
        ordinal: 5,
    };
    let batch = Encoded::new(place, &records);
    let mut written = header.encode().to_vec();
    written.extend(
        batch
            .slices(&records)
            .iter()
            .flat_map(|slice| slice.iter().copied()),
    );

    let golden = golden("journal-1", &written);

    assert_eq!(written, golden);
    let (page, rest) = golden.split_first_chunk().unwrap();
    assert_eq!(FileHeader::decode(page).unwrap(), header);
    let found = BatchHeader::decode(rest, header.nonce).unwrap();
    assert_eq!(found, batch.header);
    let mut frames = &rest[found.header_bytes()..];
    for record in records {
        assert_eq!(decode_frame(&mut frames, header.nonce, 9).unwrap(), record);
    }
}

#[test]
fn a_segment_is_as_it_was() {
    let (shard, log) = (ShardId::new(2), LogId::new(77));
    let seed = segment::seed(shard, log);
    let number = 12;
    let header = segment::FileHeader { shard, number };
    let mut written = header.encode();
    let frame = FrameHeader::new(1000, 2, Wall::from_millis(5), b"\x01a\x01b", seed);
    frame.encode(seed, &mut written);
    written.extend_from_slice(b"\x01a\x01b");
    let blocks = [(1000, 5, 0), (2000, 7, 66_000)].map(|(first, stored_at, at)| Block {
        first,
        stored_at: Wall::from_millis(stored_at),
        at,
    });
    let index_at = written.len();
    written.extend(index::encode(&blocks, seed));

    let golden = golden("segment-1", &written);

    assert_eq!(written, golden);
    let (page, rest) = golden.split_first_chunk().unwrap();
    assert_eq!(segment::FileHeader::decode(page).unwrap(), (1, header));
    assert_eq!(FrameHeader::decode(rest, seed).unwrap(), frame);
    let run = Run {
        bytes: 90_000,
        end: 3000,
        ..run()
    };
    let found = index::decode(&golden[index_at..], seed, &run).unwrap();
    assert_eq!(found, blocks);
}

fn run() -> Run {
    Run {
        file: 12,
        first: 1000,
        end: 1002,
        oldest: Wall::from_millis(5),
        at: 28,
        bytes: 36,
        index_bytes: 0,
        messages: 2,
    }
}

#[test]
fn a_checkpoint_is_as_it_was() {
    let listed = ListedLog {
        log: LogId::new(77),
        end: 1025,
        runs: vec![run()],
        discarded: vec![(1001, 1002)],
    };
    let segments = [(12, None), (14, Some(LogId::new(78)))].map(|(number, owner)| ListedSegment {
        number,
        bytes: 64,
        owner,
    });
    let manifest = Manifest {
        index: LogIndex::new(300),
        next_segment: 15,
        segments: segments.to_vec(),
        retired: vec![13],
        logs: vec![listed],
    };
    let (disk, shard) = (MemoryDisk::new(), ShardId::new(1));
    let covered = Covered {
        index: manifest.index,
        term: Term::new(2),
        members: b"members".as_slice().into(),
    };
    let dir = open_dir(&disk);
    disk.create_dir_all(&dir.shard_path(shard)).unwrap();
    let snapshot = b"snapshot".as_slice().into();
    let mut file = checkpoint::begin(&dir, shard, covered.clone(), manifest.clone(), snapshot);
    while !file.step(&disk).unwrap() {}
    let path = dir
        .shard_path(shard)
        .join("checkpoint-00000000000000000300");
    let written = disk.content(&path).unwrap();

    let golden = golden("checkpoint-2", &written);

    assert_eq!(written, golden);
    let mut expected = Checkpoint {
        covered,
        snapshot: b"snapshot".as_slice().into(),
        manifest,
    };
    let load = |bytes: &[u8]| {
        disk.remove(&path).unwrap();
        put(&disk, &path, bytes);
        Checkpoint::load(&dir, shard).unwrap()
    };
    assert_eq!(load(&golden).as_ref(), Some(&expected));
    // The first version knew no members.
    expected.covered.members = bytes::Bytes::new();
    assert_eq!(load(&self::golden("checkpoint-1", &[])), Some(expected));
}

fn put_identity(bytes: &[u8]) -> Arc<MemoryDisk> {
    let disk = MemoryDisk::new();
    disk.create_dir_all(&data_path()).unwrap();
    put(&disk, &data_path().join("identity"), bytes);
    Arc::new(disk)
}

#[test]
fn an_identity_is_as_it_was() {
    let founder = |node| Founder {
        node: NodeId::new(node),
        peer: format!("host-{node}:7073"),
    };
    let draft = FoundingDraft {
        cluster_id: "ours".into(),
        shards: 2,
        replication: 2,
        founders: [1, 5, 9].map(founder).into(),
    };
    let founding = Founding::try_from(draft).unwrap();
    let random: Random = Arc::new(|| Ok(5));
    let dir = DataDir::open(Arc::new(MemoryDisk::new()), &data_path(), random).unwrap();
    dir.found(&founding).unwrap();
    dir.retire(ShardId::METADATA).unwrap();
    dir.hold(ShardId::METADATA, ReplicaId::new(77)).unwrap();
    let written = data_dir::file_of(&dir);

    let golden = golden("identity-2", &written);

    assert_eq!(written, golden);
    let disk = put_identity(&golden);
    let dir = DataDir::open(disk, &data_path(), self::random()).unwrap();
    assert_eq!(dir.node(), NodeId::new(5));
    assert_eq!(dir.cluster().unwrap().founding, Some(founding.clone()));
    let (one, two) = (ShardId::new(1), ShardId::new(2));
    assert_eq!(dir.replica(ShardId::METADATA), Some(ReplicaId::new(77)));
    assert_eq!(dir.founding_members(ShardId::METADATA), None);
    assert_eq!(dir.replica(one), founding.replica(one, dir.node()));
    assert_eq!(dir.founding_members(one), Some(founding.members(one)));
    assert_eq!(dir.replica(two), founding.replica(two, dir.node()));
}

#[test]
fn a_directory_from_before_there_were_several_founders_has_founded_alone() {
    let disk = put_identity(&golden("identity-1", &[]));
    let expect = Expect {
        cluster_id: Some("ours"),
        shards: 2,
    };

    let dir = DataDir::open_alone(disk, &data_path(), expect, random()).unwrap();

    let (node, last, replica) = (NodeId::new(5), ShardId::new(2), ReplicaId::new(8));
    assert_eq!(dir.node(), node);
    assert_eq!(dir.replica(last), Some(replica));
    assert_eq!(dir.founding_members(last), Some(vec![(replica, node)]));
    let founding = dir.cluster().unwrap().founding.unwrap();
    assert_eq!(founding.founders().len(), 1);
    // It goes on as every other one.
    dir.found(&founding).unwrap();
    dir.retire(last).unwrap();
    assert!(dir.hold(last, replica).is_err());
    dir.hold(last, ReplicaId::new(9)).unwrap();
    assert_eq!(dir.replica(ShardId::new(1)), Some(ReplicaId::new(7)));
}
