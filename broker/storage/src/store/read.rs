//! Reading bodies: finds out where they are under the lock, fetches them without it.

use std::io;
use std::sync::Arc;

use millrace_types::{LogId, Offset, Wall};

use super::log::{Log, Place};
use super::segment::{self, Frame, Segment};
use super::{Limits, Store, StoredRecord};
use crate::error::{Corruption, ReadError};
use crate::records;

/// Fetches bodies of one log; remembers the block it read last, as neighbours are asked for
/// together.
struct Fetch<'a> {
    store: &'a Store,
    log: &'a Log,
    block: Option<(Offset, usize, Arc<[Frame]>)>,
}

/// What was found at a place.
enum Found {
    /// The records of one batch or frame from the offset asked for on.
    Records {
        first: u64,
        count: u32,
        stored_at: Wall,
        records: bytes::Bytes,
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
    let mut fetch = Fetch {
        store,
        log: &log,
        block: None,
    };
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

pub(crate) fn read_many(
    store: &Store,
    id: LogId,
    offsets: &[Offset],
) -> Result<Vec<StoredRecord>, ReadError> {
    let missing = |offset| ReadError::Missing { log: id, offset };
    let Some(log) = store.log(id) else {
        return offsets
            .first()
            .map_or(Ok(Vec::new()), |offset| Err(missing(*offset)));
    };
    let mut fetch = Fetch {
        store,
        log: &log,
        block: None,
    };
    let mut out = Vec::with_capacity(offsets.len());
    for &offset in offsets {
        out.push(fetch.one(offset)?);
    }
    Ok(out)
}

impl Fetch<'_> {
    fn one(&mut self, offset: Offset) -> Result<StoredRecord, ReadError> {
        loop {
            let (end, located) = {
                let state = self.log.lock();
                (state.end, state.locate(offset.get()))
            };
            let gone = || {
                let log = self.log.id;
                if offset.get() < end {
                    ReadError::Discarded { log, offset }
                } else {
                    ReadError::Missing { log, offset }
                }
            };
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
            let skip = usize::try_from(offset.get() - first).unwrap_or(usize::MAX);
            let record = records::split(batch).nth(skip).and_then(Result::ok);
            let message = record.ok_or_else(|| self.malformed(&place))?;
            return Ok(StoredRecord {
                offset,
                stored_at,
                message,
            });
        }
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
            Place::Disk(segment) => match self.find_on_disk(at, segment) {
                Err(ReadError::Io { source, .. })
                    if source.kind() == io::ErrorKind::NotFound && self.is_gone(segment) =>
                {
                    Ok(None)
                }
                found => found.map(Some),
            },
        }
    }

    fn find_on_disk(&mut self, at: u64, segment: &Segment) -> Result<Found, ReadError> {
        let path = self.store.segment_path(segment.log, segment.first);
        let seed = segment::seed(self.store.shard, segment.log);
        let file = self.store.segment_file(segment)?;
        let index = segment.index(&*file, &path, seed)?;
        let block = Segment::block_of(&index, at);
        let cached = self.block.as_ref().filter(|(first, number, _)| {
            // The last block may have grown since.
            *first == segment.first && *number == block && block + 1 < index.len()
        });
        let frames: Arc<[Frame]> = match cached {
            Some((.., frames)) => Arc::clone(frames),
            None => segment
                .read_block(&*file, &path, seed, block..block + 1)?
                .into(),
        };
        self.block = Some((segment.first, block, Arc::clone(&frames)));
        let place = frames.partition_point(|frame| frame.header.range().end <= at);
        Ok(match frames.get(place) {
            Some(Frame { header, records }) => Found::Records {
                first: header.first,
                count: header.count,
                stored_at: header.stored_at,
                records: records.clone(),
            },
            None => {
                let next = index
                    .get(block + 1)
                    .map_or(segment.end.get(), |next| next.first);
                Found::NothingBefore(next)
            }
        })
    }

    /// Whether the log does not list the segment any more.
    fn is_gone(&self, segment: &Segment) -> bool {
        !self.log.lock().segments.contains_key(&segment.first.get())
    }

    /// Whoever appended it had checked it, so this is damage.
    fn malformed(&self, place: &Place) -> ReadError {
        let path = match place {
            Place::Memory(_) => self.store.path.join(self.log.id.to_string()),
            Place::Disk(segment) => self.store.segment_path(segment.log, segment.first),
        };
        ReadError::Corrupt {
            path,
            at: 0,
            kind: Corruption::Content,
        }
    }
}
