//! The journal against a model that is a list: any sequence of appends, cuts, snapshots, releases,
//! faults and crashes. What was acknowledged comes back, in order; nothing else does; a crash is
//! never taken for damage, and damage is named.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::mpsc::Receiver;
use std::time::Duration;

use bytes::Bytes;
use millrace_types::{LogIndex, ShardId, Term};
use proptest::prelude::*;

use crate::testing::{Recovered, Turns, entry, open, open_dir, small};
use crate::{Crash, Disk, Fault, FaultyDisk, JournalRecord, MemoryDisk, Operation, RecordKind};

#[derive(Clone, Debug)]
enum Action {
    /// Some entries of one shard.
    Append {
        shard: u32,
        count: u64,
        bytes: usize,
    },
    /// An entry of a later term, so many places back.
    Replace {
        shard: u32,
        back: u64,
    },
    /// A snapshot so far ahead.
    Snapshot {
        shard: u32,
        ahead: u64,
    },
    Vote {
        shard: u32,
    },
    /// A checkpoint of all that was acknowledged.
    Release {
        shard: u32,
    },
    Step(usize),
    Run,
    Pass(u64),
    Fail(Operation, Fault, u64),
    /// No room, or room again.
    Room(Option<u64>),
    Crash(Crash),
    /// Of the process: what it wrote may still be on its way to the disk.
    Kill,
    CrashAfter(u64, u64),
    Stop,
}

fn action() -> impl Strategy<Value = Action> {
    let shard = 1..3_u32;
    let failing = prop_oneof![
        Just((Operation::Write, Fault::Broken)),
        Just((Operation::Write, Fault::Short)),
        Just((Operation::Write, Fault::Nothing)),
        Just((Operation::Sync, Fault::Broken)),
        Just((Operation::SyncDir, Fault::Broken)),
        Just((Operation::Create, Fault::Full)),
        Just((Operation::Rename, Fault::Broken)),
    ];
    let crash = prop_oneof![
        Just(Crash::KeepAll),
        Just(Crash::DropAll),
        any::<u64>().prop_map(Crash::Random),
        any::<u64>().prop_map(Crash::Random),
    ];
    prop_oneof![
        12 => (shard.clone(), 1..5_u64, prop_oneof![9 => 0..2500_usize, 1 => Just(20_000)])
            .prop_map(|(shard, count, bytes)| Action::Append { shard, count, bytes }),
        2 => (shard.clone(), 0..6_u64).prop_map(|(shard, back)| Action::Replace { shard, back }),
        1 => (shard.clone(), 0..9_u64).prop_map(|(shard, ahead)| Action::Snapshot { shard, ahead }),
        1 => shard.clone().prop_map(|shard| Action::Vote { shard }),
        4 => shard.prop_map(|shard| Action::Release { shard }),
        8 => (0..2_usize).prop_map(Action::Step),
        6 => Just(Action::Run),
        2 => (0..1500_u64).prop_map(Action::Pass),
        1 => (failing, 0..4_u64)
            .prop_map(|((operation, fault), after)| Action::Fail(operation, fault, after)),
        1 => prop::option::of(0..40_000_u64).prop_map(Action::Room),
        2 => crash.prop_map(Action::Crash),
        1 => Just(Action::Kill),
        2 => (0..12_u64, any::<u64>()).prop_map(|(n, seed)| Action::CrashAfter(n, seed)),
        1 => Just(Action::Stop),
    ]
}

/// Everything that was appended and may come back, in order.
#[derive(Default)]
struct Model {
    records: Vec<JournalRecord>,
    /// How many of them were acknowledged.
    acknowledged: usize,
    released: BTreeMap<ShardId, LogIndex>,
    /// Makes every record another one.
    made: u64,
}

impl Model {
    /// What counts of the first `count` records of a shard, hard states aside.
    fn counting(&self, shard: ShardId, count: usize) -> Vec<&JournalRecord> {
        let mut counting: Vec<&JournalRecord> = Vec::new();
        let of_shard = |record: &&JournalRecord| record.shard == shard;
        for record in self.records[..count].iter().filter(of_shard) {
            match record.kind {
                RecordKind::HardState => continue,
                RecordKind::Snapshot => counting.clear(),
                RecordKind::Entry | RecordKind::Lead | RecordKind::Members => {
                    counting.retain(|before| before.index < record.index)
                }
            }
            counting.push(record);
        }
        counting
    }

    fn last(&self, shard: ShardId) -> (LogIndex, Term) {
        let counting = self.counting(shard, self.records.len());
        let last = counting.last();
        last.map_or((LogIndex::default(), Term::new(1)), |r| (r.index, r.term))
    }

    fn make(&mut self, shard: u32, kind: RecordKind, index: LogIndex, term: Term, bytes: usize) {
        self.made += 1;
        self.records.push(JournalRecord {
            kind,
            index,
            term,
            header: Bytes::from(self.made.to_le_bytes().to_vec()),
            ..entry(shard, index.get(), bytes)
        });
    }

    /// The first records that explain what was recovered, at least those acknowledged.
    fn explain(&self, found: &Recovered) -> Option<usize> {
        (self.acknowledged..=self.records.len())
            .rev()
            .find(|count| {
                found.shards.iter().all(|(shard, found)| {
                    let votes = |record: &&JournalRecord| record.kind == RecordKind::HardState;
                    let recovered: Vec<&JournalRecord> =
                        found.records.iter().filter(|r| !votes(r)).collect();
                    let expected = self.counting(*shard, *count);
                    let Some(gone) = expected.len().checked_sub(recovered.len()) else {
                        return false;
                    };
                    let released = self.released.get(shard).copied().unwrap_or_default();
                    // The last vote is always there: no checkpoint covers it.
                    let of_shard = |record: &&JournalRecord| record.shard == *shard;
                    let vote = self.records[..*count].iter().filter(of_shard).rfind(votes);
                    let is_voted = found.records.iter().rfind(votes) == vote;
                    expected[gone..] == recovered
                        && expected[..gone]
                            .iter()
                            .all(|record| record.index <= released)
                        && is_voted
                })
            })
    }
}

fn brief<'a>(records: impl IntoIterator<Item = &'a JournalRecord>) -> String {
    let brief = |r: &JournalRecord| format!("{:?} {}/{}@{}", r.kind, r.shard, r.index, r.term);
    records
        .into_iter()
        .map(brief)
        .collect::<Vec<_>>()
        .join(", ")
}

/// The journal and what is still to be answered: how many records each answer covers.
struct Life {
    disk: FaultyDisk,
    turns: Turns,
    waiting: Vec<(usize, Receiver<()>)>,
}

impl Life {
    /// Opens the journal and checks it against the model, which then knows what survived.
    fn start(memory: &MemoryDisk, model: &mut Model) -> Result<Self, TestCaseError> {
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let dir = open_dir(&disk);
        let (journal, found) =
            open(&dir, small()).map_err(|e| TestCaseError::fail(e.to_string()))?;
        for (shard, found) in &found.shards {
            prop_assert_eq!(&found.damage, &None, "shard {}", shard);
        }
        let Some(count) = model.explain(&found) else {
            let all = found.shards.values().flat_map(|shard| &shard.records);
            let (found, model) = (brief(all), brief(&model.records));
            return Err(TestCaseError::fail(format!("found {found} of {model}")));
        };
        model.records.truncate(count);
        model.acknowledged = count;
        drop(journal);
        let turns = Turns::start(&dir, small());
        let waiting = Vec::new();
        Ok(Self {
            disk,
            turns,
            waiting,
        })
    }

    fn append(&mut self, model: &Model, from: usize) {
        let answer = self.turns.append(model.records[from..].to_vec());
        self.waiting.push((model.records.len(), answer));
    }

    /// Answers come in order.
    fn hear(&mut self, model: &mut Model) {
        self.waiting.retain(|(count, answer)| {
            let is_told = answer.try_recv().is_ok();
            if is_told {
                assert!(*count >= model.acknowledged, "answers come in order");
                model.acknowledged = *count;
            }
            !is_told
        });
    }
}

fn act(life: &mut Life, memory: &MemoryDisk, model: &mut Model, action: &Action) -> bool {
    match *action {
        Action::Append { .. }
        | Action::Replace { .. }
        | Action::Snapshot { .. }
        | Action::Vote { .. } => write(life, model, action),
        Action::Release { shard } => {
            let shard = ShardId::new(shard);
            let counting = model.counting(shard, model.acknowledged);
            if let Some(last) = counting.last().map(|record| record.index) {
                let released = model.released.entry(shard).or_default();
                *released = last.max(*released);
                life.turns.release(shard.get(), released.get());
            }
        }
        Action::Step(routine) => {
            life.turns.step(routine);
        }
        Action::Run => life.turns.run(),
        Action::Pass(millis) => life.turns.pass(Duration::from_millis(millis)),
        Action::Fail(operation, fault, after) => life.disk.fail(operation, fault, after, "journal"),
        Action::Room(bytes) => life.disk.set_room(bytes),
        Action::CrashAfter(operations, seed) => {
            memory.crash_after(operations, Crash::Random(seed));
        }
        Action::Crash(crash) => {
            memory.crash(crash);
            return false;
        }
        Action::Kill => {
            // Not in the next start.
            memory.crash_after(1 << 40, Crash::DropAll);
            return false;
        }
        Action::Stop => {
            life.turns.drain();
            life.hear(model);
            memory.crash(Crash::DropAll);
            return false;
        }
    }
    life.hear(model);
    true
}

/// Appends what the action says, if anything.
fn write(life: &mut Life, model: &mut Model, action: &Action) {
    let from = model.records.len();
    match *action {
        Action::Append {
            shard,
            count,
            bytes,
        } => {
            for _ in 0..count {
                let (last, term) = model.last(ShardId::new(shard));
                model.make(shard, RecordKind::Entry, last.next(), term, bytes);
            }
        }
        Action::Replace { shard, back } => {
            let (last, term) = model.last(ShardId::new(shard));
            let released = model.released.get(&ShardId::new(shard)).copied();
            // What a checkpoint covers was committed: it is not replaced.
            let floor = released.unwrap_or_default().next();
            let index = LogIndex::new(last.get().saturating_sub(back)).max(floor);
            if index <= last {
                let term = Term::new(term.get() + 1);
                model.make(shard, RecordKind::Entry, index, term, 10);
            }
        }
        Action::Snapshot { shard, ahead } => {
            let (last, term) = model.last(ShardId::new(shard));
            let index = LogIndex::new(last.get() + ahead);
            model.make(shard, RecordKind::Snapshot, index, term, 5);
        }
        Action::Vote { shard } => {
            let (last, term) = model.last(ShardId::new(shard));
            model.make(shard, RecordKind::HardState, last, term, 3);
        }
        _ => {}
    }
    if model.records.len() > from {
        life.append(model, from);
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: 300,
        failure_persistence: None,
        ..Default::default()
    })]

    #[test]
    fn what_is_acknowledged_comes_back_and_nothing_is_invented(
        actions in prop::collection::vec(action(), 1..120),
    ) {
        let memory = MemoryDisk::new();
        let mut model = Model::default();
        let mut life = Life::start(&memory, &mut model)?;
        for action in &actions {
            let crashes = memory.crashes();
            let lives = act(&mut life, &memory, &mut model, action);
            if !lives || memory.crashes() > crashes {
                drop(life);
                life = Life::start(&memory, &mut model)?;
            }
        }
        life.turns.drain();
        life.hear(&mut model);
        memory.crash(Crash::DropAll);
        drop(life);
        Life::start(&memory, &mut model)?;
    }

    #[test]
    fn any_damage_after_a_clean_stop_is_named_or_harmless(
        sizes in prop::collection::vec(
            (1..3_u32, prop_oneof![0..2500_usize, 8000..12_000_usize]),
            1..40,
        ),
        file in any::<prop::sample::Index>(),
        at in any::<prop::sample::Index>(),
        mask in 1_u8..,
    ) {
        let disk = MemoryDisk::new();
        let dir = open_dir(&disk);
        let directory = dir.journal_path();
        let mut model = Model::default();
        {
            let mut turns = Turns::start(&dir, small());
            for (shard, bytes) in sizes {
                let (last, term) = model.last(ShardId::new(shard));
                model.make(shard, RecordKind::Entry, last.next(), term, bytes);
                turns.append_durably(model.records[model.records.len() - 1..].to_vec());
            }
            turns.drain();
        }
        drop(dir);
        model.acknowledged = model.records.len();
        let names = disk.list(&directory).unwrap();
        let path = directory.join(&names[file.index(names.len())]);
        let bytes = disk.content(&path).unwrap();
        // Where something is written; behind it there are zeros to the end of the file.
        let used = bytes.iter().rposition(|byte| *byte != 0).unwrap_or(0) + 1;
        disk.corrupt(&path, at.index(used), mask).unwrap();

        let Ok((_, found)) = open(&open_dir(&disk), small()) else {
            // The version of a file's header.
            return Ok(());
        };

        for (shard, found) in &found.shards {
            let expected = model.counting(*shard, model.acknowledged);
            prop_assert!(found.records.iter().all(|record| expected.contains(&record)));
            match &found.damage {
                Some(damage) => {
                    prop_assert_eq!(&damage.path, &path);
                    prop_assert!(damage.at <= bytes.len() as u64);
                }
                None => prop_assert!(found.records.iter().eq(expected)),
            }
        }
    }
}
