//! One pass over the files of a store: the checkpoint, the headers of segments, then log by log,
//! run by run.

use std::io;
use std::sync::Arc;

use millrace_types::LogId;

use super::Damaged;
use super::checkpoint::Reading;
use crate::error::ReadError;
use crate::store::Store;
use crate::store::run::Run;
use crate::store::segment::HEADER_BYTES;

/// How far a pass is.
#[derive(Default)]
pub(super) struct Pass {
    checkpoint: Checkpoint,
    segments: Segments,
    /// The log read last.
    log: Option<LogId>,
    /// Its runs that are left.
    runs: std::vec::IntoIter<Run>,
    /// The run being read, and how many of its bytes were.
    run: Option<(LogId, Run, u32)>,
}

#[derive(Default)]
enum Checkpoint {
    #[default]
    NotYet,
    Under(Reading),
    Read,
}

#[derive(Default)]
enum Segments {
    #[default]
    NotYet,
    /// This one was the last.
    Upto(u64),
    Read,
}

/// What came of a look at one piece.
pub(super) enum Look {
    /// It is sound, and this long.
    Read(u64),
    /// It is not; what follows it is looked at next.
    Damage(Damaged, ReadError),
    /// There is nothing left.
    Finished,
}

impl Pass {
    /// Reads the next piece.
    pub(super) fn look(&mut self, store: &Arc<Store>) -> Look {
        match std::mem::replace(&mut self.checkpoint, Checkpoint::Read) {
            Checkpoint::NotYet => {
                if let Some(reading) = Reading::begin(&store.dir, store.shard) {
                    self.checkpoint = Checkpoint::Under(reading);
                }
                Look::Read(0)
            }
            Checkpoint::Under(mut reading) => match reading.look(&store.dir) {
                Ok(Some(bytes)) => {
                    self.checkpoint = Checkpoint::Under(reading);
                    Look::Read(bytes)
                }
                Ok(None) => Look::Read(0),
                Err(error) => Look::Damage(Damaged::Checkpoint, error),
            },
            Checkpoint::Read => match self.segments {
                Segments::NotYet => self.look_at_segment(store, None),
                Segments::Upto(number) => self.look_at_segment(store, Some(number)),
                Segments::Read => self.look_at_runs(store),
            },
        }
    }

    fn look_at_segment(&mut self, store: &Store, after: Option<u64>) -> Look {
        let Some(number) = store.segment_after(after) else {
            self.segments = Segments::Read;
            return Look::Read(0);
        };
        self.segments = Segments::Upto(number);
        match store.verify_segment(number) {
            Ok(()) => Look::Read(HEADER_BYTES),
            Err(error) => Look::Damage(Damaged::Messages, error),
        }
    }

    fn look_at_runs(&mut self, store: &Store) -> Look {
        if let Some((log, run, read)) = self.run.take() {
            return self.look_at_run(store, log, run, read);
        }
        if let (Some(log), Some(run)) = (self.log, self.runs.next()) {
            self.run = Some((log, run, 0));
            return Look::Read(0);
        }
        let Some((log, runs)) = store.runs_after(self.log) else {
            return Look::Finished;
        };
        self.log = Some(log);
        self.runs = runs.into_iter();
        Look::Read(0)
    }

    fn look_at_run(&mut self, store: &Store, log: LogId, run: Run, read: u32) -> Look {
        let what = if read < run.bytes {
            Damaged::Messages
        } else {
            Damaged::Index
        };
        let look = || match what {
            Damaged::Messages => store.verify_frames(log, &run, read),
            _ => store.verify_index(log, &run).map(|()| run.index_bytes),
        };
        if millrace_types::mutant!(ScrubberLooksAway) {
            return Look::Read(u64::from(run.bytes));
        }
        // Twice, before anybody is alarmed.
        match look().or_else(|_| look()) {
            Ok(bytes) => {
                if what == Damaged::Messages {
                    self.run = Some((log, run, read + bytes));
                }
                Look::Read(u64::from(bytes))
            }
            // Removed or rewritten meanwhile.
            Err(_) if !store.lists(log, &run) => Look::Read(0),
            Err(ReadError::Io { path, source, .. })
                if source.kind() == io::ErrorKind::UnexpectedEof =>
            {
                let (at, kind) = (
                    u64::from(run.at) + u64::from(read),
                    crate::Corruption::Missing,
                );
                Look::Damage(what, ReadError::Corrupt { path, at, kind })
            }
            Err(error) => Look::Damage(what, error),
        }
    }
}
