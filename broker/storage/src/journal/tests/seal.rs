//! What tells a torn tail from damage: a batch that comes later, if only a seal.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use millrace_types::ShardId;

use super::batches_of;
use crate::journal::format::FILE_HEADER_BYTES;
use crate::journal::scan::Scan;
use crate::size::in_memory;
use crate::testing::{Recovered, Turns, entry, indexes, open, open_dir, small};
use crate::{Corruption, Crash, Fault, FaultyDisk, MemoryDisk, Operation};

/// A journal of three batches that was left in a way, its file, and where the last batch is.
fn journal(leave: impl FnOnce(&MemoryDisk, &mut Turns)) -> (MemoryDisk, PathBuf, u64) {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let mut turns = Turns::start(&dir, small());
    for index in 1..=3 {
        turns.append_durably(vec![entry(1, index, 200)]);
    }
    let path = turns.path_in_use(&disk);
    leave(&disk, &mut turns);
    let at = batches_of(&disk, &path).last().unwrap().at;
    (disk, path, at)
}

fn reopen(disk: &MemoryDisk) -> Recovered {
    open(&open_dir(disk), small()).unwrap().1
}

fn damage(recovery: &Recovered) -> Option<(u64, Corruption)> {
    let damage = recovery.shards[&ShardId::new(1)].damage.clone()?;
    Some((damage.at, damage.kind))
}

#[test]
fn damage_in_the_last_batch_is_damage_after_a_clean_stop() {
    let (disk, path, at) = journal(|_, turns| turns.drain());
    let frame = disk.duplicate();
    frame.corrupt(&path, in_memory(at) + 100, 1).unwrap();
    let found = reopen(&frame);
    assert_eq!(damage(&found), Some((at + 52, Corruption::Checksum)));
    assert_eq!(found.torn, None);

    let header = disk.duplicate();
    header.corrupt(&path, in_memory(at), 1).unwrap();
    let (first, last) = (3, 3);
    let kind = Corruption::BatchesMissing { first, last };
    assert_eq!(damage(&reopen(&header)).map(|found| found.1), Some(kind));
    // It stays so, whatever is written later.
    let mut turns = Turns::start(&open_dir(&frame), small());
    turns.append_durably(vec![entry(2, 1, 10)]);
    turns.drain();
    drop(turns);
    assert!(damage(&reopen(&frame)).is_some());
}

#[test]
fn a_batch_that_was_lost_over_a_seal_is_missed() {
    let disk = MemoryDisk::new();
    let faulty = FaultyDisk::new(Arc::new(disk.clone()));
    let mut turns = Turns::start(&open_dir(&faulty), small());
    turns.append_durably(vec![entry(1, 1, 200)]);
    turns.run();
    turns.pass(Duration::from_secs(1));
    turns.run();
    let path = turns.path_in_use(&disk);
    // It was opened under another name.
    let name = path.file_stem().unwrap().to_string_lossy();
    faulty.fail(Operation::Write, Fault::Lost, 0, &name);
    // All there is of that shard: no index will be missing.
    turns.append_durably(vec![entry(2, 1, 200)]);
    turns.append_durably(vec![entry(1, 2, 200)]);
    assert_eq!(faulty.faults(), 1);
    disk.crash(Crash::KeepAll);

    let (first, last) = (2, 2);
    let kind = Corruption::BatchesMissing { first, last };
    assert_eq!(damage(&reopen(&disk)).map(|found| found.1), Some(kind));
}

#[test]
fn damage_in_the_last_batch_is_damage_once_the_journal_was_idle() {
    for (idle, is_damage) in [
        (Duration::from_millis(999), false),
        (Duration::from_secs(1), true),
    ] {
        let (disk, path, at) = journal(|disk, turns| {
            turns.run();
            turns.pass(idle);
            turns.run();
            disk.crash(Crash::DropAll);
        });
        disk.corrupt(&path, in_memory(at) + 100, 1).unwrap();

        let found = reopen(&disk);

        assert_eq!(damage(&found).is_some(), is_damage);
        assert_eq!(found.torn.is_some(), !is_damage);
        assert_eq!(indexes(&found, 1), [1, 2]);
    }
}

#[test]
fn an_idle_journal_is_sealed_once() {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), small());
    turns.append_durably(vec![entry(1, 1, 10)]);
    turns.run();
    turns.pass(Duration::from_secs(1));
    turns.run();
    let operations = disk.operations();

    for _ in 0..5 {
        turns.pass(Duration::from_secs(60));
        turns.run();
    }

    assert_eq!(disk.operations(), operations);
}

#[test]
fn a_seal_is_written_over_and_never_in_the_way() {
    for seed in 0..200 {
        let disk = MemoryDisk::new();
        let mut last = 0;
        for life in 0..4 {
            let found = reopen(&disk);
            assert_eq!(damage(&found), None, "seed {seed} life {life}");
            let recovered = indexes(&found, 1);
            assert!(recovered.len() as u64 >= last, "seed {seed} life {life}");
            last = recovered.len() as u64;
            let mut turns = Turns::start(&open_dir(&disk), small());
            for step in 0..(seed + life) % 9 {
                if (seed >> step) & 1 == 0 {
                    turns.run();
                    turns.pass(Duration::from_secs(2));
                    turns.run();
                }
                last += 1;
                turns.append_durably(vec![entry(1, last, 900)]);
            }
            // In the midst of one more, or of a seal.
            disk.crash_after(seed % 3, Crash::Random(seed * 10 + life));
            if seed % 2 == 0 {
                drop(turns.append(vec![entry(1, last + 1, 1500)]));
            }
            turns.pass(Duration::from_secs(2));
            turns.run();
            disk.crash(Crash::Random(seed));
        }
    }
}

#[test]
fn a_file_for_a_large_record_does_not_upset_the_order() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    {
        let mut turns = Turns::start(&dir, small());
        turns.append_durably(vec![entry(1, 1, 100)]);
        // The next usual file is prepared by now, and has the lower number.
        turns.append_durably(vec![entry(1, 2, 300_000)]);
        for index in 3..=60 {
            turns.append_durably(vec![entry(1, index, 900)]);
        }
        disk.crash(Crash::DropAll);
    }
    drop(dir);
    // A crash anywhere in taking the first files out of use leaves no gap.
    for operations in 0..12 {
        let disk = disk.duplicate();
        {
            let mut turns = Turns::start(&open_dir(&disk), small());
            disk.crash_after(operations, Crash::DropAll);
            turns.release(1, 30);
            turns.run();
            disk.crash(Crash::DropAll);
        }
        let found = reopen(&disk);
        assert_eq!(damage(&found), None, "after {operations} operations");
        let recovered = indexes(&found, 1);
        let first = recovered[0];
        assert!(first <= 31);
        assert_eq!(recovered, (first..=60).collect::<Vec<_>>());
    }
}

#[test]
fn a_file_ends_with_room_for_a_seal() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let mut turns = Turns::start(&dir, small());
    // Bodies of every length, so that some batch ends anywhere.
    for index in 1..=200 {
        turns.append_durably(vec![entry(1, index, in_memory(index * 13 % 2000))]);
        turns.run();
        turns.pass(Duration::from_secs(1));
        turns.run();
    }
    turns.drain();
    let scan = Scan::open(&disk, &turns.path_in_use(&disk)).unwrap();
    assert!(scan.first.is_some() && scan.bytes > FILE_HEADER_BYTES);
    drop((turns, dir));
    assert_eq!(indexes(&reopen(&disk), 1), (1..=200).collect::<Vec<_>>());
}
