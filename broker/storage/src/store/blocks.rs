//! Fetches blocks of runs from segments: looks them up in the index, checks what is there, and
//! builds an index again that is missing, damaged or not true. What does not check is read a second
//! time: a bit that flipped on its way is no damage.

use std::io;
use std::path::Path;
use std::sync::Arc;

use millrace_types::LogId;

use super::Store;
use super::files::Index;
use super::index::{self, Block};
use super::run::Run;
use super::segment::{self, FRAME_HEADER_BYTES, Frame, FrameHeader};
use crate::disk::DiskFile;
use crate::error::{Action, Corruption, ReadError, failed};
use crate::size::in_memory;

/// Bytes read at a time while an index is built.
const SCAN_BYTES: u64 = 256 << 10;

/// Some frames of a run.
#[derive(Clone)]
pub(crate) struct LoadedBlock {
    pub(crate) frames: Arc<[Frame]>,
    /// The first offset of the next block, or the end of the run.
    pub(crate) next: u64,
}

impl LoadedBlock {
    /// Whether an offset is in it, or would be.
    pub(crate) fn holds(&self, at: u64) -> bool {
        let first = self.frames.first().map(|frame| frame.header.first);
        first.is_some_and(|first| (first..self.next).contains(&at))
    }
}

impl Store {
    /// The block of a run that `which` chooses. Marks the segment when it is damaged.
    pub(crate) fn block(
        &self,
        log: LogId,
        run: &Run,
        which: impl Fn(&[Block]) -> usize,
    ) -> Result<LoadedBlock, ReadError> {
        let found = match self.block_once(log, run, &which) {
            Err(ReadError::Corrupt { .. }) => self.block_once(log, run, &which),
            found => found,
        };
        if matches!(found, Err(ReadError::Corrupt { .. })) {
            self.files.lock().damaged.insert(run.file);
        }
        found
    }

    fn block_once(
        &self,
        log: LogId,
        run: &Run,
        which: impl Fn(&[Block]) -> usize,
    ) -> Result<LoadedBlock, ReadError> {
        let file = self.files.open(run.file)?;
        let index = self.index_of(&*file, log, run)?;
        let (blocks, built) = (index.blocks, index.built);
        let error = match self.load(&*file, log, run, &blocks, which(&blocks)) {
            // Perhaps it is the index that is wrong, and not what it points at.
            Err(error @ ReadError::Corrupt { .. }) if !built => error,
            loaded => return loaded,
        };
        let rebuilt = self.build_index(&*file, log, run)?;
        if *rebuilt.blocks == *blocks {
            return Err(error);
        }
        self.load(&*file, log, run, &rebuilt.blocks, which(&rebuilt.blocks))
    }

    fn load(
        &self,
        file: &dyn DiskFile,
        log: LogId,
        run: &Run,
        blocks: &[Block],
        number: usize,
    ) -> Result<LoadedBlock, ReadError> {
        let path = self.files.path(run.file);
        let corrupt = |at| ReadError::Corrupt {
            path: path.clone(),
            at,
            kind: Corruption::Content,
        };
        let block = blocks
            .get(number)
            .ok_or_else(|| corrupt(u64::from(run.at)))?;
        let following = blocks.get(number + 1);
        let end = following.map_or(run.bytes, |next| next.at);
        let at = u64::from(run.at) + u64::from(block.at);
        let mut buffer = vec![0; (end - block.at) as usize];
        let read = file.read_exact_at(&mut buffer, at);
        read.map_err(|error| unread(error, &path, at))?;
        self.stats.read_bytes.add(buffer.len() as u64);
        let seed = segment::seed(self.shard, log);
        let frames = segment::frames(self.pinned.hold(buffer, 0), &path, at, seed)?;
        let next = following.map_or(run.end, |next| next.first);
        // Right frames in the wrong place are damage too.
        let ascending = frames
            .windows(2)
            .all(|pair| pair[0].header.range().end <= pair[1].header.first);
        let starts = frames.first().map(|frame| frame.header.first);
        let ends = frames.last().map_or(0, |frame| frame.header.range().end);
        if !ascending || starts != Some(block.first) || ends > next {
            return Err(corrupt(at));
        }
        let frames = frames.into();
        Ok(LoadedBlock { frames, next })
    }

    fn index_of(&self, file: &dyn DiskFile, log: LogId, run: &Run) -> Result<Index, ReadError> {
        if run.index_bytes == 0 {
            let only = Block {
                first: run.first,
                stored_at: run.oldest,
                at: 0,
            };
            let blocks = Arc::from([only]);
            return Ok(Index {
                blocks,
                built: true,
            });
        }
        if let Some(index) = self.files.index(run.place()) {
            return Ok(index);
        }
        let mut bytes = vec![0; run.index_bytes as usize];
        let at = u64::from(run.at) + u64::from(run.bytes);
        let read = file.read_exact_at(&mut bytes, at);
        let seed = segment::seed(self.shard, log);
        let found = read.ok().and_then(|()| index::decode(&bytes, seed, run));
        let Some(blocks) = found else {
            return self.build_index(file, log, run);
        };
        let (blocks, built) = (blocks.into(), false);
        let index = Index { blocks, built };
        self.files.keep_index(run.place(), index.clone());
        Ok(index)
    }

    /// Builds the index of a run from its frames' headers.
    fn build_index(&self, file: &dyn DiskFile, log: LogId, run: &Run) -> Result<Index, ReadError> {
        let path = self.files.path(run.file);
        tracing::warn!(path = %path.display(), at = run.at,
            "an index is damaged or does not fit; it is built from the messages");
        self.stats.indexes_built.add(1);
        let mut blocks = Vec::new();
        let mut frames = Headers::new(file, run, segment::seed(self.shard, log));
        while let Some((at, header)) = frames.next(&path)? {
            index::note(&mut blocks, &header, at);
        }
        let (blocks, built) = (blocks.into(), true);
        let index = Index { blocks, built };
        self.files.keep_index(run.place(), index.clone());
        Ok(index)
    }
}

/// Why nothing could be read there: that the file ends before is damage.
pub(crate) fn unread(error: io::Error, path: &Path, at: u64) -> ReadError {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        let (path, kind) = (path.into(), Corruption::Missing);
        return ReadError::Corrupt { path, at, kind };
    }
    failed(Action::Read, path)(error).into()
}

/// The headers of a run's frames, one after the other.
struct Headers<'a> {
    file: &'a dyn DiskFile,
    run: &'a Run,
    seed: u32,
    at: u64,
    buffer: Vec<u8>,
    buffer_at: u64,
}

impl<'a> Headers<'a> {
    fn new(file: &'a dyn DiskFile, run: &'a Run, seed: u32) -> Self {
        Self {
            file,
            run,
            seed,
            at: 0,
            buffer: Vec::new(),
            buffer_at: 0,
        }
    }

    /// Where the next frame starts in the run, and its header.
    fn next(&mut self, path: &Path) -> Result<Option<(u32, FrameHeader)>, ReadError> {
        let (start, bytes) = (u64::from(self.run.at), u64::from(self.run.bytes));
        if self.at >= bytes {
            return Ok(None);
        }
        let corrupt = |kind| ReadError::Corrupt {
            path: path.into(),
            at: start + self.at,
            kind,
        };
        let needed = FRAME_HEADER_BYTES as u64;
        let (expected, found) = (needed, bytes - self.at);
        if found < expected {
            return Err(corrupt(Corruption::Short { expected, found }));
        }
        if self.at + needed > self.buffer_at + self.buffer.len() as u64 {
            self.buffer.resize(in_memory(SCAN_BYTES.min(found)), 0);
            let at = start + self.at;
            let read = self.file.read_exact_at(&mut self.buffer, at);
            read.map_err(|error| unread(error, path, at))?;
            self.buffer_at = self.at;
        }
        let header = &self.buffer[in_memory(self.at - self.buffer_at)..];
        let header = FrameHeader::decode(header, self.seed).map_err(corrupt)?;
        let at = u32::try_from(self.at).expect("within the run");
        self.at += needed + u64::from(header.length);
        Ok(Some((at, header)))
    }
}
