//! Finding messages by offset and by time in runs of many blocks, with indexes of every kind of
//! damage.

use super::*;
use crate::store::index;
use crate::store::run::Run;
use crate::store::segment;

/// Batches of two messages of 1000 bytes each: many blocks, in a segment of its own.
fn stored(dir: &DataDir) -> Arc<Store> {
    let store = Store::open(dir, SHARD, None).unwrap();
    for first in (0..2000).step_by(2) {
        let mut batch = Vec::new();
        for offset in first..first + 2 {
            push_record(&mut batch, &long(offset));
        }
        let stored_at = Wall::from_millis(5000 + first);
        store.append(LOG, Offset::new(first), stored_at, 2, batch.into());
    }
    checkpoint(&checkpointer(), &store, 1).unwrap();
    store
}

fn long(offset: u64) -> Vec<u8> {
    format!("{offset:01000}").into_bytes()
}

fn check(store: &Store) {
    for offset in [0, 1, 777, 1998, 1999] {
        let found = read_many(store, LOG, &[Offset::new(offset)]).unwrap();
        assert_eq!(found[0].message, long(offset));
    }
    let found = store.read(LOG, Offset::new(0), EVERYTHING).unwrap();
    assert_eq!(found.len(), 2000);
    let by_time = [
        (0, Some(0)),
        (5000, Some(0)),
        (5003, Some(4)),
        (5777, Some(778)),
        (6998, Some(1998)),
        (6999, None),
    ];
    for (wall, expected) in by_time {
        let found = store.offset_at(LOG, Wall::from_millis(wall)).unwrap();
        assert_eq!(found.map(Offset::get), expected, "at {wall}");
    }
}

/// The only run there is, where its index starts, and the path of its segment.
fn run(dir: &DataDir) -> (Run, usize, PathBuf) {
    let checkpoint = Checkpoint::load(dir, SHARD).unwrap().unwrap();
    let [log] = &checkpoint.manifest.logs[..] else {
        panic!("one log")
    };
    let [run] = log.runs[..] else {
        panic!("one run")
    };
    assert!(run.index_bytes > 0);
    let segments = dir.shard_path(SHARD).join("segments");
    let path = segments.join(segment::name(run.file));
    (run, (run.at + run.bytes) as usize, path)
}

#[test]
fn a_read_deep_in_a_segment_touches_the_index_and_one_block() {
    let memory = MemoryDisk::new();
    drop(stored(&open_dir(&memory)));
    let disk = FaultyDisk::new(Arc::new(memory));
    let dir = open_dir(&disk);
    let (_, store) = reopen(&dir);

    // The third read would fail.
    disk.fail(Operation::Read, Fault::Broken, 2, ".seg");
    read_many(&store, LOG, &[Offset::new(1500)]).unwrap();
    disk.heal();
    // The index is in memory now.
    disk.fail(Operation::Read, Fault::Broken, 1, ".seg");
    let found = store.offset_at(LOG, Wall::from_millis(5777)).unwrap();

    assert_eq!(found, Some(Offset::new(778)));
    disk.heal();
    check(&store);
    assert_eq!(store.stats().indexes_built, 0);
}

#[test]
fn a_damaged_index_is_built_again_from_the_messages() {
    let disk = MemoryDisk::new();
    drop(stored(&open_dir(&disk)));
    let (run, index_at, path) = run(&open_dir(&disk));
    for at in (index_at..index_at + run.index_bytes as usize).step_by(17) {
        let disk = disk.duplicate();
        let dir = open_dir(&disk);
        disk.corrupt(&path, at, 0x10).unwrap();
        let (_, store) = reopen(&dir);
        check(&store);
        assert_eq!(store.stats().indexes_built, 1, "once, then it is in memory");
    }
}

#[test]
fn an_index_that_is_sound_and_untrue_is_not_believed() {
    let disk = MemoryDisk::new();
    drop(stored(&open_dir(&disk)));
    let (run, index_at, path) = run(&open_dir(&disk));
    let content = disk.content(&path).unwrap();
    let seed = segment::seed(SHARD, LOG);
    let blocks = index::decode(&content[index_at..], seed, &run).unwrap();
    let untrue: [fn(&mut index::Block); 3] = [
        |block| block.at += 1,
        |block| block.at -= 64,
        |block| block.first += 1,
    ];
    for change in untrue {
        let disk = disk.duplicate();
        let dir = open_dir(&disk);
        let mut blocks = blocks.clone();
        blocks.iter_mut().skip(1).for_each(change);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        let bytes = index::encode(&blocks, seed);
        let slice = std::io::IoSlice::new(&bytes);
        file.write_all_at(&[slice], index_at as u64).unwrap();
        let (_, store) = reopen(&dir);
        check(&store);
        assert_eq!(store.stats().indexes_built, 1);
    }
}

#[test]
fn damaged_messages_are_reported_whatever_the_index_says() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    drop(stored(&dir));
    let (run, _, path) = run(&dir);
    let at = run.at as usize + 500_000;
    disk.corrupt(&path, at, 1).unwrap();
    let (_, store) = reopen(&dir);

    let mut damaged = 0;
    for offset in (0..2000).step_by(10) {
        match read_many(&store, LOG, &[Offset::new(offset)]) {
            Ok(found) => assert_eq!(found[0].message, long(offset)),
            Err(ReadError::Corrupt {
                path: named,
                at: byte,
                ..
            }) => {
                assert_eq!(named, path);
                assert!(byte <= at as u64 && at as u64 - byte < 4096);
                damaged += 1;
            }
            Err(error) => panic!("{error:?}"),
        }
    }
    // A block of 64 KiB, not the segment.
    assert!((5..8).contains(&damaged), "{damaged}");
}

#[test]
fn a_bit_that_flips_once_on_its_way_costs_no_message() {
    let memory = MemoryDisk::new();
    {
        let dir = open_dir(&memory);
        let store = Store::open(&dir, SHARD, None).unwrap();
        append(&store, LOG, 0..1000);
        checkpoint(&checkpointer(), &store, 1).unwrap();
    }
    for fault in [Fault::Flipped, Fault::Misdirected] {
        for reads in 0.. {
            let disk = FaultyDisk::new(Arc::new(memory.duplicate()));
            let (_, store) = reopen(&open_dir(&disk));
            disk.fail(Operation::Read, fault, reads, "segments");
            let expected: Vec<u64> = (0..1000).collect();
            assert_eq!(present(&store, LOG), expected, "{fault:?} at read {reads}");
            if disk.faults() == 0 {
                break;
            }
        }
    }
}

#[test]
fn a_segment_that_goes_while_it_is_needed_is_damage() {
    let harms: [fn(&MemoryDisk, &std::path::Path); 2] = [
        |disk, path| disk.remove(path).unwrap(),
        |disk, path| {
            let file = disk.open(path, OpenMode::Write).unwrap();
            file.set_bytes(40).unwrap();
        },
    ];
    for harm in harms {
        let disk = MemoryDisk::new();
        let dir = open_dir(&disk);
        let store = Store::open(&dir, SHARD, None).unwrap();
        append(&store, LOG, 0..10);
        checkpoint(&checkpointer(), &store, 1).unwrap();
        let path = segment_path(&disk, &dir);
        harm(&disk, &path);
        let error = read_many(&store, LOG, &[Offset::new(3)]).unwrap_err();
        let ReadError::Corrupt {
            path: named, at, ..
        } = error
        else {
            panic!("{error}")
        };
        assert_eq!((named, at), (path, 28));
    }
}
