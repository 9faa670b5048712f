//! Puts the files of a journal together.
//!
//! Decides what is a torn tail and what is damage. Sequence numbers decide: the last batch of all
//! may be incomplete, every other one must be there and whole, because a batch is written only
//! after the one before was synced. A sequence number found twice in files that follow each other
//! is a torn tail, or a seal, that a later start wrote again in its new file; the copy with more
//! valid records counts. A file in which no batch is found was never written to, or has lost
//! them all: the first batch behind it tells, as it names the file before its own.
//!
//! Reads every batch once and keeps none: `replay` reads them again. What it keeps grows with
//! shards and files, not with records.

use std::collections::{BTreeMap, BTreeSet};

use millrace_types::ShardId;

use super::files;
use super::fold::Fold;
use super::format::{FILE_HEADER_BYTES, aligned};
use super::live::{Live, LiveFile};
use super::replay::Replay;
use super::scan::{Scan, ScannedBatch};
use super::{Damage, JournalOptions, JournalRecord, Recovery, ShardRecovery, TornTail};
use crate::data_dir::DataDir;
use crate::error::{Corruption, OpenError};

/// What the writer goes on from.
pub(crate) struct Found {
    /// Files that hold something, oldest first.
    pub(crate) live: Live,
    /// Files that hold nothing.
    pub(crate) spares: Vec<std::path::PathBuf>,
    /// Above every number used.
    pub(crate) number_next: u64,
    /// Of the next batch.
    pub(crate) sequence_next: u64,
    /// The number of the file with the last batch; 0: there is none.
    pub(crate) previous: u64,
    /// What is valid of the torn tail: the next batch, before any other.
    pub(crate) rewrite: Vec<JournalRecord>,
}

/// Reads the journal of a data directory.
pub(crate) fn recover(
    dir: &DataDir,
    options: JournalOptions,
) -> Result<(Recovery, Found, Replay), OpenError> {
    let listing = files::Listing::read(dir, options)?;
    let mut scans = Vec::new();
    for path in &listing.journals {
        scans.push(Scan::open(&**dir.disk(), path)?);
    }
    let numbers = scans.iter().map(|scan| number_of(scan).saturating_add(1));
    let number_next = numbers.max().unwrap_or(1).max(listing.number_next);
    let (mut kept, empty) = in_order(scans);
    let newest = kept.iter().map(number_of).max().unwrap_or(0);

    let last_used = kept.iter().rfind(|scan| scan.first.is_some());
    let previous = last_used.map_or(0, number_of);
    // Everything before it was: a batch is written after the sync of the one before.
    last_used.map_or(Ok(()), Scan::sync)?;

    let mut pass = Pass::new(&kept);
    for (file, scan) in kept.iter_mut().enumerate() {
        pass.read_file(file, scan)?;
    }
    let tail = pass.finish(&mut kept);
    if let Some((scan, at)) = empty
        .iter()
        .rev()
        .find_map(|scan| Some((scan, scan.begun?)))
    {
        let (path, bytes) = (scan.path.clone(), 0);
        pass.torn.get_or_insert(TornTail { path, at, bytes });
    }
    let mut spares = listing.spares;
    for scan in empty {
        // With damage, an older file that seems empty may be where missing batches were: it stays.
        if pass.pins.is_empty() || number_of(&scan) > newest {
            spares.extend(files::retire(dir, &scan.path, scan.bytes, options)?);
        }
    }
    for (file, shard) in std::mem::take(&mut pass.pins) {
        pass.live.pin(file, shard);
    }
    let found = Found {
        live: pass.live,
        spares,
        number_next,
        sequence_next: tail.sequence_next,
        previous,
        rewrite: tail.rewrite,
    };
    let shards = pass.shards.iter().map(|(shard, fold)| {
        let damage = fold.damage.clone();
        let installed = fold.installed;
        (*shard, ShardRecovery { damage, installed })
    });
    let recovery = Recovery {
        shards: shards.collect(),
        torn: pass.torn,
    };
    Ok((
        recovery,
        found,
        Replay::new(kept, pass.ignored, pass.bad, pass.shards),
    ))
}

/// Files that hold something, or should, in the order of what they hold: a file for a large record
/// is used before the one prepared earlier. One with an unreadable header has no batches and holds
/// back nothing but itself. And the others.
fn in_order(scans: Vec<Scan>) -> (Vec<Scan>, Vec<Scan>) {
    let followed: BTreeSet<u64> = scans.iter().map(|scan| scan.previous).collect();
    let is_kept = |scan: &Scan| {
        scan.header.is_err() || scan.first.is_some() || followed.contains(&number_of(scan))
    };
    let (mut kept, empty): (Vec<_>, Vec<_>) = scans.into_iter().partition(is_kept);
    kept.sort_by_key(|scan| (scan.first, number_of(scan)));
    (kept, empty)
}

fn number_of(scan: &Scan) -> u64 {
    scan.header.as_ref().map_or(0, |header| header.number)
}

/// Where the journal ends.
struct Tail {
    sequence_next: u64,
    rewrite: Vec<JournalRecord>,
}

/// The one reading of all files, in order.
struct Pass {
    shards: BTreeMap<ShardId, Fold>,
    live: Live,
    /// Damaged files, and a shard that will never release them: they stay for a repair to look at.
    pins: Vec<(usize, ShardId)>,
    /// Copies of batches that do not count: file and place.
    ignored: BTreeSet<(usize, u64)>,
    /// Batches that are not whole: file and place.
    bad: BTreeSet<(usize, u64)>,
    /// Files that were written to and in which no batch is found, by number.
    emptied: BTreeMap<u64, Place>,
    last: Option<Last>,
    torn: Option<TornTail>,
}

/// A file by number and path, and a byte.
type Place = (usize, std::path::PathBuf, u64);

/// The last batch so far.
struct Last {
    file: usize,
    path: std::path::PathBuf,
    batch: ScannedBatch,
}

impl Pass {
    fn new(kept: &[Scan]) -> Self {
        let emptied = kept.iter().enumerate();
        let emptied = emptied.filter(|(_, scan)| scan.header.is_ok() && scan.first.is_none());
        let place = |(file, scan): (usize, &Scan)| {
            let place = (file, scan.path.clone(), FILE_HEADER_BYTES);
            (number_of(scan), place)
        };
        Self {
            emptied: emptied.map(place).collect(),
            shards: DataDir::shards().map(|id| (id, Fold::default())).collect(),
            live: Live::default(),
            pins: Vec::new(),
            ignored: BTreeSet::new(),
            bad: BTreeSet::new(),
            last: None,
            torn: None,
        }
    }

    fn read_file(&mut self, file: usize, scan: &mut Scan) -> Result<(), OpenError> {
        self.live.push(LiveFile::new(scan.path.clone(), scan.bytes));
        if let Err(kind) = scan.header.clone() {
            self.damage_all(file, scan.path.clone(), 0, kind);
        }
        while let Some(batch) = scan.next()? {
            self.read_batch(file, scan, batch);
        }
        Ok(())
    }

    fn read_batch(&mut self, file: usize, scan: &Scan, batch: ScannedBatch) {
        let sequence = batch.header.place.sequence;
        if batch.bad.is_some() {
            self.bad.insert((file, batch.at));
        }
        let holes = self.holes(file, scan, &batch);
        match self.last.take() {
            // What came before it has been released, but for what is known to be gone.
            None => {
                let ordinal = batch.header.place.ordinal;
                let first = sequence.saturating_sub(u64::from(ordinal));
                let is_emptied = holes.iter().any(|(hole, ..)| *hole != file);
                let first = first.saturating_sub(u64::from(is_emptied));
                // Number 1 may be in two files, as every torn tail.
                if ordinal > 0 || first > 0 {
                    self.damage_at(holes, &missing(first, sequence));
                }
            }
            Some(last) if sequence > last.batch.header.place.sequence => {
                self.has_successor(last, sequence, holes);
            }
            Some(last) => {
                let is_copy = sequence == last.batch.header.place.sequence;
                if !is_copy {
                    // Nobody writes so: the files tell two stories.
                    let path = scan.path.clone();
                    self.damage_all(file, path, batch.at, Corruption::Content);
                }
                if !is_copy || batch.records.len() < last.batch.records.len() {
                    self.ignored.insert((file, batch.at));
                    self.last = Some(last);
                    return;
                }
                self.ignored.insert((last.file, last.batch.at));
            }
        }
        self.live.note(&batch.records, batch.at);
        let path = scan.path.clone();
        self.last = Some(Last { file, path, batch });
    }

    /// Where batches may be missing before this one, if it is the first of its file that is found:
    /// in the file before, that holds none any more, and in its own.
    fn holes(&mut self, file: usize, scan: &Scan, batch: &ScannedBatch) -> Vec<Place> {
        if self.last.as_ref().is_some_and(|last| last.file == file) {
            return Vec::new();
        }
        let place = batch.header.place;
        let mut holes: Vec<Place> = self.emptied.remove(&place.previous).into_iter().collect();
        if place.ordinal > 0 {
            holes.push((file, scan.path.clone(), FILE_HEADER_BYTES));
        }
        holes
    }

    /// A batch is not the last one: it must be whole, and the next one must follow, or is missing
    /// in these places, otherwise behind this one.
    fn has_successor(&mut self, last: Last, next: u64, mut holes: Vec<Place>) {
        self.fold(&last);
        let Last { file, path, batch } = last;
        let (sequence, end) = (batch.header.place.sequence, aligned(batch.end()));
        if let Some((at, kind)) = batch.bad {
            if millrace_types::mutant!(DamageSpreads) {
                self.damage_all(file, path.clone(), at, kind.clone());
            }
            for shard in batch.header.shards {
                self.pins.push((file, shard));
                let (path, kind) = (path.clone(), kind.clone());
                let fold = self.shards.entry(shard).or_default();
                fold.damage.get_or_insert(Damage { path, at, kind });
            }
        }
        // The batch after a seal takes its place, and number: a later one says that it is gone.
        let is_seal = batch.header.records == 0;
        let due = if is_seal { sequence } else { sequence + 1 };
        if due < next {
            if holes.is_empty() {
                let at = if is_seal { batch.at } else { end };
                holes.push((file, path, at));
            }
            self.damage_at(holes, &missing(due, next));
        }
    }

    /// Adds up the records of a batch of which no better copy will come.
    fn fold(&mut self, last: &Last) {
        for record in &last.batch.records {
            let fold = self.shards.entry(record.shard).or_default();
            fold.add(record, &last.path, last.batch.at);
        }
    }

    fn damage_at(&mut self, places: Vec<Place>, kind: &Corruption) {
        for (file, path, at) in places {
            self.damage_all(file, path, at, kind.clone());
        }
    }

    fn damage_all(&mut self, file: usize, path: std::path::PathBuf, at: u64, kind: Corruption) {
        for fold in self.shards.values_mut() {
            let (path, kind) = (path.clone(), kind.clone());
            fold.damage.get_or_insert(Damage { path, at, kind });
        }
        self.pins.push((file, ShardId::METADATA));
    }

    /// Judges the last batch of all.
    fn finish(&mut self, scans: &mut [Scan]) -> Tail {
        if let Some((scan, at)) = scans.last().and_then(|scan| Some((scan, scan.begun?))) {
            let (path, bytes) = (scan.path.clone(), 0);
            self.torn = Some(TornTail { path, at, bytes });
        }
        let Some(last) = self.last.take() else {
            let (sequence_next, rewrite) = (1, Vec::new());
            return Tail {
                sequence_next,
                rewrite,
            };
        };
        self.fold(&last);
        let Last { file, path, batch } = last;
        let sequence = batch.header.place.sequence;
        let Some((at, _)) = batch.bad else {
            // A seal does not use up its sequence number: the next batch takes its place.
            let is_seal = batch.records.is_empty();
            if millrace_types::mutant!(TailCutTooFar) {
                self.ignored.insert((file, batch.at));
            }
            return Tail {
                sequence_next: if is_seal { sequence } else { sequence + 1 },
                rewrite: Vec::new(),
            };
        };
        let bytes = batch.end() - at;
        self.torn = Some(TornTail { path, at, bytes });
        Tail {
            sequence_next: sequence,
            rewrite: batch.records,
        }
    }
}

const fn missing(first: u64, next: u64) -> Corruption {
    let last = next.saturating_sub(1);
    Corruption::BatchesMissing { first, last }
}
