//! Where inputs are kept: `corpus/TARGET/`, small files that each reach something no other one
//! does. Names that begin with `crash-` are inputs that once broke a promise.

use std::io;
use std::path::{Path, PathBuf};

use crate::target::Target;

/// The committed inputs of a target.
#[must_use]
pub fn directory(target: &Target) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("corpus")
        .join(target.name)
}

/// Every committed input with its file's name, in the order of names.
///
/// # Errors
/// When one cannot be read; that there are none is no error.
pub fn read(target: &Target) -> io::Result<Vec<(String, Vec<u8>)>> {
    let directory = directory(target);
    let entries = match std::fs::read_dir(&directory) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries?,
    };
    let mut inputs = Vec::new();
    for entry in entries {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        inputs.push((name, std::fs::read(entry.path())?));
    }
    inputs.sort();
    Ok(inputs)
}
