//! A whole data directory of any content: journal, checkpoints, segments, files nobody knows.

use millrace_engine::{Catalogue, Shard};
use millrace_storage::{Checkpoint, DataDir, Disk as _, Limits, MemoryDisk, Store, fuzz};
use millrace_types::{LogId, Offset, ShardId};

use super::journal::{
    DATA_SHARDS, data, file_seeds, new_disk, open_dir, open_often, put, put_journal,
};
use crate::input::{Input, put_chunk, put_text};

/// Files of one input.
const FILES_MAX: usize = 12;
/// Logs that are read.
const LOGS: u64 = 4;
/// Reads of one log: a segment may claim any number of records.
const READS_MAX: usize = 20;

/// Kinds of files in an input.
const JOURNAL: u8 = 0;
const CHECKPOINT: u8 = 1;
const SEGMENT: u8 = 2;
const RAW: u8 = 3;

pub(crate) fn check(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = new_disk();
    for number in 1..=FILES_MAX as u64 {
        if input.is_empty() {
            break;
        }
        write(&disk, number, &mut input);
    }
    if let Some(dir) = open_dir(&disk) {
        open_often(&dir);
        for shard in 0..=DATA_SHARDS {
            open(&dir, ShardId::new(shard));
        }
    }
}

fn write(disk: &MemoryDisk, number: u64, input: &mut Input<'_>) {
    let kind = input.byte();
    let shard = u32::from(kind >> 4) % (DATA_SHARDS + 1);
    let shards = data().join("shards").join(shard.to_string());
    disk.create_dir_all(&shards).expect("in memory");
    match kind % 4 {
        JOURNAL => {
            let chunk = input.chunk();
            put_journal(disk, number, &fuzz::journal_file(number, &[chunk]));
        }
        CHECKPOINT => {
            let (index, payload) = (input.byte(), input.chunk());
            let path = shards.join(format!("checkpoint-{index:020}"));
            put(disk, &path, &fuzz::checkpoint_file(payload));
        }
        SEGMENT => {
            let log = LogId::new(u64::from(input.byte()) % LOGS);
            let (number, frames) = (input.byte().into(), input.chunk());
            let file = fuzz::segment_file(ShardId::new(shard), number, log, frames);
            let directory = shards.join("segments");
            disk.create_dir_all(&directory).expect("in memory");
            put(disk, &directory.join(fuzz::segment_name(number)), &file);
        }
        _ => {
            let (name, content) = (input.text(), input.chunk());
            let is_inside = !name.is_empty() && name.split('/').all(|part| !part.is_empty());
            let path = data().join(&name);
            if is_inside && let Some(parent) = path.parent() {
                // A file may be in the way of a directory, as on any disk.
                if disk.create_dir_all(parent).is_ok() {
                    // The identity is there already.
                    drop(disk.remove(&path));
                    put(disk, &path, content);
                }
            }
        }
    }
}

/// Loads what a shard has and reads all of it.
fn open(dir: &DataDir, shard: ShardId) {
    let Ok(checkpoint) = Checkpoint::load(dir, shard) else {
        return;
    };
    if let Some(checkpoint) = &checkpoint {
        drop(Shard::restore(&checkpoint.snapshot));
        drop(Catalogue::restore(&checkpoint.snapshot));
    }
    let manifest = checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest);
    let Ok(store) = Store::open(dir, shard, manifest) else {
        return;
    };
    for log in 0..LOGS {
        read(&store, LogId::new(log));
    }
}

fn read(store: &Store, log: LogId) {
    let limits = Limits {
        messages_max: 100,
        bytes_max: 1 << 20,
    };
    let mut from = Offset::new(0);
    for _ in 0..READS_MAX {
        let Ok(records) = store.read(log, from, limits) else {
            return;
        };
        let Some(last) = records.last() else { return };
        let mut offsets = records.iter().map(|record| record.offset);
        assert!(offsets.clone().is_sorted(), "{log}: out of order");
        assert!(offsets.all(|offset| offset >= from), "{log}: before {from}");
        let each: Vec<Offset> = records.iter().map(|record| record.offset).collect();
        let again: Result<Vec<_>, _> = store.read_each(log, &each, u64::MAX).into_iter().collect();
        if let Ok(again) = again {
            assert_eq!(again, records, "{log}: read one by one");
        }
        let Some(next) = last.offset.get().checked_add(1) else {
            return;
        };
        from = Offset::new(next);
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let mut all = Vec::new();
    for journal in file_seeds() {
        let mut input = vec![JOURNAL];
        input.extend(&journal[..journal.len() / 4]);
        input.push(RAW);
        put_text(&mut input, "identity");
        put_chunk(&mut input, b"MRIDENTY");
        input.push(RAW);
        put_text(&mut input, "shards/1/2/unknown");
        put_chunk(&mut input, b"?");
        all.push(input);
    }
    all.push(checkpointed());
    all
}

/// A checkpoint at index 1 that lists one segment with one record, written by hand: the layout is
/// the reader's business, and a seed that does not fit any more is only a worse one.
fn checkpointed() -> Vec<u8> {
    let mut frame = vec![0; 8];
    let records = [3, b'a', b'b', b'c'];
    frame.extend(4_u32.to_le_bytes());
    frame.extend(1_u32.to_le_bytes());
    frame.extend(0_u64.to_le_bytes());
    frame.extend(7_u64.to_le_bytes());
    frame.extend(records);
    let header = fuzz::segment_file(ShardId::new(1), 0, LogId::new(1), &[]);
    let byte = |bytes: usize| u8::try_from(bytes).unwrap_or(u8::MAX);
    let segment_bytes = byte(header.len() + frame.len());
    let run = [0, 0, 1, 7, byte(header.len()), byte(frame.len()), 0, 1];
    // Shard, index, term, no members; the manifest: index, next segment, one segment {0, bytes, of
    // nobody}, none retired, one log {1, end 1, one run, nothing discarded}.
    let before = [1, 1, 1, 0, 1, 1, 1, 0, segment_bytes, 0, 0, 1, 1, 1, 1];
    let head = [before.as_slice(), &run, &[0]].concat();
    let mut payload = (head.len() as u64).to_le_bytes().to_vec();
    payload.extend(&head);
    payload.extend(Shard::new(ShardId::new(1)).snapshot());
    let mut input = vec![CHECKPOINT | 0x10, 1];
    put_chunk(&mut input, &payload);
    input.extend([SEGMENT | 0x10, 1, 0]);
    put_chunk(&mut input, &frame);
    input
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_with_a_checkpoint_is_one_that_opens() {
        let seed = checkpointed();
        let mut input = Input::new(&seed);
        let disk = new_disk();
        for number in 1..=2 {
            write(&disk, number, &mut input);
        }
        let dir = open_dir(&disk).unwrap();
        let shard = ShardId::new(1);
        let checkpoint = Checkpoint::load(&dir, shard).unwrap().unwrap();
        Shard::restore(&checkpoint.snapshot).unwrap();
        let store = Store::open(&dir, shard, Some(&checkpoint.manifest)).unwrap();
        let read = store.read_each(LogId::new(1), &[Offset::new(0)], u64::MAX);
        assert_eq!(&*read[0].as_ref().unwrap().message, b"abc");
    }
}
