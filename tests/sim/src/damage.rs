//! What a disk did to a node behind its back, and what the node may do because of it.
//!
//! The promise it judges by: what was acknowledged is handed out as it was, or its shard says that
//! it does not serve and names the damaged file. Who says so without a damage of his, or never
//! does, breaks it. Only where no format can tell damage from a crash (`Damage::excused`) all that
//! is left is that nothing false is handed out.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// The metadata shard.
const METADATA: u32 = 0;

/// All damage of a run, and what was said about it.
#[derive(Default)]
pub(crate) struct Damage {
    /// What was acknowledged may be gone without a word: a disk lied about a sync and then lost
    /// power, or changed the last thing it was given before it died.
    pub excused: bool,
    /// Files that are not as they were written, by the shard that may suffer from it.
    files: BTreeMap<u32, BTreeSet<String>>,
    /// The file without which nothing starts.
    identity: Option<String>,
    /// Shards that have said that they do not serve.
    said: BTreeSet<u32>,
    /// The scrubber has had the time to find everything.
    pub scrubbed: bool,
}

/// Whom damage of a file concerns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Scope {
    /// One shard.
    Shard(u32),
    /// Those that the bytes are of.
    Journal,
    /// Everybody: whose directory it is.
    Identity,
    /// Nobody.
    Nothing,
}

impl Scope {
    /// Of a file in a data directory.
    #[must_use]
    pub(crate) fn of(path: &Path) -> Self {
        let mut parts = path.iter().skip(2).map(|part| part.to_string_lossy());
        match parts.next().as_deref() {
            Some("journal") => Self::Journal,
            Some(name) if name.starts_with("identity") => Self::Identity,
            Some("shards") => match parts.next().and_then(|id| id.parse().ok()) {
                Some(shard) => Self::Shard(shard),
                None => Self::Nothing,
            },
            _ => Self::Nothing,
        }
    }
}

impl Damage {
    /// Whether there is any, or may be.
    #[must_use]
    pub(crate) fn is_any(&self) -> bool {
        self.excused || self.identity.is_some() || !self.files.is_empty()
    }

    /// Whether a shard may stop to serve because of a file of its own, which a scrubber reads.
    #[must_use]
    pub(crate) fn is_in_shards(&self) -> bool {
        let mut files = self.files.values().flatten();
        files.any(|file| file.contains("/shards/"))
    }

    /// A file is not as it was written; these shards may suffer from it.
    pub(crate) fn struck(&mut self, path: &Path, shards: impl IntoIterator<Item = u32>) {
        let path = path.to_string_lossy();
        // What is written under another name first is meant by its name.
        let name = path.strip_suffix(".new").unwrap_or(&path);
        if Scope::of(Path::new(name)) == Scope::Identity {
            self.identity = Some(name.to_owned());
        }
        for shard in shards {
            self.files.entry(shard).or_default().insert(name.to_owned());
        }
    }

    /// A shard says that it does not serve.
    ///
    /// # Errors
    /// When it has no reason, does not name it, or says so too late.
    pub(crate) fn say(&self, shard: u32, why: &str) -> Result<(), String> {
        let Some(files) = self.files.get(&shard) else {
            return Err(format!(
                "shard {shard} does not serve, but nothing of it is damaged: {why}"
            ));
        };
        let is_named = |file: &String| match Scope::of(Path::new(file)) {
            // Which of its files has a gap is not known to whoever finds it.
            Scope::Journal => why.contains("journal"),
            _ => why.contains(file.as_str()),
        };
        if !files.iter().any(is_named) {
            return Err(format!(
                "shard {shard} does not serve because of {why}, but damaged are {files:?}"
            ));
        }
        if self.scrubbed && !self.said.contains(&shard) && why.contains("/shards/") {
            return Err(format!(
                "shard {shard} is damaged, and the scrubber did not find it in time: {why}"
            ));
        }
        Ok(())
    }

    /// A shard has said so.
    pub(crate) fn note(&mut self, shard: u32) {
        self.said.insert(shard);
    }

    /// Whether a shard has said that it does not serve: what it held may be missed.
    #[must_use]
    pub(crate) fn has_said(&self, shard: u32) -> bool {
        self.said.contains(&shard)
    }

    /// Whether any shard has.
    #[must_use]
    pub(crate) fn has_any_said(&self) -> bool {
        !self.said.is_empty()
    }

    /// Whether the one without which nothing can be declared or looked up has.
    #[must_use]
    pub(crate) fn has_catalogue_said(&self) -> bool {
        self.has_said(METADATA)
    }

    /// Whether an error that keeps a node from starting names damage that does.
    #[must_use]
    pub(crate) fn keeps_from_starting(&self, error: &str) -> bool {
        let named = |name: &String| error.contains(name.as_str());
        self.excused || self.identity.as_ref().is_some_and(named)
    }
}
