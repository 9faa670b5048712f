//! The scrubber on the disk in memory.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_types::{LogId, Offset, ShardId, Wall};

use super::*;
use crate::records::push_record;
use crate::testing::{covered, open_dir};
use crate::{Checkpointer, DataDir, Disk, Fault, FaultyDisk, MemoryDisk, Operation};

const SHARD: ShardId = ShardId::new(1);

/// A store with two logs on disk, one with a segment of its own and an index.
fn stored(dir: &DataDir) -> Arc<Store> {
    let store = Store::open(dir, SHARD, None).unwrap();
    let mut large = Vec::new();
    for _ in 0..100 {
        push_record(&mut large, &[7; 1000]);
    }
    for batch in 0..12 {
        let first = Offset::new(batch * 100);
        let stored_at = Wall::from_millis(batch);
        store.append(LogId::new(1), first, stored_at, 100, large.clone().into());
    }
    let small = Bytes::from_static(b"\x05small");
    store.append(
        LogId::new(2),
        Offset::new(0),
        Wall::from_millis(1),
        1,
        small,
    );
    let (mut routine, handle) = Checkpointer::new(Box::new(|failure| panic!("{failure}")));
    let snapshot = Box::new(|| Bytes::from(vec![1; 1000]));
    let done = Box::new(|result: Result<_, _>| assert!(result.is_ok()));
    handle.checkpoint(&store, covered(9), snapshot, done);
    while routine.step(Instant::now()) == Next::Now {}
    assert_eq!(store.memory_bytes(), 0);
    store
}

type Findings = Arc<Mutex<Vec<Finding>>>;

fn scrubber(store: &Arc<Store>, bytes_per_second: u64) -> (Scrubber, ScrubberHandle, Findings) {
    let findings = Findings::default();
    let seen = Arc::clone(&findings);
    let on_damage = Box::new(move |_: &Arc<Store>, finding| seen.lock().unwrap().push(finding));
    let store = Arc::clone(store);
    let stores = Box::new(move || vec![Arc::clone(&store)]);
    let (routine, handle) = Scrubber::new(stores, bytes_per_second, on_damage);
    (routine, handle, findings)
}

/// Runs a scrubber for one pass, on time of its own; how long it took.
fn pass(routine: &mut Scrubber, handle: &ScrubberHandle, mut now: Instant) -> Duration {
    let (start, passes) = (now, handle.stats().passes);
    loop {
        let next = routine.step(now);
        if handle.stats().passes > passes {
            return now - start;
        }
        match next {
            Next::Now => {}
            Next::Wait(Some(at)) => now = at,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn everything_stored_is_read_at_the_rate_asked_for() {
    let disk = MemoryDisk::new();
    let store = stored(&open_dir(&disk));
    let (mut routine, handle, findings) = scrubber(&store, 1 << 20);

    let took = pass(&mut routine, &handle, Instant::now());

    assert!(findings.lock().unwrap().is_empty());
    let read = handle.stats().bytes;
    assert!(read >= store.disk_bytes(), "{read} bytes read");
    let due = Duration::from_nanos(read * 1_000_000_000 / (1 << 20));
    assert!(
        took >= due - Duration::from_millis(1),
        "{took:?}, not {due:?}"
    );
    handle.stop();
    assert_eq!(routine.step(Instant::now()), Next::Ended);
}

#[test]
fn it_is_off_at_no_bytes_a_second() {
    let disk = MemoryDisk::new();
    let store = stored(&open_dir(&disk));
    let (mut routine, ..) = scrubber(&store, 0);
    assert_eq!(routine.step(Instant::now()), Next::Ended);
}

#[test]
fn damage_anywhere_is_found_with_file_and_byte() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = stored(&dir);
    let directory = dir.shard_path(SHARD);
    let mut paths = vec![directory.join("checkpoint-00000000000000000009")];
    let segments = disk.list(&directory.join("segments")).unwrap();
    paths.extend(
        segments
            .iter()
            .map(|name| directory.join("segments").join(name)),
    );
    assert_eq!(paths.len(), 3);
    for path in paths {
        let bytes = disk.content(&path).unwrap().len();
        for at in (0..bytes).step_by(bytes / 13 + 1) {
            disk.corrupt(&path, at, 1).unwrap();
            let (mut routine, handle, findings) = scrubber(&store, 1 << 30);
            pass(&mut routine, &handle, Instant::now());
            let found = std::mem::take(&mut *findings.lock().unwrap());
            assert_eq!(found.len(), 1, "byte {at} of {}", path.display());
            match &found[0].error {
                ReadError::Corrupt {
                    path: named,
                    at: byte,
                    ..
                } => {
                    assert_eq!((named, found[0].shard), (&path, SHARD));
                    assert!(*byte <= at.max(12) as u64);
                }
                other => panic!("{other:?}"),
            }
            disk.corrupt(&path, at, 1).unwrap();
        }
    }
}

#[test]
fn what_is_misread_once_is_no_damage() {
    let disk = MemoryDisk::new();
    drop(stored(&open_dir(&disk)));
    for fault in [Fault::Flipped, Fault::Misdirected] {
        for reads in 0.. {
            let faulty = FaultyDisk::new(Arc::new(disk.duplicate()));
            let dir = open_dir(&faulty);
            let checkpoint = crate::Checkpoint::load(&dir, SHARD).unwrap().unwrap();
            let store = Store::open(&dir, SHARD, Some(&checkpoint.manifest)).unwrap();
            let (mut routine, handle, findings) = scrubber(&store, u64::MAX);
            faulty.fail(Operation::Read, fault, reads, "shards/");
            pass(&mut routine, &handle, Instant::now());
            let findings = findings.lock().unwrap();
            assert!(
                findings.is_empty(),
                "{fault:?} at read {reads}: {findings:?}"
            );
            if faulty.faults() == 0 {
                break;
            }
        }
    }
}

#[test]
fn what_goes_away_while_it_is_read_is_no_damage() {
    let disk = MemoryDisk::new();
    let store = stored(&open_dir(&disk));
    let (mut routine, handle, findings) = scrubber(&store, 1 << 30);
    // In the midst of the first log.
    while handle.stats().bytes < 300_000 {
        routine.step(Instant::now() + PAUSE);
    }
    let directory = store.dir.shard_path(SHARD).join("segments");
    store.discard_all(LogId::new(1));
    for name in disk.list(&directory).unwrap() {
        let path = directory.join(name);
        if disk.content(&path).unwrap().len() > 1_000_000 {
            disk.corrupt(&path, 600_000, 1).unwrap();
        }
    }

    pass(&mut routine, &handle, Instant::now() + PAUSE);

    assert!(findings.lock().unwrap().is_empty());
}
