//! One node of the simulated cluster: a replica, its disk and its state machine.

use std::collections::{BTreeMap, VecDeque};

use millrace_replica::{
    Entry, Load, Mark, Message, Payload, Point, Ready, Replica, ReplicaOptions, StepError,
};
use millrace_types::{LogIndex, ReplicaId, ShardId};

use crate::disk::Disk;
use crate::judge::{Judge, Judged};
use crate::machine::Machine;

/// Milliseconds between ticks of a clock that is right.
pub(crate) const TICK: u64 = 10;

/// What a node wants from the world after a turn.
#[derive(Debug, Default)]
pub(crate) struct Wants {
    pub(crate) messages: Vec<Message>,
    pub(crate) loads: Vec<Load>,
    pub(crate) snapshot: bool,
}

/// One node.
pub(crate) struct Node {
    pub(crate) replica_id: ReplicaId,
    /// `None` while it is down.
    pub(crate) replica: Option<Replica>,
    pub(crate) disk: Disk,
    pub(crate) machine: Machine,
    /// Handed out, not applied.
    pub(crate) queue: VecDeque<Entry>,
    /// States that came along with snapshots.
    pub(crate) incoming: BTreeMap<Mark, Machine>,
    /// By index: own proposals of this life, and their term.
    proposed: BTreeMap<u64, (u64, u64)>,
    /// By token: the last acknowledged index when it was asked.
    reads: BTreeMap<u64, u64>,
    /// Counts starts.
    pub(crate) life: u64,
    pub(crate) slow_disk: bool,
    /// Milliseconds between its ticks, about: clocks differ.
    pub(crate) tick: u64,
    pub(crate) slow_apply: bool,
    pub(crate) lost_log: bool,
    /// Its disk is lost: it never comes back.
    pub(crate) is_gone: bool,
}

pub(crate) fn options(id: ReplicaId) -> ReplicaOptions {
    ReplicaOptions {
        append_bytes_max: 500,
        in_flight_max: 4,
        apply_bytes_max: 3_000,
        unapplied_bytes_max: 20_000,
        window_bytes_max: 4_000,
        ..ReplicaOptions::new(ShardId::new(1), id)
    }
}

impl Node {
    pub(crate) fn new(replica_id: ReplicaId, disk: Disk) -> Self {
        Self {
            replica_id,
            replica: None,
            disk,
            machine: Machine::default(),
            queue: VecDeque::new(),
            incoming: BTreeMap::new(),
            proposed: BTreeMap::new(),
            reads: BTreeMap::new(),
            life: 0,
            slow_disk: false,
            tick: TICK,
            slow_apply: false,
            lost_log: false,
            is_gone: false,
        }
    }

    pub(crate) fn start(&mut self, seed: u64) -> Judged {
        let (recovered, machine) = self.disk.recover();
        let options = options(self.replica_id);
        let replica = Replica::open(options, recovered, seed)
            .map_err(|error| format!("replica {} does not open: {error}", self.replica_id))?;
        self.replica = Some(replica);
        self.machine = machine;
        self.life += 1;
        Ok(())
    }

    pub(crate) fn stop(&mut self) {
        self.replica = None;
        self.queue.clear();
        self.incoming.clear();
        self.proposed.clear();
        self.reads.clear();
    }

    /// Hands over a message; what was refused is nobody's fault, but for a log that is lost.
    pub(crate) fn receive(&mut self, message: Message) {
        if let Some(replica) = &mut self.replica
            && let Err(StepError::CommitBeyondLog { .. }) = replica.step(message)
        {
            self.lost_log = true;
        }
    }

    /// Proposes an operation; whether it was taken.
    pub(crate) fn propose(&mut self, operation: u64, bytes: usize) -> bool {
        let Some(replica) = &mut self.replica else {
            return false;
        };
        let header = operation.to_le_bytes().to_vec().into();
        let Ok((term, index)) = replica.propose(header, vec![7; bytes].into()) else {
            return false;
        };
        self.proposed.insert(index.get(), (term.get(), operation));
        true
    }

    /// Asks for a read; whether it was taken.
    pub(crate) fn read(&mut self, token: u64, judge: &Judge) -> bool {
        let Some(replica) = &mut self.replica else {
            return false;
        };
        let taken = replica.read_index(millrace_replica::ReadToken(token));
        self.reads.insert(token, judge.acknowledged_last);
        taken.is_ok()
    }

    /// Does what the replica asks for, until it asks for nothing.
    pub(crate) fn pump(&mut self, judge: &mut Judge) -> Result<Wants, String> {
        let mut wants = Wants::default();
        while let Some(ready) = self.replica.as_mut().and_then(Replica::ready) {
            self.carry_out(ready, judge, &mut wants)?;
            if !self.slow_apply {
                self.apply(usize::MAX, judge)?;
            }
        }
        self.check_order()?;
        Ok(wants)
    }

    fn carry_out(&mut self, ready: Ready, judge: &mut Judge, wants: &mut Wants) -> Judged {
        let id = self.replica_id;
        if let Some(write) = ready.write {
            let install = write.install.as_ref().map(|point| point.mark);
            let machine = install.map(|mark| self.incoming[&mark].clone());
            judge.installs += u64::from(machine.is_some());
            judge.note(|| {
                let of = |entry: &Entry| (entry.index.get(), entry.term.get(), entry.kind);
                let marks: Vec<_> = write.entries.iter().map(of).collect();
                format!(
                    "replica {id} writes {:?} {install:?} {marks:?}",
                    write.hard_state
                )
            });
            self.disk.write(write, machine);
        }
        for message in ready.messages {
            judge.sent(&message, &self.disk)?;
            wants.messages.push(message);
        }
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        for entry in ready.committed {
            judge.committed((id, replica.status()), &entry, &self.disk)?;
            self.queue.push_back(entry);
        }
        if let Some(status) = ready.status {
            judge.note(|| format!("replica {id}: {status:?}"));
            judge.status(id, status, &self.disk)?;
        }
        for read in ready.reads {
            let asked = self.reads.remove(&read.token.0).unwrap_or_default();
            if let Ok(index) = read.answer {
                judge.reads += 1;
                if index.get() < asked {
                    return Err(format!(
                        "replica {id} reads at {index}, but {asked} was acknowledged before"
                    ));
                }
            }
        }
        wants.loads.extend(ready.loads);
        wants.snapshot |= ready.wants_snapshot;
        Ok(())
    }

    /// Applies some of what was handed out.
    pub(crate) fn apply(&mut self, count: usize, judge: &mut Judge) -> Judged {
        let Some(replica) = &mut self.replica else {
            return Ok(());
        };
        let count = count.min(self.queue.len());
        let mut last = None;
        for entry in self.queue.drain(..count) {
            self.machine.apply(&entry);
            let index = self.machine.applied;
            judge.state(self.replica_id, index, self.machine.digest)?;
            if let Some((term, operation)) = self.proposed.remove(&index)
                && term == entry.term.get()
            {
                judge.acknowledge(operation, index);
            }
            last = Some(entry.index);
        }
        if let Some(last) = last {
            replica.applied(last);
        }
        Ok(())
    }

    /// A sync has returned.
    pub(crate) fn synced(&mut self, only_last: bool, judge: &mut Judge) -> Judged {
        let (numbers, installed, entries) = self.disk.end_sync();
        for (entry, before) in entries {
            judge.entry(&entry, before)?;
        }
        if let Some(machine) = installed {
            // What was handed out before is part of it.
            self.queue
                .retain(|entry| entry.index.get() > machine.applied);
            self.machine = machine;
        }
        let Some(replica) = &mut self.replica else {
            return Ok(());
        };
        let skip = if only_last { numbers.len() - 1 } else { 0 };
        for number in numbers.into_iter().skip(skip) {
            replica.synced(number);
        }
        Ok(())
    }

    /// Makes a checkpoint of what is applied, and keeps so many entries before it.
    pub(crate) fn checkpoint(&mut self, keep: u64) -> Option<Point> {
        let replica = self.replica.as_mut()?;
        let point = replica.point()?;
        if point.mark.index.get() != self.machine.applied
            || point.mark.index <= self.disk.durable.point.mark.index
        {
            return None;
        }
        let upto = point.mark.index.get().saturating_sub(keep);
        self.disk.checkpoint(&point, &self.machine, upto);
        replica.snapshot_made(point.clone());
        replica.compact(LogIndex::new(upto));
        Some(point)
    }

    /// Answers a load from the disk.
    pub(crate) fn load(&mut self, load: Load, count: usize) {
        let Some(replica) = &mut self.replica else {
            return;
        };
        let range = load.from.get()..load.to.get();
        let stored = self.disk.view.entries.range(range.clone()).take(count);
        let dense = stored
            .zip(range)
            .take_while(|((index, _), next)| *index == next);
        let found = dense.map(|((_, entry), _)| entry.clone()).collect();
        // Replaced meanwhile: asked for again.
        replica.entries_loaded(load.from, found).ok();
    }

    /// A snapshot message with the state it speaks of, if that is still there.
    pub(crate) fn state_of(&self, message: &Message) -> Option<Machine> {
        let Payload::Snapshot { point } = &message.payload else {
            return None;
        };
        let stored = &self.disk.durable;
        (stored.point.mark == point.mark).then(|| stored.machine.clone())
    }

    fn check_order(&self) -> Judged {
        let Some(replica) = &self.replica else {
            return Ok(());
        };
        let compacted = replica.compacted();
        let (committed, last) = (replica.committed(), replica.last());
        let point = replica.point().map_or(compacted, |point| point.mark.index);
        // While a snapshot is being installed, the log begins behind what is applied.
        if compacted.max(point) <= committed && committed <= last {
            return Ok(());
        }
        Err(format!(
            "pointers out of order: {compacted} {point} {committed} {last}"
        ))
    }
}
