//! Store and checkpoints together, on the disk in memory.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use millrace_types::{LogId, LogIndex, Offset, ShardId, Wall};
use proptest::prelude::*;

use crate::records::push_record;
use crate::testing::{covered, open_dir};
use crate::{
    Checkpoint, CheckpointError, Checkpointer, CheckpointerHandle, Corruption, DataDir, Disk,
    Fault, FaultyDisk, Limits, MemoryDisk, Next, OpenError, OpenMode, Operation, ReadError,
    Routine, Store, StoredRecord,
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
        "x".repeat(usize::try_from(offset % 300).unwrap())
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

/// A checkpointer that works while it is waited for.
struct Steps(RefCell<Checkpointer>, CheckpointerHandle);

fn checkpointer() -> Steps {
    let (routine, handle) = Checkpointer::new(Box::new(|failure| panic!("{failure}")));
    Steps(RefCell::new(routine), handle)
}

fn checkpoint(steps: &Steps, store: &Arc<Store>, index: u64) -> Result<LogIndex, CheckpointError> {
    let (sender, receiver) = mpsc::channel();
    let done = Box::new(move |result| drop(sender.send(result)));
    let snapshot = Box::new(move || Bytes::from(format!("snapshot {index}")));
    let Steps(routine, handle) = steps;
    handle.checkpoint(store, covered(index), snapshot, done);
    while routine.borrow_mut().step(Instant::now()) == Next::Now {}
    receiver.try_recv().unwrap()
}

fn reopen(dir: &DataDir) -> (Checkpoint, Arc<Store>) {
    let checkpoint = Checkpoint::load(dir, SHARD).unwrap().unwrap();
    let store = Store::open(dir, SHARD, Some(&checkpoint.manifest)).unwrap();
    (checkpoint, store)
}

/// These messages; the first error when one cannot be read.
fn read_many(
    store: &Store,
    log: LogId,
    offsets: &[Offset],
) -> Result<Vec<StoredRecord>, ReadError> {
    let found = store.read_each(log, offsets, u64::MAX);
    found.into_iter().collect()
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

mod crashes;
mod index;
mod memory;
mod rewriting;
mod space;
mod walking;

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
    assert_eq!(checkpoint.covered.index, LogIndex::new(6));
    assert_eq!(checkpoint.snapshot, "snapshot 6");
    assert_eq!(present(&store, LOG), expected);
    let asked = [Offset::new(24), Offset::new(2)];
    let found = read_many(&store, LOG, &asked).unwrap();
    assert_eq!(
        found.iter().map(|record| record.offset).collect::<Vec<_>>(),
        asked
    );
    let gone = read_many(&store, LOG, &[Offset::new(5)]);
    assert!(matches!(gone, Err(ReadError::Discarded { .. })));
    let never = read_many(&store, LOG, &[Offset::new(25)]);
    assert!(matches!(never, Err(ReadError::Missing { .. })));
}

#[test]
fn reads_keep_to_their_limits_and_return_at_least_one() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = checkpointer();
    // Many blocks of the sparse index, in frames of one and of several messages.
    for first in (0..2000).step_by(20) {
        append(&store, LOG, first..first + 1);
        append(&store, LOG, first + 1..first + 20);
    }
    for _ in ["in memory", "on disk"] {
        let limits = Limits {
            messages_max: 30,
            bytes_max: u64::MAX,
        };
        let found = store.read(LOG, Offset::new(995), limits).unwrap();
        let offsets: Vec<u64> = found.iter().map(|record| record.offset.get()).collect();
        assert_eq!(offsets, (995..1025).collect::<Vec<_>>());
        assert_eq!(found[0].stored_at, Wall::from_millis(1981));
        let limits = Limits {
            messages_max: 30,
            bytes_max: 0,
        };
        assert_eq!(store.read(LOG, Offset::new(995), limits).unwrap().len(), 1);
        assert!(
            store
                .read(LOG, Offset::new(2000), EVERYTHING)
                .unwrap()
                .is_empty()
        );
        assert!(
            store
                .read(LogId::new(8), Offset::new(0), EVERYTHING)
                .unwrap()
                .is_empty()
        );
        checkpoint(&checkpointer, &store, 1).unwrap();
    }
    let (_, store) = reopen(&dir);
    assert_eq!(present(&store, LOG), (0..2000).collect::<Vec<_>>());
}

#[test]
fn what_is_settled_before_a_checkpoint_is_never_written() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = checkpointer();
    append(&store, LOG, 0..1000);
    discard(&store, LOG, 0..1000);
    assert_eq!(store.memory_bytes(), 0);
    append(&store, LOG, 1000..1010);
    discard(&store, LOG, 1001..1010);

    checkpoint(&checkpointer, &store, 1).unwrap();

    assert!(store.disk_bytes() < 2 * message(1000).len() as u64 + 100);
    assert_eq!(present(&store, LOG), [1000]);
}

#[test]
fn a_segment_with_nothing_alive_is_removed_by_the_next_checkpoint() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = checkpointer();
    let gone = LogId::new(8);
    append(&store, LOG, 0..100);
    append(&store, gone, 0..100);
    checkpoint(&checkpointer, &store, 1).unwrap();
    append(&store, gone, 100..110);
    assert!(store.disk_bytes() > 0);

    discard(&store, LOG, 0..100);
    store.discard_all(gone);
    assert!(present(&store, LOG).is_empty() && present(&store, gone).is_empty());
    checkpoint(&checkpointer, &store, 2).unwrap();

    assert_eq!((store.memory_bytes(), store.disk_bytes()), (0, 0));
    let used: u64 = (1 << 40) - dir.free_bytes().unwrap();
    assert!(
        used < 1000,
        "identity and an empty checkpoint: {used} bytes"
    );
    let (_, store) = reopen(&dir);
    assert!(present(&store, LOG).is_empty());
}

#[test]
fn a_full_disk_fails_one_checkpoint_and_changes_nothing() {
    // Until there is room enough, each time failing a little later.
    for shortage in (0..).step_by(700) {
        let disk = MemoryDisk::new();
        let dir = open_dir(&disk);
        let store = Store::open(&dir, SHARD, None).unwrap();
        let checkpointer = checkpointer();
        append(&store, LOG, 0..50);
        checkpoint(&checkpointer, &store, 1).unwrap();
        append(&store, LOG, 50..200);
        append(&store, LogId::new(8), 0..100);
        let (memory_bytes, disk_bytes) = (store.memory_bytes(), store.disk_bytes());
        let used = (1 << 40) - dir.free_bytes().unwrap();
        disk.set_capacity(Some(used + shortage));

        let failed = checkpoint(&checkpointer, &store, 2);

        if failed.is_ok() {
            assert!(shortage > 20_000);
            return;
        }
        assert!(matches!(failed, Err(CheckpointError::Full { .. })));
        assert_eq!(
            (store.memory_bytes(), store.disk_bytes()),
            (memory_bytes, disk_bytes)
        );
        assert_eq!(
            dir.free_bytes().unwrap(),
            shortage,
            "the attempt's files are gone"
        );
        assert_eq!(present(&store, LOG), (0..200).collect::<Vec<_>>());
        let kept = Checkpoint::load(&dir, SHARD).unwrap().unwrap();
        assert_eq!(kept.covered.index, LogIndex::new(1));
        disk.set_capacity(None);
        checkpoint(&checkpointer, &store, 3).unwrap();
        let (_, store) = reopen(&dir);
        assert_eq!(present(&store, LOG), (0..200).collect::<Vec<_>>());
        assert_eq!(present(&store, LogId::new(8)), (0..100).collect::<Vec<_>>());
    }
}

#[test]
fn any_other_failure_stops_the_checkpointer() {
    let broken = [
        Operation::Create,
        Operation::Write,
        Operation::Sync,
        Operation::Rename,
        Operation::SyncDir,
    ];
    let broken = broken.map(|operation| (operation, Fault::Broken));
    // Whether a sync took effect before it failed is unknown, whatever the reason.
    let full = [
        (Operation::Sync, Fault::Full),
        (Operation::SyncDir, Fault::Full),
    ];
    for (operation, fault) in broken.into_iter().chain(full) {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let dir = open_dir(&disk);
        let store = Store::open(&dir, SHARD, None).unwrap();
        let (sender, failures) = mpsc::channel();
        let on_failure = Box::new(move |failure| sender.send(failure).unwrap());
        let (routine, handle) = Checkpointer::new(on_failure);
        let checkpointer = Steps(RefCell::new(routine), handle);
        append(&store, LOG, 0..50);
        disk.fail(operation, fault, 0, "shards");

        assert_eq!(
            checkpoint(&checkpointer, &store, 1),
            Err(CheckpointError::Stopped)
        );
        failures.try_recv().unwrap();
        assert_eq!(
            checkpoint(&checkpointer, &store, 2),
            Err(CheckpointError::Stopped)
        );
        assert_eq!(present(&store, LOG), (0..50).collect::<Vec<_>>());
    }
}

/// The only segment there is.
fn segment_path(disk: &MemoryDisk, dir: &DataDir) -> PathBuf {
    let directory = dir.shard_path(SHARD).join("segments");
    let names = disk.list(&directory).unwrap();
    assert_eq!(names.len(), 1);
    directory.join(&names[0])
}

#[test]
fn damage_in_a_segment_is_an_error_that_names_file_and_byte() {
    let disk = MemoryDisk::new();
    {
        let dir = open_dir(&disk);
        let store = Store::open(&dir, SHARD, None).unwrap();
        append(&store, LOG, 0..3);
        append(&store, LOG, 3..5);
        checkpoint(&checkpointer(), &store, 1).unwrap();
    }
    let bytes = disk
        .content(&segment_path(&disk, &open_dir(&disk)))
        .unwrap()
        .len();
    for at in 0..bytes {
        let disk = disk.duplicate();
        let dir = open_dir(&disk);
        let path = segment_path(&disk, &dir);
        disk.corrupt(&path, at, 1).unwrap();
        let checkpoint = Checkpoint::load(&dir, SHARD).unwrap().unwrap();
        match Store::open(&dir, SHARD, Some(&checkpoint.manifest)) {
            Err(OpenError::Corrupt { path: named, .. }) => assert_eq!(named, path),
            Err(error) => panic!("{error:?}"),
            Ok(store) => match store.read(LOG, Offset::new(0), EVERYTHING) {
                Err(ReadError::Corrupt {
                    path: named,
                    at: byte,
                    ..
                }) => {
                    assert_eq!(named, path);
                    assert!(byte <= at as u64);
                }
                other => panic!("byte {at}: {other:?}"),
            },
        }
    }
}

#[test]
fn a_short_or_missing_segment_is_refused() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    append(&store, LOG, 0..5);
    checkpoint(&checkpointer(), &store, 1).unwrap();
    let kept = Checkpoint::load(&dir, SHARD).unwrap().unwrap();
    let path = segment_path(&disk, &dir);
    let file = disk.open(&path, OpenMode::Write).unwrap();

    file.set_bytes(file.bytes().unwrap() - 1).unwrap();
    let refused = Store::open(&dir, SHARD, Some(&kept.manifest));
    assert!(matches!(refused, Err(OpenError::Corrupt { .. })));
    disk.remove(&path).unwrap();
    let refused = Store::open(&dir, SHARD, Some(&kept.manifest));
    assert!(matches!(
        refused,
        Err(OpenError::Corrupt {
            kind: Corruption::Missing,
            ..
        })
    ));
}

#[test]
fn what_is_misread_once_while_a_store_is_opened_is_read_again() {
    let disk = MemoryDisk::new();
    let store = Store::open(&open_dir(&disk), SHARD, None).unwrap();
    append(&store, LOG, 0..50);
    checkpoint(&checkpointer(), &store, 1).unwrap();
    drop(store);
    for fault in [Fault::Flipped, Fault::Misdirected] {
        for reads in 0..4 {
            let faulty = FaultyDisk::new(Arc::new(disk.duplicate()));
            let dir = open_dir(&faulty);
            faulty.fail(Operation::Read, fault, reads, "shards/");
            let found = Checkpoint::load(&dir, SHARD).unwrap().unwrap();
            let store = Store::open(&dir, SHARD, Some(&found.manifest)).unwrap();
            assert_eq!(
                found.covered.index,
                LogIndex::new(1),
                "{fault:?} at read {reads}"
            );
            assert_eq!(
                store.read(LOG, Offset::new(0), EVERYTHING).unwrap().len(),
                50
            );
        }
    }
}

#[test]
fn a_damaged_checkpoint_is_refused_with_its_name() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    append(&store, LOG, 0..5);
    checkpoint(&checkpointer(), &store, 9).unwrap();
    let path = dir
        .shard_path(SHARD)
        .join("checkpoint-00000000000000000009");
    for at in 0..disk.content(&path).unwrap().len() {
        disk.corrupt(&path, at, 1).unwrap();
        match Checkpoint::load(&dir, SHARD).unwrap_err() {
            OpenError::Corrupt { path: named, .. } => assert_eq!(named, path),
            error => panic!("{error:?}"),
        }
        disk.corrupt(&path, at, 1).unwrap();
    }
    assert!(Checkpoint::load(&dir, SHARD).is_ok());
}

#[test]
fn what_no_checkpoint_knows_is_set_aside() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    append(&store, LOG, 0..5);
    checkpoint(&checkpointer(), &store, 1).unwrap();
    let kept = Checkpoint::load(&dir, SHARD).unwrap().unwrap();
    let path = segment_path(&disk, &dir);
    let strange = path.with_file_name("strange.txt");
    drop(disk.open(&strange, OpenMode::CreateNew).unwrap());

    let store = Store::open(&dir, SHARD, Some(&kept.manifest)).unwrap();
    assert_eq!(present(&store, LOG).len(), 5);
    drop(Store::open(&dir, SHARD, None).unwrap());

    let aside = disk.list(&dir.aside_path()).unwrap();
    assert_eq!(aside, ["1-0000000000000000.seg.0", "1-strange.txt.0"]);
}

#[test]
fn reads_beside_checkpoints_and_discards_see_whole_messages() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = checkpointer();
    let kept_from = AtomicU64::new(0);
    let finished = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for reader in 0..2 {
            let (store, kept_from, finished) = (&store, &kept_from, &finished);
            scope.spawn(move || {
                while !finished.load(Ordering::Acquire) {
                    let limits = Limits {
                        messages_max: 20 + reader,
                        bytes_max: u64::MAX,
                    };
                    let found = store.read(LOG, Offset::new(0), limits).unwrap();
                    for record in &found {
                        assert_eq!(record.message, message(record.offset.get()));
                    }
                    let Some(last) = found.last() else { continue };
                    match read_many(store, LOG, &[last.offset]) {
                        Ok(again) => assert_eq!(again[0], *last),
                        Err(ReadError::Discarded { offset, .. }) => {
                            assert!(offset.get() < kept_from.load(Ordering::Acquire));
                        }
                        Err(error) => panic!("{error:?}"),
                    }
                }
            });
        }
        for round in 0..60 {
            append(&store, LOG, round * 50..(round + 1) * 50);
            kept_from.store(round * 40, Ordering::Release);
            discard(&store, LOG, 0..round * 40);
            if round % 2 == 0 {
                checkpoint(&checkpointer, &store, round + 1).unwrap();
            }
        }
        finished.store(true, Ordering::Release);
    });
    assert_eq!(present(&store, LOG), (2360..3000).collect::<Vec<_>>());
}

/// What a test does to a store.
#[derive(Clone, Debug)]
enum Step {
    Append(usize, u64),
    Discard(usize, u64, u64),
    DiscardAll(usize),
    Checkpoint,
    Reopen,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let log = 0_usize..3;
    let step = prop_oneof![
        4 => (log.clone(), 1_u64..20).prop_map(|(log, count)| Step::Append(log, count)),
        4 => (log.clone(), 0_u64..120, 1_u64..30)
            .prop_map(|(log, start, count)| Step::Discard(log, start, count)),
        1 => log.prop_map(Step::DiscardAll),
        2 => Just(Step::Checkpoint),
        1 => Just(Step::Reopen),
    ];
    prop::collection::vec(step, 1..40)
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..Default::default() })]

    #[test]
    fn a_store_holds_what_was_appended_and_not_discarded(steps in steps()) {
        let disk = MemoryDisk::new();
        let dir = open_dir(&disk);
        let checkpointer = checkpointer();
        let mut store = Store::open(&dir, SHARD, None).unwrap();
        let mut model: BTreeMap<u64, (u64, BTreeSet<u64>)> = BTreeMap::new();
        // As of the last checkpoint.
        let mut saved = model.clone();
        // The id of a log that is gone is never used again.
        let mut ids = [0, 1, 2];
        let mut index = 0;
        for step in steps {
            index += 1;
            match step {
                Step::Append(log, count) => {
                    let log = ids[log];
                    let (end, live) = model.entry(log).or_default();
                    append(&store, LogId::new(log), *end..*end + count);
                    live.extend(*end..*end + count);
                    *end += count;
                }
                Step::Discard(log, start, count) => {
                    let Some((end, live)) = model.get_mut(&ids[log]) else { continue };
                    let range = start.min(*end)..(start + count).min(*end);
                    discard(&store, LogId::new(ids[log]), range.clone());
                    live.retain(|offset| !range.contains(offset));
                }
                Step::DiscardAll(log) => {
                    store.discard_all(LogId::new(ids[log]));
                    prop_assert!(present(&store, LogId::new(ids[log])).is_empty());
                    model.remove(&ids[log]);
                    ids[log] += 3;
                }
                Step::Checkpoint => {
                    checkpoint(&checkpointer, &store, index).unwrap();
                    saved = model.clone();
                    prop_assert_eq!(store.memory_bytes(), 0);
                }
                Step::Reopen => {
                    let Some(kept) = Checkpoint::load(&dir, SHARD).unwrap() else { continue };
                    store = Store::open(&dir, SHARD, Some(&kept.manifest)).unwrap();
                    model = saved.clone();
                }
            }
            for (log, (_, live)) in &model {
                let found = present(&store, LogId::new(*log));
                prop_assert_eq!(found, live.iter().copied().collect::<Vec<_>>());
            }
        }
    }
}
