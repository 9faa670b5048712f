//! The state machine: which operations were applied where, and a digest of everything.

use std::collections::BTreeMap;

use millrace_replica::Entry;

/// What one replica has applied.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Machine {
    pub(crate) applied: u64,
    pub(crate) digest: u64,
    /// Operation to index.
    pub(crate) operations: BTreeMap<u64, u64>,
}

impl Machine {
    /// The state of a shard before its first entry.
    pub(crate) fn founded(index: u64) -> Self {
        Self {
            applied: index,
            ..Self::default()
        }
    }

    pub(crate) fn apply(&mut self, entry: &Entry) {
        assert_eq!(entry.index.get(), self.applied + 1, "entries are dense");
        self.applied += 1;
        self.digest = mix(self.digest, content(entry));
        if let Ok(operation) = <[u8; 8]>::try_from(&entry.header[..])
            && entry.kind == millrace_replica::EntryKind::Command
        {
            let operation = u64::from_le_bytes(operation);
            self.operations.insert(operation, self.applied);
        }
    }
}

/// A digest of an entry with its place.
pub(crate) fn content(entry: &Entry) -> u64 {
    let mut digest = mix(entry.index.get(), entry.term.get());
    digest = mix(digest, entry.kind as u64);
    for byte in entry.header.iter().chain(entry.body.iter()) {
        digest = mix(digest, u64::from(*byte));
    }
    digest
}

const fn mix(a: u64, b: u64) -> u64 {
    (a ^ b).wrapping_mul(0x0100_0000_01b3).rotate_left(17) ^ b
}
