//! Single replicas: what they promise to the disk, and what they refuse.

use bytes::Bytes;
use millrace_replica::{
    Change, ChangeError, Entry, EntryKind, HardState, LoadError, Mark, Members, OpenError, Payload,
    ProposeError, Ready, Recovered, Replica, ReplicaOptions, Role,
};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId, Term};

const ME: ReplicaId = ReplicaId::new(1);

fn founded(voters: u64) -> Recovered {
    let founder = |n| (ReplicaId::new(n), NodeId::new(n));
    Recovered::founding(Members::founders((1..=voters).map(founder)).unwrap()).unwrap()
}

fn open(recovered: Recovered) -> Result<Replica, OpenError> {
    Replica::open(ReplicaOptions::new(ShardId::new(1), ME), recovered, 7)
}

/// Does everything at once; what came out on the way.
fn run(replica: &mut Replica) -> Vec<Ready> {
    let mut all = Vec::new();
    while let Some(ready) = replica.ready() {
        if let Some(write) = &ready.write {
            replica.synced(write.number);
        }
        if let Some(last) = ready.committed.last() {
            replica.applied(last.index);
        }
        all.push(ready);
    }
    all
}

fn propose(replica: &mut Replica) -> Result<(Term, LogIndex), ProposeError> {
    replica.propose(Bytes::from_static(b"h"), Bytes::from_static(b"b"))
}

fn entry(index: u64, term: u64) -> Entry {
    Entry {
        term: Term::new(term),
        index: LogIndex::new(index),
        kind: EntryKind::Command,
        header: Bytes::from_static(b"h"),
        body: Bytes::new(),
    }
}

#[test]
fn a_lone_voter_leads_at_once_and_a_command_costs_one_write() {
    let mut replica = open(founded(1)).unwrap();
    assert_eq!(replica.status().role, Role::Leader);

    let place = propose(&mut replica).unwrap();
    assert_eq!(place, (Term::new(2), LogIndex::new(3)));
    // Term, vote, its own first entry and the command: one append.
    let first = replica.ready().unwrap();
    let write = first.write.unwrap();
    assert_eq!(write.entries.len(), 2);
    assert!(write.hard_state.is_some() && first.committed.is_empty());
    replica.synced(write.number);
    let second = replica.ready().unwrap();
    assert_eq!((second.write, second.committed.len()), (None, 2));
    replica.applied(LogIndex::new(3));
    assert_eq!(replica.ready(), None);

    propose(&mut replica).unwrap();
    let writes = run(&mut replica)
        .into_iter()
        .filter_map(|ready| ready.write);
    assert_eq!(writes.count(), 1);
    // A tick of a quiet shard is nothing.
    replica.tick();
    assert_eq!(replica.ready(), None);
}

#[test]
fn a_lone_voter_sends_nothing_of_a_term_that_is_not_synced() {
    let mut replica = open(founded(1)).unwrap();
    run(&mut replica);
    let (learner, node) = (ReplicaId::new(2), NodeId::new(2));
    let add = Change::Add {
        replica: learner,
        node,
    };
    replica.change_members(&[add]).unwrap();
    run(&mut replica);

    // The same again from the disk, as if after a crash.
    let point = replica.point().unwrap();
    let applied = point.mark.index;
    let recovered = Recovered {
        point,
        applied,
        ..Recovered::default()
    };
    let mut replica = open(recovered).unwrap();
    let first = replica.ready().unwrap();
    assert_eq!(first.messages, []);
    replica.synced(first.write.unwrap().number);
    let second = replica.ready().unwrap();
    let term = replica.status().term;
    assert!(second.messages.iter().all(|message| message.term == term));
    assert!(!second.messages.is_empty());
}

#[test]
fn what_cannot_have_been_written_is_not_opened() {
    let with = |entries: Vec<Entry>| Recovered {
        entries,
        ..founded(1)
    };
    let gap = open(with(vec![entry(2, 1), entry(4, 1)]));
    assert!(matches!(gap, Err(OpenError::Gap { .. })));
    let back = open(with(vec![entry(2, 3), entry(3, 2)]));
    assert!(matches!(back, Err(OpenError::TermBack { .. })));
    let lost = open(Recovered {
        hard_state: Some(HardState {
            term: Term::new(3),
            vote: None,
            commit: LogIndex::new(9),
        }),
        ..with(vec![entry(2, 3)])
    });
    assert!(matches!(lost, Err(OpenError::Commit { .. })));
    let ahead = open(Recovered {
        applied: LogIndex::new(5),
        ..with(vec![entry(2, 3)])
    });
    assert!(matches!(ahead, Err(OpenError::Applied { .. })));
}

#[test]
fn a_term_that_a_crash_took_from_behind_its_entries_is_theirs() {
    let replica = open(Recovered {
        hard_state: Some(HardState {
            term: Term::new(2),
            vote: Some(ME),
            commit: LogIndex::new(1),
        }),
        entries: vec![entry(2, 4)],
        ..founded(3)
    });
    assert_eq!(replica.unwrap().status().term, Term::new(4));
}

#[test]
fn members_change_one_at_a_time_and_an_id_is_used_once() {
    let mut replica = open(founded(1)).unwrap();
    let id = ReplicaId::new;
    let add = |replica, node| Change::Add {
        replica: id(replica),
        node: NodeId::new(node),
    };
    // Not before its own first entry is applied.
    run(&mut replica);
    let refused = |replica: &mut Replica, change| replica.change_members(&[change]).unwrap_err();
    let taken = ChangeError::NodeTaken {
        node: NodeId::new(1),
    };
    assert_eq!(refused(&mut replica, add(2, 1)), taken);
    let used = |replica| ChangeError::IdUsed { replica };
    assert_eq!(refused(&mut replica, add(1, 2)), used(id(1)));
    let alone = Change::Remove { replica: id(1) };
    assert_eq!(refused(&mut replica, alone), ChangeError::NoVoterLeft);

    replica.change_members(&[add(2, 2)]).unwrap();
    assert_eq!(refused(&mut replica, add(3, 3)), ChangeError::Pending);
    run(&mut replica);
    assert!(replica.members().find(id(2)).is_some());

    let gone = Change::Remove { replica: id(2) };
    replica.change_members(&[gone]).unwrap();
    run(&mut replica);
    assert!(replica.members().find(id(2)).is_none());
    assert_eq!(refused(&mut replica, add(2, 2)), used(id(2)));
}

#[test]
fn a_command_that_cannot_be_taken_is_refused() {
    let mut follower = open(founded(3)).unwrap();
    let refused = propose(&mut follower);
    assert!(matches!(refused, Err(ProposeError::NotLeader(_))));

    let options = ReplicaOptions {
        unapplied_bytes_max: 1_000,
        entry_bytes_max: 600,
        ..ReplicaOptions::new(ShardId::new(1), ME)
    };
    let mut replica = Replica::open(options, founded(1), 7).unwrap();
    run(&mut replica);
    let body = |bytes: usize| Bytes::from(vec![0; bytes]);
    let mut with = |header: &'static [u8], bytes| {
        let header = Bytes::from_static(header);
        replica.propose(header, body(bytes)).map(|_| ())
    };
    assert_eq!(with(b"", 1), Err(ProposeError::NoHeader));
    assert!(matches!(
        with(b"h", 600),
        Err(ProposeError::TooLarge { max: 600, .. })
    ));
    assert_eq!(with(b"h", 500), Ok(()));
    assert!(matches!(with(b"h", 500), Err(ProposeError::Full { .. })));
}

#[test]
fn loaded_entries_must_be_those_of_the_log() {
    let mut replica = open(founded(1)).unwrap();
    run(&mut replica);
    let index = LogIndex::new(2);
    let other = replica.entries_loaded(index, vec![entry(2, 9)]);
    assert_eq!(other, Err(LoadError::Other { index }));
}

#[test]
fn a_vote_is_told_when_it_is_synced() {
    let mut replica = open(founded(3)).unwrap();
    let payload = Payload::Vote {
        stage: millrace_replica::Stage::Real,
        last: Mark::new(1, 1),
        commit: Mark::new(1, 1),
    };
    let from = ReplicaId::new(2);
    let term = Term::new(2);
    let vote = millrace_replica::Message {
        from,
        to: ME,
        term,
        payload,
    };
    replica.step(vote).unwrap();
    let first = replica.ready().unwrap();
    let write = first.write.unwrap();
    assert_eq!(first.messages, []);
    assert_eq!(write.hard_state.unwrap().vote, Some(from));
    replica.synced(write.number);
    assert_eq!(replica.ready().unwrap().messages.len(), 1);
}
