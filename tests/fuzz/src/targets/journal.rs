//! The journal: files of any content, and good files with one damaged place.

use std::collections::{BTreeMap, BTreeSet};
use std::io::IoSlice;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use millrace_storage::{
    DataDir, Disk as _, Expect, JournalOptions, JournalRecord, MemoryDisk, OpenMode, RecordKind,
    fuzz,
};
use millrace_types::{LogIndex, ReplicaId, ShardId, Term};

use crate::input::{Input, put_chunk};

/// Data shards of the directories made here.
pub(super) const DATA_SHARDS: u32 = 2;
/// Batches of one input, and chunks of one file.
const BATCHES_MAX: usize = 8;
/// Bytes that one damage reaches: less than a sector.
const DAMAGE_BYTES_MAX: usize = 64;

pub(super) fn data() -> PathBuf {
    PathBuf::from("/data")
}

/// A directory of two data shards, with a journal's folder and an identity.
pub(super) fn new_disk() -> MemoryDisk {
    let disk = MemoryDisk::new();
    drop(open_dir(&disk).expect("a new directory"));
    disk.create_dir_all(&data().join("journal"))
        .expect("in memory");
    disk
}

pub(super) fn put(disk: &MemoryDisk, path: &Path, content: &[u8]) {
    // The same name twice: the first one stays.
    if let Ok(file) = disk.open(path, OpenMode::CreateNew) {
        file.write_all_at(&[IoSlice::new(content)], 0)
            .expect("in memory");
    }
}

pub(super) fn put_journal(disk: &MemoryDisk, number: u64, content: &[u8]) {
    let name = format!("{number:016x}.journal");
    put(disk, &data().join("journal").join(name), content);
}

pub(super) fn open_dir(disk: &MemoryDisk) -> Option<DataDir> {
    let expect = Expect {
        cluster_id: None,
        shards: DATA_SHARDS,
    };
    // Numbers that do not repeat within an input, and are the same for each.
    let next = AtomicU64::new(1 << 40);
    let random = Arc::new(move || Ok(next.fetch_add(1, Ordering::Relaxed)));
    DataDir::open_alone(Arc::new(disk.clone()), &data(), expect, random).ok()
}

/// Small files, so that opening one costs nothing.
pub(super) fn options() -> JournalOptions {
    JournalOptions {
        file_bytes: 16 << 10,
        batch_records_max: 16,
        batch_bytes_max: 4 << 10,
        queued_bytes_max: 64 << 10,
        spare_files_max: 2,
    }
}

/// What was found of each shard.
type Found = BTreeMap<ShardId, fuzz::Held>;

/// Opens the journal twice. A shard whose records were written as they should be is found the same;
/// damage stays damage.
fn open_twice(dir: &DataDir) -> Option<Found> {
    let before = fuzz::recover(dir, options()).ok()?;
    let after = fuzz::recover(dir, options()).expect("what opened opens again");
    for (shard, (records, damage)) in &before {
        let (records_after, damage_after) = &after[shard];
        if damage.is_some() {
            assert!(
                damage_after.is_some(),
                "shard {shard} was damaged and is not any more"
            );
        } else {
            assert_eq!(records_after, records, "shard {shard}");
            assert_eq!(damage_after, damage, "shard {shard} was good");
        }
    }
    Some(before)
}

/// Opens a journal that nobody wrote, again and again: it says no, or goes on.
pub(super) fn open_often(dir: &DataDir) {
    for _ in 0..2 {
        drop(fuzz::recover(dir, options()));
    }
}

/// Files of any content, their checksums right: chunks of batches, a new file after each empty one.
pub(crate) fn files(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let disk = new_disk();
    let mut number = 1;
    while !input.is_empty() {
        let mut chunks = Vec::new();
        while !input.is_empty() && chunks.len() < BATCHES_MAX {
            match input.chunk() {
                [] => break,
                chunk => chunks.push(chunk),
            }
        }
        put_journal(&disk, number, &fuzz::journal_file(number, &chunks));
        number += 1;
    }
    if let Some(dir) = open_dir(&disk) {
        open_often(&dir);
    }
}

/// Two files of two batches; the batches of the second follow, or do not.
pub(crate) fn file_seeds() -> Vec<Vec<u8>> {
    let seed = |gap: u64| {
        let mut input = Vec::new();
        for (number, sequence) in [(1, 1), (2, 3 + gap)] {
            let batches = [sequence, sequence + 1].map(|n| vec![record(1, n, 9), record(2, n, 3)]);
            let (file, places) = fuzz::journal_of(number, sequence, &batches);
            for place in places {
                put_chunk(&mut input, &file[place]);
            }
            put_chunk(&mut input, &[]);
        }
        input
    };
    vec![seed(0), seed(1)]
}

fn record(shard: u32, index: u64, body_bytes: usize) -> JournalRecord {
    let fill = (index * 7 + u64::from(shard)).to_le_bytes()[0];
    JournalRecord {
        shard: ShardId::new(shard),
        replica: ReplicaId::new(u64::from(shard) + 100),
        kind: RecordKind::Entry,
        term: Term::new(1),
        index: LogIndex::new(index),
        header: Bytes::from(format!("command {shard}/{index}")),
        body: Bytes::from(vec![fill; body_bytes]),
    }
}

/// A journal that was written as it should be, and what was written.
struct Written {
    files: Vec<Vec<u8>>,
    /// File, place and records of each batch.
    batches: Vec<(usize, Range<usize>, Vec<JournalRecord>)>,
}

fn write(input: &mut Input<'_>) -> Written {
    let mut next: BTreeMap<u32, u64> = BTreeMap::new();
    let mut files: Vec<Vec<Vec<JournalRecord>>> = Vec::new();
    for _ in 0..=input.below(BATCHES_MAX) {
        let shape = input.byte();
        if files.is_empty() || shape & 0x80 != 0 {
            files.push(Vec::new());
        }
        let records = (0..=shape & 3).map(|_| {
            let (shard, body) = (
                u32::from(input.byte()) % (DATA_SHARDS + 1),
                input.below(700),
            );
            let index = next.entry(shard).or_insert(0);
            *index += 1;
            record(shard, *index, body)
        });
        let records = records.collect();
        files.last_mut().expect("one was pushed").push(records);
    }
    let mut written = Written {
        files: Vec::new(),
        batches: Vec::new(),
    };
    let mut sequence = 1;
    for (n, batches) in files.into_iter().enumerate() {
        let (file, places) = fuzz::journal_of(n as u64 + 1, sequence, &batches);
        sequence += batches.len() as u64;
        written.files.push(file);
        let placed = places.into_iter().zip(batches);
        let placed = placed.map(|(place, records)| (n, place, records));
        written.batches.extend(placed);
    }
    written
}

/// A good journal, one place of it damaged.
pub(crate) fn damage(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let mut written = write(&mut input);
    let file = input.below(written.files.len());
    let content = &mut written.files[file];
    // Within a batch or the file's header: damage that reaches two batches may be a torn tail.
    let places = written.batches.iter().filter(|(n, ..)| *n == file);
    let starts: BTreeSet<usize> = places.map(|(_, place, _)| place.start).collect();
    let at = input.below(content.len());
    let limit = starts.range(at + 1..).next().copied();
    let end = (at + 1 + input.below(DAMAGE_BYTES_MAX)).min(limit.unwrap_or(content.len()));
    let mask = input.byte();
    content[at..end].iter_mut().for_each(|byte| *byte ^= mask);

    let disk = new_disk();
    for (n, content) in written.files.iter().enumerate() {
        put_journal(&disk, n as u64 + 1, content);
    }
    let dir = open_dir(&disk).expect("it has its identity");
    let found = open_twice(&dir).expect("damage is no error");

    let (last, before) = written.batches.split_last().expect("at least one");
    for (id, (records, damage)) in &found {
        let of_shard = |records: &[JournalRecord]| -> Vec<JournalRecord> {
            let records = records.iter().filter(|record| record.shard == *id);
            records.cloned().collect()
        };
        let sure: Vec<_> = before.iter().flat_map(|(.., all)| of_shard(all)).collect();
        let all: Vec<_> = sure.iter().cloned().chain(of_shard(&last.2)).collect();
        let invented = records.iter().find(|record| !all.contains(record));
        assert!(invented.is_none(), "invented: {invented:?}");
        if damage.is_some() {
            continue;
        }
        let (file_last, place, _) = last;
        let is_last_hit = *file_last == file && at < place.end && end > place.start;
        let least = if is_last_hit { &sure } else { &all };
        assert!(
            records.starts_with(least) && all.starts_with(records),
            "shard {id} is not named as damaged and lost something: {at}..{end} of file {file} \
             changed by {mask:#x}"
        );
    }
}

/// Damage in the header, in a batch, in the last batch, nowhere.
pub(crate) fn damage_seeds() -> Vec<Vec<u8>> {
    let seed = |file: u16, at: u16, mask: u8| {
        let mut input = vec![3, 0];
        for shape in [1, 0x82, 0, 1] {
            input.push(shape);
            for shard in 0..=shape & 3 {
                input.push(shard);
                input.extend([40, 0]);
            }
        }
        input.extend(file.to_le_bytes());
        input.extend(at.to_le_bytes());
        input.extend([5, 0, mask]);
        input
    };
    vec![
        seed(0, 8, 1),
        seed(0, 4100, 0xff),
        seed(1, 4600, 2),
        seed(1, 5130, 0x80),
        seed(0, 4200, 0),
    ]
}
