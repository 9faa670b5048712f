//! Store and checkpoints together, on the disk in memory.

use std::ops::Range;
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use millrace_types::{LogId, LogIndex, Offset, ShardId, Term, Wall};

use crate::records::push_record;
use crate::testing::{PATIENCE, open_dir};
use crate::{
    Checkpoint, CheckpointError, Checkpointer, CheckpointerHandle, DataDir, Limits, MemoryDisk,
    ReadError, Store,
};

const SHARD: ShardId = ShardId::new(1);
const LOG: LogId = LogId::new(7);
const EVERYTHING: Limits = Limits {
    messages_max: usize::MAX,
    bytes_max: u64::MAX,
};

fn message(offset: u64) -> Bytes {
    Bytes::from(format!(
        "message {offset} {}",
        "x".repeat(offset as usize % 300)
    ))
}

fn append(store: &Store, log: LogId, offsets: Range<u64>) {
    let mut batch = Vec::new();
    for offset in offsets.clone() {
        push_record(&mut batch, &message(offset));
    }
    let count = u32::try_from(offsets.end - offsets.start).unwrap();
    let stored_at = Wall::from_millis(1000 + offsets.start);
    store.append(
        log,
        Offset::new(offsets.start),
        stored_at,
        count,
        batch.into(),
    );
}

fn discard(store: &Store, log: LogId, offsets: Range<u64>) {
    store.discard(log, Offset::new(offsets.start)..Offset::new(offsets.end));
}

fn checkpointer() -> CheckpointerHandle {
    Checkpointer::start(Box::new(|failure| panic!("{failure}"))).unwrap()
}

fn checkpoint(
    checkpointer: &CheckpointerHandle,
    store: &Arc<Store>,
    index: u64,
) -> Result<LogIndex, CheckpointError> {
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    let snapshot = Bytes::from(format!("snapshot {index}"));
    checkpointer.checkpoint(store, LogIndex::new(index), Term::new(1), snapshot, done);
    receiver.recv_timeout(PATIENCE).unwrap()
}

fn reopen(dir: &DataDir) -> (Checkpoint, Arc<Store>) {
    let checkpoint = Checkpoint::load(dir, SHARD).unwrap().unwrap();
    let store = Store::open(dir, SHARD, Some(&checkpoint.manifest)).unwrap();
    (checkpoint, store)
}

/// Offsets that are there, their bodies checked.
fn present(store: &Store, log: LogId) -> Vec<u64> {
    let records = store.read(log, Offset::new(0), EVERYTHING).unwrap();
    assert!(
        records
            .iter()
            .all(|record| record.message == message(record.offset.get()))
    );
    records.iter().map(|record| record.offset.get()).collect()
}

#[test]
fn bodies_survive_a_checkpoint_and_a_restart() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = checkpointer();
    append(&store, LOG, 0..10);
    append(&store, LOG, 10..20);
    discard(&store, LOG, 3..12);
    assert!(store.is_resident(LOG, Offset::new(0)..Offset::new(20)));

    checkpoint(&checkpointer, &store, 5).unwrap();

    assert_eq!(store.memory_bytes(), 0);
    assert!(!store.is_resident(LOG, Offset::new(0)..Offset::new(20)));
    append(&store, LOG, 20..25);
    let expected: Vec<u64> = (0..3).chain(12..25).collect();
    assert_eq!(present(&store, LOG), expected);
    checkpoint(&checkpointer, &store, 6).unwrap();
    let (checkpoint, store) = reopen(&dir);
    assert_eq!(checkpoint.index, LogIndex::new(6));
    assert_eq!(checkpoint.snapshot, "snapshot 6");
    assert_eq!(present(&store, LOG), expected);
    let asked = [Offset::new(24), Offset::new(2)];
    let found = store.read_many(LOG, &asked).unwrap();
    assert_eq!(
        found.iter().map(|record| record.offset).collect::<Vec<_>>(),
        asked
    );
    let gone = store.read_many(LOG, &[Offset::new(5)]);
    assert!(matches!(gone, Err(ReadError::Discarded { .. })));
    let never = store.read_many(LOG, &[Offset::new(25)]);
    assert!(matches!(never, Err(ReadError::Missing { .. })));
}
