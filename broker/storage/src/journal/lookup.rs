//! Reads entries of one shard once more, long after they were written, for a follower that lacks
//! them: a few at a time, while the journal goes on.
//!
//! A file may be used again while it is read. Its batches have another nonce then, and a batch that
//! is half overwritten fails its checksums: what is handed out is what was written, and ends where
//! that is gone. Holds one batch in memory besides what it hands out.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_types::{LogIndex, ReplicaId, ShardId};

use super::format::{
    BATCH_HEADER_BYTES_MAX, BatchHeader, FILE_HEADER_BYTES, FILE_HEADER_PAGE, FileHeader, aligned,
    decode_frame,
};
use super::places::{At, Course};
use super::{JournalRecord, RecordKind};
use crate::disk::{Disk, DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, failed};
use crate::size::in_memory;

/// Which entries to read.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whose.
    pub shard: ShardId,
    /// Of which replica: another one of the shard may have written before.
    pub replica: ReplicaId,
    /// Their indexes.
    pub indexes: Range<LogIndex>,
    /// As many as fit, at least one.
    pub bytes_max: u64,
}

/// What was found so far: dense from the first index on.
struct Found<'a> {
    wanted: &'a Wanted,
    entries: BTreeMap<LogIndex, JournalRecord>,
    bytes: u64,
}

/// Reads entries; none, or fewer, when they are gone.
pub(crate) fn read(
    disk: &dyn Disk,
    wanted: &Wanted,
    course: &Course,
    paths: &BTreeMap<u64, PathBuf>,
) -> Result<Vec<JournalRecord>, DiskFailure> {
    let mut found = Found {
        wanted,
        entries: BTreeMap::new(),
        bytes: 0,
    };
    for start in &course.starts {
        let Some(path) = paths.get(&start.file) else {
            break;
        };
        let opened = match disk.open(path, OpenMode::Read) {
            // It has another name by now: it is used again.
            Err(error) if error.kind() == io::ErrorKind::NotFound => break,
            opened => opened.map_err(failed(Action::Open, path))?,
        };
        if !found.search(&opened, path, *start, course)? {
            break;
        }
    }
    Ok(found.dense())
}

impl Found<'_> {
    /// Looks through a file from a batch on; whether to go on in the next one.
    fn search(
        &mut self,
        file: &Arc<dyn DiskFile>,
        path: &Path,
        start: At,
        course: &Course,
    ) -> Result<bool, DiskFailure> {
        let read = |buffer: &mut [u8], at| {
            let read = file.read_exact_at(buffer, at);
            read.map_err(failed(Action::Read, path))
        };
        let bytes = file.bytes().map_err(failed(Action::Read, path))?;
        let mut page = [0; FILE_HEADER_PAGE];
        if bytes < FILE_HEADER_BYTES {
            return Ok(false);
        }
        read(&mut page, 0)?;
        let Ok(FileHeader { nonce, .. }) = FileHeader::decode(&page) else {
            return Ok(false);
        };
        let mut at = start.byte;
        while at < bytes {
            let mut buffer = [0; BATCH_HEADER_BYTES_MAX];
            let buffer = &mut buffer[..in_memory((bytes - at).min(BATCH_HEADER_BYTES_MAX as u64))];
            read(buffer, at)?;
            let header = BatchHeader::decode(buffer, nonce);
            let Some(header) = header.filter(|header| header.batch_bytes() <= bytes - at) else {
                // The end of what is written, or a file that is used again.
                return Ok(true);
            };
            if header.shards.contains(&self.wanted.shard) {
                let mut frames = vec![0; in_memory(u64::from(header.length))];
                read(&mut frames, at + header.header_bytes() as u64)?;
                let file = start.file;
                if !self.take(&header, &frames, At { file, byte: at }, course) {
                    return Ok(false);
                }
            }
            at = aligned(at + header.batch_bytes());
        }
        Ok(true)
    }

    /// Takes a batch; whether to go on.
    fn take(&mut self, header: &BatchHeader, frames: &[u8], at: At, course: &Course) -> bool {
        let mut rest = frames;
        for _ in 0..header.records {
            let place = header.place;
            let Ok(record) = decode_frame(&mut rest, place.nonce, place.sequence) else {
                return false;
            };
            self.add(record, at, course);
        }
        let is_full = self.bytes >= self.wanted.bytes_max;
        let last = self.entries.last_key_value().map(|(index, _)| index.next());
        !is_full && last != Some(self.wanted.indexes.end)
    }

    fn add(&mut self, record: JournalRecord, at: At, course: &Course) {
        let Wanted {
            shard,
            replica,
            ref indexes,
            ..
        } = *self.wanted;
        let is_entry = matches!(
            record.kind,
            RecordKind::Entry | RecordKind::Lead | RecordKind::Members
        );
        let is_ours = record.shard == shard && record.replica == replica && is_entry;
        if !is_ours || !indexes.contains(&record.index) || !course.counts(at, record.index) {
            return;
        }
        // Written again in the same batch.
        for (_, old) in self.entries.split_off(&record.index) {
            self.bytes -= old.bytes();
        }
        self.bytes += record.bytes();
        self.entries.insert(record.index, record);
    }

    /// From the first index on without a gap, as many as fit.
    fn dense(self) -> Vec<JournalRecord> {
        let mut next = self.wanted.indexes.start;
        let (mut dense, mut bytes) = (Vec::new(), 0);
        for (index, record) in self.entries {
            bytes += record.bytes();
            if index != next || (bytes > self.wanted.bytes_max && !dense.is_empty()) {
                break;
            }
            next = index.next();
            dense.push(record);
        }
        dense
    }
}
