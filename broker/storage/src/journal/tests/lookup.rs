//! Entries that are read once more while the journal goes on.

use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

use crate::testing::{Running, entry, open_dir, small, start};
use crate::{JournalRecord, MemoryDisk, RecordKind, Wanted};

/// Indexes and terms of what is found.
fn look(running: &Running, shard: u32, from: u64, to: u64, bytes_max: u64) -> Vec<(u64, u64)> {
    let wanted = Wanted {
        shard: ShardId::new(shard),
        replica: ReplicaId::new(u64::from(shard) + 100),
        indexes: LogIndex::new(from)..LogIndex::new(to),
        bytes_max,
    };
    let found = running.journal.entries(&wanted).unwrap();
    for record in &found {
        let expected = entry(shard, record.index.get(), record.body.len());
        assert_eq!(
            (&record.header, &record.body),
            (&expected.header, &expected.body)
        );
    }
    let mark = |record: &JournalRecord| (record.index.get(), record.term.get());
    found.iter().map(mark).collect()
}

fn of_term(shard: u32, index: u64, term: u64) -> JournalRecord {
    let term = Term::new(term);
    JournalRecord {
        term,
        ..entry(shard, index, 500)
    }
}

fn range(range: std::ops::Range<u64>, term: u64) -> Vec<(u64, u64)> {
    range.map(|index| (index, term)).collect()
}

const ALL: u64 = 1 << 30;

#[test]
fn entries_are_found_in_all_files_also_after_a_restart() {
    let disk = MemoryDisk::new();
    for life in 0..2 {
        let (running, _) = start(&open_dir(&disk), small());
        if life == 0 {
            for index in 1..=200 {
                running.append_durably(vec![entry(1, index, 500), entry(2, index, 300)]);
            }
        }
        assert!(running.journal.stats().files > 3);
        assert_eq!(look(&running, 1, 1, 201, ALL), range(1..201, 1));
        assert_eq!(look(&running, 2, 77, 140, ALL), range(77..140, 1));
        assert_eq!(look(&running, 1, 150, 900, ALL), range(150..201, 1));
        // Some fit, one always does.
        assert_eq!(look(&running, 1, 3, 201, 1_100), range(3..5, 1));
        assert_eq!(look(&running, 1, 3, 201, 1), range(3..4, 1));
        assert!(look(&running, 3, 1, 201, ALL).is_empty());
        running.shutdown();
    }
}

#[test]
fn of_what_was_written_again_the_last_counts() {
    let disk = MemoryDisk::new();
    for life in 0..2 {
        let (running, _) = start(&open_dir(&disk), small());
        if life == 0 {
            for index in 1..=60 {
                running.append_durably(vec![of_term(1, index, 1)]);
            }
            for index in 41..=50 {
                running.append_durably(vec![of_term(1, index, 2)]);
            }
            // All in one batch, and what it replaces.
            let again = [(51, 2), (52, 2), (51, 3), (52, 3)];
            let again = again.map(|(index, term)| of_term(1, index, term));
            running.append_durably(again.to_vec());
        }
        let found = look(&running, 1, 30, 99, ALL);
        let expected = [range(30..41, 1), range(41..51, 2), range(51..53, 3)].concat();
        assert_eq!(found, expected);
        assert_eq!(look(&running, 1, 55, 99, ALL), []);
        assert_eq!(look(&running, 1, 45, 48, ALL), range(45..48, 2));
        running.shutdown();
    }
}

#[test]
fn what_is_gone_is_not_found_and_neither_is_what_a_snapshot_replaced() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    for index in 1..=100 {
        running.append_durably(vec![entry(1, index, 900)]);
    }
    running.journal.release(ShardId::new(1), LogIndex::new(80));
    for index in 101..=200 {
        running.append_durably(vec![entry(1, index, 900)]);
    }
    assert_eq!(look(&running, 1, 1, 201, ALL), []);
    assert_eq!(look(&running, 1, 90, 201, ALL), range(90..201, 1));

    let snapshot = JournalRecord {
        kind: RecordKind::Snapshot,
        ..entry(1, 195, 0)
    };
    running.append_durably(vec![snapshot]);
    running.append_durably(vec![entry(1, 196, 900)]);
    assert_eq!(look(&running, 1, 190, 201, ALL), []);
    assert_eq!(look(&running, 1, 196, 201, ALL), range(196..197, 1));
    running.shutdown();
}
