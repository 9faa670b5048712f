//! Writes frames to one segment, bodies uncopied, some of them at a time.
//!
//! Nothing it wrote counts before the checkpoint that lists it is durable.

use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use millrace_types::{LogId, Offset, Wall};

use super::segment::{FRAME_HEADER_BYTES, FrameHeader, HEADER_BYTES, IndexBuilder, Segment};
use crate::disk::DiskFile;
use crate::error::{Action, DiskFailure, failed};

/// Bytes handed to the disk at a time.
const WRITE_BYTES: u64 = 1 << 20;

/// Records of one batch that are alive, without a gap between them.
pub(super) struct Part {
    pub(super) range: Range<u64>,
    pub(super) stored_at: Wall,
    pub(super) records: Bytes,
}

/// A segment with what was added to it.
pub(super) struct Written {
    pub(super) first: u64,
    pub(super) end: u64,
    pub(super) bytes: u64,
    /// Unless the segment was there before and its index is not known.
    pub(super) blocks: Option<IndexBuilder>,
    pub(super) is_new: bool,
}

impl Written {
    /// Nothing yet.
    pub(super) fn begun(first: u64, is_new: bool) -> Self {
        Self {
            first,
            end: first,
            bytes: 0,
            blocks: None,
            is_new,
        }
    }

    pub(super) fn into_segment(self, log: LogId) -> Segment {
        let index = OnceLock::new();
        if let Some(blocks) = self.blocks {
            drop(index.set(blocks.blocks.into()));
        }
        let (first, end) = (Offset::new(self.first), Offset::new(self.end));
        Segment {
            log,
            first,
            end,
            bytes: self.bytes,
            index,
        }
    }
}

/// Appends frames to a segment.
pub(super) struct Writer {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    seed: u32,
    pub(super) first: u64,
    pub(super) end: u64,
    /// Where `pending` goes.
    pub(super) at: u64,
    pending: Vec<(Vec<u8>, Bytes)>,
    pending_bytes: u64,
    pub(super) blocks: Option<IndexBuilder>,
    pub(super) is_new: bool,
}

impl Writer {
    pub(super) fn new(file: Arc<dyn DiskFile>, path: PathBuf, seed: u32, first: u64) -> Self {
        Self {
            file,
            path,
            seed,
            first,
            end: first,
            at: HEADER_BYTES,
            pending: Vec::new(),
            pending_bytes: 0,
            blocks: None,
            is_new: false,
        }
    }

    pub(super) fn bytes(&self) -> u64 {
        self.at + self.pending_bytes
    }

    pub(super) fn push(&mut self, part: Part) -> Result<(), DiskFailure> {
        let Part {
            range,
            stored_at,
            records,
        } = part;
        let count = u32::try_from(range.end - range.start).expect("at most a batch");
        let header = FrameHeader::new(range.start, count, stored_at, &records, self.seed);
        let at = self.bytes();
        if let Some(blocks) = &mut self.blocks {
            blocks.push(&header, at);
        }
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        header.encode(self.seed, &mut bytes);
        self.pending_bytes += bytes.len() as u64 + records.len() as u64;
        self.pending.push((bytes, records));
        self.end = range.end;
        if self.pending_bytes >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    fn flush(&mut self) -> Result<(), DiskFailure> {
        let mut slices = Vec::with_capacity(2 * self.pending.len());
        for (header, records) in &self.pending {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(records));
        }
        self.file
            .write_all_at(&slices, self.at)
            .map_err(failed(Action::Write, &self.path))?;
        self.at += self.pending_bytes;
        self.pending_bytes = 0;
        self.pending.clear();
        Ok(())
    }

    pub(super) fn finish(mut self) -> Result<Written, DiskFailure> {
        self.flush()?;
        self.file
            .sync_data()
            .map_err(failed(Action::Sync, &self.path))?;
        let Self {
            first,
            end,
            at: bytes,
            blocks,
            is_new,
            ..
        } = self;
        Ok(Written {
            first,
            end,
            bytes,
            blocks,
            is_new,
        })
    }
}
