//! Writes one segment of a snapshot as its runs arrive: frames as they come, checked on the way,
//! and behind each run the index that belongs to it.
//!
//! Promises that no frame of a run that `end_run` gave was damaged on its way. Keeps nothing but
//! what arrived since the last `flush`.

use std::io::IoSlice;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use crate::disk::DiskFile;
use crate::error::{Action, Corruption, DiskFailure, failed};
use crate::store::index::{self, Block};
use crate::store::run::Run;
use crate::store::segment::{FRAME_HEADER_BYTES, FrameHeader};

/// Bytes after which what was written is synced: the disk works while the rest arrives, and nobody
/// else's sync has to wait for gigabytes at the end.
const SYNC_BYTES: u64 = 16 << 20;

/// A segment being written.
pub(super) struct Sink {
    file: Arc<dyn DiskFile>,
    path: PathBuf,
    number: u64,
    /// Where `pending` goes.
    at: u64,
    pending: Vec<Bytes>,
    pending_bytes: u64,
    unsynced: u64,
}

/// A run that arrives.
pub(super) struct Arrival {
    /// As its sender has it.
    expected: Run,
    seed: u32,
    /// Where it starts here.
    at: u32,
    /// Bytes of it that have come.
    bytes: u32,
    messages: u64,
    /// One past the last offset that has come.
    end: Option<u64>,
    blocks: Vec<Block>,
    frame: Frame,
}

/// The frame under way.
enum Frame {
    /// Some of its header.
    Header(Vec<u8>),
    /// Its header, the checksum so far, and how much is missing.
    Records(FrameHeader, u32, u32),
}

impl Arrival {
    /// Whether all of it is there.
    pub(super) fn is_complete(&self) -> bool {
        self.bytes == self.expected.bytes
    }
}

impl Sink {
    /// A new segment that begins with this header.
    pub(super) fn new(
        (file, path): (Arc<dyn DiskFile>, PathBuf),
        number: u64,
        header: Vec<u8>,
    ) -> Self {
        let mut sink = Self {
            file,
            path,
            number,
            at: 0,
            pending: Vec::new(),
            pending_bytes: 0,
            unsynced: 0,
        };
        sink.add(header.into());
        sink
    }

    /// Its length, with what is not flushed.
    pub(super) const fn bytes(&self) -> u64 {
        self.at + self.pending_bytes
    }

    /// A run arrives next, which its sender describes so; nothing when there is no room for it.
    pub(super) fn begin_run(&self, expected: Run, seed: u32) -> Result<Arrival, Corruption> {
        let at = u32::try_from(self.bytes()).map_err(|_| Corruption::Length)?;
        at.checked_add(expected.bytes).ok_or(Corruption::Length)?;
        Ok(Arrival {
            expected,
            seed,
            at,
            bytes: 0,
            messages: 0,
            end: None,
            blocks: Vec::new(),
            frame: Frame::Header(Vec::new()),
        })
    }

    /// Takes as much of `data` as is of this run.
    pub(super) fn take(&mut self, run: &mut Arrival, data: &mut Bytes) -> Result<(), Corruption> {
        while !data.is_empty() && !run.is_complete() {
            let left = run.expected.bytes - run.bytes;
            let piece = match &mut run.frame {
                Frame::Header(begun) => {
                    let missing = FRAME_HEADER_BYTES - begun.len();
                    let piece = data.split_to(missing.min(data.len()));
                    begun.extend_from_slice(&piece);
                    if left < u32::try_from(missing).unwrap_or(u32::MAX) {
                        return Err(Corruption::Length);
                    }
                    piece
                }
                Frame::Records(_, crc, missing) => {
                    let piece = data.split_to((*missing as usize).min(data.len()));
                    *crc = crc32c::crc32c_append(*crc, &piece);
                    *missing -= u32::try_from(piece.len()).expect("at most what is missing");
                    piece
                }
            };
            run.bytes += u32::try_from(piece.len()).expect("a piece of a frame");
            self.add(piece);
            run.settle()?;
        }
        Ok(())
    }

    /// All of a run is there: how it stands here.
    pub(super) fn end_run(&mut self, run: Arrival) -> Result<Run, Corruption> {
        let expected = run.expected;
        let is_whole = matches!(&run.frame, Frame::Header(begun) if begun.is_empty());
        let fits = run.end == Some(expected.end) && run.messages == u64::from(expected.messages);
        if !is_whole || !fits {
            return Err(Corruption::Content);
        }
        let index = index::encode(&run.blocks, run.seed);
        let index_bytes = u32::try_from(index.len()).map_err(|_| Corruption::Length)?;
        self.add(index.into());
        Ok(Run {
            file: self.number,
            at: run.at,
            index_bytes,
            ..expected
        })
    }

    /// Hands what has come to the disk, and makes it durable now and then.
    pub(super) fn flush(&mut self) -> Result<(), DiskFailure> {
        let written = self.pending_bytes;
        if written > 0 {
            let slices = self.pending.iter().map(|piece| IoSlice::new(piece));
            self.file
                .write_all_at(&slices.collect::<Vec<_>>(), self.at)
                .map_err(failed(Action::Write, &self.path))?;
            self.at += written;
            self.unsynced += written;
            self.pending_bytes = 0;
            self.pending.clear();
        }
        if self.unsynced >= SYNC_BYTES {
            self.sync()?;
        }
        Ok(())
    }

    /// Writes everything and makes it durable, but for its name.
    pub(super) fn finish(mut self) -> Result<(), DiskFailure> {
        self.flush()?;
        self.sync()
    }

    fn sync(&mut self) -> Result<(), DiskFailure> {
        self.unsynced = 0;
        if millrace_types::mutant!(InstallBeforeSync) {
            return Ok(());
        }
        let synced = self.file.sync_data();
        synced.map_err(failed(Action::Sync, &self.path))
    }

    fn add(&mut self, piece: Bytes) {
        if !piece.is_empty() {
            self.pending_bytes += piece.len() as u64;
            self.pending.push(piece);
        }
    }
}

impl Arrival {
    /// Goes on to what follows in the frame, or behind it, when its part is complete.
    fn settle(&mut self) -> Result<(), Corruption> {
        if let Frame::Header(begun) = &self.frame {
            if begun.len() < FRAME_HEADER_BYTES {
                return Ok(());
            }
            let header = FrameHeader::decode(begun, self.seed)?;
            self.note(&header)?;
            self.frame = Frame::Records(header, self.seed, header.length);
        }
        if let Frame::Records(header, crc, 0) = &self.frame {
            if *crc != header.records_crc && !millrace_types::mutant!(ChunkNotVerified) {
                return Err(Corruption::Checksum);
            }
            self.frame = Frame::Header(Vec::new());
        }
        Ok(())
    }

    /// Takes note of the frame whose header has just come.
    fn note(&mut self, header: &FrameHeader) -> Result<(), Corruption> {
        let (expected, range) = (&self.expected, header.range());
        let behind = self.end.unwrap_or(expected.first);
        let is_first = self.end.is_none();
        let follows = range.start >= behind && (!is_first || range.start == expected.first);
        if !follows || range.end > expected.end || header.length > expected.bytes - self.bytes {
            return Err(Corruption::Content);
        }
        let header_bytes = u32::try_from(FRAME_HEADER_BYTES).map_err(|_| Corruption::Length)?;
        index::note(&mut self.blocks, header, self.bytes - header_bytes);
        self.messages += u64::from(header.count);
        self.end = Some(range.end);
        Ok(())
    }
}
