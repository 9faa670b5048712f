//! A disk that counts what another one is made to write and sync, and for what: by the paths of a
//! data directory. Changes nothing else; two atomic additions for each call.

use std::io::{self, IoSlice};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use super::{Disk, DiskFile, Lock, OpenMode};
use crate::times::{Times, TimesSeen};

/// What a part of the data directory is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Area {
    /// Batches, and the first bytes of each file.
    Journal,
    /// Zeros written ahead into journal files.
    JournalZeros,
    /// Bodies.
    Segments,
    /// Snapshots and lists of segments.
    Checkpoints,
    /// Identity, lock, what was set aside.
    Other,
}

impl Area {
    /// Every one, in order.
    pub const ALL: [Self; 5] = [
        Self::Journal,
        Self::JournalZeros,
        Self::Segments,
        Self::Checkpoints,
        Self::Other,
    ];

    /// For metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Journal => "journal",
            Self::JournalZeros => "journal_zeros",
            Self::Segments => "segments",
            Self::Checkpoints => "checkpoints",
            Self::Other => "other",
        }
    }

    /// Of a file or directory: `journal/…`, `shards/N/checkpoint-…`, `shards/N/segments/…`.
    fn of(path: &Path) -> Self {
        let mut names = path.iter().rev().map(|name| name.to_string_lossy());
        let mut next = || names.next().unwrap_or_default();
        let (name, parent, above, top) = (next(), next(), next(), next());
        if name == "journal" || parent == "journal" {
            Self::Journal
        } else if parent == "shards" || name.starts_with("checkpoint") {
            Self::Checkpoints
        } else if above == "shards" || top == "shards" {
            Self::Segments
        } else {
            Self::Other
        }
    }
}

/// What was written and synced so far, by area.
#[derive(Debug, Default)]
pub struct Traffic([Counts; Area::ALL.len()]);

#[derive(Debug, Default)]
struct Counts {
    written_bytes: AtomicU64,
    syncs: Times,
}

impl Traffic {
    /// Bytes written and the times of syncs, of files and directories, by area.
    #[must_use]
    pub fn seen(&self) -> Vec<(Area, u64, TimesSeen)> {
        let counts = Area::ALL.into_iter().zip(&self.0);
        counts
            .map(|(area, counts)| {
                let written = counts.written_bytes.load(Ordering::Relaxed);
                (area, written, counts.syncs.seen())
            })
            .collect()
    }

    fn wrote(&self, area: Area, bytes: u64) {
        let counts = &self.0[area as usize];
        counts.written_bytes.fetch_add(bytes, Ordering::Relaxed);
    }

    fn sync(&self, area: Area, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        let started = Instant::now();
        let result = sync();
        self.0[area as usize].syncs.add(started.elapsed());
        result
    }
}

/// Counts for another disk.
pub struct CountedDisk<D> {
    disk: D,
    traffic: Arc<Traffic>,
}

impl<D: Disk> CountedDisk<D> {
    /// Counts from zero.
    pub fn new(disk: D) -> Self {
        Self {
            disk,
            traffic: Arc::default(),
        }
    }
}

impl<D: Disk> Disk for CountedDisk<D> {
    fn open(&self, path: &Path, mode: OpenMode) -> io::Result<Arc<dyn DiskFile>> {
        Ok(Arc::new(CountedFile {
            file: self.disk.open(path, mode)?,
            area: Area::of(path),
            traffic: Arc::clone(&self.traffic),
        }))
    }

    fn create_dir_all(&self, path: &Path) -> io::Result<()> {
        self.disk.create_dir_all(path)
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        let sync = || self.disk.sync_dir(path);
        self.traffic.sync(Area::of(path), sync)
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        self.disk.list(path)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.disk.rename(from, to)
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        self.disk.remove(path)
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.disk.remove_dir(path)
    }

    fn free_bytes(&self, path: &Path) -> io::Result<u64> {
        self.disk.free_bytes(path)
    }

    fn lock(&self, path: &Path) -> io::Result<Lock> {
        self.disk.lock(path)
    }

    fn traffic(&self) -> Option<&Traffic> {
        Some(&self.traffic)
    }
}

struct CountedFile {
    file: Arc<dyn DiskFile>,
    area: Area,
    traffic: Arc<Traffic>,
}

impl DiskFile for CountedFile {
    fn read_exact_at(&self, buffer: &mut [u8], offset: u64) -> io::Result<()> {
        self.file.read_exact_at(buffer, offset)
    }

    fn write_at(&self, buffers: &[IoSlice<'_>], offset: u64) -> io::Result<usize> {
        let written = self.file.write_at(buffers, offset)?;
        self.traffic.wrote(self.area, written as u64);
        Ok(written)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.traffic.sync(self.area, || self.file.sync_data())
    }

    fn bytes(&self) -> io::Result<u64> {
        self.file.bytes()
    }

    fn set_bytes(&self, bytes: u64) -> io::Result<()> {
        self.file.set_bytes(bytes)
    }

    fn fill_zeros(&self, bytes: u64) -> io::Result<()> {
        self.file.fill_zeros(bytes)?;
        self.traffic.wrote(Area::JournalZeros, bytes);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::disk::MemoryDisk;

    #[test]
    fn paths_of_a_data_directory_tell_what_a_write_is_for() {
        let cases = [
            ("/data/journal/00000001", Area::Journal),
            ("/data/journal", Area::Journal),
            ("/data/shards/3/checkpoint-12", Area::Checkpoints),
            ("/data/shards/3/checkpoint-12.tmp", Area::Checkpoints),
            ("/data/shards/3", Area::Checkpoints),
            ("/data/shards/3/17", Area::Segments),
            ("/data/shards/3/17/00000000", Area::Segments),
            ("/data/identity", Area::Other),
            ("lock", Area::Other),
        ];
        for (path, area) in cases {
            assert_eq!(Area::of(Path::new(path)), area, "{path}");
        }
    }

    #[test]
    fn what_is_written_and_synced_is_counted() {
        let disk = CountedDisk::new(MemoryDisk::new());
        let path = Path::new("/data/journal");
        disk.create_dir_all(path).unwrap();
        let file = disk.open(&path.join("1"), OpenMode::CreateNew).unwrap();

        file.fill_zeros(100).unwrap();
        file.write_all_at(&[IoSlice::new(b"abc"), IoSlice::new(b"de")], 0)
            .unwrap();
        file.sync_data().unwrap();
        disk.sync_dir(path).unwrap();

        let seen = disk.traffic().unwrap().seen();
        let counts: Vec<_> = seen
            .into_iter()
            .map(|(area, bytes, syncs)| (area, bytes, syncs.count()))
            .collect();
        assert_eq!(counts[0], (Area::Journal, 5, 2));
        assert_eq!(counts[1], (Area::JournalZeros, 100, 0));
        assert_eq!(counts[2], (Area::Segments, 0, 0));
    }
}
