//! Counts the bytes that bodies keep in memory, for as long as anybody needs them: a batch that was
//! settled while it is written to a segment or sent to a slow socket, and a block that was read
//! from one, of which perhaps a single message is still needed. Decides nothing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;

/// The count. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pinned(Arc<AtomicU64>);

/// Bytes that count until the last slice of them is gone.
struct Held<T> {
    bytes: T,
    charge: u64,
    pinned: Pinned,
}

impl Pinned {
    /// Bytes held now, and about what holding them costs.
    pub(crate) fn bytes(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    /// The same bytes, uncopied, that count as long as any part of them is referred to, and
    /// `overhead` more. What is handed in must not be a slice of something larger.
    pub(crate) fn hold(&self, bytes: impl AsRef<[u8]> + Send + 'static, overhead: u64) -> Bytes {
        let charge = bytes.as_ref().len() as u64 + overhead;
        self.0.fetch_add(charge, Ordering::Relaxed);
        let pinned = self.clone();
        Bytes::from_owner(Held {
            bytes,
            charge,
            pinned,
        })
    }
}

impl<T: AsRef<[u8]>> AsRef<[u8]> for Held<T> {
    fn as_ref(&self) -> &[u8] {
        self.bytes.as_ref()
    }
}

impl<T> Drop for Held<T> {
    fn drop(&mut self) {
        self.pinned.0.fetch_sub(self.charge, Ordering::Relaxed);
    }
}
