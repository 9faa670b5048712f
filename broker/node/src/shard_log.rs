//! The log of one shard: its replica, who waits for what was proposed here, and what is committed
//! and not applied yet. Pure: records leave through `Outbound`, the disk's answer comes back
//! through `synced`.
//!
//! Promises: what this leader proposed finds its caller by index and term, without being decoded
//! again; a caller whose entry will never be committed is told so, and one whose entry may or may
//! not be is told that when leadership is lost. Commands are taken only while leading, and only
//! when everything of earlier terms is applied. Knows nothing of commands.

mod install;
mod keeping;
mod leader;
mod members;
mod talk;
mod ticking;

use std::collections::VecDeque;

use bytes::Bytes;
use millrace_replica::{
    Entry, EntryKind, NotLeader, Point, Read, ReadToken, ReadyNumber, Replica, Role, Seat, Status,
    Write,
};
use millrace_storage::Wanted;
use millrace_types::{LogIndex, Refusal, Term};

use super::outbound::{Outbound, SyncMark};
use super::records;
use install::{Held, Install};
use keeping::Keeping;
pub(super) use keeping::Keeps;
use talk::Strangers;

/// What this replica may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Standing {
    /// Applies what another one orders.
    Follows,
    /// Was elected; entries of earlier terms are still to be applied.
    Elected(Term),
    /// Takes commands.
    Leads(Term),
}

/// A shard's log; `E` is what a proposer wants back with its entry.
pub(super) struct ShardLog<E> {
    replica: Replica,
    standing: Standing,
    /// Proposed here, not applied; ascending.
    waiting: VecDeque<Waiting<E>>,
    /// Their bytes.
    bytes: u64,
    /// Committed and synced, not applied.
    committed: VecDeque<Entry>,
    /// The last one that was handed out of those.
    handed: LogIndex,
    strangers: Strangers,
    /// Answers to who reads, not told.
    reads: Vec<Read>,
    /// Whether the replica has to be asked what to do.
    news: bool,
    /// A follower needs a checkpoint.
    wanted: bool,
    /// What the checkpoint covers that is being made.
    point: Option<Point>,
    install: Install,
    /// Whether somebody else may lead than was told last.
    moved: bool,
    keeping: Keeping,
    /// Members or leadership have changed.
    regrouped: bool,
    /// Whether its ticks are counted from where those of others are.
    in_step: bool,
}

struct Waiting<E> {
    index: LogIndex,
    term: Term,
    bytes: u64,
    entry: E,
}

/// What comes next.
pub(super) enum Committed<E> {
    /// A command that was proposed here.
    Own {
        /// Its place.
        index: LogIndex,
        /// The client's bytes.
        body: Bytes,
        /// Of header and body.
        bytes: u64,
        /// The command, and what its caller needs.
        entry: E,
    },
    /// A command that another leader proposed, or an earlier life of this one.
    Others {
        /// Its place.
        index: LogIndex,
        /// The command.
        header: Bytes,
        /// The client's bytes.
        body: Bytes,
        /// Of header and body.
        bytes: u64,
    },
    /// No command.
    Pass {
        /// Its place.
        index: LogIndex,
    },
    /// No command; everything of earlier terms has been handed out, and commands are taken.
    Begin {
        /// Its place.
        index: LogIndex,
    },
    /// Was proposed here and will never be committed.
    Replaced(E),
}

/// Leadership is lost: of these, nobody here knows what becomes.
pub(super) struct Lost<E>(pub(super) Vec<E>);

/// A command that was not taken.
pub(super) struct NotTaken<E> {
    /// Why.
    pub(super) refusal: Refusal,
    /// The command, and what its caller needs.
    pub(super) entry: E,
}

impl<E> ShardLog<E> {
    /// The log of a replica that was just opened.
    pub(super) fn new(replica: Replica) -> Self {
        Self {
            handed: replica.applied_to(),
            replica,
            strangers: Strangers::default(),
            standing: Standing::Follows,
            waiting: VecDeque::new(),
            bytes: 0,
            committed: VecDeque::new(),
            reads: Vec::new(),
            news: true,
            wanted: false,
            point: None,
            keeping: Keeping::default(),
            install: Install::None,
            moved: true,
            regrouped: true,
            in_step: true,
        }
    }

    /// What this replica may do.
    pub(super) const fn standing(&self) -> Standing {
        self.standing
    }

    /// Whether commands are taken.
    pub(super) const fn leads(&self) -> bool {
        matches!(self.standing, Standing::Leads(_))
    }

    /// Takes a command.
    ///
    /// # Errors
    /// When this replica does not lead, or has no room.
    pub(super) fn propose(
        &mut self,
        header: Bytes,
        body: Bytes,
        entry: E,
    ) -> Result<(), NotTaken<E>> {
        let Status { role, term, .. } = self.replica.status();
        // It may have lost the lead since `gather` told us.
        if role != Role::Leader || self.standing != Standing::Leads(term) {
            let refusal = self.not_leader();
            return Err(NotTaken { refusal, entry });
        }
        let bytes = (header.len() + body.len()) as u64;
        match self.replica.propose(header, body) {
            Ok((term, index)) => {
                self.news = true;
                self.bytes += bytes;
                self.waiting.push_back(Waiting {
                    index,
                    term,
                    bytes,
                    entry,
                });
                Ok(())
            }
            Err(error) => {
                let refusal = self.refusal(&error);
                Err(NotTaken { refusal, entry })
            }
        }
    }

    /// Asks from which index on the state has everything that was acknowledged until now; the
    /// answer is among `take_reads`.
    ///
    /// # Errors
    /// When this replica does not lead, or too many wait.
    pub(super) fn read_index(&mut self, token: ReadToken) -> Result<(), NotLeader> {
        self.news = true;
        self.replica.read_index(token)
    }

    /// Answers to `read_index`.
    pub(super) fn take_reads(&mut self) -> Vec<Read> {
        std::mem::take(&mut self.reads)
    }

    /// The disk has everything up to here; whether the state of a snapshot is to be put in force
    /// now, and `installed` called then.
    pub(super) fn synced(&mut self, number: ReadyNumber) -> bool {
        let held = self.hold_back(number);
        if held == Held::No {
            self.replica.synced(number);
            self.news = true;
        }
        held == Held::Promote
    }

    /// Takes what the replica wants done. Says when leadership was lost, perhaps to be won again.
    pub(super) fn gather(&mut self, out: &mut Outbound) -> Option<Lost<E>> {
        let mut lost: Option<Lost<E>> = None;
        if !std::mem::take(&mut self.news) {
            return lost;
        }
        while let Some(ready) = self.replica.ready() {
            self.send(ready.messages, out);
            self.committed.extend(ready.committed);
            if let Some(write) = ready.write {
                if let Some(point) = write.install.clone() {
                    let over = self.begin_install(write.number, point);
                    if !over.0.is_empty() {
                        lost.get_or_insert(Lost(Vec::new())).0.extend(over.0);
                    }
                }
                self.write(write, out);
            }
            self.moved |= ready.status.is_some();
            if let Some(new) = ready.status.and_then(|status| self.stand(status)) {
                lost.get_or_insert(Lost(Vec::new())).0.extend(new.0);
            }
            let (shard, replica) = (self.replica.shard(), self.replica.id());
            out.load(ready.loads.into_iter().map(|load| Wanted {
                shard,
                replica,
                indexes: load.from..load.to,
                bytes_max: load.bytes_max,
            }));
            self.reads.extend(ready.reads);
            self.wanted |= ready.wants_snapshot;
        }
        lost
    }

    fn write(&self, write: Write, out: &mut Outbound) {
        let (shard, replica) = (self.replica.shard(), self.replica.id());
        let mark = SyncMark {
            shard,
            replica,
            number: write.number,
        };
        out.push(mark, records::of_write(shard, replica, write));
    }

    fn stand(&mut self, status: Status) -> Option<Lost<E>> {
        let elected = (status.role == Role::Leader).then_some(status.term);
        let stands = match self.standing {
            Standing::Follows => None,
            Standing::Elected(term) | Standing::Leads(term) => Some(term),
        };
        if elected == stands {
            return None;
        }
        self.standing = elected.map_or(Standing::Follows, Standing::Elected);
        self.in_step = elected.is_none();
        self.regrouped = true;
        stands.map(|_| self.lose())
    }

    /// Gives up on what may or may not be committed. Of what is, applying will tell.
    fn lose(&mut self) -> Lost<E> {
        let committed = self.replica.committed();
        let known = self.waiting.partition_point(|w| w.index <= committed);
        let unknown = self.waiting.split_off(known);
        self.bytes = self.waiting.iter().map(|waiting| waiting.bytes).sum();
        Lost(unknown.into_iter().map(|waiting| waiting.entry).collect())
    }

    /// What to apply next.
    pub(super) fn next(&mut self) -> Option<Committed<E>> {
        let (index, term) = self
            .committed
            .front()
            .map(|entry| (entry.index, entry.term))?;
        let replaced = |w: &mut Waiting<E>| (w.index, w.term) < (index, term);
        if let Some(waiting) = self.waiting.pop_front_if(replaced) {
            self.bytes -= waiting.bytes;
            return Some(Committed::Replaced(waiting.entry));
        }
        let entry = self.committed.pop_front()?;
        self.handed = index;
        match entry.kind {
            EntryKind::Lead if self.standing == Standing::Elected(term) => {
                self.standing = Standing::Leads(term);
                self.regrouped = true;
                return Some(Committed::Begin { index });
            }
            EntryKind::Lead | EntryKind::Members => {
                // A member may have become known.
                self.moved = true;
                self.regrouped = true;
                return Some(Committed::Pass { index });
            }
            EntryKind::Command => {}
        }
        let is_own = |w: &mut Waiting<E>| w.index == index && w.term == term;
        let bytes = entry.bytes();
        let (header, body) = (entry.header, entry.body);
        let Some(waiting) = self.waiting.pop_front_if(is_own) else {
            return Some(Committed::Others {
                index,
                header,
                body,
                bytes,
            });
        };
        self.bytes -= waiting.bytes;
        Some(Committed::Own {
            index,
            body,
            bytes,
            entry: waiting.entry,
        })
    }

    /// Everything that `next` gave is applied.
    pub(super) fn applied(&mut self) {
        self.replica.applied(self.handed);
        self.news = true;
    }

    /// Whether `next` has something.
    pub(super) fn has_committed(&self) -> bool {
        !self.committed.is_empty()
    }

    /// A checkpoint of what is applied begins.
    pub(super) fn begin_checkpoint(&mut self) -> Option<Point> {
        self.wanted = false;
        self.point = self.replica.point();
        self.point.clone()
    }

    /// It is made; `let_go` says what of the journal before it goes.
    pub(super) fn checkpoint_made(&mut self) {
        if let Some(point) = self.point.take() {
            self.keeping.covered(point.mark.index);
            self.replica.snapshot_made(point);
            self.news = true;
        }
    }

    /// Whether a follower waits for a checkpoint.
    pub(super) const fn wants_checkpoint(&self) -> bool {
        self.wanted
    }

    /// Commands proposed here and not applied.
    pub(super) fn len(&self) -> u64 {
        self.waiting.len() as u64
    }

    /// Their bytes.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Whether everything taken has been applied, and nothing else is to be.
    pub(super) fn is_idle(&self) -> bool {
        let elected = matches!(self.standing, Standing::Elected(_));
        let settled = self.waiting.is_empty() && self.committed.is_empty();
        settled && !elected && !self.is_installing()
    }

    /// What it is.
    pub(super) fn role(&self) -> Role {
        self.replica.status().role
    }

    /// How many replicas vote: a majority of them has synced what is committed.
    pub(super) fn voters(&self) -> u32 {
        let members = self.replica.members().iter();
        let voters = members.filter(|m| !matches!(m.seat, Seat::Learner)).count();
        u32::try_from(voters).unwrap_or(u32::MAX)
    }

    /// Its term.
    pub(super) fn term(&self) -> Term {
        self.replica.status().term
    }

    /// How far it is committed, synced here, and there at all.
    pub(super) fn reach(&self) -> Reach {
        Reach {
            committed: self.replica.committed(),
            synced: self.replica.synced_to(),
            last: self.replica.last(),
        }
    }

    /// Its replica, for tests that are the other members.
    #[cfg(test)]
    pub(super) fn replica(&mut self) -> &mut Replica {
        self.news = true;
        &mut self.replica
    }
}

/// How far a log goes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reach {
    /// Known to be committed.
    pub(super) committed: LogIndex,
    /// On this disk.
    pub(super) synced: LogIndex,
    /// At all.
    pub(super) last: LogIndex,
}

#[cfg(test)]
mod tests {
    use millrace_replica::{Members, Recovered, ReplicaOptions};
    use millrace_types::{ErrorCode, NodeId, ReplicaId, ShardId};

    use super::*;

    /// A log whose replica is the only one.
    fn alone() -> ShardLog<&'static str> {
        let id = ReplicaId::new(9);
        let recovered = Recovered {
            point: Point {
                members: Members::founders([(id, NodeId::new(3))]).unwrap(),
                ..Point::default()
            },
            ..Recovered::default()
        };
        let options = ReplicaOptions::new(ShardId::new(1), id);
        ShardLog::new(Replica::open(options, recovered, 1).unwrap())
    }

    /// Writes and syncs what there is; the records' indexes and kinds.
    fn sync(log: &mut ShardLog<&'static str>) -> usize {
        let mut out = Outbound::default();
        assert!(log.gather(&mut out).is_none());
        let (records, marks) = out.take();
        for mark in marks {
            log.synced(mark.number);
        }
        assert!(log.gather(&mut out).is_none());
        records.len()
    }

    fn leading() -> ShardLog<&'static str> {
        let mut log = alone();
        sync(&mut log);
        assert!(matches!(log.next(), Some(Committed::Begin { .. })));
        log.applied();
        log
    }

    fn propose(log: &mut ShardLog<&'static str>, name: &'static str) -> Result<(), Refusal> {
        let taken = log.propose(Bytes::from(name), Bytes::from("body"), name);
        taken.map_err(|refused| refused.refusal)
    }

    #[test]
    fn commands_are_taken_when_everything_of_earlier_terms_is_applied() {
        let mut log = alone();
        assert_eq!(log.standing(), Standing::Follows);
        sync(&mut log);
        assert_eq!(log.standing(), Standing::Elected(Term::new(1)));
        assert!(!log.is_idle());
        let refusal = propose(&mut log, "early").unwrap_err();
        assert_eq!(refusal.code, ErrorCode::NotLeader);
        assert!(matches!(log.next(), Some(Committed::Begin { .. })));
        assert_eq!(log.standing(), Standing::Leads(Term::new(1)));
    }

    #[test]
    fn commands_of_a_turn_are_one_write_and_come_back_in_order_when_synced() {
        let mut log = leading();
        for name in ["a", "b", "c"] {
            propose(&mut log, name).unwrap();
        }
        assert_eq!((log.len(), log.bytes()), (3, 15));
        assert!(log.next().is_none());
        // The hard state comes along: how far the log was committed.
        assert_eq!(sync(&mut log), 4);
        let mut names = Vec::new();
        while let Some(Committed::Own { body, entry, .. }) = log.next() {
            assert_eq!(body, "body");
            names.push(entry);
        }
        log.applied();
        assert_eq!(names, ["a", "b", "c"]);
        assert_eq!((log.len(), log.bytes()), (0, 0));
        assert!(log.is_idle());
        let Reach {
            committed,
            synced,
            last,
        } = log.reach();
        assert_eq!((committed, synced, last), (last, last, LogIndex::new(4)));
    }

    #[test]
    fn a_command_in_whose_place_another_was_committed_will_never_be() {
        let mut log = leading();
        propose(&mut log, "lost").unwrap();
        let place = log.waiting[0].index;
        log.committed.push_back(Entry {
            term: Term::new(8),
            index: place,
            kind: EntryKind::Command,
            header: Bytes::from("theirs"),
            body: Bytes::new(),
        });
        assert!(matches!(log.next(), Some(Committed::Replaced("lost"))));
        let theirs = log.next();
        assert!(matches!(theirs, Some(Committed::Others { header, .. }) if header == "theirs"));
    }

    #[test]
    fn who_loses_the_lead_gives_back_what_it_does_not_know_the_fate_of() {
        let mut log = leading();
        propose(&mut log, "synced").unwrap();
        sync(&mut log);
        propose(&mut log, "unknown").unwrap();
        let Lost(unknown) = log.lose();
        assert_eq!(unknown, ["unknown"]);
        assert!(matches!(
            log.next(),
            Some(Committed::Own {
                entry: "synced",
                ..
            })
        ));
    }
}
