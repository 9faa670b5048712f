//! The names in one directory of the disk in memory, and what a crash may leave of them.
//!
//! A crash may undo any change since the last sync of the directory, but not one that a kept change
//! of the same name builds on; a rename happens or does not.

use std::collections::{BTreeMap, BTreeSet};

use super::chance::Chance;
use super::{Crash, Inode};

#[derive(Default)]
pub(super) struct Directory {
    pub(super) now: BTreeMap<String, Inode>,
    pub(super) durable: BTreeMap<String, Inode>,
    /// What led from `durable` to `now`.
    changes: Vec<Change>,
    /// Removed, which only a sync of the parent makes durable.
    pub(super) is_gone: bool,
}

#[derive(Clone)]
pub(super) enum Change {
    Link(String, Inode),
    Unlink(String),
    /// Both at once, as a rename within a directory is.
    Rename(String, String, Inode),
}

impl Directory {
    /// A directory with durable names.
    pub(super) fn durable(names: BTreeMap<String, Inode>) -> Self {
        Self {
            now: names.clone(),
            durable: names,
            changes: Vec::new(),
            is_gone: false,
        }
    }

    pub(super) fn change(&mut self, change: Change) {
        change.clone().apply(&mut self.now);
        self.changes.push(change);
    }

    pub(super) fn sync(&mut self) {
        for change in std::mem::take(&mut self.changes) {
            change.apply(&mut self.durable);
        }
    }

    /// Leaves what this crash leaves; all of it is durable then.
    pub(super) fn crash(&mut self, crash: Crash, chance: &mut Chance) {
        let changes = std::mem::take(&mut self.changes);
        let (prefix, any) = match crash {
            Crash::KeepAll => (changes.len(), false),
            Crash::DropAll => (0, false),
            Crash::Random(_) => match chance.below(4) {
                0 => (0, false),
                1 => (changes.len(), false),
                2 => (chance.below(changes.len() + 1), false),
                _ => (changes.len(), true),
            },
        };
        let mut undone: BTreeSet<String> = BTreeSet::new();
        for change in changes.into_iter().take(prefix) {
            let depends = change.names().any(|name| undone.contains(name));
            if depends || (any && chance.below(2) == 0) {
                undone.extend(change.names().cloned());
            } else {
                change.apply(&mut self.durable);
            }
        }
        self.now.clone_from(&self.durable);
    }
}

impl Change {
    fn names(&self) -> impl Iterator<Item = &String> {
        let (first, second) = match self {
            Self::Link(name, _) | Self::Unlink(name) => (name, None),
            Self::Rename(from, to, _) => (from, Some(to)),
        };
        std::iter::once(first).chain(second)
    }

    fn apply(self, names: &mut BTreeMap<String, Inode>) {
        match self {
            Self::Link(name, inode) => {
                names.insert(name, inode);
            }
            Self::Unlink(name) => {
                names.remove(&name);
            }
            Self::Rename(from, to, inode) => {
                names.remove(&from);
                names.insert(to, inode);
            }
        }
    }
}
