//! What a disk does without a word: what was planned of it, whom it concerns, and whether the
//! scrubber finds it in time.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use millrace_storage::{Crash, Operation, inspect};

use super::life::Life;
use super::{Over, World};
use crate::damage::Scope;
use crate::disk::Struck;
use crate::event::Event;
use crate::plan::Deceit;
use crate::random::Random;

/// The journal of a node.
const JOURNAL: &str = "/data/journal";
/// Its shards.
const SHARDS: &str = "/data/shards";
/// Bytes of a journal file before its first batch.
const JOURNAL_HEADER_BYTES: u64 = 4 << 10;
/// How a journal file begins.
const JOURNAL_MAGIC: &[u8] = b"MRJOURNL";
/// The scrubber finds what is damaged within its pause of ten minutes, and a pass over what so
/// small a node has.
const SCRUB_MS_MAX: u64 = 610_000;
/// Waited at a time.
const SCRUB_STEP_MS: u64 = 10_000;

/// Places looked at for one that will do.
const PLACES_MAX: u32 = 40;

/// Batches of the journal that were struck, by sequence number: while there is no later one,
/// nothing shows that they had ever been whole.
#[derive(Default)]
pub(super) struct Open(Vec<u64>);

/// Whom a flipped bit concerns.
struct Hit {
    shards: Vec<u32>,
    /// The batch of the journal that it is in.
    batch: Option<u64>,
}

impl Hit {
    /// Whether some shard loses something by it, and nobody could take that for a crash.
    fn is_noticed(&self, batches: &[inspect::FoundBatch]) -> bool {
        let last = batches.iter().map(|batch| batch.sequence).max();
        !self.shards.is_empty() && (self.batch.is_none() || self.batch < last)
    }
}

impl Life {
    /// Something will go wrong without a word. At most one read: who reads twice sees it.
    pub(super) fn deceive(&mut self, deceit: Deceit) {
        let Deceit {
            operation,
            fault,
            after,
            part,
            ..
        } = deceit;
        let misread = operation == Operation::Read;
        if misread && self.misread {
            return;
        }
        self.misread |= misread;
        self.threatened = true;
        self.disk.deceive(operation, fault, after, part);
    }
}

impl World<'_> {
    /// A bit flips at rest.
    pub(super) fn rot(&mut self, node: usize, part: &str, at: u64) {
        let mut random = Random::new(at);
        let medium = Arc::clone(&self.nodes[node].medium);
        let batches = medium.batches(Path::new(JOURNAL));
        for _ in 0..PLACES_MAX {
            let Some(place) = medium.place(&mut random, part) else {
                return;
            };
            let hit = self.hit(&batches, &place.path, place.at as u64);
            if !self.is_alone() && !hit.is_noticed(&batches) {
                continue;
            }
            medium.flip(&place);
            self.report.faults += 1;
            self.nodes[node].open.0.extend(hit.batch);
            let (path, at) = (place.path, place.at);
            let what = format!("a bit flips in {} at {at}", path.display());
            self.struck(&path, hit.shards, what);
            return;
        }
    }

    /// What a byte of a file is about.
    fn hit(&self, batches: &[inspect::FoundBatch], path: &Path, at: u64) -> Hit {
        let hit = |shards| Hit {
            shards,
            batch: None,
        };
        match Scope::of(path) {
            Scope::Shard(shard) => return hit(vec![shard]),
            Scope::Identity | Scope::Nothing => return hit(Vec::new()),
            Scope::Journal => {}
        }
        // A spare one, too: a crash may take back that it was let go.
        let mut here = batches.iter().filter(|batch| batch.path == path);
        match here.find(|batch| batch.bytes.contains(&at)) {
            // A seal says something about others, and holds nothing.
            Some(batch) if batch.records == 0 => hit(Vec::new()),
            Some(batch) => Hit {
                shards: match at < batch.bytes.start + batch.header_bytes {
                    true => self.all_shards(),
                    false => batch.shards.iter().map(|shard| shard.get()).collect(),
                },
                batch: Some(batch.sequence),
            },
            None if at < JOURNAL_HEADER_BYTES => hit(self.all_shards()),
            None => hit(Vec::new()),
        }
    }

    fn all_shards(&self) -> Vec<u32> {
        (0..=self.plan.node.shards).collect()
    }

    fn struck(&self, path: &Path, shards: Vec<u32>, what: String) {
        self.lasting.watch.with(|state| {
            state.facts.damage.struck(path, shards);
        });
        self.lasting.watch.tell(&Event::Struck { what });
    }

    /// Takes note of what the disk did.
    pub(super) fn note_struck(&mut self, node: usize) {
        for struck in self.nodes[node].medium.take_struck() {
            self.report.faults += 1;
            let watch = &self.lasting.watch;
            match struck {
                Struck::Read(path) => {
                    let what = format!("{} is misread", path.display());
                    watch.tell(&Event::Struck { what });
                }
                Struck::Sync(path) => {
                    let what = format!("{} is not synced", path.display());
                    watch.tell(&Event::Struck { what });
                }
                Struck::Write(path, at, bytes) => self.struck_write(node, &path, at, &bytes),
            }
        }
    }

    fn struck_write(&mut self, node: usize, path: &Path, at: u64, bytes: &[u8]) {
        let shards = match Scope::of(path) {
            Scope::Shard(shard) => vec![shard],
            Scope::Journal => {
                if let Some((sequence, _)) = inspect::batch_written(bytes) {
                    self.nodes[node].open.0.push(sequence);
                } else if bytes.starts_with(JOURNAL_MAGIC) {
                    // A file that was used before, and now is again, may look as it did then.
                    self.nodes[node].open.0.push(u64::MAX);
                }
                self.all_shards()
            }
            Scope::Identity | Scope::Nothing => Vec::new(),
        };
        let what = format!(
            "what was written to {} at {at} is not there",
            path.display()
        );
        self.struck(path, shards, what);
    }

    /// The process is gone, and what it had not synced.
    pub(super) fn lose(&mut self, node: usize, crash: Crash) {
        let lied = self.nodes[node].medium.crash(crash);
        self.note_struck(node);
        self.judge_tail(node);
        if lied {
            self.excuse();
        }
    }

    /// The last batch of a journal looks the same when it was torn and when it was struck.
    pub(super) fn judge_tail(&mut self, node: usize) {
        let member = &mut self.nodes[node];
        if member.open.0.is_empty() {
            return;
        }
        let batches = member.medium.batches(Path::new(JOURNAL));
        let last = batches.iter().map(|batch| batch.sequence).max();
        let is_last = |struck: &u64| last.is_none_or(|last| *struck >= last);
        if std::mem::take(&mut member.open.0).iter().any(is_last) {
            self.excuse();
        }
    }

    fn excuse(&self) {
        let watch = &self.lasting.watch;
        watch.with(|state| state.facts.damage.excused = true);
    }

    /// With damage in the files of shards: gives the scrubber the time it needs, after which every
    /// such shard has said so, or its damage does not matter. Whether that took time.
    pub(super) fn scrub(&mut self) -> Result<bool, Over> {
        let watch = self.lasting.watch.clone();
        if !watch.with(|state| state.facts.damage.is_in_shards()) {
            return Ok(false);
        }
        for _ in 0..SCRUB_MS_MAX / SCRUB_STEP_MS {
            self.wait(SCRUB_STEP_MS)?;
        }
        self.look_for_rest()?;
        watch.with(|state| state.facts.damage.scrubbed = true);
        self.stop_at_violation()?;
        for shard in self.all_shards() {
            let directory = PathBuf::from(SHARDS).join(shard.to_string());
            let silent = !watch.with(|state| state.facts.damage.has_said(shard));
            let is_here = |node: &usize| {
                let at = (*node, shard);
                self.is_alone() || watch.with(|state| state.facts.figures.contains_key(&at))
            };
            let mut nodes = (0..self.nodes.len()).filter(is_here);
            if silent && !nodes.all(|at| self.nodes[at].medium.is_checkpoint_sound(&directory)) {
                let what = format!("shard {shard} serves without a checkpoint that can be read");
                return Err(self.violated("quarantine", what));
            }
        }
        for client in self.clients() {
            for (object, shape) in self.plan.objects.iter().enumerate() {
                client.examine(object, shape);
            }
        }
        self.look_for_rest()?;
        self.stop_at_violation()?;
        Ok(true)
    }
}
