//! One checkpoint, step by step: bodies to segments, the file to its place, and only then memory
//! freed, the asker told, and removed what nothing needs any more.

use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;

use super::{CheckpointDone, Job, Snapshot};
use crate::checkpoint::{self, Covered, Manifest};
use crate::envelope::Replacement;
use crate::error::{Action, DiskFailure};
use crate::store::Store;
use crate::store::spill::{Cut, Effort, Spill};

/// A checkpoint being made.
pub(super) struct Attempt {
    store: Arc<Store>,
    cut: Cut,
    covered: Covered,
    effort: Effort,
    snapshot: Snapshot,
    /// Until the asker is told.
    done: Option<CheckpointDone>,
    stage: Stage,
}

enum Stage {
    Bodies(Box<Spill>),
    /// Each of these takes long with very many logs: a step for each.
    List(Box<Spill>),
    Encode(Box<Spill>, Manifest),
    Begin(Box<Spill>, Manifest, Bytes),
    File(Box<Spill>, Replacement),
    /// Segments first, then older checkpoints.
    Remove(Vec<u64>),
    /// After the end.
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
    /// This did not fit. Nothing has changed.
    Full(PathBuf),
    /// What is on disk is unknown.
    Stop(DiskFailure),
}

impl Attempt {
    pub(super) fn new(job: Job, effort: Effort) -> Self {
        let Job {
            store,
            cut,
            covered,
            snapshot,
            done,
        } = job;
        let spill = Box::new(store.begin_spill(cut, covered.index, effort));
        Self {
            store,
            cut,
            covered,
            effort,
            snapshot,
            done: Some(done),
            stage: Stage::Bodies(spill),
        }
    }

    /// How much it tries.
    pub(super) fn effort(&self) -> Effort {
        self.effort
    }

    /// What was asked for, to be tried again; `None` when the asker was told.
    pub(super) fn into_job(self) -> Option<Job> {
        Some(Job {
            store: self.store,
            cut: self.cut,
            covered: self.covered,
            snapshot: self.snapshot,
            done: self.done?,
        })
    }

    /// Does the next thing. An error ends the attempt.
    pub(super) fn step(&mut self) -> Result<Progress, Failed> {
        match std::mem::replace(&mut self.stage, Stage::Nothing) {
            Stage::Bodies(mut spill) => {
                match self.store.spill_step(&mut spill) {
                    Err(failure) => return Err(self.give_up(*spill, failure)),
                    Ok(false) => self.stage = Stage::Bodies(spill),
                    Ok(true) => self.stage = Stage::List(spill),
                }
                Ok(Progress::More)
            }
            Stage::List(mut spill) => {
                let manifest = self.store.manifest(&mut spill);
                self.stage = Stage::Encode(spill, manifest);
                Ok(Progress::More)
            }
            Stage::Encode(spill, manifest) => {
                let snapshot = self.encode();
                self.stage = Stage::Begin(spill, manifest, snapshot);
                Ok(Progress::More)
            }
            Stage::Begin(spill, manifest, snapshot) => {
                let (dir, shard) = (&self.store.dir, self.store.shard);
                let covered = self.covered.clone();
                let file = checkpoint::begin(dir, shard, covered, manifest, snapshot);
                self.stage = Stage::File(spill, file);
                Ok(Progress::More)
            }
            Stage::File(spill, mut file) => {
                match file.step(&**self.store.dir.disk()) {
                    Err(failure) => return Err(self.give_up(*spill, failure)),
                    Ok(false) => self.stage = Stage::File(spill, file),
                    Ok(true) => {
                        let retired = self.store.publish(*spill);
                        self.store.checkpointed(file.written());
                        self.stage = Stage::Remove(retired);
                        if let Some(done) = self.done.take() {
                            done(Ok(self.covered.index));
                        }
                    }
                }
                Ok(Progress::More)
            }
            Stage::Remove(mut retired) => {
                if let Some(segment) = retired.pop() {
                    self.store.remove_segment(segment).map_err(Failed::Stop)?;
                    self.stage = Stage::Remove(retired);
                    return Ok(Progress::More);
                }
                let (dir, shard) = (&self.store.dir, self.store.shard);
                checkpoint::remove_older(dir, shard, self.covered.index).map_err(Failed::Stop)?;
                Ok(Progress::Finished)
            }
            Stage::Nothing => Ok(Progress::Finished),
        }
    }

    fn encode(&mut self) -> Bytes {
        let snapshot = match std::mem::replace(&mut self.snapshot, Snapshot::Encoded(Bytes::new()))
        {
            Snapshot::ToEncode(encode) => encode(),
            Snapshot::Encoded(snapshot) => snapshot,
        };
        // Kept in case there is no room and it is tried again.
        self.snapshot = Snapshot::Encoded(snapshot.clone());
        snapshot
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
