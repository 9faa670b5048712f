//! What the scrubber asks of a store: its runs, and whether they are sound.

use std::ops::Bound;
use std::sync::PoisonError;

use bytes::Bytes;
use millrace_types::LogId;

use super::Store;
use super::index;
use super::run::Run;
use super::segment::{self, FRAME_HEADER_BYTES, FileHeader, FrameHeader};
use crate::error::{Action, Corruption, OpenError, ReadError, failed};

/// Bytes of frames verified at a time, about: one frame at least.
const PIECE_BYTES: u32 = 256 << 10;

impl Store {
    /// The next log behind this one, and its runs.
    pub(crate) fn runs_after(&self, log: Option<LogId>) -> Option<(LogId, Vec<Run>)> {
        let next = {
            let logs = self.logs.read().unwrap_or_else(PoisonError::into_inner);
            let behind = log.map_or(Bound::Unbounded, Bound::Excluded);
            let mut range = logs.active.range((behind, Bound::Unbounded));
            range.next().map(|(_, log)| log.clone())
        }?;
        let runs = next.lock().runs.clone();
        Some((next.id, runs))
    }

    /// The next segment behind this one.
    pub(crate) fn segment_after(&self, number: Option<u64>) -> Option<u64> {
        let behind = number.map_or(Bound::Unbounded, Bound::Excluded);
        let files = self.files.lock();
        let next = files.known.range((behind, Bound::Unbounded)).next();
        next.map(|(number, _)| *number)
    }

    /// Verifies the header of a segment, without which the shard would not start; nothing when the
    /// segment has gone meanwhile.
    pub(crate) fn verify_segment(&self, number: u64) -> Result<(), ReadError> {
        let (path, shard) = (self.files.path(number), self.shard);
        let check = || {
            let file = self.files.open(number)?;
            FileHeader { shard, number }.check(&*file, &path)
        };
        let result = match check() {
            Ok(()) => Ok(()),
            Err(OpenError::Corrupt { path, at, kind }) => {
                Err(ReadError::Corrupt { path, at, kind })
            }
            // A later version cannot come while this one runs.
            Err(OpenError::NewerVersion { path, .. }) => {
                let (at, kind) = (0, Corruption::Content);
                Err(ReadError::Corrupt { path, at, kind })
            }
            Err(OpenError::Io {
                path,
                action,
                source,
            }) => Err(ReadError::Io {
                path,
                action,
                source,
            }),
            Err(_) => Ok(()),
        };
        let is_known = self.files.lock().known.contains_key(&number);
        if is_known { result } else { Ok(()) }
    }

    /// Whether a run is part of its log still.
    pub(crate) fn lists(&self, log: LogId, run: &Run) -> bool {
        self.log(log).is_some_and(|log| {
            let state = log.lock();
            state.runs.iter().any(|other| other.place() == run.place())
        })
    }

    /// Verifies some frames of a run from `from` on; their bytes. Marks the segment when they are
    /// damaged, so that it is not rewritten.
    pub(crate) fn verify_frames(&self, log: LogId, run: &Run, from: u32) -> Result<u32, ReadError> {
        let result = self.try_frames(log, run, from);
        if matches!(result, Err(ReadError::Corrupt { .. })) {
            self.files.lock().damaged.insert(run.file);
        }
        result
    }

    fn try_frames(&self, log: LogId, run: &Run, from: u32) -> Result<u32, ReadError> {
        let path = self.files.path(run.file);
        let seed = segment::seed(self.shard, log);
        let left = run.bytes - from;
        let at = u64::from(run.at) + u64::from(from);
        let corrupt = |kind| ReadError::Corrupt {
            path: path.clone(),
            at,
            kind,
        };
        let file = self.files.open(run.file)?;
        let read = |bytes: u32| {
            let mut buffer = vec![0; bytes as usize];
            let read = file.read_exact_at(&mut buffer, at);
            read.map_err(failed(Action::Read, &path))?;
            Ok::<Vec<u8>, ReadError>(buffer)
        };
        let mut buffer = read(left.min(PIECE_BYTES))?;
        let mut whole = 0;
        while let Some(rest) = buffer.get(whole..)
            && rest.len() >= FRAME_HEADER_BYTES
        {
            let header = FrameHeader::decode(rest, seed).map_err(corrupt)?;
            let frame = FRAME_HEADER_BYTES + header.length as usize;
            if frame <= rest.len() {
                whole += frame;
            } else if whole > 0 {
                break;
            } else {
                // The first one is longer than a piece.
                let bytes = u32::try_from(frame).ok().filter(|bytes| *bytes <= left);
                buffer = read(bytes.ok_or_else(|| corrupt(Corruption::Length))?)?;
            }
        }
        if whole == 0 {
            return Err(corrupt(Corruption::Length));
        }
        buffer.truncate(whole);
        segment::frames(Bytes::from(buffer), &path, at, seed)?;
        Ok(u32::try_from(whole).expect("at most the run"))
    }

    /// Verifies the index of a run.
    pub(crate) fn verify_index(&self, log: LogId, run: &Run) -> Result<(), ReadError> {
        if run.index_bytes == 0 {
            return Ok(());
        }
        let path = self.files.path(run.file);
        let at = u64::from(run.at) + u64::from(run.bytes);
        let mut bytes = vec![0; run.index_bytes as usize];
        let file = self.files.open(run.file)?;
        file.read_exact_at(&mut bytes, at)
            .map_err(failed(Action::Read, &path))?;
        let seed = segment::seed(self.shard, log);
        if index::decode(&bytes, seed, run).is_some() {
            return Ok(());
        }
        let kind = Corruption::Checksum;
        Err(ReadError::Corrupt { path, at, kind })
    }
}
