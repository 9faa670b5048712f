//! Commands and snapshots of a data shard.

use millrace_engine::Shard;
use millrace_engine::command::{Command, Entry, Window};
use millrace_types::{Count, Elapsed, LogId, LogIndex, Offset, ShardId, Stamp, Wall};

use crate::input::{Input, put_chunk};

/// Entries of one input.
const ENTRIES_MAX: usize = 64;
/// Far beyond every deadline that can have been set; at the end of time sums must not overflow.
const LATER: [u64; 2] = [1 << 50, u64::MAX];

/// Chunks that are entries, applied one after the other.
pub(crate) fn entries(bytes: &[u8]) {
    let mut input = Input::new(bytes);
    let restore_at = usize::from(input.byte()) % ENTRIES_MAX;
    let mut shard = Shard::new(ShardId::new(1));
    let mut twin: Option<Shard> = None;
    for n in 0..ENTRIES_MAX {
        if input.is_empty() {
            break;
        }
        if n == restore_at {
            twin = Some(Shard::restore(&shard.snapshot()).expect("its own snapshot"));
        }
        let Ok(entry) = Entry::decode(input.chunk()) else {
            continue;
        };
        let again = Entry::decode(&entry.encode()).expect("its own encoding");
        assert_eq!(again, entry);
        let index = shard.applied().next();
        let applied = shard.apply(index, &entry);
        if let Some(twin) = &mut twin {
            let by_twin = twin.apply(index, &entry);
            assert_eq!(
                applied, by_twin,
                "a restored shard decides otherwise: {entry:?}"
            );
            assert_eq!(shard.checksum(), twin.checksum(), "after {entry:?}");
        }
    }
    if let Some(twin) = twin {
        assert!(shard == twin, "a restored shard is another one");
    }
    goes_on(shard);
}

/// A snapshot of any content, and what may come after it.
pub(crate) fn snapshot(bytes: &[u8]) {
    let Ok(shard) = Shard::restore(bytes) else {
        return;
    };
    let again = Shard::restore(&shard.snapshot()).expect("its own snapshot");
    assert!(again == shard, "restored again it is another one");
    assert_eq!(again.checksum(), shard.checksum());
    goes_on(shard);
}

/// Whatever the state is: time goes on, a leader comes, everybody comes back.
fn goes_on(mut shard: Shard) {
    let window = Window {
        messages: 10,
        bytes: 1 << 20,
    };
    let queues: Vec<LogId> = shard.queues().map(millrace_engine::Queue::log).collect();
    let partitions = shard.partitions().map(millrace_engine::Partition::log);
    let partitions: Vec<LogId> = partitions.collect();
    let mut commands = vec![Command::Lead, Command::Tick];
    for queue in queues.into_iter().take(4) {
        commands.push(Command::Acquire {
            queue,
            owner: millrace_types::SessionId::new(9),
            messages_max: Count::from(3_u8),
            bytes_max: 1 << 20,
            lease_ms: None,
        });
        commands.push(Command::OpenSession {
            session: millrace_types::SessionId::new(queue.get() ^ 77),
            queue,
            consumer: "goes on".to_owned(),
            window,
            ttl_ms: 1000,
        });
        let number = 1;
        commands.push(Command::ConfirmDead { queue, number });
    }
    for partition in partitions.into_iter().take(4) {
        let first = Offset::new(1);
        commands.push(Command::Trim { partition, first });
    }
    for later in LATER {
        for command in &commands {
            let stamp = Stamp {
                wall: Wall::from_millis(later),
                elapsed: Elapsed::from_millis(later),
            };
            let command = command.clone();
            let index = LogIndex::new(shard.applied().get().saturating_add(1));
            shard.apply(index, &Entry { stamp, command });
        }
        drop(shard.outstanding(None, usize::MAX));
        std::hint::black_box(shard.next_deadline());
    }
    let snapshot = shard.snapshot();
    let again = Shard::restore(&snapshot).expect("its own snapshot");
    assert!(again == shard, "restored at the end it is another one");
}

/// The golden entries, each with its length before it in four bytes there.
pub(crate) fn entry_seeds() -> Vec<Vec<u8>> {
    golden_entries("entries.v2", |bytes| Entry::decode(bytes).is_ok())
}

/// The golden files of the engine as inputs: all entries in one, and each alone behind all.
pub(super) fn golden_entries(name: &str, is_entry: impl Fn(&[u8]) -> bool) -> Vec<Vec<u8>> {
    let mut input = vec![2];
    let golden = golden(name);
    let mut rest = golden.as_slice();
    while let Some((length, behind)) = rest.split_first_chunk() {
        let length = usize::try_from(u32::from_le_bytes(*length)).unwrap_or(usize::MAX);
        let Some((entry, behind)) = behind.split_at_checked(length) else {
            break;
        };
        assert!(is_entry(entry), "{name} has something else in it");
        put_chunk(&mut input, entry);
        rest = behind;
    }
    vec![input]
}

pub(super) fn golden(name: &str) -> Vec<u8> {
    let root = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let path = root.join("broker/engine/tests/golden").join(name);
    std::fs::read(&path).unwrap_or_default()
}

pub(crate) fn snapshot_seeds() -> Vec<Vec<u8>> {
    let mut seeds = vec![golden("shard.v2"), Shard::new(ShardId::new(1)).snapshot()];
    // What the golden commands come to.
    for input in entry_seeds() {
        let mut input = Input::new(&input);
        input.byte();
        let mut shard = Shard::new(ShardId::new(1));
        while !input.is_empty() {
            if let Ok(entry) = Entry::decode(input.chunk()) {
                let index = shard.applied().next();
                shard.apply(index, &entry);
                seeds.push(shard.snapshot());
            }
        }
    }
    seeds.dedup();
    seeds
}
