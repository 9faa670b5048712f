//! The clone as the rules see it: every text file that is not built, fetched or Git's own.

use std::fs;
use std::io;
use std::path::Path;

/// Directories that hold no source.
const SKIPPED: [&str; 3] = [".git", "target", "node_modules"];

/// A file and its text.
#[derive(Clone, Debug)]
pub struct File {
    /// Below the clone's root, with `/` between names.
    pub path: String,
    /// Its content; bytes that are not UTF-8 are replaced.
    pub text: String,
}

/// All files of the clone.
#[derive(Clone, Debug, Default)]
pub struct Tree {
    /// In order of their paths.
    pub files: Vec<File>,
}

impl Tree {
    /// Reads everything below `root`.
    ///
    /// # Errors
    /// When a directory or file cannot be read.
    pub fn read(root: &Path) -> io::Result<Self> {
        let mut tree = Self::default();
        tree.read_directory(root, "")?;
        tree.files.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(tree)
    }

    /// Rust sources written by people.
    pub fn sources(&self) -> impl Iterator<Item = &File> {
        let written = |file: &&File| file.path.ends_with(".rs") && !is_generated(&file.path);
        self.files.iter().filter(written)
    }

    fn read_directory(&mut self, directory: &Path, prefix: &str) -> io::Result<()> {
        for entry in fs::read_dir(directory)? {
            let entry = entry?;
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("{prefix}{name}");
            let kind = entry.file_type()?;
            if kind.is_dir() && !SKIPPED.contains(&name.as_str()) {
                self.read_directory(&entry.path(), &format!("{path}/"))?;
            } else if kind.is_file() {
                let text = String::from_utf8_lossy(&fs::read(entry.path())?).into_owned();
                self.files.push(File { path, text });
            }
        }
        Ok(())
    }
}

fn is_generated(path: &str) -> bool {
    path.contains("/generated/") || path.contains("/golden/")
}
