//! Writes runs to one segment, bodies uncopied, some of them at a time.
//!
//! Nothing it wrote counts before the checkpoint that lists it is durable.

use std::io::IoSlice;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use millrace_types::{ShardId, Wall};

use super::index::{self, BLOCK_BYTES, Block};
use super::run::Run;
use super::segment::{FRAME_HEADER_BYTES, FileHeader, FrameHeader};
use crate::disk::DiskFile;
use crate::error::{Action, DiskFailure, failed};
use crate::records;

/// Bytes handed to the disk at a time.
const WRITE_BYTES: u64 = 1 << 20;
/// Records of a frame, but for a single one that is larger: a frame is read as a whole, and each of
/// its messages keeps all of it in memory.
const FRAME_RECORDS_BYTES_MAX: usize = BLOCK_BYTES as usize - FRAME_HEADER_BYTES;

/// Records of one batch that are alive, without a gap between them.
pub(super) struct Part {
    pub(super) range: Range<u64>,
    pub(super) stored_at: Wall,
    pub(super) records: Bytes,
}

impl Part {
    /// Bytes it takes in a segment.
    pub(super) fn frame_bytes(&self) -> u64 {
        FRAME_HEADER_BYTES as u64 + self.records.len() as u64
    }

    /// The same, a frame each.
    pub(super) const fn frames(self) -> Frames {
        Frames(Some(self))
    }
}

/// A part, cut into what makes a frame.
pub(super) struct Frames(Option<Part>);

impl Iterator for Frames {
    type Item = Part;

    fn next(&mut self) -> Option<Part> {
        let mut rest = self.0.take()?;
        if rest.records.len() <= FRAME_RECORDS_BYTES_MAX {
            return Some(rest);
        }
        // What cannot be divided is kept whole: this is no place to lose anything.
        let Ok((count, bytes)) = records::first_of(&rest.records, FRAME_RECORDS_BYTES_MAX) else {
            return Some(rest);
        };
        let cut = rest.range.start + u64::from(count);
        if cut >= rest.range.end || bytes >= rest.records.len() {
            return Some(rest);
        }
        let frame = Part {
            range: rest.range.start..cut,
            stored_at: rest.stored_at,
            records: rest.records.split_to(bytes),
        };
        rest.range.start = cut;
        self.0 = Some(rest);
        Some(frame)
    }
}

/// Appends to a segment.
pub(super) struct Writer {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    pub(super) number: u64,
    /// Where `pending` goes.
    at: u64,
    pending: Vec<(Vec<u8>, Bytes)>,
    pending_bytes: u64,
    run: Option<RunBegun>,
}

/// A run being written.
struct RunBegun {
    seed: u32,
    blocks: Vec<Block>,
    run: Run,
}

impl Writer {
    /// Goes on in a segment of `bytes`.
    pub(super) fn new((file, path): (Arc<dyn DiskFile>, PathBuf), number: u64, bytes: u64) -> Self {
        Self {
            file,
            path,
            number,
            at: bytes,
            pending: Vec::new(),
            pending_bytes: 0,
            run: None,
        }
    }

    /// Begins an empty segment.
    pub(super) fn write_header(&mut self, shard: ShardId) {
        let number = self.number;
        let header = FileHeader { shard, number }.encode();
        self.add(header, Bytes::new());
    }

    /// Of the segment, with what is not flushed yet.
    pub(super) fn bytes(&self) -> u64 {
        self.at + self.pending_bytes
    }

    /// Adds to the run that is being written, or begins one; offsets ascend within a run.
    pub(super) fn push(&mut self, seed: u32, part: Part) -> Result<(), DiskFailure> {
        let Part {
            range,
            stored_at,
            records,
        } = part;
        let count = u32::try_from(range.end - range.start).expect("at most a batch");
        let header = FrameHeader::new(range.start, count, stored_at, &records, seed);
        let here = u32::try_from(self.bytes()).expect("a segment is bounded");
        let begun = self.run.get_or_insert_with(|| RunBegun {
            seed,
            blocks: Vec::new(),
            run: Run {
                file: self.number,
                first: range.start,
                end: range.start,
                oldest: stored_at,
                at: here,
                bytes: 0,
                index_bytes: 0,
                messages: 0,
            },
        });
        assert!(
            begun.seed == seed && begun.run.end <= range.start,
            "in order"
        );
        index::note(&mut begun.blocks, &header, here - begun.run.at);
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES);
        header.encode(seed, &mut bytes);
        begun.run.bytes += u32::try_from(bytes.len() + records.len()).expect("a frame is bounded");
        begun.run.messages += count;
        begun.run.end = range.end;
        self.add(bytes, records);
        if self.pending_bytes >= WRITE_BYTES {
            self.flush()
        } else {
            Ok(())
        }
    }

    /// Ends the run that is being written, if there is one.
    pub(super) fn end_run(&mut self) -> Option<Run> {
        let RunBegun {
            seed,
            blocks,
            mut run,
        } = self.run.take()?;
        let index = index::encode(&blocks, seed);
        run.index_bytes = u32::try_from(index.len()).expect("a segment is bounded");
        self.add(index, Bytes::new());
        Some(run)
    }

    fn add(&mut self, header: Vec<u8>, records: Bytes) {
        let bytes = header.len() as u64 + records.len() as u64;
        if bytes == 0 {
            return;
        }
        self.pending_bytes += bytes;
        self.pending.push((header, records));
    }

    /// Hands everything to the disk.
    pub(super) fn flush(&mut self) -> Result<(), DiskFailure> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let mut slices = Vec::with_capacity(2 * self.pending.len());
        for (header, records) in &self.pending {
            slices.push(IoSlice::new(header));
            slices.push(IoSlice::new(records));
        }
        slices.retain(|slice| !slice.is_empty());
        self.file
            .write_all_at(&slices, self.at)
            .map_err(failed(Action::Write, &self.path))?;
        self.at += self.pending_bytes;
        self.pending_bytes = 0;
        self.pending.clear();
        Ok(())
    }

    /// Makes it durable, but for its name.
    pub(super) fn sync(&self) -> Result<(), DiskFailure> {
        assert!(self.pending.is_empty(), "flushed before it is synced");
        self.file
            .sync_data()
            .map_err(failed(Action::Sync, &self.path))
    }
}
