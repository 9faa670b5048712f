//! Little that is alive does not keep a segment.

use super::*;

/// 100 batches of 10 messages of 1000 bytes.
fn thousand(store: &Store, log: LogId) {
    for first in (0..1000).step_by(10) {
        let mut batch = Vec::new();
        for offset in first..first + 10 {
            push_record(&mut batch, &body(offset));
        }
        let stored_at = Wall::from_millis(first);
        store.append(log, Offset::new(first), stored_at, 10, batch.into());
    }
}

fn body(offset: u64) -> Vec<u8> {
    vec![offset.to_le_bytes()[0]; 1000]
}

fn offsets(store: &Store, log: LogId) -> Vec<u64> {
    let found = store.read(log, Offset::new(0), EVERYTHING).unwrap();
    for record in &found {
        let offset = record.offset.get();
        assert_eq!(record.message, body(offset));
        assert_eq!(record.stored_at.as_millis(), offset / 10 * 10);
    }
    found.iter().map(|record| record.offset.get()).collect()
}

#[test]
fn one_message_does_not_pin_a_segment() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    let other = LogId::new(8);
    thousand(&store, LOG);
    thousand(&store, other);
    checkpoint(&checkpointer, &store, 1).unwrap();
    let full = store.disk_bytes();
    discard(&store, LOG, 0..555);
    discard(&store, LOG, 556..1000);
    for offset in (0..1000).step_by(2) {
        discard(&store, other, offset..offset + 1);
    }
    discard(&store, other, 500..1000);

    checkpoint(&checkpointer, &store, 2).unwrap();

    let left = store.disk_bytes();
    assert!(left < full / 7, "{left} of {full}");
    let expected: Vec<u64> = (1..500).step_by(2).collect();
    assert_eq!(offsets(&store, LOG), [555]);
    assert_eq!(offsets(&store, other), expected);
    let (_, store) = reopen(&dir);
    assert_eq!(offsets(&store, LOG), [555]);
    assert_eq!(offsets(&store, other), expected);
}

#[test]
fn half_a_segment_is_left_alone_and_a_quarter_is_not() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    for log in [LOG, LogId::new(8)] {
        thousand(&store, log);
    }
    checkpoint(&checkpointer, &store, 1).unwrap();
    let full = store.disk_bytes();
    for log in [LOG, LogId::new(8)] {
        for offset in (0..1000).step_by(2) {
            discard(&store, log, offset..offset + 1);
        }
    }
    checkpoint(&checkpointer, &store, 2).unwrap();
    assert_eq!(store.stats().rewritten_bytes, 0);
    assert_eq!(store.disk_bytes(), full);

    for log in [LOG, LogId::new(8)] {
        for offset in (1..1000).step_by(4) {
            discard(&store, log, offset..offset + 1);
        }
    }
    checkpoint(&checkpointer, &store, 3).unwrap();
    let left = store.disk_bytes();
    assert!(left < full * 3 / 10, "{left} of {full}");
    let expected: Vec<u64> = (3..1000).step_by(4).collect();
    assert_eq!(offsets(&store, LOG), expected);
}

#[test]
fn what_is_damaged_is_neither_copied_nor_removed() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    thousand(&store, LOG);
    checkpoint(&checkpointer, &store, 1).unwrap();
    let path = segment_path(&disk, &dir);
    discard(&store, LOG, 0..900);
    let bytes = disk.content(&path).unwrap().len();
    disk.corrupt(&path, bytes - 20_000, 1).unwrap();

    for index in 2..5 {
        checkpoint(&checkpointer, &store, index).unwrap();
    }

    assert_eq!(disk.content(&path).unwrap().len(), bytes);
    let damaged = store.read(LOG, Offset::new(0), EVERYTHING);
    assert!(matches!(damaged, Err(ReadError::Corrupt { .. })));
    let found = read_many(&store, LOG, &[Offset::new(900)]).unwrap();
    assert_eq!(found[0].message, body(900));
}

#[test]
fn retention_drops_segments_and_starts_within_one() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    let mut batch = Vec::new();
    for _ in 0..100 {
        push_record(&mut batch, &[7; 20_000]);
    }
    let batch = Bytes::from(batch);
    for first in (0..8000).step_by(100) {
        let stored_at = Wall::from_millis(first);
        store.append(LOG, Offset::new(first), stored_at, 100, batch.clone());
        if first % 500 == 400 {
            checkpoint(&checkpointer, &store, first).unwrap();
        }
    }
    let segments = store.stats().segments;
    assert_eq!(segments, 3);

    discard(&store, LOG, 0..3950);
    checkpoint(&checkpointer, &store, 8001).unwrap();

    assert_eq!(store.stats().segments, segments - 1);
    assert_eq!(store.stats().rewritten_bytes, 0);
    let limits = Limits {
        messages_max: 1,
        bytes_max: 1,
    };
    let first = store.read(LOG, Offset::new(0), limits).unwrap();
    assert_eq!(first[0].offset, Offset::new(3950));
    let found = store.offset_at(LOG, Wall::default()).unwrap();
    assert_eq!(found, Some(Offset::new(3950)));
}
