//! A node's disk: what was written in order, how far it is synced, and what a crash leaves.

use std::collections::{BTreeMap, VecDeque};

use millrace_replica::{Entry, HardState, Passed, Point, ReadyNumber, Recovered, Write};

use crate::chance::Chance;
use crate::machine::Machine;

/// One thing that was written.
#[derive(Clone, Debug)]
enum Record {
    HardState(HardState),
    Install(Point, Machine),
    Entry(Entry),
}

/// A log as its records say.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stored {
    pub(crate) hard_state: Option<HardState>,
    pub(crate) point: Point,
    pub(crate) machine: Machine,
    pub(crate) entries: BTreeMap<u64, Entry>,
}

impl Stored {
    fn add(&mut self, record: Record) {
        match record {
            Record::HardState(state) => self.hard_state = Some(state),
            Record::Install(point, machine) => {
                self.entries.clear();
                (self.point, self.machine) = (point, machine);
            }
            Record::Entry(entry) => {
                let index = entry.index.get();
                self.entries.split_off(&index);
                self.entries.insert(index, entry);
            }
        }
    }

    /// The last index.
    pub(crate) fn last(&self) -> u64 {
        let point = self.point.mark.index.get();
        self.entries.keys().next_back().copied().unwrap_or(point)
    }

    /// The term at an index that the log still has, or its point.
    pub(crate) fn term(&self, index: u64) -> Option<u64> {
        if index == self.point.mark.index.get() {
            return Some(self.point.mark.term.get());
        }
        self.entries.get(&index).map(|entry| entry.term.get())
    }
}

/// An entry and the term of the one before.
type Followed = (Entry, Option<u64>);

/// The disk.
#[derive(Clone, Debug, Default)]
pub(crate) struct Disk {
    /// What a crash cannot take.
    pub(crate) durable: Stored,
    /// With what is on its way.
    pub(crate) view: Stored,
    unsynced: VecDeque<(ReadyNumber, Vec<Record>)>,
    /// The sync that is running covers so many.
    syncing: usize,
}

impl Disk {
    pub(crate) fn founded(recovered: &Recovered) -> Self {
        let stored = Stored {
            hard_state: recovered.hard_state,
            point: recovered.point.clone(),
            machine: Machine::founded(recovered.applied.get()),
            entries: BTreeMap::new(),
        };
        Self {
            durable: stored.clone(),
            view: stored,
            ..Self::default()
        }
    }

    pub(crate) fn write(&mut self, write: Write, installs: Option<Machine>) {
        let mut records = Vec::new();
        if let Some(point) = write.install {
            records.push(Record::Install(point, installs.unwrap()));
        }
        records.extend(write.entries.into_iter().map(Record::Entry));
        records.extend(write.hard_state.map(Record::HardState));
        for record in &records {
            self.view.add(record.clone());
        }
        self.unsynced.push_back((write.number, records));
    }

    /// Begins a sync of all that waits, unless one is running; whether it has.
    pub(crate) fn begin_sync(&mut self) -> bool {
        if self.syncing > 0 || self.unsynced.is_empty() {
            return false;
        }
        self.syncing = self.unsynced.len();
        true
    }

    /// The sync is done; what it covered, the machine of a snapshot among it, and entries with the
    /// term of the one before.
    pub(crate) fn end_sync(&mut self) -> (Vec<ReadyNumber>, Option<Machine>, Vec<Followed>) {
        let mut numbers = Vec::new();
        let mut entries = Vec::new();
        let mut installed = None;
        for (number, records) in self.unsynced.drain(..std::mem::take(&mut self.syncing)) {
            numbers.push(number);
            for record in records {
                if let Record::Install(_, machine) = &record {
                    installed = Some(machine.clone());
                }
                if let Record::Entry(entry) = &record {
                    let before = self.durable.term(entry.index.get() - 1);
                    entries.push((entry.clone(), before));
                }
                self.durable.add(record);
            }
        }
        (numbers, installed, entries)
    }

    /// Power is gone: of what was not synced, a part from the beginning may be there.
    pub(crate) fn crash(&mut self, chance: &mut Chance) {
        let records: Vec<Record> = self.unsynced.drain(..).flat_map(|(_, r)| r).collect();
        let kept = chance.between(0, records.len() as u64);
        for record in records.into_iter().take(usize::try_from(kept).unwrap()) {
            self.durable.add(record);
        }
        self.syncing = 0;
        self.view = self.durable.clone();
    }

    /// A checkpoint is durable; entries up to `upto` are dropped.
    pub(crate) fn checkpoint(&mut self, point: &Point, machine: &Machine, upto: u64) {
        for stored in [&mut self.durable, &mut self.view] {
            if point.mark.index > stored.point.mark.index {
                stored.point = point.clone();
                stored.machine = machine.clone();
            }
            stored.entries.retain(|index, _| *index > upto);
        }
    }

    /// What a start finds.
    pub(crate) fn recover(&self) -> (Recovered, Machine) {
        let stored = &self.durable;
        let point = stored.point.mark.index.get();
        let commit = stored.hard_state.map_or(0, |state| state.commit.get());
        let mut machine = stored.machine.clone();
        let (mut passed, mut entries) = (Passed::default(), Vec::new());
        for (index, entry) in stored.entries.range(point + 1..) {
            if *index <= commit {
                machine.apply(entry);
                passed.add(entry);
            } else {
                entries.push(entry.clone());
            }
        }
        let applied = passed.last().unwrap_or(stored.point.mark).index;
        let recovered = Recovered {
            hard_state: stored.hard_state,
            point: stored.point.clone(),
            passed,
            entries,
            applied,
        };
        (recovered, machine)
    }
}
