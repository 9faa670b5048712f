//! What is kept in memory for what is on disk, for logs that are idle, and for batches that are
//! partly settled.

use super::*;

fn manifest(dir: &DataDir) -> crate::Manifest {
    let checkpoint = Checkpoint::load(dir, SHARD).unwrap();
    checkpoint.unwrap().manifest
}

#[test]
fn an_untouched_backlog_costs_a_run_for_each_checkpoint_and_no_more() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    let batch = Bytes::from([&[100][..], &[7; 100]].concat().repeat(2000));
    for round in 0..20 {
        for part in 0..10 {
            let first = Offset::new(round * 20_000 + part * 2000);
            store.append(LOG, first, Wall::from_millis(round), 2000, batch.clone());
        }
        checkpoint(&checkpointer, &store, round + 1).unwrap();
    }

    assert_eq!(store.memory_bytes(), 0);
    let manifest = manifest(&dir);
    let [log] = &manifest.logs[..] else {
        panic!("one log")
    };
    // 400 000 messages.
    assert_eq!((log.runs.len(), log.discarded.len()), (20, 0));
    assert_eq!(manifest.segments.len(), 1);
}

#[test]
fn many_logs_with_little_to_write_share_a_segment_and_a_sync() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    for log in 0..5000 {
        append(&store, LogId::new(log), 0..3);
    }
    checkpoint(&checkpointer, &store, 1).unwrap();

    let stats = store.stats();
    assert_eq!((stats.segments, stats.syncs, stats.logs), (1, 1, 5000));
    for log in (0..5000).step_by(499) {
        assert_eq!(present(&store, LogId::new(log)), [0, 1, 2]);
    }
    let path = dir
        .shard_path(SHARD)
        .join("checkpoint-00000000000000000001");
    let bytes = disk.content(&path).unwrap().len();
    assert!(bytes < 5000 * 30, "{bytes} bytes of checkpoint");

    for log in 0..5000 {
        discard(&store, LogId::new(log), 0..3);
    }
    checkpoint(&checkpointer, &store, 2).unwrap();
    checkpoint(&checkpointer, &store, 3).unwrap();
    assert_eq!((store.stats().segments, store.stats().logs), (0, 0));
    let log = LogId::new(7);
    let gone = read_many(&store, log, &[Offset::new(2)]);
    assert!(matches!(gone, Err(ReadError::Discarded { .. })));
    let never = read_many(&store, log, &[Offset::new(3)]);
    assert!(matches!(never, Err(ReadError::Missing { .. })));
    append(&store, log, 3..5);
    assert_eq!(present(&store, log), [3, 4]);
}

#[test]
fn little_that_is_left_of_a_batch_does_not_keep_all_of_it_in_memory() {
    let disk = MemoryDisk::new();
    let store = Store::open(&open_dir(&disk), SHARD, None).unwrap();
    for first in (0..10_000).step_by(1000) {
        append(&store, LOG, first..first + 1000);
    }
    let all = store.memory_bytes();
    for offset in (0..10_000).filter(|offset| offset % 1000 != 500) {
        discard(&store, LOG, offset..offset + 1);
    }
    let left = store.memory_bytes();
    assert!(left < all / 100, "{left} of {all}");
    let expected: Vec<u64> = (500..10_000).step_by(1000).collect();
    assert_eq!(present(&store, LOG), expected);
    checkpoint(&checkpointer(), &store, 1).unwrap();
    assert_eq!(store.memory_bytes(), 0);
    discard(&store, LOG, 0..10_000);
    assert!(present(&store, LOG).is_empty());
}

#[test]
fn a_log_that_grows_slowly_ends_as_few_runs() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    for round in 0..300 {
        append(&store, LOG, round * 3..round * 3 + 3);
        checkpoint(&checkpointer, &store, round + 1).unwrap();
    }

    let runs = manifest(&dir).logs[0].runs.len();
    assert!(runs < 30, "{runs} runs");
    let expected: Vec<u64> = (0..900).collect();
    assert_eq!(present(&store, LOG), expected);
    let stats = store.stats();
    let first = stats.segment_bytes - stats.rewritten_bytes;
    assert!(stats.rewritten_bytes < 7 * first, "{stats:?}");
    drop(store);
    assert_eq!(present(&reopen(&dir).1, LOG), expected);
}

#[test]
fn a_body_counts_as_long_as_anybody_holds_a_message_of_it() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    append(&store, LOG, 0..100);
    let all = store.pinned_bytes();
    assert_eq!(all, store.memory_bytes());
    let one = |offset| read_many(&store, LOG, &[Offset::new(offset)]).unwrap();

    // On its way to a slow socket when everything is settled, or written to a segment.
    let sent = one(7);
    discard(&store, LOG, 0..100);
    assert_eq!((store.memory_bytes(), store.pinned_bytes()), (0, all));
    drop(sent);
    assert_eq!(store.pinned_bytes(), 0);
    append(&store, LOG, 100..200);
    let sent = one(107);
    checkpoint(&checkpointer, &store, 1).unwrap();
    assert_eq!(store.memory_bytes(), 0);
    assert!(store.pinned_bytes() > 100 * 100);
    drop(sent);
    assert_eq!(store.pinned_bytes(), 0);

    // Read from the segment: all of the block.
    let sent = one(150);
    assert_eq!(sent[0].message, message(150));
    assert!(store.pinned_bytes() > 100 * 100);
    drop(sent);
    assert_eq!(store.pinned_bytes(), 0);
}

#[test]
fn one_message_of_a_long_backlog_holds_a_block_of_it() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (store, checkpointer) = (Store::open(&dir, SHARD, None).unwrap(), checkpointer());
    append(&store, LOG, 0..10_000);
    checkpoint(&checkpointer, &store, 1).unwrap();
    let sent = read_many(&store, LOG, &[Offset::new(5000)]).unwrap();
    let pinned = store.pinned_bytes();
    assert!((1..=64 << 10).contains(&pinned), "{pinned}");
    drop(sent);
}
