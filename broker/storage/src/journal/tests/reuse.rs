//! Files come back into use when a checkpoint covers them, and their old content stays dead.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use millrace_types::{LogIndex, ShardId};

use crate::journal::format::{BATCH_FIXED_BYTES, FILE_HEADER_PAGE, FRAME_FIXED_BYTES, SECTOR};
use crate::testing::{PATIENCE, Running, entry, indexes, open, open_dir, small, start};
use crate::{Crash, Disk, Fault, FaultyDisk, MemoryDisk, OpenMode, Operation};

fn release(running: &Running, shard: u32, upto: u64) {
    running
        .journal
        .release(ShardId::new(shard), LogIndex::new(upto));
}

/// Waits until the journal has seen everything sent to it before.
fn settle(running: &Running) {
    running.append_durably(Vec::new());
    let started = std::time::Instant::now();
    while running.journal.stats().queued_bytes > 0 {
        assert!(started.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
}

#[test]
fn released_files_are_used_again() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    for index in 1..=400 {
        running.append_durably(vec![entry(1, index, 900)]);
        release(&running, 1, index);
    }
    settle(&running);
    let stats = running.journal.stats();
    assert!(stats.files <= 2, "{stats:?}");
    running.shutdown();
    // In use, the one after, and the spares.
    assert!(disk.list(&dir.journal_path()).unwrap().len() <= 4);
}

#[test]
fn what_was_released_of_a_replica_says_nothing_about_the_next_one() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    running.append_durably(vec![entry(2, 500, 10)]);
    release(&running, 2, u64::MAX);
    settle(&running);
    running.journal.restart(ShardId::new(2));
    // It begins with an older state than the one before had.
    running.append_durably(vec![entry(2, 400, 10)]);
    for index in 1..=60 {
        running.append_durably(vec![entry(1, index, 900)]);
    }
    release(&running, 1, 60);
    settle(&running);
    assert_eq!(running.journal.stats().pinned_by, [ShardId::new(2)]);
    release(&running, 2, 400);
    settle(&running);
    assert_eq!(running.journal.stats().pinned_by, []);
    running.shutdown();
}

#[test]
fn a_file_that_cannot_be_taken_out_of_use_holds_up_younger_ones() {
    let memory = MemoryDisk::new();
    let disk = FaultyDisk::new(Arc::new(memory.clone()));
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    for index in 1..=60 {
        running.append_durably(vec![entry(1, index, 900)]);
    }
    disk.fail(Operation::Rename, Fault::Broken, 0, "0000000000000001.");

    let started = std::time::Instant::now();
    let is_spare = |name: &String| name.ends_with(".spare");
    let mut index = 60;
    while !disk.list(&dir.journal_path()).unwrap().iter().any(is_spare) {
        assert!(started.elapsed() < PATIENCE, "nothing is used again");
        release(&running, 1, index);
        index += 1;
        running.append_durably(vec![entry(1, index, 10)]);
    }
    running.shutdown();

    memory.crash(Crash::KeepAll);
    let (_, recovery) = open(&open_dir(&memory), small()).unwrap();
    assert_eq!(recovery.shards[&ShardId::new(1)].damage, None);
}

#[test]
fn an_idle_shard_pins_its_file_until_it_is_released() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    running.append_durably(vec![entry(2, 1, 10)]);
    for index in 1..=60 {
        running.append_durably(vec![entry(1, index, 900)]);
    }
    release(&running, 1, 60);
    settle(&running);
    let stats = running.journal.stats();
    assert_eq!(stats.pinned_by, [ShardId::new(2)]);
    assert!(stats.files > 2);
    assert_eq!(
        stats.live_bytes.keys().collect::<Vec<_>>(),
        [&ShardId::new(2)]
    );

    release(&running, 2, 1);
    settle(&running);
    let stats = running.journal.stats();
    assert_eq!(
        (stats.files, stats.pinned_by.len(), stats.live_bytes.len()),
        (1, 0, 0)
    );
    running.shutdown();
}

#[test]
fn stale_content_of_a_reused_file_never_comes_back() {
    for seed in 0..60 {
        let disk = MemoryDisk::new();
        let (mut last, mut released) = (0, 0);
        for life in 0..4 {
            let (running, recovery) = start(&open_dir(&disk), small());
            let found = indexes(&recovery, 1);
            assert!(
                recovery.shards.values().all(|shard| shard.damage.is_none()),
                "seed {seed}"
            );
            if let (Some(first), Some(end)) = (found.first(), found.last()) {
                assert_eq!(found, (*first..=*end).collect::<Vec<_>>(), "seed {seed}");
                assert!(*first <= released + 1, "seed {seed}");
                assert!(*end >= last, "seed {seed}");
                last = *end;
            } else {
                assert_eq!(last, released, "seed {seed}");
            }
            let records = &recovery.shards[&ShardId::new(1)].records;
            assert!(
                records
                    .iter()
                    .all(|record| *record == entry(1, record.index.get(), 900))
            );
            // All frames have one size, so that old frames lie exactly where new ones are torn.
            for _ in 0..40 + seed % 7 {
                last += 1;
                running.append_durably(vec![entry(1, last, 900)]);
                if last % 3 == 0 {
                    released = last - 1;
                    release(&running, 1, released);
                }
            }
            let unanswered = running.append(vec![entry(1, last + 1, 900)]);
            disk.crash(Crash::Random(seed * 10 + life));
            running.shutdown();
            last += u64::from(unanswered.try_recv().is_ok());
        }
        drop(open(&open_dir(&disk), small()).unwrap());
    }
}

/// A journal with one batch of two records, the second one alone in its sector.
fn journal_of_two_sectors(indexes: [u64; 2]) -> (MemoryDisk, PathBuf) {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    let records = indexes.map(|index| {
        let frame = SECTOR - BATCH_FIXED_BYTES - 4 - FRAME_FIXED_BYTES;
        entry(1, index, frame - entry(1, index, 0).header.len())
    });
    running.append_durably(records.to_vec());
    disk.crash(Crash::KeepAll);
    running.shutdown();
    let directory = dir.journal_path();
    let names = disk.list(&directory).unwrap();
    (disk, directory.join(&names[0]))
}

#[test]
fn a_frame_of_an_earlier_batch_does_not_pass_for_one_of_a_torn_batch() {
    let second = FILE_HEADER_PAGE + SECTOR..FILE_HEADER_PAGE + 2 * SECTOR;
    let (disk, path) = journal_of_two_sectors([1, 2]);
    let stale = disk.content(&path).unwrap()[second.clone()].to_vec();
    let (disk, path) = journal_of_two_sectors([3, 4]);
    let file = disk.open(&path, OpenMode::Write).unwrap();

    // As if the second sector had never reached the disk.
    file.write_all_at(&[IoSlice::new(&stale)], second.start as u64)
        .unwrap();

    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    assert_eq!(indexes(&recovery, 1), [3]);
    assert_eq!(recovery.torn.unwrap().at, second.start as u64);
}
