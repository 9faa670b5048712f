//! A store crashed at any operation of the disk, again and again, against a naive model: what the
//! checkpoint and the entries behind it say is there is there, byte for byte, and nothing else is.

use super::*;
use crate::store::segment;
use crate::testing::{data_path, random};
use crate::{Crash, Expect};

/// What a worker does to a store.
#[derive(Clone, Debug)]
enum Command {
    /// A batch, and how large each message is.
    Append(u64, Range<u64>, u64),
    Discard(u64, Range<u64>),
    DiscardAll(u64),
}

/// What happens.
#[derive(Clone, Debug)]
enum Event {
    /// So many messages, and how large each.
    Append(usize, u64, u64),
    Discard(usize, u64, u64),
    /// All but the last few.
    Trim(usize, u64),
    DiscardAll(usize),
    Checkpoint,
    Steps(usize),
}

/// What is known outside of the store: every entry, as the journal has them, and the state after.
struct Model {
    commands: Vec<Command>,
    /// By log and offset, how large a message is.
    live: BTreeMap<u64, BTreeMap<u64, u64>>,
    ends: BTreeMap<u64, u64>,
    ids: [u64; 3],
    /// The last checkpoint that was said to be durable: the journal before it is gone.
    covered: u64,
}

fn events() -> impl Strategy<Value = Vec<Event>> {
    let log = 0_usize..3;
    let event = prop_oneof![
        5 => (log.clone(), 1_u64..60, 1_u64..400).prop_map(|(log, n, b)| Event::Append(log, n, b)),
        1 => (log.clone(), 24_u64..27, 40_000_u64..50_000)
            .prop_map(|(log, n, b)| Event::Append(log, n, b)),
        5 => (log.clone(), any::<u64>(), 1_u64..60)
            .prop_map(|(log, start, n)| Event::Discard(log, start, n)),
        2 => (log.clone(), 0_u64..20).prop_map(|(log, keep)| Event::Trim(log, keep)),
        1 => log.prop_map(Event::DiscardAll),
        4 => Just(Event::Checkpoint),
        8 => (1_usize..12).prop_map(Event::Steps),
    ];
    prop::collection::vec(event, 1..40)
}

/// A message that tells its place; `bytes` of it.
fn content(log: u64, offset: u64, bytes: u64) -> Vec<u8> {
    let seed = log.wrapping_mul(31).wrapping_add(offset.wrapping_mul(7));
    (0..bytes)
        .map(|at| (seed.wrapping_add(at) % 251).to_le_bytes()[0])
        .collect()
}

impl Command {
    fn run(&self, store: &Store, index: u64) {
        match self {
            Self::Append(log, offsets, bytes) => {
                let mut batch = Vec::new();
                for offset in offsets.clone() {
                    push_record(&mut batch, &content(*log, offset, *bytes));
                }
                let count = u32::try_from(offsets.end - offsets.start).unwrap();
                let (log, first) = (LogId::new(*log), Offset::new(offsets.start));
                store.append(log, first, Wall::from_millis(index), count, batch.into());
            }
            Self::Discard(log, offsets) => discard(store, LogId::new(*log), offsets.clone()),
            Self::DiscardAll(log) => store.discard_all(LogId::new(*log)),
        }
    }
}

impl Model {
    fn new() -> Self {
        Self {
            commands: Vec::new(),
            live: BTreeMap::new(),
            ends: BTreeMap::new(),
            ids: [0, 1, 2],
            covered: 0,
        }
    }

    /// The command of an event, applied here.
    fn command(&mut self, event: &Event) -> Option<Command> {
        let command = match event {
            Event::Append(log, count, bytes) => {
                let log = self.ids[*log];
                let end = self.ends.entry(log).or_default();
                let range = *end..*end + count;
                *end += count;
                let live = self.live.entry(log).or_default();
                live.extend(range.clone().map(|offset| (offset, *bytes)));
                Command::Append(log, range, *bytes)
            }
            Event::Discard(log, start, count) => {
                let log = self.ids[*log];
                let end = *self.ends.get(&log)?;
                let start = start % end;
                self.discard(log, start..(start + count).min(end))
            }
            Event::Trim(log, keep) => {
                let log = self.ids[*log];
                let end = *self.ends.get(&log)?;
                self.discard(log, 0..end.saturating_sub(*keep))
            }
            Event::DiscardAll(log) => {
                let gone = self.ids[*log];
                self.live.remove(&gone);
                self.ends.remove(&gone);
                self.ids[*log] += 3;
                Command::DiscardAll(gone)
            }
            Event::Checkpoint | Event::Steps(_) => return None,
        };
        self.commands.push(command.clone());
        Some(command)
    }

    fn discard(&mut self, log: u64, range: Range<u64>) -> Command {
        if let Some(live) = self.live.get_mut(&log) {
            live.retain(|offset, _| !range.contains(offset));
        }
        Command::Discard(log, range)
    }

    /// Opens what is on disk and replays the entries behind its checkpoint, as a node does; nothing
    /// when the disk crashed on the way.
    fn recover(&self, disk: &MemoryDisk) -> Option<(DataDir, Arc<Store>)> {
        let crashes = disk.crashes();
        let opened = open(disk);
        if disk.crashes() > crashes {
            return None;
        }
        let (dir, index, store) = opened.expect("nothing is damaged");
        assert!(
            index >= self.covered,
            "a checkpoint that was durable is not"
        );
        let behind = usize::try_from(index).unwrap();
        for (at, command) in self.commands.iter().enumerate().skip(behind) {
            command.run(&store, at as u64);
        }
        self.check(&store);
        Some((dir, store))
    }

    fn check(&self, store: &Store) {
        for (log, live) in &self.live {
            let id = LogId::new(*log);
            let found = store.read(id, Offset::new(0), EVERYTHING).unwrap();
            let offsets: Vec<u64> = found.iter().map(|record| record.offset.get()).collect();
            let expected: Vec<u64> = live.keys().copied().collect();
            assert_eq!(offsets, expected, "log {log}");
            for record in found {
                let offset = record.offset.get();
                assert_eq!(record.message, content(*log, offset, live[&offset]));
            }
            // By time too: entries are stored at the time of their index.
            let first = store.offset_at(id, Wall::default()).unwrap();
            assert_eq!(first.map(Offset::get), expected.first().copied());
        }
    }

    /// One life, up to the crash or the end of the events.
    fn live(&mut self, disk: &MemoryDisk, store: &Arc<Store>, events: &[Event]) {
        let (mut routine, handle) = Checkpointer::new(Box::new(|_| ()));
        let (sender, receiver) = mpsc::channel();
        let (mut under_way, crashes) = (false, disk.crashes());
        for event in events {
            if let Some(command) = self.command(event) {
                command.run(store, self.commands.len() as u64 - 1);
            }
            if matches!(event, Event::Checkpoint) && !under_way && !self.commands.is_empty() {
                let (index, sender) = (self.commands.len() as u64, sender.clone());
                let done = Box::new(move |result| drop(sender.send(result)));
                let snapshot = Box::new(|| Bytes::from_static(b"snapshot"));
                handle.checkpoint(store, covered(index), snapshot, done);
                under_way = true;
            }
            if let Event::Steps(steps) = event {
                for _ in 0..*steps {
                    routine.step(Instant::now());
                }
            }
            if let Ok(result) = receiver.try_recv() {
                under_way = false;
                if let Ok(index) = result {
                    self.covered = self.covered.max(index.get());
                }
            }
            if disk.crashes() > crashes {
                return;
            }
        }
        self.check(store);
    }
}

fn open(disk: &MemoryDisk) -> Result<(DataDir, u64, Arc<Store>), OpenError> {
    let expect = Expect {
        cluster_id: None,
        shards: 2,
    };
    let dir = DataDir::open_alone(Arc::new(disk.clone()), &data_path(), expect, random())?;
    let checkpoint = Checkpoint::load(&dir, SHARD)?;
    let index = checkpoint
        .as_ref()
        .map_or(0, |found| found.covered.index.get());
    let manifest = checkpoint.as_ref().map(|found| &found.manifest);
    let store = Store::open(&dir, SHARD, manifest)?;
    Ok((dir, index, store))
}

/// The segments on disk are those of the checkpoint in force.
fn check_files(disk: &MemoryDisk, dir: &DataDir) {
    let Some(checkpoint) = Checkpoint::load(dir, SHARD).unwrap() else {
        return;
    };
    let listed = checkpoint.manifest.segments.iter();
    let listed: Vec<String> = listed.map(|one| segment::name(one.number)).collect();
    let found = disk.list(&dir.shard_path(SHARD).join("segments")).unwrap();
    assert_eq!(found, listed);
}

proptest! {
    #![proptest_config(ProptestConfig {
        failure_persistence: None,
        cases: 40,
        ..Default::default()
    })]

    #[test]
    fn a_crash_anywhere_loses_nothing_and_brings_nothing_back(
        lives in prop::collection::vec((events(), 0_u64..120, any::<u64>()), 1..6),
    ) {
        let disk = MemoryDisk::new();
        // The directory is there: its identity is tested elsewhere.
        drop(open_dir(&disk));
        let mut model = Model::new();
        for (events, operations, seed) in lives {
            disk.crash_after(operations, Crash::Random(seed));
            let crashes = disk.crashes();
            if let Some((_dir, store)) = model.recover(&disk) {
                model.live(&disk, &store, &events);
            }
            if disk.crashes() == crashes {
                disk.crash(Crash::Random(seed));
            }
        }
        disk.crash_after(u64::MAX / 2, Crash::KeepAll);
        let (dir, _store) = model.recover(&disk).expect("no crash is near");
        check_files(&disk, &dir);
    }
}
