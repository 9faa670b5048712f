//! Whatever arrives, in whatever state: a refusal at most, never a panic.

use millrace_replica::{
    Change, Entry, EntryKind, Mark, Members, Message, Payload, Point, ReadToken, Recovered,
    Replica, Round, Stage, Verdict,
};
use millrace_types::{LogIndex, NodeId, ReplicaId, Term};
use proptest::collection::vec;
use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use crate::node::options;

/// Numbers that are likely to mean something, and some at the edges.
fn number() -> impl Strategy<Value = u64> {
    prop_oneof![
        20 => 0..12_u64,
        1 => Just(1 << 62),
        1 => Just((1 << 62) + 1),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

fn index() -> impl Strategy<Value = LogIndex> {
    number().prop_map(LogIndex::new)
}

fn mark() -> impl Strategy<Value = Mark> {
    (number(), number()).prop_map(|(index, term)| Mark::new(index, term))
}

fn replica() -> impl Strategy<Value = ReplicaId> {
    prop_oneof![8 => 1..4_u64, 1 => 0..9_u64].prop_map(ReplicaId::new)
}

fn entry() -> impl Strategy<Value = Entry> {
    let header = prop_oneof![
        Just(Vec::new()),
        vec(any::<u8>(), 0..12),
        // One that can be read: add, promote, demote or remove somebody.
        (0..4_u8, 0..5_u8, 0..5_u8).prop_map(|(what, who, node)| match what {
            0 => vec![1, 0, who, node],
            _ => vec![1, what, who],
        }),
    ];
    (1..4_u8, mark(), header, vec(any::<u8>(), 0..3)).prop_map(|(kind, mark, header, body)| Entry {
        term: mark.term,
        index: mark.index,
        kind: EntryKind::from_number(kind).unwrap(),
        header: header.into(),
        body: body.into(),
    })
}

/// Entries that follow something, mostly.
fn entries() -> impl Strategy<Value = (Mark, Vec<Entry>)> {
    let dense = (mark(), vec((entry(), 0..2_u64), 0..5)).prop_map(|(prev, found)| {
        let mut last = prev;
        let mut entries = Vec::new();
        for (mut entry, later) in found {
            entry.index = LogIndex::new(last.index.get().wrapping_add(1));
            entry.term = Term::new(last.term.get().wrapping_add(later));
            match entry.kind {
                EntryKind::Command if entry.header.is_empty() => entry.header = vec![1].into(),
                EntryKind::Lead => (entry.header, entry.body) = Default::default(),
                EntryKind::Members => entry.body = Default::default(),
                EntryKind::Command => {}
            }
            last = entry.mark();
            entries.push(entry);
        }
        (prev, entries)
    });
    prop_oneof![4 => dense, 1 => (mark(), vec(entry(), 0..4))]
}

fn members() -> impl Strategy<Value = Members> {
    vec((0..6_u64, 0..4_u64), 0..4).prop_map(|founders| {
        let founder = |(replica, node)| (ReplicaId::new(replica), NodeId::new(node));
        Members::founders(founders.into_iter().map(founder)).unwrap_or_default()
    })
}

fn stage() -> impl Strategy<Value = Stage> {
    prop_oneof![Just(Stage::Pre), Just(Stage::Real), Just(Stage::Transfer)]
}

fn payload() -> impl Strategy<Value = Payload> {
    let round = || prop_oneof![0..4_u64, any::<u64>()].prop_map(Round);
    let verdict = prop_oneof![
        Just(Verdict::Granted),
        mark().prop_map(|commit| Verdict::Refused { commit }),
    ];
    prop_oneof![
        4 => (entries(), index()).prop_map(|((prev, entries), commit)| {
            Payload::Append { prev, commit, entries }
        }),
        2 => (index(), index()).prop_map(|(last, commit)| Payload::Accepted { last, commit }),
        2 => (index(), mark(), index()).prop_map(|(prev, hint, commit)| {
            Payload::Rejected { prev, hint, commit }
        }),
        2 => (index(), round()).prop_map(|(commit, round)| Payload::Heartbeat { commit, round }),
        1 => (index(), round()).prop_map(|(commit, round)| {
            Payload::HeartbeatAnswer { commit, round }
        }),
        2 => (stage(), mark(), mark()).prop_map(|(stage, last, commit)| {
            Payload::Vote { stage, last, commit }
        }),
        3 => (stage(), verdict).prop_map(|(stage, verdict)| {
            Payload::VoteAnswer { stage, verdict }
        }),
        1 => (mark(), members()).prop_map(|(mark, members)| {
            Payload::Snapshot { point: Point { mark, members } }
        }),
        1 => Just(Payload::TimeoutNow),
    ]
}

/// What happens to the replica.
#[derive(Clone, Debug)]
enum Input {
    Message(Message),
    Ticks(u64),
    Ready,
    Synced,
    Applied,
    Propose,
    Campaign,
    Read,
    Change(Vec<Change>),
    Transfer(ReplicaId),
    Report(ReplicaId, u8),
    Compact,
    Loaded(Vec<Entry>),
}

fn change() -> impl Strategy<Value = Change> {
    (0..4_u8, replica(), 0..9_u64).prop_map(|(what, replica, node)| match what {
        0 => Change::Add {
            replica,
            node: NodeId::new(node),
        },
        1 => Change::Promote { replica },
        2 => Change::Demote { replica },
        _ => Change::Remove { replica },
    })
}

fn input() -> impl Strategy<Value = Input> {
    let me = prop_oneof![30 => Just(1), 1 => 0..4_u64].prop_map(ReplicaId::new);
    let term = prop_oneof![20 => 1..8_u64, 1 => number()].prop_map(Term::new);
    let message = (replica(), me, term, payload()).prop_map(|(from, to, term, payload)| {
        Input::Message(Message {
            from,
            to,
            term,
            payload,
        })
    });
    prop_oneof![
        20 => message,
        2 => (1..20_u64).prop_map(Input::Ticks),
        8 => Just(Input::Ready),
        6 => Just(Input::Synced),
        4 => Just(Input::Applied),
        3 => Just(Input::Propose),
        1 => Just(Input::Campaign),
        1 => Just(Input::Read),
        1 => vec(change(), 0..3).prop_map(Input::Change),
        1 => replica().prop_map(Input::Transfer),
        2 => (replica(), 0..3_u8).prop_map(|(replica, how)| Input::Report(replica, how)),
        1 => Just(Input::Compact),
        1 => vec(entry(), 0..3).prop_map(Input::Loaded),
    ]
}

/// A replica that does what it is told, and what it handed out.
struct Driven {
    replica: Replica,
    unsynced: Vec<millrace_replica::ReadyNumber>,
    unapplied: Vec<LogIndex>,
}

impl Driven {
    fn new(voters: u64) -> Self {
        let recovered = match voters {
            0 => Recovered::default(),
            voters => {
                let founder = |n| (ReplicaId::new(n), NodeId::new(n));
                let members = Members::founders((1..=voters).map(founder)).unwrap();
                Recovered::founding(members).unwrap()
            }
        };
        Self {
            replica: Replica::open(options(ReplicaId::new(1)), recovered, 7).unwrap(),
            unsynced: Vec::new(),
            unapplied: Vec::new(),
        }
    }

    fn take(&mut self, input: Input) {
        let replica = &mut self.replica;
        match input {
            Input::Message(message) => {
                replica.step(message).ok();
            }
            Input::Ticks(count) => (0..count).for_each(|_| replica.tick()),
            Input::Ready => {
                if let Some(ready) = replica.ready() {
                    self.unsynced.extend(ready.write.map(|write| write.number));
                    let committed = ready.committed.iter().map(|entry| entry.index);
                    self.unapplied.extend(committed);
                }
            }
            Input::Synced => {
                if !self.unsynced.is_empty() {
                    replica.synced(self.unsynced.remove(0));
                }
            }
            Input::Applied => {
                if !self.unapplied.is_empty() {
                    replica.applied(self.unapplied.remove(0));
                }
            }
            Input::Propose => drop(replica.propose(vec![1].into(), vec![2; 100].into())),
            Input::Campaign => replica.campaign(),
            Input::Read => {
                replica.read_index(ReadToken(1)).ok();
            }
            Input::Change(changes) => {
                replica.change_members(&changes).ok();
            }
            Input::Transfer(to) => {
                replica.transfer_to(to).ok();
            }
            Input::Report(from, 0) => replica.unreachable(from),
            Input::Report(from, 1) => replica.snapshot_sent(from),
            Input::Report(from, _) => replica.snapshot_failed(from),
            Input::Compact => {
                if let Some(point) = replica.point() {
                    replica.compact(point.mark.index);
                    replica.snapshot_made(point);
                }
            }
            Input::Loaded(entries) => {
                let from = entries.first().map(|entry| entry.index).unwrap_or_default();
                replica.entries_loaded(from, entries).ok();
            }
        }
    }
}

proptest! {
    #[test]
    fn no_message_panics(voters in 0..4_u64, inputs in vec(input(), 1..120)) {
        let mut driven = Driven::new(voters);
        for input in inputs {
            driven.take(input);
        }
    }
}
