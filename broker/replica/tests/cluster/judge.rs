//! What must never happen. Sees what replicas hand out, and what clients were told.

use std::collections::{BTreeMap, BTreeSet};

use millrace_replica::{Entry, Message, Payload, Role, Stage, Status, Verdict};
use millrace_types::ReplicaId;

use crate::disk::Disk;
use crate::machine::content;

/// Whether promises are compared with disks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Promises {
    Judged,
    /// Known bugs have to show in what becomes of the log.
    Ignored,
}

/// A broken rule.
pub(crate) type Judged = Result<(), String>;

/// All that is known of the shard.
#[derive(Debug)]
pub(crate) struct Judge {
    promises: Promises,
    leaders: BTreeMap<u64, ReplicaId>,
    /// By index and term: content, and the term before.
    entries: BTreeMap<(u64, u64), (u64, Option<u64>)>,
    /// By index: term and content, and the term in which it was seen to be committed.
    committed: BTreeMap<u64, (u64, u64)>,
    committed_in: BTreeMap<u64, u64>,
    /// By index: the digest of the state there.
    states: BTreeMap<u64, u64>,
    /// The last entry whose proposer was told that it is applied.
    pub(crate) acknowledged: BTreeMap<u64, u64>,
    pub(crate) acknowledged_last: u64,
    pub(crate) reads: u64,
    pub(crate) elections: BTreeSet<u64>,
    pub(crate) installs: u64,
    pub(crate) now: u64,
    traces: bool,
}

impl Judge {
    pub(crate) fn new(promises: Promises) -> Self {
        Self {
            promises,
            leaders: BTreeMap::new(),
            entries: BTreeMap::new(),
            committed: BTreeMap::new(),
            committed_in: BTreeMap::new(),
            states: BTreeMap::new(),
            acknowledged: BTreeMap::new(),
            acknowledged_last: 0,
            reads: 0,
            elections: BTreeSet::new(),
            installs: 0,
            now: 0,
            traces: std::env::var_os("MILLRACE_REPLICA_TRACE").is_some(),
        }
    }

    /// Election safety, and leader completeness.
    pub(crate) fn status(&mut self, id: ReplicaId, status: Status, disk: &Disk) -> Judged {
        if status.role != Role::Leader {
            return Ok(());
        }
        let term = status.term.get();
        let leader = *self.leaders.entry(term).or_insert(id);
        if leader != id {
            return Err(format!("replicas {leader} and {id} both lead term {term}"));
        }
        if !self.elections.insert(term) {
            return Ok(());
        }
        let point = disk.view.point.mark.index.get();
        for (index, (of, _)) in self.committed.range(point + 1..) {
            let found = disk.view.term(*index);
            if self.committed_in[index] < term && found != Some(*of) {
                return Err(format!(
                    "replica {id} leads term {term} and has {found:?} at {index}, which was \
                     committed in term {of}"
                ));
            }
        }
        Ok(())
    }

    /// Log matching: same index and term, same entry and same term before. Of what is synced or
    /// sent: what a crash took from its only copy may be made again.
    pub(crate) fn entry(&mut self, entry: &Entry, before: Option<u64>) -> Judged {
        let place = (entry.index.get(), entry.term.get());
        let here = (content(entry), before);
        let known = self.entries.entry(place).or_insert(here);
        if known.1.is_none() {
            known.1 = before;
        }
        if known.0 != here.0 || (before.is_some() && known.1 != before) {
            return Err(format!("two entries {place:?}: {known:?} and {here:?}"));
        }
        Ok(())
    }

    /// What is committed stays, is synced where it is applied.
    pub(crate) fn committed(
        &mut self,
        status: (ReplicaId, Status),
        entry: &Entry,
        disk: &Disk,
    ) -> Judged {
        let (id, Status { term: seen, .. }) = status;
        let (index, term) = (entry.index.get(), entry.term.get());
        self.committed_in.entry(index).or_insert(seen.get());
        let here = (term, content(entry));
        let known = *self.committed.entry(index).or_insert(here);
        if known != here {
            return Err(format!(
                "replica {id} commits {here:?} at {index}, another committed {known:?}"
            ));
        }
        let durable = disk.durable.term(index);
        let covered = index <= disk.durable.point.mark.index.get();
        if durable != Some(term) && !covered {
            return Err(format!(
                "replica {id} applies {index} of term {term}, but has {durable:?} on disk"
            ));
        }
        Ok(())
    }

    /// Equal state at equal index.
    pub(crate) fn state(&mut self, id: ReplicaId, index: u64, digest: u64) -> Judged {
        let known = *self.states.entry(index).or_insert(digest);
        if known != digest {
            return Err(format!(
                "replica {id} differs from another at entry {index}"
            ));
        }
        Ok(())
    }

    /// What is said is on disk.
    pub(crate) fn sent(&mut self, message: &Message, disk: &Disk) -> Judged {
        if let Payload::Append { prev, entries, .. } = &message.payload {
            let mut before = prev.term.get();
            for entry in entries {
                self.entry(entry, Some(before))?;
                before = entry.term.get();
            }
        }
        if self.promises == Promises::Ignored {
            return Ok(());
        }
        let durable = disk.durable.hard_state.unwrap_or_default();
        let known = message.term.get() <= durable.term.get();
        let kept = match &message.payload {
            // Of an earlier term it may have been replaced in the same sync: as if it had been sent
            // just before.
            Payload::Accepted { last, .. } => {
                durable.term > message.term || (known && last.get() <= disk.durable.last())
            }
            Payload::VoteAnswer {
                stage: Stage::Real,
                verdict: Verdict::Granted,
            } => durable.term > message.term || durable.vote == Some(message.to),
            Payload::Vote {
                stage: Stage::Real | Stage::Transfer,
                last,
                ..
            } => known && last.index.get() <= disk.durable.last(),
            Payload::Append { .. } | Payload::Heartbeat { .. } => known,
            _ => true,
        };
        if kept {
            return Ok(());
        }
        Err(format!("not on disk, where {durable:?} is: {message:?}"))
    }

    /// Tells what happens, when somebody wants to know.
    pub(crate) fn note(&self, what: impl FnOnce() -> String) {
        if self.traces {
            println!("{} ms: {}", self.now, what());
        }
    }

    pub(crate) fn acknowledge(&mut self, operation: u64, index: u64) {
        self.acknowledged.insert(operation, index);
        self.acknowledged_last = self.acknowledged_last.max(index);
    }
}
