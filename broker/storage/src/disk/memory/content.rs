//! What one file of the disk in memory holds, and what a crash may leave of it.
//!
//! The bytes are kept as they are now, with the means to go back to what is durable: every change
//! since the last sync is remembered together with what it replaced. So a write costs its own
//! bytes, a sync the number of changes, and only a crash looks at more.
//!
//! A crash may leave each sector as it was after any of the changes to it, and the length as it was
//! after any of the changes to that. Changes of the length happen in order: what was written behind
//! a cut is there only if the cut is.

use std::collections::BTreeMap;
use std::ops::Range;

use super::chance::Chance;
use super::{Crash, SECTOR_BYTES};

/// One file.
#[derive(Default)]
pub(super) struct Content {
    pub(super) now: Vec<u8>,
    /// Since the last sync.
    changes: Vec<Change>,
}

/// A change of bytes, of the length, or of both.
struct Change {
    at: usize,
    written: Vec<u8>,
    /// What was there from `at` on, up to the end of what this changed or cut.
    replaced: Vec<u8>,
    length_before: usize,
    length_after: usize,
}

/// What a crash keeps of a file.
enum Keep {
    /// The first changes, and of the next one some sectors.
    Prefix(usize),
    /// Of every sector whatever comes.
    Any,
}

impl Content {
    /// A file with durable bytes.
    pub(super) const fn durable(now: Vec<u8>) -> Self {
        let changes = Vec::new();
        Self { now, changes }
    }

    pub(super) fn write(&mut self, at: usize, written: Vec<u8>) {
        let length_before = self.now.len();
        let length_after = length_before.max(at + written.len());
        let (start, end) = (
            at.min(length_before),
            (at + written.len()).min(length_before),
        );
        let replaced = self.now[start..end].to_vec();
        self.now.resize(length_after, 0);
        self.now[at..at + written.len()].copy_from_slice(&written);
        self.changes.push(Change {
            at,
            written,
            replaced,
            length_before,
            length_after,
        });
    }

    pub(super) fn set_length(&mut self, length: usize) {
        let length_before = self.now.len();
        let replaced = self.now.get(length..).unwrap_or_default().to_vec();
        self.now.resize(length, 0);
        self.changes.push(Change {
            at: length,
            written: Vec::new(),
            replaced,
            length_before,
            length_after: length,
        });
    }

    pub(super) fn sync(&mut self) {
        self.changes.clear();
    }

    /// Leaves what this crash leaves; all of it is durable then.
    pub(super) fn crash(&mut self, crash: Crash, chance: &mut Chance) {
        let changes = std::mem::take(&mut self.changes);
        let keep = match crash {
            Crash::KeepAll => return,
            Crash::DropAll => Keep::Prefix(0),
            Crash::Random(_) => match chance.below(4) {
                0 => Keep::Prefix(0),
                1 => return,
                2 => Keep::Prefix(chance.below(changes.len() + 1)),
                _ => Keep::Any,
            },
        };
        let torn = matches!(crash, Crash::Random(_));
        for change in changes.iter().rev() {
            change.undo(&mut self.now);
        }
        let lengths = match keep {
            Keep::Prefix(count) => count,
            Keep::Any => chance.below(changes.len() + 1),
        };
        let length = changes[..lengths]
            .last()
            .map_or(self.now.len(), |change| change.length_after);
        for (sector, touched) in sectors(&changes) {
            let within = allowed(&changes, &touched, lengths);
            let count = match keep {
                Keep::Any => within.start + chance.below(within.len() + 1),
                Keep::Prefix(kept) => {
                    let whole = touched.iter().filter(|change| **change < kept).count();
                    let more = torn && touched.get(whole) == Some(&kept) && chance.below(2) == 0;
                    (whole + usize::from(more)).clamp(within.start, within.end)
                }
            };
            for change in &touched[..count] {
                changes[*change].redo(sector, &mut self.now);
            }
        }
        self.now.resize(length, 0);
    }
}

/// By sector, the changes that touch it.
fn sectors(changes: &[Change]) -> BTreeMap<usize, Vec<usize>> {
    let mut sectors: BTreeMap<usize, Vec<usize>> = BTreeMap::new();
    for (place, change) in changes.iter().enumerate() {
        let touched = change.touched();
        let first = touched.start / SECTOR_BYTES;
        for sector in first..touched.end.div_ceil(SECTOR_BYTES) {
            sectors.entry(sector).or_default().push(place);
        }
    }
    sectors
}

/// How many of the changes to a sector may be there when the first `lengths` changes of all have
/// had their effect on the length: all up to the last cut among them, none from the next cut on.
fn allowed(changes: &[Change], touched: &[usize], lengths: usize) -> Range<usize> {
    let is_cut = |change: usize| changes[change].length_after < changes[change].length_before;
    let cuts = touched.iter().enumerate().filter(|(_, c)| is_cut(**c));
    let mut range = 0..touched.len();
    for (place, change) in cuts {
        if *change < lengths {
            range.start = place + 1;
        } else {
            range.end = range.end.min(place);
        }
    }
    range
}

impl Change {
    /// Which bytes it changed, cut ones included.
    fn touched(&self) -> Range<usize> {
        self.at..self.at + self.written.len().max(self.replaced.len())
    }

    fn undo(&self, bytes: &mut Vec<u8>) {
        bytes.resize(self.length_before, 0);
        let start = self.at.min(self.length_before);
        bytes[start..start + self.replaced.len()].copy_from_slice(&self.replaced);
    }

    /// Does it again, in one sector.
    fn redo(&self, sector: usize, bytes: &mut Vec<u8>) {
        let sector = sector * SECTOR_BYTES..(sector + 1) * SECTOR_BYTES;
        let touched = self.touched();
        let (start, end) = (sector.start.max(touched.start), sector.end.min(touched.end));
        if bytes.len() < end {
            bytes.resize(end, 0);
        }
        let written = self.at + self.written.len();
        for (at, byte) in bytes.iter_mut().enumerate().take(end).skip(start) {
            *byte = if at < written {
                self.written[at - self.at]
            } else {
                // Cut.
                0
            };
        }
    }
}
