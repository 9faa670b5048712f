//! Journal, stores and checkpoints as a node uses them, crashed again and again: what a client was
//! told is stored is readable, what it was told is settled never comes back.

use std::collections::BTreeSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread::JoinHandle;

use bytes::Bytes;
use millrace_types::{LogId, LogIndex, Offset, ReplicaId, ShardId, Term, Wall};

use crate::records::push_record;
use crate::testing::{PATIENCE, Running, covered, open_dir, small, start};
use crate::{
    Checkpoint, Checkpointer, CheckpointerHandle, Crash, Limits, MemoryDisk, RecordKind, Store,
    drive,
};

const SHARD: ShardId = ShardId::new(1);
const LOG: LogId = LogId::new(3);

/// The smallest engine there is: one queue; its entries append a message or settle one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Engine {
    applied: u64,
    end: u64,
    live: BTreeSet<u64>,
}

struct Node {
    engine: Engine,
    store: Arc<Store>,
    running: Running,
    checkpointer: CheckpointerHandle,
    checkpoints: JoinHandle<()>,
}

fn message(offset: u64) -> Vec<u8> {
    let length = usize::try_from(offset * 37 % 900).unwrap();
    format!("{offset}:{}", "m".repeat(length)).into_bytes()
}

fn body(offset: u64) -> Bytes {
    let mut batch = Vec::new();
    push_record(&mut batch, &message(offset));
    batch.into()
}

impl Engine {
    fn snapshot(&self) -> Bytes {
        let live: Vec<String> = self.live.iter().map(u64::to_string).collect();
        format!("{} {} {}", self.applied, self.end, live.join(",")).into()
    }

    fn restore(snapshot: &[u8]) -> Self {
        let text = std::str::from_utf8(snapshot).unwrap();
        let parts: Vec<&str> = text.split(' ').collect();
        let live = parts[2].split(',').filter(|part| !part.is_empty());
        Self {
            applied: parts[0].parse().unwrap(),
            end: parts[1].parse().unwrap(),
            live: live.map(|offset| offset.parse().unwrap()).collect(),
        }
    }

    /// `append` or the offset to settle.
    fn apply(&mut self, store: &Store, command: &str, body: &Bytes) {
        self.applied += 1;
        if command == "append" {
            store.append(
                LOG,
                Offset::new(self.end),
                Wall::from_millis(self.end),
                1,
                body.clone(),
            );
            self.live.insert(self.end);
            self.end += 1;
        } else {
            let offset: u64 = command.parse().unwrap();
            assert!(self.live.remove(&offset));
            store.discard(LOG, Offset::new(offset)..Offset::new(offset + 1));
        }
    }
}

impl Node {
    fn start(disk: &MemoryDisk) -> Self {
        let dir = open_dir(disk);
        let (running, mut recovery) = start(&dir, small());
        let checkpoint = Checkpoint::load(&dir, SHARD).unwrap();
        let manifest = checkpoint.as_ref().map(|checkpoint| &checkpoint.manifest);
        let store = Store::open(&dir, SHARD, manifest).unwrap();
        let mut engine =
            checkpoint.map_or_else(Engine::default, |found| Engine::restore(&found.snapshot));
        let found = recovery.shards.remove(&SHARD).unwrap();
        assert_eq!(found.damage, None);
        let applied = engine.applied;
        for record in found.records {
            if record.index.get() > applied {
                assert_eq!(
                    record.index.get(),
                    engine.applied + 1,
                    "no entry is missing"
                );
                let command = std::str::from_utf8(&record.header).unwrap();
                engine.apply(&store, command, &record.body);
            }
        }
        running.journal.release(SHARD, LogIndex::new(applied));
        let (routine, checkpointer) = Checkpointer::new(Box::new(|_| ()));
        let checkpoints = std::thread::spawn(|| drive(routine));
        Self {
            engine,
            store,
            running,
            checkpointer,
            checkpoints,
        }
    }

    /// Proposes one command; the engine applies it when it is durable. False after a crash.
    fn propose(&mut self, command: &str) -> bool {
        let body = if command == "append" {
            body(self.engine.end)
        } else {
            Bytes::new()
        };
        let record = crate::JournalRecord {
            shard: SHARD,
            replica: ReplicaId::new(1),
            kind: RecordKind::Entry,
            term: Term::new(1),
            index: LogIndex::new(self.engine.applied + 1),
            header: Bytes::from(command.to_owned()),
            body: body.clone(),
        };
        let durable = self
            .running
            .append(vec![record])
            .recv_timeout(PATIENCE)
            .is_ok();
        if durable {
            self.engine.apply(&self.store, command, &body);
        }
        durable
    }

    /// Begins a checkpoint and releases the journal when it is done.
    fn checkpoint(&self) -> mpsc::Receiver<()> {
        let (sender, receiver) = mpsc::channel();
        let journal = self.running.journal.clone();
        let done = Box::new(move |result: Result<LogIndex, _>| {
            if let Ok(index) = result {
                journal.release(SHARD, index);
            }
            drop(sender);
        });
        let (covered, snapshot) = (covered(self.engine.applied), self.engine.snapshot());
        let snapshot = Box::new(|| snapshot);
        self.checkpointer
            .checkpoint(&self.store, covered, snapshot, done);
        receiver
    }

    fn check(&self) {
        let limits = Limits {
            messages_max: usize::MAX,
            bytes_max: u64::MAX,
        };
        let found = self.store.read(LOG, Offset::new(0), limits).unwrap();
        let offsets: BTreeSet<u64> = found.iter().map(|record| record.offset.get()).collect();
        assert_eq!(offsets, self.engine.live);
        for record in found {
            assert_eq!(record.message, message(record.offset.get()));
            assert_eq!(record.stored_at, Wall::from_millis(record.offset.get()));
        }
    }

    fn stop(self) {
        self.checkpointer.stop();
        self.checkpoints.join().unwrap();
        self.running.shutdown();
    }
}

struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: u64) -> u64 {
        self.0 = self
            .0
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % bound
    }
}

/// One life: work, and at some point a crash beside a checkpoint.
fn live(node: &mut Node, disk: &MemoryDisk, dice: &mut Dice) -> Engine {
    let mut under_way = None;
    for _ in 0..dice.below(60) {
        let live = &node.engine.live;
        let settle = live.len() > 5 && dice.below(2) == 0;
        let command = if settle {
            let place = usize::try_from(dice.below(live.len() as u64)).unwrap();
            live.iter().nth(place).unwrap().to_string()
        } else {
            "append".into()
        };
        assert!(node.propose(&command));
        if dice.below(10) == 0 {
            // At most one at a time; waits for the one before.
            if let Some(before) = under_way.replace(node.checkpoint()) {
                assert!(before.recv_timeout(PATIENCE).is_err());
            }
        }
    }
    if dice.below(2) == 0 {
        under_way = Some(node.checkpoint());
    }
    let acknowledged = node.engine.clone();
    disk.crash(Crash::Random(dice.below(u64::MAX)));
    drop(under_way);
    acknowledged
}

#[test]
fn a_node_keeps_its_word_over_many_crashes() {
    static LIVES: AtomicU64 = AtomicU64::new(0);
    for seed in 0..60 {
        let disk = MemoryDisk::new();
        let mut dice = Dice(seed);
        let mut acknowledged = Engine::default();
        for _ in 0..5 {
            let mut node = Node::start(&disk);
            // Everything was answered before the crash, so exactly that is there.
            assert_eq!(node.engine, acknowledged, "seed {seed}");
            node.check();
            acknowledged = live(&mut node, &disk, &mut dice);
            node.stop();
            LIVES.fetch_add(1, Ordering::Relaxed);
        }
    }
    assert_eq!(LIVES.load(Ordering::Relaxed), 300);
}

#[test]
fn checkpoints_let_the_journal_stay_small() {
    let disk = MemoryDisk::new();
    let mut node = Node::start(&disk);
    for round in 0..40 {
        for _ in 0..20 {
            assert!(node.propose("append"));
        }
        let keep = node.engine.live.len().saturating_sub(10);
        for offset in node.engine.live.clone().into_iter().take(keep) {
            assert!(node.propose(&offset.to_string()));
        }
        assert!(node.checkpoint().recv_timeout(PATIENCE).is_err());
        assert!(node.running.journal.stats().files < 8, "round {round}");
    }
    node.check();
    assert!(node.store.disk_bytes() < 64 << 10);
    node.stop();
}
