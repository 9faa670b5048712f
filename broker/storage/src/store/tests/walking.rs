//! What finding messages within batches costs, in records walked over.

use super::*;
use crate::records::WALKED;

/// A batch of the largest kind.
const COUNT: u64 = 10_000;
/// Once to know where each record is, once to take it.
const WALKED_MAX: u64 = 2 * COUNT;

/// Records walked over to read these; their bodies are checked.
fn walked(store: &Store, offsets: &[Offset]) -> u64 {
    let before = WALKED.get();
    let found = read_many(store, LOG, offsets).unwrap();
    let walked = WALKED.get() - before;
    let right = |(record, offset): (&StoredRecord, &Offset)| {
        record.offset == *offset && record.message == message(offset.get())
    };
    assert_eq!(found.len(), offsets.len());
    assert!(found.iter().zip(offsets).all(right));
    walked
}

#[test]
fn handing_out_a_batch_walks_it_once_in_whatever_order_it_is_asked_for() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    append(&store, LOG, 0..COUNT);
    append(&store, LOG, COUNT..COUNT + 10);
    let ascending: Vec<Offset> = (0..COUNT).map(Offset::new).collect();
    let descending: Vec<Offset> = ascending.iter().rev().copied().collect();
    let mixed: Vec<Offset> = (0..COUNT)
        .map(|at| Offset::new(at * 7919 % COUNT))
        .collect();
    let sparse: Vec<Offset> = (0..COUNT).step_by(3).map(Offset::new).collect();
    for place in ["in memory", "on disk"] {
        for offsets in [&ascending, &descending, &mixed, &sparse] {
            let walked = walked(&store, offsets);
            assert!(walked <= WALKED_MAX, "{walked} records walked {place}");
        }
        checkpoint(&checkpointer, &store, 1).unwrap();
    }
}

#[test]
fn what_is_gone_fails_alone_and_costs_the_others_no_walk() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    append(&store, LOG, 0..COUNT);
    checkpoint(&checkpointer, &store, 1).unwrap();
    discard(&store, LOG, 5..7);
    let offsets: Vec<Offset> = (0..=COUNT).rev().map(Offset::new).collect();

    let before = WALKED.get();
    let found = store.read_each(LOG, &offsets, u64::MAX);
    let walked = WALKED.get() - before;

    assert!(walked <= WALKED_MAX, "{walked} records walked");
    assert_eq!(found.len(), offsets.len());
    for (offset, record) in offsets.iter().zip(found) {
        match (offset.get(), record) {
            (5..7, Err(ReadError::Discarded { .. })) | (COUNT, Err(ReadError::Missing { .. })) => {}
            (at, Ok(record)) => assert_eq!(record.message, message(at)),
            (at, Err(error)) => panic!("offset {at}: {error}"),
        }
    }
}

#[test]
fn no_more_is_read_than_the_bytes_asked_for_but_always_the_first() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    append(&store, LOG, 0..10);
    let two = (message(3).len() + message(4).len()) as u64;
    let read = |offsets: &[u64], bytes_max| {
        let offsets: Vec<Offset> = offsets.iter().copied().map(Offset::new).collect();
        let found = store.read_each(LOG, &offsets, bytes_max);
        let found = found.into_iter().map(|record| record.unwrap().offset.get());
        found.collect::<Vec<u64>>()
    };
    assert_eq!(read(&[3, 4, 5], two), [3, 4]);
    assert_eq!(read(&[3, 4, 5], 0), [3]);
    assert_eq!(read(&[4, 3, 5], two), [4, 3]);
    assert_eq!(
        read(&[9, 3, 4], two),
        [9],
        "what was asked for first comes first"
    );
}

#[test]
fn a_long_backlog_is_read_in_proportion_to_its_bytes() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    append(&store, LOG, 0..COUNT);
    discard(&store, LOG, 500..501);
    checkpoint(&checkpointer, &store, 1).unwrap();
    let stored = store.disk_bytes();
    let gone = |offset: &u64| *offset != 500;

    for first in (0..COUNT).step_by(256) {
        let offsets = (first..COUNT.min(first + 256)).filter(gone);
        let offsets: Vec<Offset> = offsets.map(Offset::new).collect();
        walked(&store, &offsets);
    }
    let handed_out = store.stats().read_bytes;
    assert!(handed_out < 3 * stored, "{handed_out} bytes of {stored}");

    let (mut at, few) = (
        0,
        Limits {
            messages_max: 256,
            ..EVERYTHING
        },
    );
    while let Some(last) = store.read(LOG, Offset::new(at), few).unwrap().last() {
        at = last.offset.get() + 1;
    }
    assert_eq!(at, COUNT);
    let replayed = store.stats().read_bytes - handed_out;
    assert!(replayed < 3 * stored, "{replayed} bytes of {stored}");
}
