//! Whose directory it is, and what is refused.

use millrace_types::{Founder, Founding, FoundingDraft};

use super::*;
use crate::disk::{Fault, FaultyDisk, MemoryDisk, OpenMode, Operation, RealDisk};
use crate::size::in_memory;
use crate::testing::{data_path, open_dir, random};
use crate::{Crash, Journal};

fn open(disk: &MemoryDisk, expect: Expect<'_>) -> Result<DataDir, OpenError> {
    DataDir::open_alone(Arc::new(disk.clone()), &data_path(), expect, random())
}

const OURS: Expect<'static> = Expect {
    cluster_id: Some("ours"),
    shards: 4,
};
const ANY: Expect<'static> = Expect {
    cluster_id: None,
    shards: 4,
};

#[test]
fn the_identity_is_minted_once() {
    let disk = MemoryDisk::new();
    let dir = open(&disk, ANY).unwrap();
    let (cluster, node, replica) = (
        dir.cluster().unwrap().id,
        dir.node(),
        dir.replica(ShardId::new(4)),
    );
    assert_eq!(cluster.len(), 32);
    assert!(replica.is_some() && dir.replica(ShardId::new(5)).is_none());
    assert_eq!(dir.data_shards(), 4);
    drop(dir);

    disk.crash(Crash::DropAll);

    let dir = open(
        &disk,
        Expect {
            cluster_id: Some(&cluster),
            shards: 4,
        },
    )
    .unwrap();
    assert_eq!((dir.cluster().unwrap().id, dir.node()), (cluster, node));
    assert_eq!(dir.replica(ShardId::new(4)), replica);
}

#[test]
fn a_crash_while_minting_is_a_first_start_again() {
    for seed in 0..20 {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let operations = [
            Operation::Write,
            Operation::Sync,
            Operation::Rename,
            Operation::SyncDir,
        ];
        disk.fail(operations[in_memory(seed % 4)], Fault::Broken, 0, "data");
        let failed = DataDir::open_alone(Arc::new(disk.clone()), &data_path(), OURS, random());
        assert!(matches!(failed, Err(OpenError::Io { .. })));
        memory.crash(Crash::Random(seed));
        open(&memory, OURS).unwrap();
    }
}

#[test]
fn an_identity_that_was_used_once_stays_though_its_first_start_was_killed() {
    let memory = MemoryDisk::new();
    let disk = FaultyDisk::new(Arc::new(memory.clone()));
    disk.fail(Operation::SyncDir, Fault::Broken, 0, "data");
    let killed = DataDir::open_alone(Arc::new(disk), &data_path(), OURS, random());
    assert!(matches!(killed, Err(OpenError::Io { .. })));
    let node = open(&memory, OURS).unwrap().node();

    memory.crash(Crash::DropAll);

    assert_eq!(open(&memory, OURS).unwrap().node(), node);
}

#[test]
fn another_clusters_directory_is_refused_with_both_ids() {
    let disk = MemoryDisk::new();
    drop(open(&disk, OURS).unwrap());
    let theirs = Expect {
        cluster_id: Some("theirs"),
        shards: 4,
    };
    let refused = open(&disk, theirs).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "data directory /data belongs to cluster ours, not theirs"
    );
}

#[test]
fn a_directory_in_use_is_refused() {
    let disk = MemoryDisk::new();
    let dir = open(&disk, ANY).unwrap();
    let clone = dir.clone();
    drop(dir);
    assert!(matches!(open(&disk, ANY), Err(OpenError::Locked { .. })));
    drop(clone);
    open(&disk, ANY).unwrap();
}

#[test]
fn another_number_of_shards_is_refused_with_both_numbers() {
    let disk = MemoryDisk::new();
    drop(open(&disk, ANY).unwrap());
    let refused = open(
        &disk,
        Expect {
            cluster_id: None,
            shards: 8,
        },
    )
    .err()
    .unwrap();
    let OpenError::ShardCount {
        expected: 8,
        found: 4,
        ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    for shards in [0, SHARDS_MAX + 1] {
        let refused = open(
            &disk,
            Expect {
                cluster_id: None,
                shards,
            },
        );
        assert!(matches!(refused, Err(OpenError::ShardsOutOfRange { .. })));
    }
}

#[test]
fn a_later_version_is_refused_with_both_versions() {
    let disk = MemoryDisk::new();
    drop(open(&disk, ANY).unwrap());
    let path = data_path().join("identity");
    let original = disk.content(&path).unwrap();
    disk.corrupt(&path, 12, 1).unwrap();
    let content = disk.content(&path).unwrap();
    let crc = crc32c::crc32c(&content[12..]) ^ crc32c::crc32c(&original[12..]);
    for (at, mask) in (8..).zip(crc.to_le_bytes()) {
        disk.corrupt(&path, at, mask).unwrap();
    }
    let refused = open(&disk, ANY).err().unwrap();
    assert_eq!(
        refused.to_string(),
        "/data/identity has format version 3; this program reads up to 2"
    );
}

#[test]
fn a_damaged_identity_is_refused_with_file_and_byte() {
    let disk = MemoryDisk::new();
    drop(open(&disk, ANY).unwrap());
    let path = data_path().join("identity");
    for at in 0..disk.content(&path).unwrap().len() {
        let copy = disk.duplicate();
        copy.corrupt(&path, at, 0x80).unwrap();
        match open(&copy, ANY).err().unwrap() {
            OpenError::Corrupt { path: named, .. } => assert_eq!(named, path),
            error => panic!("{error:?}"),
        }
    }
    let file = disk.open(&path, OpenMode::Write).unwrap();
    for bytes in [0, 10, 40] {
        file.set_bytes(bytes).unwrap();
        assert!(matches!(open(&disk, ANY), Err(OpenError::Corrupt { .. })));
    }
}

#[test]
fn an_identity_that_is_misread_once_is_read_again() {
    let disk = MemoryDisk::new();
    let expected = open(&disk, ANY).unwrap().node();
    for fault in [Fault::Flipped, Fault::Misdirected] {
        for reads in 0..3 {
            let faulty = FaultyDisk::new(Arc::new(disk.duplicate()));
            faulty.fail(Operation::Read, fault, reads, "identity");
            let dir = DataDir::open_alone(Arc::new(faulty), &data_path(), ANY, random());
            assert_eq!(dir.unwrap().node(), expected, "{fault:?} at read {reads}");
        }
    }
}

#[test]
fn data_without_an_identity_is_refused() {
    let disk = MemoryDisk::new();
    drop(Journal::open(&open_dir(&disk), crate::testing::small()).unwrap());
    disk.remove(&data_path().join("identity")).unwrap();
    let refused = open(&disk, ANY);
    assert!(matches!(refused, Err(OpenError::IdentityMissing { .. })));
}

#[test]
fn a_directory_that_cannot_be_made_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "in the way").unwrap();
    let path = file.join("data");
    let refused = DataDir::open_alone(Arc::new(RealDisk), &path, ANY, random())
        .err()
        .unwrap();
    assert_eq!(
        refused.to_string(),
        format!("cannot create {}", path.display())
    );
}

fn open_only(disk: &MemoryDisk) -> DataDir {
    DataDir::open(Arc::new(disk.clone()), &data_path(), random()).unwrap()
}

fn cluster(id: &str, shards: u32) -> Cluster {
    Cluster {
        id: id.into(),
        shards,
        founding: None,
    }
}

/// A record of this node and two others.
fn founding_with(node: NodeId, cluster: &str) -> Founding {
    let nodes = [node, NodeId::new(1), NodeId::new(2)];
    let founder = |node: NodeId| Founder {
        node,
        peer: format!("host-{node}:1"),
    };
    let draft = FoundingDraft {
        cluster_id: cluster.into(),
        shards: 4,
        replication: 3,
        founders: nodes.map(founder).into(),
    };
    draft.try_into().unwrap()
}

#[test]
fn a_directory_belongs_to_nobody_until_it_founds_with_others_and_only_once() {
    let disk = MemoryDisk::new();
    let dir = open_only(&disk);
    let (node, shard) = (dir.node(), ShardId::new(2));
    assert!(dir.cluster().is_none() && dir.replica(shard).is_none());
    assert!(matches!(
        dir.hold(shard, ReplicaId::new(1)),
        Err(BelongError::NoShard { .. })
    ));
    let ours = founding_with(node, "ours");
    let others = founding_with(NodeId::new(3), "ours");
    assert!(matches!(
        dir.found(&others),
        Err(BelongError::NotFounder { .. })
    ));
    dir.found(&ours).unwrap();
    drop(dir);
    disk.crash(Crash::DropAll);

    let dir = open_only(&disk);
    assert_eq!(dir.node(), node);
    assert_eq!(dir.cluster().unwrap().founding.as_ref(), Some(&ours));
    assert_eq!(dir.replica(shard), ours.replica(shard, node));
    assert_eq!(dir.founding_members(shard), Some(ours.members(shard)));
    dir.found(&ours).unwrap();
    let before = disk.content(&data_path().join("identity")).unwrap();
    let other = dir.found(&founding_with(node, "theirs")).unwrap_err();
    assert!(matches!(other, BelongError::Already { .. }));
    let joined = dir.join(cluster("ours", 4), ReplicaId::new(3));
    assert!(matches!(joined, Err(BelongError::Already { .. })));
    let ours = Cluster {
        founding: Some(ours),
        ..cluster("ours", 4)
    };
    let joined = dir.join(ours, ReplicaId::new(3));
    assert!(matches!(joined, Err(BelongError::Founder { .. })));
    let after = disk.content(&data_path().join("identity")).unwrap();
    assert_eq!(before, after);
}

#[test]
fn who_joins_has_the_metadata_shard_and_is_given_others() {
    let disk = MemoryDisk::new();
    let dir = open_only(&disk);
    let (metadata, replica) = (ReplicaId::new(70), ReplicaId::new(71));
    assert!(dir.join(cluster("ours", 0), metadata).is_err());
    let ours = Cluster {
        founding: Some(founding_with(NodeId::new(9), "ours")),
        ..cluster("ours", 4)
    };
    dir.join(ours.clone(), metadata).unwrap();
    dir.join(ours.clone(), metadata).unwrap();
    dir.join(cluster("ours", 4), metadata).unwrap();
    for (id, shards, replica) in [("theirs", 4, 70), ("ours", 5, 70), ("ours", 4, 9)] {
        let other = dir.join(cluster(id, shards), ReplicaId::new(replica));
        assert!(matches!(other, Err(BelongError::Already { .. })));
    }
    let shard = ShardId::new(4);
    dir.hold(shard, replica).unwrap();
    drop(dir);
    disk.crash(Crash::DropAll);

    let dir = open_only(&disk);
    assert_eq!(dir.cluster(), Some(ours));
    assert_eq!(dir.replica(ShardId::METADATA), Some(metadata));
    assert_eq!(dir.replica(shard), Some(replica));
    assert_eq!(dir.founding_members(shard), None);
    assert_eq!(dir.replica(ShardId::new(1)), None);
    assert_eq!(dir.data_shards(), 4);
}

#[test]
fn a_replica_that_a_later_shard_begins_with_knows_the_others_from_then_on() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let shard = ShardId::new(dir.data_shards() + 1);
    let (own, other) = (ReplicaId::new(71), ReplicaId::new(72));
    let members = vec![(own, dir.node()), (other, NodeId::new(9))];
    let not_a_member = dir.hold_first(shard, other, members.clone());
    assert!(matches!(not_a_member, Err(BelongError::NotMember { .. })));
    let crowd = vec![(own, dir.node()); 6];
    let too_many = dir.hold_first(shard, own, crowd);
    assert!(matches!(too_many, Err(BelongError::NotMember { .. })));
    assert_eq!(dir.replica(shard), None);

    dir.hold_first(shard, own, members.clone()).unwrap();
    dir.hold_first(shard, own, members.clone()).unwrap();
    drop(dir);
    disk.crash(Crash::DropAll);

    let dir = open_dir(&disk);
    assert_eq!(dir.replica(shard), Some(own));
    assert_eq!(dir.born_members(shard), Some(members));
    assert_eq!(dir.founding_members(shard), None);
    dir.retire(shard).unwrap();
    dir.hold(shard, ReplicaId::new(73)).unwrap();
    assert_eq!(dir.born_members(shard), None);
    let nowhere = dir.hold(ShardId::new(SHARDS_MAX + 1), own);
    assert!(matches!(nowhere, Err(BelongError::NoShard { .. })));
}

#[test]
fn a_replica_that_was_given_up_is_not_used_again_and_its_files_are_gone() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let shard = ShardId::new(2);
    let first = dir.replica(shard).unwrap();
    let segments = dir.shard_path(shard).join("segments");
    disk.create_dir_all(&segments).unwrap();
    let files = [
        segments.join("1.seg"),
        dir.shard_path(shard).join("checkpoint-1"),
    ];
    for path in &files {
        disk.open(path, OpenMode::CreateNew).unwrap();
        disk.sync_dir(path.parent().unwrap()).unwrap();
    }
    let second = ReplicaId::new(9);
    assert!(matches!(
        dir.hold(shard, second),
        Err(BelongError::Held { replica, .. }) if replica == first
    ));
    dir.hold(shard, first).unwrap();

    dir.retire(shard).unwrap();
    dir.retire(shard).unwrap();
    assert_eq!(dir.replica(shard), None);
    drop(dir);
    disk.crash(Crash::DropAll);

    let dir = open_dir(&disk);
    assert!(matches!(
        dir.hold(shard, first),
        Err(BelongError::Retired { .. })
    ));
    assert!(disk.content(&files[1]).is_ok());
    dir.hold(shard, second).unwrap();
    assert!(files.iter().all(|path| disk.content(path).is_err()));
    assert_eq!(dir.replica(shard), Some(second));
    assert_eq!(dir.founding_members(shard), None);
}

#[test]
fn what_was_given_up_is_cleared_and_no_older_replica_comes_back() {
    let disk = MemoryDisk::new();
    let dir = open_only(&disk);
    dir.found(&founding_with(dir.node(), "ours")).unwrap();
    let shard = ShardId::new(1);
    let first = dir.replica(shard).unwrap();
    let path = dir.shard_path(shard).join("checkpoint-1");
    disk.create_dir_all(path.parent().unwrap()).unwrap();
    disk.open(&path, OpenMode::CreateNew).unwrap();

    dir.clear_retired(shard).unwrap();
    assert!(disk.content(&path).is_ok(), "it is not given up");
    dir.retire(shard).unwrap();
    dir.clear_retired(shard).unwrap();
    assert!(disk.content(&path).is_err());

    dir.hold(shard, ReplicaId::new(9)).unwrap();
    dir.retire(shard).unwrap();
    for older in [first, ReplicaId::new(8), ReplicaId::new(9)] {
        assert!(!dir.may_hold(shard, older));
        let refused = dir.hold(shard, older);
        assert!(matches!(refused, Err(BelongError::Retired { replica, .. }) if replica == older));
    }
    assert!(dir.may_hold(shard, ReplicaId::new(10)));
    dir.hold(shard, ReplicaId::new(10)).unwrap();
}

#[test]
fn a_crash_while_founding_leaves_the_directory_before_or_after() {
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ];
    for (seed, operation) in (0..40).zip(operations.into_iter().cycle()) {
        let memory = MemoryDisk::new();
        let node = open_only(&memory).node();
        let founding = founding_with(node, "ours");
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let dir = DataDir::open(Arc::new(disk.clone()), &data_path(), random()).unwrap();
        disk.fail(operation, Fault::Broken, 0, "data");
        assert!(matches!(dir.found(&founding), Err(BelongError::Disk(_))));
        drop(dir);
        memory.crash(Crash::Random(seed));

        let dir = open_only(&memory);
        assert_eq!(dir.node(), node);
        dir.found(&founding).unwrap();
    }
}

proptest::proptest! {
    /// The checksum says that it was written so, not by whom.
    #[test]
    fn whatever_an_identity_says_is_taken_or_refused(
        version in 1_u32..=2,
        cuts in proptest::collection::vec((0_usize..200, proptest::num::u8::ANY), 0..4),
        noise in proptest::collection::vec(proptest::num::u8::ANY, 0..80),
        from_noise in proptest::bool::ANY,
    ) {
        let disk = MemoryDisk::new();
        let dir = open_only(&disk);
        dir.found(&founding_with(dir.node(), "ours")).unwrap();
        let mut payload = identity::file_of(&dir).split_off(24);
        if from_noise {
            payload = noise;
        }
        for (at, byte) in cuts {
            if let Some(place) = payload.get_mut(at) {
                *place = byte;
            }
        }
        let disk = MemoryDisk::new();
        disk.create_dir_all(&data_path()).unwrap();
        let file = disk.open(&data_path().join("identity"), OpenMode::CreateNew).unwrap();
        let bytes = identity::file_with(version, &payload);
        file.write_all_at(&[io::IoSlice::new(&bytes)], 0).unwrap();
        match DataDir::open(Arc::new(disk), &data_path(), random()) {
            Err(OpenError::Corrupt { .. }) => {}
            Err(error) => proptest::prop_assert!(false, "{error:?}"),
            Ok(dir) => {
                for shard in DataDir::shards() {
                    let _members = (dir.replica(shard), dir.founding_members(shard));
                }
            }
        }
    }
}
