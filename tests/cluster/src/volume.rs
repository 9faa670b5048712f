//! A volume that fails, is slow or full, when told to: a file system of our own (FUSE) that passes
//! everything on to a directory beside it and answers chosen operations with EIO instead.
//!
//! Needs `/dev/fuse` and the right to mount; says which of them is missing. Reads come from the
//! directory each time, never from the kernel's cache, so that a fault is seen at once. A kill of
//! the broker loses nothing here that it would not lose elsewhere: see `power` for what a machine
//! that stops loses.

mod passthrough;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result};
use fuser::{BackgroundSession, Config, MountOption};

use crate::suite::skip;
use passthrough::Passthrough;

/// What may fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Operation {
    /// Reading a file.
    Read,
    /// Writing to a file.
    Write,
    /// Syncing a file.
    Sync,
}

/// Which files fail, and how.
#[derive(Clone, Debug)]
struct Fault {
    operation: Operation,
    /// Part of the path below the volume's top.
    path_part: String,
}

/// Faults, and how often each struck, by path.
#[derive(Debug, Default)]
struct State {
    faults: Vec<Fault>,
    /// How long each sync takes at least.
    sync_takes: Duration,
    /// No file gets longer.
    is_full: bool,
    struck: BTreeMap<(Operation, PathBuf), u64>,
}

/// Shared by the volume and its file system.
#[derive(Clone, Debug, Default)]
pub(crate) struct Faults(Arc<Mutex<State>>);

impl Faults {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long a sync takes now, at least.
    pub(crate) fn sync_takes(&self) -> Duration {
        self.state().sync_takes
    }

    /// Whether there is no room for more.
    pub(crate) fn is_full(&self) -> bool {
        self.state().is_full
    }

    /// Whether this operation on this file fails now.
    pub(crate) fn strikes(&self, operation: Operation, path: &Path) -> bool {
        let mut state = self.state();
        let text = path.to_string_lossy();
        let mut faults = state.faults.iter();
        let strikes =
            faults.any(|f| f.operation == operation && text.contains(f.path_part.as_str()));
        if strikes {
            *state.struck.entry((operation, path.into())).or_default() += 1;
        }
        strikes
    }
}

/// A mounted volume; unmounted when dropped.
#[derive(Debug)]
pub struct Volume {
    faults: Faults,
    session: Option<BackgroundSession>,
}

impl Volume {
    /// Mounts a volume at `at` that keeps its files in `backing`. Both are made.
    ///
    /// # Errors
    /// The case is skipped where nothing can be mounted.
    pub fn mount(at: &Path, backing: &Path) -> Result<Self> {
        if !Path::new("/dev/fuse").exists() {
            return skip(
                "there is no /dev/fuse: the kernel has no FUSE, or the container hides it",
            );
        }
        if !rustix::process::geteuid().is_root() {
            return skip("mounting a volume that fails needs root");
        }
        for directory in [at, backing] {
            std::fs::create_dir_all(directory)?;
        }
        let faults = Faults::default();
        let files = Passthrough::new(backing.to_owned(), faults.clone());
        let mut config = Config::default();
        config.mount_options = vec![MountOption::FSName("millrace-test".to_owned())];
        match fuser::spawn_mount(files, at, &config) {
            Ok(session) => Ok(Self {
                faults,
                session: Some(session),
            }),
            Err(error) => skip(format!("a FUSE volume cannot be mounted here: {error}")),
        }
    }

    /// From now on this fails with EIO, on every file whose path has this part.
    pub fn fail(&self, operation: Operation, path_part: &str) {
        let path_part = path_part.to_owned();
        self.faults.state().faults.push(Fault {
            operation,
            path_part,
        });
    }

    /// From now on each sync takes at least this long.
    pub fn slow_down(&self, sync_takes: Duration) {
        self.faults.state().sync_takes = sync_takes;
    }

    /// From now on there is no room for more, as if others had filled the disk; what is there can
    /// be written to and removed.
    pub fn fill(&self) {
        self.faults.state().is_full = true;
    }

    /// And now there is again.
    pub fn free(&self) {
        self.faults.state().is_full = false;
    }

    /// Nothing fails any more, and nothing is slow or full.
    pub fn heal(&self) {
        let mut state = self.faults.state();
        state.is_full = false;
        state.faults.clear();
        state.sync_takes = Duration::ZERO;
    }

    /// How often an operation failed, on each file.
    #[must_use]
    pub fn struck(&self, operation: Operation) -> Vec<(PathBuf, u64)> {
        let state = self.faults.state();
        let struck = state.struck.iter().filter(|((o, _), _)| *o == operation);
        struck.map(|((_, path), n)| (path.clone(), *n)).collect()
    }

    /// Unmounts it.
    ///
    /// # Errors
    /// Something still has a file open there.
    pub fn unmount(mut self) -> Result<()> {
        let session = self.session.take().context("it is mounted")?;
        Ok(session.umount_and_join()?)
    }
}
