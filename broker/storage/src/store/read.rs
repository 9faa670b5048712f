//! Reading bodies: finds out where they are under the lock, fetches them without it.

use std::io;

use bytes::Bytes;
use millrace_types::{LogId, Offset, Wall};

use super::blocks::LoadedBlock;
use super::index;
use super::log::{Log, Place};
use super::run::Run;
use super::segment::Frame;
use super::{Limits, Store, StoredRecord};
use crate::error::{Corruption, ReadError};
use crate::records;

/// Fetches bodies of one log; remembers the block it read last and how far it has walked through
/// a frame, as neighbours are asked for together.
struct Fetch<'a> {
    store: &'a Store,
    log: &'a Log,
    block: Option<((u64, u32), LoadedBlock)>,
    walk: Option<Walk>,
}

/// How far a fetch has come in a frame: what is asked for in ascending order costs one walk.
struct Walk {
    /// The frame: its run's place and its first offset.
    frame: ((u64, u32), u64),
    /// The offset of the first record of `rest`.
    next: u64,
    rest: records::Split,
}

/// What was found at a place.
enum Found {
    /// The records of one batch or frame from the offset asked for on.
    Records {
        first: u64,
        count: u32,
        stored_at: Wall,
        records: Bytes,
    },
    /// Nothing up to here.
    NothingBefore(u64),
}

pub(crate) fn read(
    store: &Store,
    log: LogId,
    from: Offset,
    limits: Limits,
) -> Result<Vec<StoredRecord>, ReadError> {
    let Some(log) = store.log(log) else {
        return Ok(Vec::new());
    };
    let mut fetch = Fetch::new(store, &log);
    let (mut out, mut bytes, mut at) = (Vec::new(), 0, from.get());
    while out.len() < limits.messages_max {
        let Some((live, place)) = log.lock().locate(at) else {
            break;
        };
        let (first, count, stored_at, batch) = match fetch.find(live, &place)? {
            None => continue,
            Some(Found::NothingBefore(next)) => {
                at = next;
                continue;
            }
            Some(Found::Records {
                first,
                count,
                stored_at,
                records,
            }) => (first, count, stored_at, records),
        };
        // One look at what is discarded for the whole batch.
        let gaps = log.lock().discarded.gaps(live..first + u64::from(count));
        let mut gaps = gaps.into_iter().peekable();
        for (offset, record) in (first..).zip(records::split(batch)) {
            while gaps.peek().is_some_and(|gap| gap.end <= offset) {
                gaps.next();
            }
            if gaps.peek().is_none_or(|gap| offset < gap.start) {
                continue;
            }
            let message = record.map_err(|_| fetch.malformed(&place))?;
            bytes += message.len() as u64;
            let full = out.len() == limits.messages_max || bytes > limits.bytes_max;
            if full && !out.is_empty() {
                return Ok(out);
            }
            out.push(StoredRecord {
                offset: Offset::new(offset),
                stored_at,
                message,
            });
        }
        at = first + u64::from(count);
    }
    Ok(out)
}

pub(crate) fn read_each(
    store: &Store,
    id: LogId,
    offsets: &[Offset],
    bytes_max: u64,
) -> Vec<Result<StoredRecord, ReadError>> {
    let Some(log) = store.log(id) else {
        let settled = store.settled_end(id);
        let gone = |offset: &Offset| Err(gone(id, *offset, settled));
        return offsets.iter().map(gone).collect();
    };
    let mut fetch = Fetch::new(store, &log);
    // Ascending, so that no block is read twice and no frame walked twice.
    let mut order: Vec<(usize, Offset)> = offsets.iter().copied().enumerate().collect();
    order.sort_by_key(|(_, offset)| *offset);
    let (mut found, mut bytes) = (Vec::with_capacity(order.len()), 0_u64);
    for (at, offset) in order {
        let record = fetch.one(offset);
        bytes = bytes.saturating_add(record.as_ref().map_or(0, |r| r.message.len() as u64));
        if bytes > bytes_max && !found.is_empty() {
            break;
        }
        found.push((at, record));
    }
    found.sort_unstable_by_key(|(at, _)| *at);
    let whole = (0..).zip(found).take_while(|(place, (at, _))| place == at);
    let mut prefix: Vec<_> = whole.map(|(_, (_, record))| record).collect();
    if prefix.is_empty() {
        // The first asked for has a high offset and others filled the bytes: it comes alone.
        prefix.extend(offsets.first().map(|offset| fetch.one(*offset)));
    }
    prefix
}

impl<'a> Fetch<'a> {
    fn new(store: &'a Store, log: &'a Log) -> Self {
        Self {
            store,
            log,
            block: None,
            walk: None,
        }
    }

    fn one(&mut self, offset: Offset) -> Result<StoredRecord, ReadError> {
        loop {
            let (end, located) = {
                let state = self.log.lock();
                (state.end, state.locate(offset.get()))
            };
            let gone = || gone(self.log.id, offset, end);
            let place = match located {
                Some((live, place)) if live == offset.get() => place,
                _ => return Err(gone()),
            };
            let (first, stored_at, batch) = match self.find(offset.get(), &place)? {
                None => continue,
                Some(Found::Records {
                    first,
                    stored_at,
                    records,
                    ..
                }) if first <= offset.get() => (first, stored_at, records),
                Some(_) => return Err(gone()),
            };
            let record = match &place {
                // What was found begins with it.
                Place::Memory(_) => records::split(batch).next().and_then(Result::ok),
                Place::Disk(run) => self.walk_to(offset.get(), (run.place(), first), batch),
            };
            let message = record.ok_or_else(|| self.malformed(&place))?;
            return Ok(StoredRecord {
                offset,
                stored_at,
                message,
            });
        }
    }

    /// The record at `at` of a frame, from where the last walk through the same one ended.
    fn walk_to(&mut self, at: u64, frame: ((u64, u32), u64), records: Bytes) -> Option<Bytes> {
        let here = |walk: &Walk| walk.frame == frame && walk.next <= at;
        let walk = self.walk.take().filter(here);
        let mut walk = walk.unwrap_or_else(|| Walk {
            frame,
            next: frame.1,
            rest: records::split(records),
        });
        let skip = usize::try_from(at - walk.next).unwrap_or(usize::MAX);
        let record = walk.rest.nth(skip).and_then(Result::ok);
        walk.next = at + 1;
        self.walk = Some(walk);
        record
    }

    /// What is at `at`; `None` when the place is not valid any more: look again.
    fn find(&mut self, at: u64, place: &Place) -> Result<Option<Found>, ReadError> {
        match place {
            Place::Memory(batch) => {
                let end = batch.range().end;
                let records = batch.slice(at..end).map_err(|_| self.malformed(place))?;
                let count = u32::try_from(end - at).expect("at most the batch's count");
                let stored_at = batch.stored_at;
                Ok(Some(Found::Records {
                    first: at,
                    count,
                    stored_at,
                    records,
                }))
            }
            Place::Disk(run) => match self.find_on_disk(at, run) {
                Err(ReadError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.is_gone(run) =>
                {
                    Ok(None)
                }
                Err(ReadError::Io { path, source, .. })
                    if source.kind() == io::ErrorKind::NotFound =>
                {
                    let (at, kind) = (u64::from(run.at), Corruption::Missing);
                    Err(ReadError::Corrupt { path, at, kind })
                }
                found => found.map(Some),
            },
        }
    }

    fn find_on_disk(&mut self, at: u64, run: &Run) -> Result<Found, ReadError> {
        let block = self.block(run, at, |blocks| index::block_of(blocks, at))?;
        let place = block
            .frames
            .partition_point(|frame| frame.header.range().end <= at);
        Ok(match block.frames.get(place) {
            Some(Frame { header, records }) => Found::Records {
                first: header.first,
                count: header.count,
                stored_at: header.stored_at,
                records: records.clone(),
            },
            None => Found::NothingBefore(block.next),
        })
    }

    /// The block in which `at` is, or would be.
    fn block(
        &mut self,
        run: &Run,
        at: u64,
        which: impl Fn(&[index::Block]) -> usize,
    ) -> Result<LoadedBlock, ReadError> {
        if let Some((place, block)) = &self.block
            && *place == run.place()
            && block.holds(at)
        {
            return Ok(block.clone());
        }
        let block = self.store.block(self.log.id, run, which)?;
        self.block = Some((run.place(), block.clone()));
        Ok(block)
    }

    /// Whether the log does not list the run any more.
    fn is_gone(&self, run: &Run) -> bool {
        let state = self.log.lock();
        !state.runs.iter().any(|other| other.place() == run.place())
    }

    /// Whoever appended it had checked it, so this is damage.
    fn malformed(&self, place: &Place) -> ReadError {
        let path = match place {
            Place::Memory(_) => self.store.files.directory().into(),
            Place::Disk(run) => self.store.files.path(run.file),
        };
        let at = match place {
            Place::Memory(_) => 0,
            Place::Disk(run) => u64::from(run.at),
        };
        ReadError::Corrupt {
            path,
            at,
            kind: Corruption::Content,
        }
    }
}

/// Why a message of a log that ends at `end` is not there.
fn gone(log: LogId, offset: Offset, end: u64) -> ReadError {
    if offset.get() < end {
        ReadError::Discarded { log, offset }
    } else {
        ReadError::Missing { log, offset }
    }
}

/// The first live message stored at `wall` or later.
pub(crate) fn offset_at(
    store: &Store,
    log: LogId,
    wall: Wall,
) -> Result<Option<Offset>, ReadError> {
    let Some(log) = store.log(log) else {
        return Ok(None);
    };
    loop {
        // The last run that begins before that time may hold it; otherwise what follows begins with
        // it.
        let (run, after) = {
            let state = log.lock();
            let later = state.runs.partition_point(|run| run.oldest < wall);
            let run = later.checked_sub(1).map(|place| state.runs[place]);
            let next = state.runs.get(later).map(|run| run.first);
            let mut batches = state.batches.values().map(|resident| &resident.batch);
            let batch = batches.find(|batch| batch.stored_at >= wall);
            let batch = batch.map(|batch| batch.first);
            (run, next.into_iter().chain(batch).min())
        };
        let found = match run.map(|run| in_run(store, &log, &run, wall)) {
            Some(Ok(None)) | None => after,
            Some(Ok(found)) => found,
            Some(Err(ReadError::Io { source, .. }))
                if source.kind() == io::ErrorKind::NotFound
                    && log.lock().runs.iter().all(|other| Some(*other) != run) =>
            {
                continue;
            }
            Some(Err(error)) => return Err(error),
        };
        let Some(found) = found else {
            return Ok(None);
        };
        let live = log.lock().locate(found);
        return Ok(live.map(|(offset, _)| Offset::new(offset)));
    }
}

fn in_run(store: &Store, log: &Log, run: &Run, wall: Wall) -> Result<Option<u64>, ReadError> {
    let block = store.block(log.id, run, |blocks| index::block_at_time(blocks, wall))?;
    let frame = block
        .frames
        .iter()
        .find(|frame| frame.header.stored_at >= wall);
    let next = (block.next < run.end).then_some(block.next);
    Ok(frame.map(|frame| frame.header.first).or(next))
}
