//! Damage before the end quarantines whom it concerns; nothing false is ever recovered.

use std::path::{Path, PathBuf};

use millrace_types::ShardId;
use proptest::prelude::*;

use crate::journal::format::{BATCH_FIXED_BYTES, FILE_HEADER_BYTES};
use crate::size::in_memory;
use crate::testing::{Recovered, Turns, entry, indexes, open, open_dir, small, start};
use crate::{
    Corruption, Crash, DataDir, Disk, Fault, FaultyDisk, MemoryDisk, OpenError, Operation,
};

use super::batches_of;

/// Several files; the batches alternate between shards 1 and 2.
fn journal() -> (MemoryDisk, Vec<PathBuf>) {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    for index in 1..=20 {
        running.append_durably(vec![entry(1, index, 800)]);
        running.append_durably(vec![entry(2, index, 100)]);
    }
    running.shutdown();
    let directory = dir.journal_path();
    let names = disk.list(&directory).unwrap();
    let journals = names.iter().filter(|name| name.ends_with(".journal"));
    let files = journals.map(|name| directory.join(name)).collect();
    (disk, files)
}

/// Those that a directory of two data shards has; what hits all of these hits all that there may
/// be.
fn damaged(recovery: &Recovered) -> Vec<u32> {
    let shards = recovery.shards.iter();
    let damaged = shards.filter(|(_, shard)| shard.damage.is_some());
    let damaged: Vec<u32> = damaged.map(|(shard, _)| shard.get()).collect();
    let here: Vec<u32> = damaged
        .iter()
        .copied()
        .filter(|shard| *shard <= 2)
        .collect();
    assert!(damaged.len() == here.len() || damaged.len() == DataDir::shards().count());
    here
}

/// Everything recovered was written, in this order.
fn assert_true(recovery: &Recovered) {
    for (shard, bytes) in [(1, 800), (2, 100)] {
        let records = &recovery.shards[&ShardId::new(shard)].records;
        assert!(
            records
                .iter()
                .all(|record| *record == entry(shard, record.index.get(), bytes))
        );
        assert!(records.windows(2).all(|pair| pair[0].index < pair[1].index));
    }
}

#[test]
fn a_damaged_frame_quarantines_the_shards_of_its_batch() {
    let (disk, files) = journal();
    let scanned = batches_of(&disk, &files[0]);
    let batch = &scanned[4];
    let frame = batch.at + batch.header.header_bytes() as u64;
    disk.corrupt(&files[0], in_memory(frame) + 60, 0x10)
        .unwrap();

    for _ in 0..2 {
        let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
        assert_eq!(damaged(&recovery), [1]);
        let damage = recovery.shards[&ShardId::new(1)].damage.clone().unwrap();
        assert_eq!((&damage.path, damage.at), (&files[0], frame));
        assert_eq!(damage.kind, Corruption::Checksum);
        assert_eq!(indexes(&recovery, 2), (1..=20).collect::<Vec<_>>());
        assert_true(&recovery);
    }
}

#[test]
fn a_damaged_batch_header_quarantines_every_shard() {
    let (disk, files) = journal();
    for (file, batch) in [(0, 0), (0, 3), (1, 0)] {
        let copy = disk.duplicate();
        let at = in_memory(batches_of(&copy, &files[file])[batch].at);
        for byte in [
            0,
            5,
            12,
            20,
            28,
            31,
            35,
            BATCH_FIXED_BYTES - 1,
            BATCH_FIXED_BYTES,
        ] {
            let copy = copy.duplicate();
            copy.corrupt(&files[file], at + byte, 0x04).unwrap();
            for _ in 0..2 {
                let (_, recovery) = open(&open_dir(&copy), small()).unwrap();
                assert_eq!(
                    damaged(&recovery),
                    [0, 1, 2],
                    "file {file} batch {batch} + {byte}"
                );
                assert_true(&recovery);
            }
        }
    }
}

/// A journal whose files hold a batch each, in the order they were written.
fn files_of_one_batch(stop: fn(&mut Turns)) -> (MemoryDisk, Vec<PathBuf>) {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let mut turns = Turns::start(&dir, small());
    for index in 1..=4 {
        turns.append_durably(vec![entry(1, index, 9000)]);
        turns.append_durably(vec![entry(2, index, 9000)]);
    }
    stop(&mut turns);
    disk.crash(Crash::DropAll);
    let directory = dir.journal_path();
    let names = disk.list(&directory).unwrap();
    let journals = names.iter().filter(|name| name.ends_with(".journal"));
    let files = journals.map(|name| directory.join(name));
    let used = files.filter(|path| !batches_of(&disk, path).is_empty());
    let used: Vec<PathBuf> = used.collect();
    assert_eq!(used.len(), 8);
    (disk, used)
}

#[test]
fn a_file_that_lost_its_only_batch_is_no_released_file() {
    let (disk, files) = files_of_one_batch(Turns::drain);
    let lost: fn(&MemoryDisk, &Path) = |disk, path| {
        let file = disk.open(path, crate::OpenMode::Write).unwrap();
        let zeros = [0; 10 << 10];
        file.write_all_at(&[std::io::IoSlice::new(&zeros)], FILE_HEADER_BYTES)
            .unwrap();
    };
    let damaged_header: fn(&MemoryDisk, &Path) = |disk, path| {
        disk.corrupt(path, in_memory(FILE_HEADER_BYTES) + 20, 1)
            .unwrap()
    };
    for harm in [lost, damaged_header] {
        let (_, followed) = files.split_last().unwrap();
        for (path, first) in followed.iter().zip(1..) {
            let disk = disk.duplicate();
            harm(&disk, path);
            for life in 0..3 {
                let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
                assert_eq!(damaged(&recovery), [0, 1, 2], "file {first} life {life}");
                let damage = recovery.shards[&ShardId::new(1)].damage.clone().unwrap();
                let (kind, last) = (damage.kind, first);
                assert_eq!((&damage.path, damage.at), (path, FILE_HEADER_BYTES));
                assert_eq!(kind, Corruption::BatchesMissing { first, last });
                // Whatever is written and released later.
                let mut turns = Turns::start(&open_dir(&disk), small());
                turns.append_durably(vec![entry(2, 5 + life, 9000)]);
                (1..3).for_each(|shard| turns.release(shard, 9));
                turns.run();
                turns.drain();
            }
        }
    }
}

#[test]
fn the_only_batch_before_an_idle_start_is_missed_too() {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), small());
    turns.append_durably(vec![entry(1, 1, 10)]);
    let path = turns.path_in_use(&disk);
    disk.crash(Crash::DropAll);
    let mut turns = Turns::start(&open_dir(&disk), small());
    turns.run();
    turns.pass(std::time::Duration::from_secs(1));
    turns.run();
    disk.crash(Crash::DropAll);
    disk.corrupt(&path, in_memory(FILE_HEADER_BYTES), 1)
        .unwrap();

    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();

    assert_eq!(damaged(&recovery), [0, 1, 2]);
    let damage = recovery.shards[&ShardId::new(1)].damage.clone().unwrap();
    assert_eq!((damage.path, damage.at), (path, FILE_HEADER_BYTES));
}

#[test]
fn files_that_were_released_are_missed_by_nobody() {
    let (disk, _) = files_of_one_batch(|_| {});
    for operations in 0..40 {
        for upto in [1, 3, 4] {
            let disk = disk.duplicate();
            let mut turns = Turns::start(&open_dir(&disk), small());
            disk.crash_after(operations, Crash::Random(operations * 5 + upto));
            (1..3).for_each(|shard| turns.release(shard, upto));
            for index in 5..8 {
                // Lost by the crash, perhaps.
                drop(turns.append(vec![entry(1, index, 9000)]));
                turns.run();
            }
            disk.crash(Crash::Random(operations));
            let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
            assert_eq!(damaged(&recovery), [0; 0], "{operations} of {upto}");
            assert!(indexes(&recovery, 2).ends_with(&[4][..usize::from(upto < 4)]));
        }
    }
}

#[test]
fn a_damaged_or_missing_file_quarantines_every_shard() {
    type Harm = fn(&MemoryDisk, &Path);
    let harms: [Harm; 3] = [
        |disk, path| disk.corrupt(path, 17, 1).unwrap(),
        |disk, path| disk.remove(path).unwrap(),
        |disk, path| {
            let file = disk.open(path, crate::OpenMode::Write).unwrap();
            file.set_bytes(5000).unwrap();
        },
    ];
    let (disk, files) = journal();
    for harm in harms {
        let copy = disk.duplicate();
        harm(&copy, &files[1]);
        for _ in 0..2 {
            let (_, recovery) = open(&open_dir(&copy), small()).unwrap();
            assert_eq!(damaged(&recovery), [0, 1, 2]);
            assert_true(&recovery);
        }
    }
}

#[test]
fn shards_without_damage_go_on() {
    let (disk, files) = journal();
    let batch = in_memory(batches_of(&disk, &files[0])[4].at);
    disk.corrupt(&files[0], batch + 100, 1).unwrap();
    {
        let (running, _) = start(&open_dir(&disk), small());
        for index in 21..=60 {
            running.append_durably(vec![entry(2, index, 100)]);
        }
        running
            .journal
            .release(ShardId::new(2), millrace_types::LogIndex::new(60));
        running.shutdown();
    }
    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    assert_eq!(damaged(&recovery), [1]);
    assert_eq!(indexes(&recovery, 2), (1..=60).collect::<Vec<_>>());
}

#[test]
fn a_file_of_a_later_version_is_refused_with_its_name() {
    let (disk, files) = journal();
    let mut page = disk.content(&files[0]).unwrap()[..4096].to_vec();
    page[12] = 9;
    let crc = crc32c::crc32c(&page[12..]);
    page[8..12].copy_from_slice(&crc.to_le_bytes());
    let file = disk.open(&files[0], crate::OpenMode::Write).unwrap();
    file.write_all_at(&[std::io::IoSlice::new(&page)], 0)
        .unwrap();

    let refused = open(&open_dir(&disk), small()).err().unwrap();

    let OpenError::NewerVersion {
        path,
        found: 9,
        supported: 1,
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert_eq!(path, files[0]);
}

/// A journal that was not stopped cleanly, so that nothing vouches for its last batch.
fn killed_journal() -> MemoryDisk {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    for index in 1..=20 {
        running.append_durably(vec![entry(1, index, 800), entry(2, index, 100)]);
    }
    disk.crash(crate::Crash::KeepAll);
    running.shutdown();
    disk
}

#[test]
fn a_bit_that_flips_once_on_its_way_costs_nothing() {
    let disk = killed_journal();
    for fault in [Fault::Flipped, Fault::Misdirected] {
        for reads in 0.. {
            let faulty = FaultyDisk::new(std::sync::Arc::new(disk.duplicate()));
            let dir = open_dir(&faulty);
            faulty.fail(Operation::Read, fault, reads, "journal/");
            let (_, recovery) = open(&dir, small()).unwrap();
            assert_eq!(damaged(&recovery), [0; 0], "{fault:?} at read {reads}");
            assert_eq!(recovery.torn, None, "{fault:?} at read {reads}");
            for shard in [1, 2] {
                assert_eq!(indexes(&recovery, shard), (1..=20).collect::<Vec<_>>());
            }
            if faulty.faults() == 0 {
                break;
            }
        }
    }
}

#[test]
fn what_reads_otherwise_in_the_replay_is_an_error() {
    let disk = killed_journal();
    for reads in 0.. {
        let faulty = FaultyDisk::new(std::sync::Arc::new(disk.duplicate()));
        let (mut journal, _) = crate::Journal::open(&open_dir(&faulty), small()).unwrap();
        // Both times it is read.
        faulty.fail(Operation::Read, Fault::Flipped, reads, "journal/");
        faulty.fail(Operation::Read, Fault::Flipped, reads, "journal/");
        let mut records = 0;
        let result = journal.replay(&mut |_| records += 1);
        assert!(
            records == 40 || result.is_err(),
            "at read {reads}: {records}"
        );
        if faulty.faults() == 0 {
            break;
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn random_damage_never_panics_and_never_yields_what_was_not_written(
        harms in prop::collection::vec(
            (any::<prop::sample::Index>(), 0_usize..16 << 10, 1_u8..),
            1..8,
        ),
    ) {
        let (disk, files) = journal();
        for (file, at, mask) in harms {
            disk.corrupt(&files[file.index(files.len())], at, mask).unwrap();
        }
        for _ in 0..2 {
            match open(&open_dir(&disk), small()) {
                Ok((_, recovery)) => assert_true(&recovery),
                Err(OpenError::NewerVersion { .. }) => {}
                Err(error) => panic!("{error:?}"),
            }
        }
    }

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..9000),
        keep_header in any::<bool>(),
    ) {
        let (disk, files) = journal();
        let file = disk.open(&files[1], crate::OpenMode::Write).unwrap();
        let at = if keep_header { 4096 } else { 0 };
        file.write_all_at(&[std::io::IoSlice::new(&bytes)], at).unwrap();
        if let Ok((_, recovery)) = open(&open_dir(&disk), small()) {
            assert_true(&recovery);
        }
    }
}
