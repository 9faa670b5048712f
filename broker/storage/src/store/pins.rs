//! Segments that are being sent to another node stay as long as that takes.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use super::Store;

/// Keeps segments from being removed until it is dropped, which removes those that nothing needs
/// any more: not to be dropped where nobody may wait for the disk.
pub(crate) struct Pin {
    store: Arc<Store>,
    numbers: Vec<u64>,
}

impl Store {
    /// Keeps every segment there is. What the checkpoint in force lists, and later ones, is among
    /// them: a segment goes only when a later checkpoint has taken its place.
    pub(crate) fn pin(self: &Arc<Self>) -> Pin {
        let mut files = self.files.lock();
        let numbers: Vec<u64> = files.known.keys().copied().collect();
        files.pin(&numbers);
        let store = Arc::clone(self);
        Pin { store, numbers }
    }

    /// Where a segment is.
    pub(crate) fn segment_path(&self, number: u64) -> PathBuf {
        self.files.path(number)
    }

    fn unpin(&self, numbers: &[u64]) {
        let doomed = self.files.lock().unpin(numbers);
        for number in doomed {
            if let Err(error) = self.remove_segment(number) {
                // The next checkpoint removes it, and says so if it cannot.
                tracing::warn!(%error, "a segment that was sent is still there");
            }
        }
    }
}

impl Pin {
    /// Lets all others go; false when not all of these are kept.
    pub(crate) fn keep_only(&mut self, wanted: &BTreeSet<u64>) -> bool {
        let (kept, others) = std::mem::take(&mut self.numbers)
            .into_iter()
            .partition(|number| wanted.contains(number));
        self.numbers = kept;
        self.store.unpin(&others);
        self.numbers.len() == wanted.len()
    }
}

impl Drop for Pin {
    fn drop(&mut self) {
        self.store.unpin(&self.numbers);
    }
}
