//! Puts the files of a journal together.
//!
//! Decides what is a torn tail and what is damage. Sequence numbers decide: the last batch of all
//! may be incomplete, every other one must be there and whole. A sequence number found twice is a
//! torn tail that a later start cut and wrote again in its new file; the copy with more valid
//! records counts.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;

use millrace_types::ShardId;

use super::format::{FILE_HEADER_BYTES, aligned};
use super::live::LiveFile;
use super::scan::{FileScan, ScannedBatch, scan};
use super::{
    Damage, JournalOptions, JournalRecord, RecordKind, Recovery, ShardRecovery, TornTail, files,
};
use crate::data_dir::DataDir;
use crate::error::{Corruption, OpenError};

/// What the writer goes on from.
pub(crate) struct Found {
    /// Files that hold something, oldest first.
    pub(crate) live: Vec<LiveFile>,
    /// Files that hold nothing.
    pub(crate) spares: Vec<std::path::PathBuf>,
    /// Above every number used.
    pub(crate) number_next: u64,
    /// Of the next batch.
    pub(crate) sequence_next: u64,
    /// What is valid of the torn tail: the next batch, before any other.
    pub(crate) rewrite: Vec<JournalRecord>,
}

/// Reads the journal of a data directory.
pub(crate) fn recover(
    dir: &DataDir,
    options: JournalOptions,
) -> Result<(Recovery, Found), OpenError> {
    let listing = files::Listing::read(dir, options)?;
    let mut scans = Vec::new();
    for path in &listing.journals {
        scans.push(scan(&**dir.disk(), path)?);
    }
    // By number; a file with an unreadable header has none, and holds back nothing but itself.
    scans.sort_by_key(number_of);
    let number_next = scans
        .iter()
        .map(|scan| number_of(scan).saturating_add(1))
        .max();
    let number_next = number_next.unwrap_or(1).max(listing.number_next);
    let mut recovery = Recovery {
        shards: dir
            .shards()
            .map(|shard| (shard, ShardRecovery::default()))
            .collect(),
        torn: None,
    };
    let (kept, empty): (Vec<_>, Vec<_>) = scans
        .into_iter()
        .partition(|scan| scan.header.is_err() || !scan.batches.is_empty());
    if let Some(scan) = empty.iter().rfind(|scan| scan.begun) {
        let (path, at) = (scan.path.clone(), FILE_HEADER_BYTES);
        recovery.torn = Some(TornTail { path, at, bytes: 0 });
    }
    let newest = kept.iter().map(number_of).max().unwrap_or(0);
    let mut live: Vec<LiveFile> = kept.iter().map(LiveFile::of_scan).collect();
    let mut pins = Vec::new();
    let (sequence_next, rewrite) = fold(kept, &mut recovery, &mut pins);
    let mut spares = listing.spares;
    for scan in empty {
        // With damage, an older file that seems empty may be where missing batches were: it stays.
        if pins.is_empty() || number_of(&scan) > newest {
            spares.extend(files::retire(dir, &scan.path, scan.bytes, options)?);
        }
    }
    for (file, shard) in pins {
        live[file].pin(shard);
    }
    let found = Found {
        live,
        spares,
        number_next,
        sequence_next,
        rewrite,
    };
    Ok((recovery, found))
}

fn number_of(scan: &FileScan) -> u64 {
    scan.header.as_ref().map_or(0, |header| header.number)
}

/// One copy of a batch, and where it is.
struct Placed {
    file: usize,
    batch: ScannedBatch,
}

/// Damaged files, and a shard that will never release them: they stay for a repair to look at.
type Pins = Vec<(usize, ShardId)>;

/// Moves all records to their shards. Returns the next sequence number, and the records with which
/// it begins.
fn fold(
    mut scans: Vec<FileScan>,
    recovery: &mut Recovery,
    pins: &mut Pins,
) -> (u64, Vec<JournalRecord>) {
    let mut batches: BTreeMap<u64, Placed> = BTreeMap::new();
    for (file, scan) in scans.iter_mut().enumerate() {
        if let Err(kind) = &scan.header {
            damage_all(recovery, scan, 0, kind.clone());
            pins.push((file, ShardId::METADATA));
        }
        for batch in std::mem::take(&mut scan.batches) {
            match batches.entry(batch.header.sequence) {
                Entry::Vacant(place) => {
                    place.insert(Placed { file, batch });
                }
                Entry::Occupied(mut place) => {
                    if batch.records.len() >= place.get().batch.records.len() {
                        place.insert(Placed { file, batch });
                    }
                }
            }
        }
    }
    find_missing(&batches, &scans, recovery, pins);
    let Some(last) = batches.last_key_value().map(|(sequence, _)| *sequence) else {
        return (1, Vec::new());
    };
    let mut sequence_next = last + 1;
    let mut rewrite = Vec::new();
    if let Some(scan) = scans.last().filter(|scan| scan.begun) {
        let (path, at) = (scan.path.clone(), aligned(scan.end));
        recovery.torn = Some(TornTail { path, at, bytes: 0 });
    }
    for (sequence, Placed { file, batch }) in batches {
        let path = &scans[file].path;
        match batch.bad {
            Some((at, _)) if sequence == last => {
                let bytes = batch.end() - at;
                recovery.torn = Some(TornTail {
                    path: path.clone(),
                    at,
                    bytes,
                });
                sequence_next = sequence;
                rewrite.clone_from(&batch.records);
            }
            Some((at, ref kind)) => {
                for shard in &batch.header.shards {
                    pins.push((file, *shard));
                    let (path, kind) = (path.clone(), kind.clone());
                    damage(recovery, *shard, Damage { path, at, kind });
                }
            }
            None => {}
        }
        for record in batch.records {
            push(recovery, record, path, batch.at);
        }
    }
    (sequence_next, rewrite)
}

/// Batches that should be there and are not: their shards are unknown, so all are damaged.
fn find_missing(
    batches: &BTreeMap<u64, Placed>,
    scans: &[FileScan],
    recovery: &mut Recovery,
    pins: &mut Pins,
) {
    let mut previous: Option<(u64, &Placed)> = None;
    for (&sequence, placed) in batches {
        let missing = match previous {
            // The oldest file starts with its first batch: what came before has been released.
            None if placed.batch.header.ordinal > 0 => {
                let ordinal = u64::from(placed.batch.header.ordinal);
                let first = sequence.saturating_sub(ordinal);
                Some((placed.file, FILE_HEADER_BYTES, first))
            }
            Some((before, last)) if before + 1 < sequence => {
                Some((last.file, aligned(last.batch.end()), before + 1))
            }
            _ => None,
        };
        if let Some((file, at, first)) = missing {
            let last = sequence.saturating_sub(1);
            damage_all(
                recovery,
                &scans[file],
                at,
                Corruption::BatchesMissing { first, last },
            );
            pins.push((file, ShardId::METADATA));
        }
        previous = Some((sequence, placed));
    }
}

fn push(recovery: &mut Recovery, record: JournalRecord, path: &std::path::Path, at: u64) {
    let shard = recovery.shards.entry(record.shard).or_default();
    let before = shard
        .records
        .iter()
        .rev()
        .find(|before| before.kind == RecordKind::Entry);
    if let Some(before) = before
        && record.kind == RecordKind::Entry
        && record.index > before.index.next()
    {
        let (after, next) = (before.index.get(), record.index.get());
        let kind = Corruption::EntriesMissing { after, next };
        shard.damage.get_or_insert(Damage {
            path: path.into(),
            at,
            kind,
        });
    }
    shard.records.push(record);
}

fn damage(recovery: &mut Recovery, shard: ShardId, damage: Damage) {
    recovery
        .shards
        .entry(shard)
        .or_default()
        .damage
        .get_or_insert(damage);
}

fn damage_all(recovery: &mut Recovery, scan: &FileScan, at: u64, kind: Corruption) {
    for shard in recovery.shards.values_mut() {
        let (path, kind) = (scan.path.clone(), kind.clone());
        shard.damage.get_or_insert(Damage { path, at, kind });
    }
}

impl LiveFile {
    fn of_scan(scan: &FileScan) -> Self {
        let mut file = Self::new(scan.path.clone(), scan.bytes);
        for batch in &scan.batches {
            for record in &batch.records {
                file.note(record);
            }
        }
        file
    }
}
