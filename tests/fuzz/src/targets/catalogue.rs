//! Commands and snapshots of the metadata shard.

use millrace_engine::command::Entry;
use millrace_engine::{Catalogue, CatalogueCommand, CatalogueEntry, Shard};
use millrace_types::{Elapsed, LogIndex, ShardId, Stamp, Wall};

use super::commands::{golden, golden_entries};
use crate::input::Input;

/// Entries of one input.
const ENTRIES_MAX: usize = 32;

/// Chunks that are entries, applied one after the other.
pub(crate) fn entries(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let restore_at = usize::from(input.byte()) % ENTRIES_MAX;
    let mut catalogue = Catalogue::new();
    let mut twin: Option<Catalogue> = None;
    for n in 0..ENTRIES_MAX {
        if input.is_empty() {
            break;
        }
        if n == restore_at {
            twin = Some(Catalogue::restore(&catalogue.snapshot()).expect("its own snapshot"));
        }
        let Ok(entry) = CatalogueEntry::decode(input.chunk()) else {
            continue;
        };
        let again = CatalogueEntry::decode(&entry.encode()).expect("its own encoding");
        assert_eq!(again, entry);
        let index = catalogue.applied().next();
        let applied = catalogue.apply(index, &entry);
        if let Some(twin) = &mut twin {
            let by_twin = twin.apply(index, &entry);
            assert_eq!(
                applied, by_twin,
                "a restored catalogue decides otherwise: {entry:?}"
            );
            assert_eq!(catalogue.checksum(), twin.checksum(), "after {entry:?}");
        }
    }
    if let Some(twin) = twin {
        assert!(catalogue == twin, "a restored catalogue is another one");
    }
    goes_on(catalogue);
}

/// A snapshot of any content.
pub(crate) fn snapshot(bytes: &[u8]) {
    let Ok(catalogue) = Catalogue::restore(bytes) else {
        return;
    };
    let again = Catalogue::restore(&catalogue.snapshot()).expect("its own snapshot");
    assert!(again == catalogue, "restored again it is another one");
    goes_on(catalogue);
}

/// Every data shard is told what it has to do, does it, and says so.
fn goes_on(mut catalogue: Catalogue) {
    let stamp = Stamp {
        wall: Wall::from_millis(1),
        elapsed: Elapsed::from_millis(1),
    };
    let shards = catalogue.topology().data_shards().min(4);
    for shard in (1..=shards).map(ShardId::new) {
        let mut told = Shard::new(shard);
        for command in catalogue.commands_for(shard, 0) {
            let entry = Entry { stamp, command };
            let again = Entry::decode(&entry.encode());
            assert_eq!(again.as_ref(), Ok(&entry));
            told.apply(told.applied().next(), &entry);
        }
        let revision = catalogue.revision();
        let command = CatalogueCommand::ShardConfigured { shard, revision };
        let index = LogIndex::new(catalogue.applied().get().saturating_add(1));
        catalogue.apply(index, &CatalogueEntry { stamp, command });
    }
    let topology = catalogue.topology();
    for (address, _) in topology.iter().take(16) {
        drop(topology.problems(address));
        std::hint::black_box(topology.is_applied(address));
    }
    std::hint::black_box(topology.digest());
    let again = Catalogue::restore(&catalogue.snapshot()).expect("its own snapshot");
    assert!(again == catalogue, "restored at the end it is another one");
}

pub(crate) fn entry_seeds() -> Vec<Vec<u8>> {
    golden_entries("catalogue_entries.v2", |bytes| {
        CatalogueEntry::decode(bytes).is_ok()
    })
}

pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    vec![golden("catalogue.v2"), Catalogue::new().snapshot()]
}
