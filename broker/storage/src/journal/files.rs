//! The files of the journal: names, making them, using them again.
//!
//! `NUMBER.journal` is in use and has a valid header; `NUMBER.spare` waits to be used again;
//! `NUMBER.new` is being filled with zeros. Does not decide when: `journal/supply.rs` does.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::format::{FILE_HEADER_BYTES, FileHeader};
use super::{JournalOptions, writer::ActiveFile};
use crate::data_dir::DataDir;
use crate::disk::{DiskFile, OpenMode};
use crate::error::{Action, DiskFailure, OpenError, failed};

const JOURNAL: &str = "journal";
const SPARE: &str = "spare";
const NEW: &str = "new";

/// What is in the journal's directory.
pub(crate) struct Listing {
    /// In use, or prepared for it.
    pub(crate) journals: Vec<PathBuf>,
    /// Of the right size.
    pub(crate) spares: Vec<PathBuf>,
    /// Above every number in a name.
    pub(crate) number_next: u64,
}

impl Listing {
    /// Lists the directory, creating it if needed. Files that never came into use are removed.
    pub(crate) fn read(dir: &DataDir, options: JournalOptions) -> Result<Self, OpenError> {
        let (disk, directory) = (dir.disk(), dir.journal_path());
        disk.create_dir_all(&directory)
            .map_err(failed(Action::Create, &directory))?;
        let names = disk
            .list(&directory)
            .map_err(failed(Action::List, &directory))?;
        let mut listing = Self {
            journals: Vec::new(),
            spares: Vec::new(),
            number_next: 1,
        };
        for name in names {
            let path = directory.join(&name);
            let Some((number, extension)) = parse(&name) else {
                continue;
            };
            listing.number_next = listing.number_next.max(number.saturating_add(1));
            match extension {
                JOURNAL => listing.journals.push(path),
                SPARE if is_reusable(dir, &path, options)? => listing.spares.push(path),
                _ => disk.remove(&path).map_err(failed(Action::Remove, &path))?,
            }
        }
        Ok(listing)
    }
}

fn parse(name: &str) -> Option<(u64, &str)> {
    let (number, extension) = name.split_once('.')?;
    let known = [JOURNAL, SPARE, NEW].contains(&extension);
    let number = u64::from_str_radix(number, 16).ok()?;
    known.then_some((number, extension))
}

fn is_reusable(dir: &DataDir, path: &Path, options: JournalOptions) -> Result<bool, DiskFailure> {
    let file = dir
        .disk()
        .open(path, OpenMode::Read)
        .map_err(failed(Action::Open, path))?;
    Ok(file.bytes().map_err(failed(Action::Read, path))? == options.file_bytes)
}

fn path_of(dir: &DataDir, number: u64, extension: &str) -> PathBuf {
    dir.journal_path()
        .join(format!("{number:016x}.{extension}"))
}

/// Takes a file out of use. Returns it as a spare, or removes it when it is of another size.
pub(crate) fn retire(
    dir: &DataDir,
    path: &Path,
    bytes: u64,
    options: JournalOptions,
) -> Result<Option<PathBuf>, DiskFailure> {
    if bytes != options.file_bytes {
        dir.disk()
            .remove(path)
            .map_err(failed(Action::Remove, path))?;
        return Ok(None);
    }
    let spare = path.with_extension(SPARE);
    dir.disk()
        .rename(path, &spare)
        .map_err(failed(Action::Rename, path))?;
    Ok(Some(spare))
}

/// Makes a file ready for batches: from a spare, or a new one filled with zeros.
pub(crate) fn prepare(
    dir: &DataDir,
    spare: Option<&Path>,
    number: u64,
    file_bytes: u64,
) -> Result<ActiveFile, DiskFailure> {
    let (disk, directory) = (dir.disk(), dir.journal_path());
    // The spare's old name must be gone for good before its header says otherwise.
    disk.sync_dir(&directory)
        .map_err(failed(Action::Sync, &directory))?;
    let (raw, file) = match spare {
        Some(spare) => {
            let file = disk
                .open(spare, OpenMode::Write)
                .map_err(failed(Action::Open, spare))?;
            (spare.to_path_buf(), file)
        }
        None => create(dir, number, file_bytes)?,
    };
    let nonce = dir.random().map_err(failed(Action::Random, &raw))?;
    let header = FileHeader {
        number,
        nonce,
        file_bytes,
    };
    file.write_all_at(&[io::IoSlice::new(&header.encode())], 0)
        .map_err(failed(Action::Write, &raw))?;
    file.sync_data().map_err(failed(Action::Sync, &raw))?;
    let path = path_of(dir, number, JOURNAL);
    disk.rename(&raw, &path)
        .map_err(failed(Action::Rename, &raw))?;
    if !millrace_types::mutant!(DirectorySyncMissing) {
        disk.sync_dir(&directory)
            .map_err(failed(Action::Sync, &directory))?;
    }
    Ok(ActiveFile {
        file,
        path,
        number,
        nonce,
        file_bytes,
        at: FILE_HEADER_BYTES,
        ordinal: 0,
    })
}

fn create(
    dir: &DataDir,
    number: u64,
    file_bytes: u64,
) -> Result<(PathBuf, Arc<dyn DiskFile>), DiskFailure> {
    let (disk, path) = (dir.disk(), path_of(dir, number, NEW));
    let file = match disk.open(&path, OpenMode::CreateNew) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
            disk.remove(&path).map_err(failed(Action::Remove, &path))?;
            disk.open(&path, OpenMode::CreateNew)
        }
        opened => opened,
    }
    .map_err(failed(Action::Create, &path))?;
    let filled = file
        .fill_zeros(file_bytes)
        .map_err(failed(Action::Write, &path))
        .and_then(|()| file.sync_data().map_err(failed(Action::Sync, &path)));
    if let Err(failure) = filled {
        // Gives the room back; the next start would remove it too.
        drop(disk.remove(&path));
        return Err(failure);
    }
    Ok((path, file))
}
