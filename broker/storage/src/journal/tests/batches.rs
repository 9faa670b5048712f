//! Group commit: who waits shares the next sync, and nobody waits for others to come.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use crate::testing::{Turns, entry, open_dir, small};
use crate::{JournalOptions, MemoryDisk, Next};

/// Publishers that each send one message, wait for its answer, and send the next; some of them do
/// so while a sync runs, as many as its length allows. Returns the batches and records written.
fn publish(publishers: u64, arrive_in_a_sync: u64, messages: u64) -> (u64, u64) {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), JournalOptions::default());
    turns.run();
    let answered = Arc::new(AtomicU64::new(0));
    let mut sent = 0;
    let mut syncs = 0;
    while answered.load(Ordering::Relaxed) < messages {
        // Between two batches, those arrive that were answered, but no more than there is time for.
        let waiting = sent - answered.load(Ordering::Relaxed);
        for _ in 0..arrive_in_a_sync.min(publishers - waiting) {
            sent += 1;
            let answered = Arc::clone(&answered);
            let done = Box::new(move || {
                answered.fetch_add(1, Ordering::Relaxed);
            });
            turns
                .journal
                .append(vec![entry(1, sent, 10)], done)
                .unwrap();
        }
        // A batch is taken and written, synced, answered.
        for _ in 0..3 {
            assert_eq!(turns.step(1), Next::Now);
        }
        syncs += 1;
        assert!(syncs <= messages);
    }
    let stats = turns.journal.stats();
    (stats.batches, stats.records)
}

#[test]
fn batches_grow_with_the_time_a_sync_takes() {
    // A lone publisher is never made to wait for company.
    assert_eq!(publish(1, 1, 100), (100, 100));
    // The longer a sync, the more arrive meanwhile: batches halve in number as syncs double.
    assert_eq!(publish(256, 4, 1024), (256, 1024));
    assert_eq!(publish(256, 8, 1024), (128, 1024));
    assert_eq!(publish(256, 64, 1024), (16, 1024));
    // As many as there are publishers, when all of them have the time.
    assert_eq!(publish(16, 1000, 1024), (64, 1024));
}

#[test]
fn a_batch_is_bounded_and_the_rest_goes_in_the_next_one() {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), small());
    let answers: Vec<_> = (1..=100)
        .map(|index| turns.append(vec![entry(1, index, 10)]))
        .collect();
    for _ in 0..3 {
        turns.step(1);
    }
    let told = answers.iter().filter(|answer| answer.try_recv().is_ok());
    assert_eq!(told.count(), small().batch_records_max);
    turns.run();
    assert_eq!(turns.journal.stats().batches, 100_u64.div_ceil(16));
}

#[test]
fn an_idle_journal_waits_without_a_deadline() {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), small());
    turns.append_durably(vec![entry(1, 1, 10)]);
    // Until the last batch is sealed.
    assert!(matches!(turns.step(1), Next::Wait(Some(_))));
    turns.pass(Duration::from_secs(1));
    assert_eq!(
        [0, 1].map(|routine| turns.step(routine)),
        [Next::Wait(None); 2]
    );
}

#[test]
fn a_sync_takes_as_long_as_between_two_steps() {
    let disk = MemoryDisk::new();
    let mut turns = Turns::start(&open_dir(&disk), small());
    for (index, millis) in [(1, 5), (2, 3)] {
        let answer = turns.append(vec![entry(1, index, 10)]);
        turns.step(1);
        turns.step(1);
        turns.pass(Duration::from_millis(millis));
        assert!(answer.try_recv().is_err(), "it is answered after the sync");
        turns.step(1);
        answer.try_recv().unwrap();
    }
    let sync = turns.journal.stats().sync;
    let [last, total, longest] = [3, 8, 5].map(Duration::from_millis);
    assert_eq!(
        (sync.last, sync.total, sync.longest),
        (last, total, longest)
    );
}
