//! One compressed archive, filled file by file; what could not be had is named in a file of its
//! own.

use std::fs::File;
use std::io::{self, Write as _};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use tar::{Builder, Header};

/// Files are for the reporter and for nobody else on the machine, until they are sent.
const MODE: u32 = 0o600;

/// An archive that is being written.
pub(crate) struct Bundle {
    archive: Builder<GzEncoder<File>>,
    /// The folder in it.
    root: String,
    seconds: u64,
    problems: String,
}

impl Bundle {
    /// Begins one; a file of that name must not be there.
    pub(crate) fn create(path: &Path, root: String, seconds: u64) -> io::Result<Self> {
        let file = File::create_new(path)?;
        Ok(Self {
            archive: Builder::new(GzEncoder::new(file, Compression::default())),
            root,
            seconds,
            problems: String::new(),
        })
    }

    /// Adds a file.
    pub(crate) fn add(&mut self, name: &str, content: &[u8]) -> io::Result<()> {
        let mut header = Header::new_gnu();
        header.set_size(content.len() as u64);
        header.set_mode(MODE);
        header.set_mtime(self.seconds);
        let path = format!("{}/{name}", self.root);
        self.archive.append_data(&mut header, path, content)
    }

    /// Notes what is missing, and why.
    pub(crate) fn lacks(&mut self, name: &str, why: impl std::fmt::Display) {
        self.problems.push_str(&format!("{name}: {why}\n"));
    }

    /// Ends it, durably. What is missing, a line each.
    pub(crate) fn finish(mut self) -> io::Result<String> {
        let problems = std::mem::take(&mut self.problems);
        if !problems.is_empty() {
            self.add("missing.txt", problems.as_bytes())?;
        }
        let mut file = self.archive.into_inner()?.finish()?;
        file.flush()?;
        file.sync_all()?;
        Ok(problems)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::read::GzDecoder;
    use std::io::Read as _;

    #[test]
    fn a_bundle_has_its_files_and_says_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("report.tar.gz");
        let mut bundle = Bundle::create(&path, "report".into(), 1).unwrap();
        bundle.add("logs/main-0.log", b"hello").unwrap();
        bundle.lacks("nodes.json", "no broker is ready");
        assert_eq!(bundle.finish().unwrap(), "nodes.json: no broker is ready\n");

        let mut archive = tar::Archive::new(GzDecoder::new(File::open(&path).unwrap()));
        let read = |entry: io::Result<tar::Entry<'_, _>>| {
            let mut entry = entry.unwrap();
            let mut text = String::new();
            entry.read_to_string(&mut text).unwrap();
            (entry.path().unwrap().display().to_string(), text)
        };
        let files: Vec<_> = archive.entries().unwrap().map(read).collect();
        assert_eq!(
            files,
            [
                ("report/logs/main-0.log".into(), "hello".into()),
                (
                    "report/missing.txt".into(),
                    "nodes.json: no broker is ready\n".into()
                ),
            ]
        );
        let again = Bundle::create(&path, "report".into(), 1);
        assert!(again.is_err(), "a file that was there is kept");
    }
}
