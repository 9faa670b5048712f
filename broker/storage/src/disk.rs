//! What storage asks of a disk. Everything goes through here, so that the same code runs on a
//! file system, on a model that loses unsynced writes, and on one that fails on purpose.
//!
//! Promises nothing by itself: a write is durable after `sync_data` of its file returned, a name
//! after `sync_dir` of its directory did. After a failed write or sync nothing is known; callers
//! must not retry.

use std::any::Any;
use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;

#[cfg(test)]
mod conformance;
mod counted;
#[cfg(any(test, feature = "test-util"))]
mod faulty;
#[cfg(any(test, feature = "test-util"))]
mod memory;
mod real;

pub use counted::{Area, CountedDisk, Traffic};
#[cfg(any(test, feature = "test-util"))]
pub use faulty::{Fault, FaultyDisk, Operation};
#[cfg(any(test, feature = "test-util"))]
pub use memory::{Crash, MemoryDisk};
pub use real::RealDisk;

/// Bytes written at a time when a file is filled with zeros.
const ZEROS_BYTES: usize = 1 << 20;

/// How a file is opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenMode {
    /// An existing file, for reading.
    Read,
    /// An existing file, for reading and writing.
    Write,
    /// A file that must not exist yet, for reading and writing.
    CreateNew,
}

/// Keeps a lock until dropped.
pub type Lock = Box<dyn Any + Send + Sync>;

/// A place for files.
pub trait Disk: Send + Sync + 'static {
    /// Opens a file.
    ///
    /// # Errors
    /// As the system says; `AlreadyExists` for `CreateNew` of an existing one.
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>>;

    /// Creates a directory and its missing parents. Their names are durable when it returns.
    ///
    /// # Errors
    /// As the system says.
    fn create_dir_all(&self, path: &Path) -> io::Result<()>;

    /// Makes names created, renamed or removed in a directory durable.
    ///
    /// # Errors
    /// As the system says; then nothing is known about those names.
    fn sync_dir(&self, path: &Path) -> io::Result<()>;

    /// Names in a directory, sorted.
    ///
    /// # Errors
    /// As the system says; `NotFound` when there is no such directory.
    fn list(&self, path: &Path) -> io::Result<Vec<String>>;

    /// Renames a file, replacing the target.
    ///
    /// # Errors
    /// As the system says.
    fn rename(&self, from: &Path, to: &Path) -> io::Result<()>;

    /// Removes a file.
    ///
    /// # Errors
    /// As the system says.
    fn remove(&self, path: &Path) -> io::Result<()>;

    /// Removes an empty directory.
    ///
    /// # Errors
    /// As the system says.
    fn remove_dir(&self, path: &Path) -> io::Result<()>;

    /// Bytes that may still be written below `path`.
    ///
    /// # Errors
    /// As the system says.
    fn free_bytes(&self, path: &Path) -> io::Result<u64>;

    /// Locks a file, creating it if needed, against every other process and every other call.
    ///
    /// # Errors
    /// `WouldBlock` when another holds it; otherwise as the system says.
    fn lock(&self, path: &Path) -> io::Result<Lock>;

    /// What was written and synced so far, when the disk counts it.
    fn traffic(&self) -> Option<&Traffic> {
        None
    }
}

/// An open file.
pub trait DiskFile: Send + Sync {
    /// Fills `buffer` from `offset` on.
    ///
    /// # Errors
    /// `UnexpectedEof` when the file ends before; otherwise as the system says.
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()>;

    /// Writes some of the buffers' bytes, one after the other, from `offset` on, and says how many;
    /// at least one, if there are any and the disk has room.
    ///
    /// # Errors
    /// As the system says.
    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize>;

    /// Writes all of them. Goes on where a write stopped short: a disk that takes only a part
    /// refuses the rest, and says why (`docs/decisions/2026-11-21-short-writes.md`).
    ///
    /// # Errors
    /// As the system says; `WriteZero` when nothing is written and no reason given. Some of it may
    /// be there.
    fn write_all_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<()> {
        let bytes: usize = buffers.iter().map(|slice| slice.len()).sum();
        let mut written = self.write_at(buffers, offset)?;
        if written == bytes {
            return Ok(());
        }
        let mut slices = buffers.to_vec();
        let mut rest = slices.as_mut_slice();
        let (mut step, mut at) = (written, offset);
        loop {
            if step == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut rest, step);
            at += step as u64;
            if written == bytes {
                return Ok(());
            }
            step = self.write_at(rest, at)?;
            written += step;
        }
    }

    /// Makes everything written durable, the length included.
    ///
    /// # Errors
    /// As the system says; then nothing is known about what was written since the last one.
    fn sync_data(&self) -> io::Result<()>;

    /// Length in bytes.
    ///
    /// # Errors
    /// As the system says.
    fn bytes(&self) -> io::Result<u64>;

    /// Cuts the file, or extends it with zeros.
    ///
    /// # Errors
    /// As the system says.
    fn set_bytes(&self, bytes: u64) -> io::Result<()>;

    /// Writes zeros up to `bytes`, so that later writes neither allocate nor grow the file.
    ///
    /// # Errors
    /// As `write_all_at`.
    fn fill_zeros(&self, bytes: u64) -> io::Result<()> {
        let zeros = vec![0; ZEROS_BYTES];
        let mut at = 0;
        while at < bytes {
            let step =
                usize::try_from(bytes - at).map_or(ZEROS_BYTES, |rest| rest.min(ZEROS_BYTES));
            self.write_all_at(&[IoSlice::new(&zeros[..step])], at)?;
            at += step as u64;
        }
        Ok(())
    }
}
