//! Room for one checkpoint, kept free by a file of zeros.
//!
//! A disk that is full can only be freed by settling messages and making a checkpoint, which needs
//! room itself. So a file holds some, is removed when a checkpoint does not fit, and is made again
//! when there is room for twice as much: with less, making it would fill the disk again.

use std::io::{self, IoSlice};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, failed};

/// Bytes of zeros written in one step.
const STEP_BYTES: usize = 1 << 20;
/// Time between looks whether there is room again.
const LOOK_EVERY: Duration = Duration::from_secs(10);
/// The file is made when the disk has so many times its size.
const ROOM_FACTOR: u64 = 2;

/// The file.
pub(super) struct Reserve {
    dir: DataDir,
    path: PathBuf,
    bytes: u64,
    state: State,
}

enum State {
    /// Nobody has looked yet.
    Unknown,
    /// Not to be made before that.
    Absent(Option<Instant>),
    Filling(Arc<dyn DiskFile>, u64),
    Kept,
}

/// What there is to do.
pub(super) enum Pending {
    /// More, at once.
    Step,
    /// A look at this time.
    Look(Instant),
    /// Nothing.
    Nothing,
}

impl Reserve {
    /// Of this many bytes; 0: none.
    pub(super) fn new(dir: &DataDir, bytes: u64) -> Self {
        Self {
            dir: dir.clone(),
            path: dir.reserve_path(),
            bytes,
            state: State::Unknown,
        }
    }

    /// Gives the room back; whether there was any.
    pub(super) fn release(&mut self) -> Result<bool, DiskFailure> {
        let state = std::mem::replace(&mut self.state, State::Absent(None));
        let there = match state {
            State::Absent(not_before) => {
                self.state = State::Absent(not_before);
                false
            }
            State::Unknown => self.found()?.is_some(),
            State::Filling(..) | State::Kept => true,
        };
        if there {
            self.remove()?;
            tracing::warn!(
                bytes = self.bytes,
                "the disk is full; the reserve is given to a checkpoint"
            );
        }
        Ok(there)
    }

    /// What it would do now.
    pub(super) fn pending(&self, now: Instant) -> Pending {
        match &self.state {
            State::Kept => Pending::Nothing,
            State::Absent(Some(at)) if *at > now => Pending::Look(*at),
            State::Absent(_) if self.bytes == 0 => Pending::Nothing,
            State::Unknown | State::Absent(_) | State::Filling(..) => Pending::Step,
        }
    }

    /// Does a little of what is pending.
    pub(super) fn step(&mut self, now: Instant) -> Result<(), DiskFailure> {
        let result = match &self.state {
            State::Kept => return Ok(()),
            State::Unknown => self.look_first(now),
            State::Absent(_) => self.begin(now),
            State::Filling(file, at) => {
                let (file, at) = (Arc::clone(file), *at);
                self.fill(&*file, at)
            }
        };
        match result {
            // Somebody else took the room.
            Err(failure) if failure.is_full() && failure.action != Action::Sync => {
                self.state = State::Absent(Some(now + LOOK_EVERY));
                self.remove()
            }
            result => result,
        }
    }

    fn found(&self) -> Result<Option<u64>, DiskFailure> {
        match self.dir.disk().open(&self.path, OpenMode::Read) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            opened => {
                let file = opened.map_err(failed(Action::Open, &self.path))?;
                let bytes = file.bytes().map_err(failed(Action::Read, &self.path))?;
                Ok(Some(bytes))
            }
        }
    }

    fn look_first(&mut self, now: Instant) -> Result<(), DiskFailure> {
        match self.found()? {
            Some(bytes) if bytes == self.bytes && bytes > 0 => self.state = State::Kept,
            Some(_) => {
                // Of another size, or not finished.
                self.remove()?;
                self.state = State::Absent(Some(now));
            }
            None => self.state = State::Absent(Some(now)),
        }
        Ok(())
    }

    fn begin(&mut self, now: Instant) -> Result<(), DiskFailure> {
        let free = self.dir.free_bytes()?;
        if self.bytes == 0 || free < self.bytes.saturating_mul(ROOM_FACTOR) {
            self.state = State::Absent(Some(now + LOOK_EVERY));
            return Ok(());
        }
        let file = self.dir.disk().open(&self.path, OpenMode::CreateNew);
        let file = file.map_err(failed(Action::Create, &self.path))?;
        self.state = State::Filling(file, 0);
        Ok(())
    }

    fn fill(&mut self, file: &dyn DiskFile, at: u64) -> Result<(), DiskFailure> {
        if at < self.bytes {
            let zeros = usize::try_from(self.bytes - at).unwrap_or(STEP_BYTES);
            let zeros = vec![0; zeros.min(STEP_BYTES)];
            file.write_all_at(&[IoSlice::new(&zeros)], at)
                .map_err(failed(Action::Write, &self.path))?;
            if let State::Filling(_, at) = &mut self.state {
                *at += zeros.len() as u64;
            }
            return Ok(());
        }
        file.sync_data().map_err(failed(Action::Sync, &self.path))?;
        self.sync_dir()?;
        self.state = State::Kept;
        Ok(())
    }

    fn remove(&self) -> Result<(), DiskFailure> {
        match self.dir.disk().remove(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(failed(Action::Remove, &self.path))?,
        }
        self.sync_dir()
    }

    fn sync_dir(&self) -> Result<(), DiskFailure> {
        let directory: &Path = self.dir.path();
        let synced = self.dir.disk().sync_dir(directory);
        synced.map_err(failed(Action::Sync, directory))
    }
}
