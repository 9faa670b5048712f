//! Nothing acknowledged is lost, whatever a crash leaves of what was not synced.

use std::io::IoSlice;
use std::path::PathBuf;

use millrace_types::ShardId;

use crate::journal::format::aligned;
use crate::size::in_memory;
use crate::testing::{Recovered, entry, indexes, open, open_dir, small, start};
use crate::{Crash, Disk, MemoryDisk, OpenMode};

use super::batches_of;

/// Bodies of many sizes, some over several sectors.
fn body_bytes(index: u64) -> usize {
    usize::try_from(index * 131 % 1700).unwrap()
}

/// Every record is one that was appended, there is no gap, and at least `acknowledged` are there.
fn check(recovery: &Recovered, acknowledged: [u64; 2], seed: u64) -> [u64; 2] {
    [1, 2].map(|shard: u32| {
        let place = shard as usize - 1;
        let found = &recovery.shards[&ShardId::new(shard)];
        assert_eq!(found.damage, None, "seed {seed}");
        for (record, index) in found.records.iter().zip(1..) {
            assert_eq!(
                *record,
                entry(shard, index, body_bytes(index)),
                "seed {seed}"
            );
        }
        let last = found.records.len() as u64;
        assert!(
            last >= acknowledged[place],
            "seed {seed}: {last} of {acknowledged:?}"
        );
        last
    })
}

#[test]
fn acknowledged_records_survive_one_crash_after_another() {
    for seed in 0..150 {
        let disk = MemoryDisk::new();
        let mut last = [0, 0];
        for life in 0..4 {
            let (running, recovery) = start(&open_dir(&disk), small());
            last = check(&recovery, last, seed);
            let mut answers = Vec::new();
            // Some lives append nothing: a crash right after a start.
            for step in 0..(seed + life) % 7 * 3 {
                let shard = if (seed + step) % 3 == 0 { 2 } else { 1 };
                let index = last[shard - 1] + 1;
                last[shard - 1] = index;
                let record = entry(u32::try_from(shard).unwrap(), index, body_bytes(index));
                answers.push((shard, index, running.append(vec![record])));
            }
            let mut acknowledged = last;
            for (shard, index, answer) in answers.into_iter().rev() {
                // Crash in the midst of it: only what was answered by then counts.
                if answer.try_recv().is_err() {
                    acknowledged[shard - 1] = acknowledged[shard - 1].min(index - 1);
                }
            }
            disk.crash(Crash::Random(seed * 10 + life));
            running.shutdown();
            last = acknowledged;
        }
        let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
        check(&recovery, last, seed);
    }
}

/// A disk with a journal whose last batch holds three records, and where that batch is.
fn journal_with_last_batch() -> (MemoryDisk, PathBuf, u64, u64) {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    running.append_durably(vec![entry(1, 1, 40), entry(2, 1, 600)]);
    running.append_durably(vec![entry(1, 2, 40)]);
    running.append_durably(vec![entry(1, 3, 700), entry(2, 2, 0), entry(1, 4, 30)]);
    // Killed: nothing says that the last batch was synced.
    disk.crash(Crash::KeepAll);
    running.shutdown();
    let directory = dir.journal_path();
    let path = directory.join(&disk.list(&directory).unwrap()[0]);
    let scanned = batches_of(&disk, &path);
    let last = scanned.last().unwrap();
    assert_eq!(last.records.len(), 3);
    let (at, end) = (last.at, aligned(last.end()));
    (disk, path, at, end)
}

#[test]
fn a_tail_torn_at_any_byte_is_cut_there_and_never_comes_back() {
    let (disk, path, at, end) = journal_with_last_batch();
    let whole = disk.content(&path).unwrap();
    let file = disk.open(&path, OpenMode::Write).unwrap();
    // A start renames, adds and writes files: each cut begins on a disk of its own.
    for (cut, stale) in (at..end).flat_map(|cut| [(cut, 0), (cut, 0xa5)]) {
        let (from, to) = (in_memory(cut), in_memory(end));
        let mut torn = whole.clone();
        torn[from..to].fill(stale);
        file.write_all_at(&[IoSlice::new(&torn)], 0).unwrap();
        let copy = disk.duplicate();

        let (running, recovery) = start(&open_dir(&copy), small());

        assert!(
            recovery.shards.values().all(|shard| shard.damage.is_none()),
            "cut at {cut}"
        );
        let (ones, twos) = (indexes(&recovery, 1), indexes(&recovery, 2));
        assert!(
            ones.len() >= 2 && ones == [1, 2, 3, 4][..ones.len()],
            "cut at {cut}: {ones:?}"
        );
        assert!(
            !twos.is_empty() && twos == [1, 2][..twos.len()],
            "cut at {cut}: {twos:?}"
        );
        let next = ones.len() as u64 + 1;
        running.append_durably(vec![entry(1, next, 900)]);
        running.shutdown();
        drop(running);
        let (_, recovery) = open(&open_dir(&copy), small()).unwrap();
        assert!(
            recovery.shards.values().all(|shard| shard.damage.is_none()),
            "cut at {cut}"
        );
        assert_eq!(recovery.torn, None, "cut at {cut}");
        assert_eq!(
            indexes(&recovery, 1),
            (1..=next).collect::<Vec<_>>(),
            "cut at {cut}"
        );
        assert_eq!(indexes(&recovery, 2), twos, "cut at {cut}");
        let records = &recovery.shards[&ShardId::new(1)].records;
        assert_eq!(records.last(), Some(&entry(1, next, 900)), "cut at {cut}");
    }
}

#[test]
fn a_torn_tail_is_reported_with_file_and_byte() {
    let (disk, path, at, _) = journal_with_last_batch();
    // Within the first frame: header of 56 bytes and some.
    disk.corrupt(&path, in_memory(at) + 100, 1).unwrap();
    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    let torn = recovery.torn.unwrap();
    assert_eq!((torn.path, torn.at), (path, at + 56));
    assert!(torn.bytes > 700);
}
