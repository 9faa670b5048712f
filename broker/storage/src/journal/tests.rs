//! The journal as its users see it, on the disk in memory.

mod batches;
mod crash;
mod damage;
mod failure;
mod lookup;
mod property;
mod reuse;
mod seal;

use millrace_types::{LogIndex, ShardId};

use super::JournalOptions;
use crate::testing::{PATIENCE, entry, indexes, open, open_dir, open_dir_at, small, start};
use crate::{AppendError, JOURNAL_RECORD_BYTES_MAX, MemoryDisk, RealDisk};

/// The batches of a file that hold records.
fn batches_of(disk: &MemoryDisk, path: &std::path::Path) -> Vec<super::scan::ScannedBatch> {
    let mut scan = super::scan::Scan::open(disk, path).unwrap();
    let mut batches = Vec::new();
    while let Some(batch) = scan.next().unwrap() {
        batches.push(batch);
    }
    batches.retain(|batch| !batch.records.is_empty() || batch.bad.is_some());
    batches
}

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let disk = MemoryDisk::new();
    {
        let (running, recovery) = start(&open_dir(&disk), small());
        assert!(indexes(&recovery, 1).is_empty());
        for index in 1..=100 {
            running.append_durably(vec![entry(1, index, 700), entry(2, index, 0)]);
        }
        running.shutdown();
    }

    let (running, recovery) = start(&open_dir(&disk), small());
    running.shutdown();

    assert_eq!(recovery.torn, None);
    for shard in [1, 2] {
        assert_eq!(indexes(&recovery, shard), (1..=100).collect::<Vec<_>>());
    }
    let records = &recovery.shards[&ShardId::new(1)].records;
    assert!(
        records
            .iter()
            .all(|record| *record == entry(1, record.index.get(), 700))
    );
}

#[test]
fn the_file_system_keeps_a_journal_too() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("node");
    for life in 0..3 {
        let (running, recovery) = start(&open_dir_at(&RealDisk, &path), small());
        assert_eq!(indexes(&recovery, 1), (1..=life * 50).collect::<Vec<_>>());
        for index in life * 50 + 1..=life * 50 + 50 {
            running.append_durably(vec![entry(1, index, 700), entry(2, index, 0)]);
            running
                .journal
                .release(ShardId::new(2), LogIndex::new(index));
        }
        assert!(running.journal.room().unwrap().free_bytes > 0);
        running.shutdown();
    }
}

#[test]
fn waiting_requests_share_a_sync_and_are_answered_in_order() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), JournalOptions::default());
    let (sender, receiver) = std::sync::mpsc::channel();
    // The first answer holds the thread up until everything else waits.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let hold = Box::new(move || assert!(wait.recv().is_err()));
    running.journal.append(vec![entry(1, 1, 10)], hold).unwrap();
    for index in 2..=50 {
        let sender = sender.clone();
        let done = Box::new(move || sender.send(index).unwrap());
        running
            .journal
            .append(vec![entry(1, index, 10)], done)
            .unwrap();
    }
    drop((go, sender));

    assert_eq!(
        receiver.iter().collect::<Vec<_>>(),
        (2..=50).collect::<Vec<_>>()
    );

    running.shutdown();
    let stats = running.journal.stats();
    assert_eq!(stats.records, 50);
    assert!(stats.fsyncs <= 3, "{} syncs", stats.fsyncs);
}

#[test]
fn a_request_larger_than_a_batch_is_answered_after_its_last_batch() {
    let disk = MemoryDisk::new();
    {
        let (running, _) = start(&open_dir(&disk), small());
        running.append_durably((1..=100).map(|index| entry(1, index, 500)).collect());
        assert!(running.journal.stats().batches > 5);
        running.shutdown();
    }
    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    assert_eq!(indexes(&recovery, 1), (1..=100).collect::<Vec<_>>());
}

#[test]
fn a_record_larger_than_a_file_gets_a_file_of_its_own() {
    let disk = MemoryDisk::new();
    {
        let (running, _) = start(&open_dir(&disk), small());
        running.append_durably(vec![entry(1, 1, 100)]);
        running.append_durably(vec![entry(1, 2, 300_000)]);
        running.append_durably(vec![entry(1, 3, 100)]);
        running.shutdown();
    }
    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    let records = &recovery.shards[&ShardId::new(1)].records;
    assert_eq!(records[1], entry(1, 2, 300_000));
    assert_eq!(indexes(&recovery, 1), [1, 2, 3]);
}

#[test]
fn a_record_beyond_the_limit_is_refused_alone() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    let mut record = entry(1, 1, 0);
    record.body = vec![0; usize::try_from(JOURNAL_RECORD_BYTES_MAX).unwrap()].into();
    let refused = running
        .journal
        .append(vec![record], Box::new(|| panic!("it was refused")));
    assert!(matches!(refused, Err(AppendError::TooLarge { .. })));
    running.append_durably(vec![entry(1, 1, 0)]);
    running.shutdown();
}

#[test]
fn a_journal_that_was_shut_down_takes_nothing() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    let waiting = running.append(vec![entry(1, 1, 0)]);
    running.shutdown();
    running.shutdown();
    waiting.recv().expect("what was taken is written first");
    let refused = running.journal.append(Vec::new(), Box::new(|| {}));
    assert_eq!(refused, Err(AppendError::Stopped));
}

#[test]
fn a_journal_without_room_tells_when_it_has_some() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    // The first answer holds the routine up until everything else waits.
    let (go, wait) = std::sync::mpsc::channel::<()>();
    let hold = Box::new(move || assert!(wait.recv().is_err()));
    running.journal.append(vec![entry(1, 1, 10)], hold).unwrap();
    let mut index = 1;
    while running.journal.has_room() {
        index += 1;
        drop(running.append(vec![entry(1, index, 900)]));
    }
    assert!(running.journal.stats().queued_bytes >= small().queued_bytes_max);
    let (sender, receiver) = std::sync::mpsc::channel();
    running
        .journal
        .when_room(Box::new(move || sender.send(()).unwrap()));
    assert!(receiver.try_recv().is_err());

    drop(go);

    receiver.recv_timeout(PATIENCE).unwrap();
    running.shutdown();
    assert!(running.journal.has_room(), "append tells that it stopped");
}
