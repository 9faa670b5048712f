//! The journal as its users see it, on the disk in memory.

use crate::MemoryDisk;
use crate::testing::{entry, indexes, open_dir, small, start};

#[test]
fn what_was_acknowledged_is_there_after_a_restart() {
    let disk = MemoryDisk::new();
    {
        let dir = open_dir(&disk);
        let (running, recovery) = start(&dir, small());
        assert!(indexes(&recovery, 1).is_empty());
        for index in 1..=100 {
            running.append_durably(vec![entry(1, index, 700), entry(2, index, 0)]);
        }
        running.journal.shutdown();
    }

    let (_, recovery) = start(&open_dir(&disk), small());

    assert_eq!(recovery.torn, None);
    for shard in [1, 2] {
        assert_eq!(indexes(&recovery, shard), (1..=100).collect::<Vec<_>>());
    }
    let records = &recovery.shards[&millrace_types::ShardId::new(1)].records;
    assert!(
        records
            .iter()
            .all(|record| *record == entry(1, record.index.get(), 700))
    );
}
