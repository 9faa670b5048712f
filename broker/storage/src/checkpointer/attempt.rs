//! One checkpoint, step by step: bodies to segments, the file to its place, and only then memory
//! freed, the asker told, and removed what nothing needs any more.

use std::path::PathBuf;
use std::sync::Arc;

use millrace_types::{LogIndex, Term};

use super::{CheckpointDone, EncodeSnapshot, Job};
use crate::checkpoint;
use crate::envelope::Replacement;
use crate::error::{Action, DiskFailure};
use crate::store::Store;
use crate::store::spill::Spill;

/// A checkpoint being made.
pub(super) struct Attempt {
    store: Arc<Store>,
    index: LogIndex,
    term: Term,
    /// Until the asker is told.
    done: Option<CheckpointDone>,
    stage: Stage,
}

enum Stage {
    Bodies(Box<Spill>, EncodeSnapshot),
    File(Box<Spill>, Replacement),
    Remove,
    /// Between stages, or after a failure.
    Nothing,
}

/// How far it is.
pub(super) enum Progress {
    /// There are steps left.
    More,
    /// None.
    Finished,
}

/// Why there is no checkpoint.
pub(super) enum Failed {
    /// Nothing has changed.
    Full(PathBuf),
    /// What is on disk is unknown.
    Stop(DiskFailure),
}

impl Attempt {
    pub(super) fn new(job: Job) -> Self {
        let Job {
            store,
            cut,
            index,
            term,
            snapshot,
            done,
        } = job;
        let spill = Box::new(store.begin_spill(cut, index));
        Self {
            store,
            index,
            term,
            done: Some(done),
            stage: Stage::Bodies(spill, snapshot),
        }
    }

    /// Does the next thing. An error ends the attempt; it comes with whoever has to be told.
    pub(super) fn step(&mut self) -> Result<Progress, (CheckpointDone, Failed)> {
        match self.advance() {
            Ok(progress) => Ok(progress),
            Err(failed) => {
                let done = self.done.take().unwrap_or_else(|| Box::new(|_| ()));
                Err((done, failed))
            }
        }
    }

    fn advance(&mut self) -> Result<Progress, Failed> {
        match std::mem::replace(&mut self.stage, Stage::Nothing) {
            Stage::Bodies(mut spill, snapshot) => {
                match self.store.spill_step(&mut spill) {
                    Err(failure) => return Err(self.give_up(*spill, failure)),
                    Ok(false) => self.stage = Stage::Bodies(spill, snapshot),
                    Ok(true) => {
                        let manifest = self.store.manifest(&mut spill);
                        let (dir, shard) = (&self.store.dir, self.store.shard);
                        let file = checkpoint::begin(dir, shard, self.term, manifest, snapshot());
                        self.stage = Stage::File(spill, file);
                    }
                }
                Ok(Progress::More)
            }
            Stage::File(spill, mut file) => {
                match file.step(&**self.store.dir.disk()) {
                    Err(failure) => return Err(self.give_up(*spill, failure)),
                    Ok(false) => self.stage = Stage::File(spill, file),
                    Ok(true) => {
                        self.store.publish(*spill).map_err(Failed::Stop)?;
                        self.stage = Stage::Remove;
                        if let Some(done) = self.done.take() {
                            done(Ok(self.index));
                        }
                    }
                }
                Ok(Progress::More)
            }
            Stage::Remove => {
                let (dir, shard) = (&self.store.dir, self.store.shard);
                checkpoint::remove_older(dir, shard, self.index).map_err(Failed::Stop)?;
                Ok(Progress::Finished)
            }
            Stage::Nothing => Ok(Progress::Finished),
        }
    }

    fn give_up(&self, spill: Spill, failure: DiskFailure) -> Failed {
        // A sync that failed for want of room is still a failed sync: after the one of the
        // directory, the new checkpoint may be in force.
        if failure.is_full() && failure.action != Action::Sync {
            self.store.abandon(spill);
            Failed::Full(failure.path)
        } else {
            Failed::Stop(failure)
        }
    }
}
