//! Two replicas, and how much they have to say to each other.

use bytes::Bytes;
use millrace_replica::{Members, Message, Payload, Recovered, Replica, ReplicaOptions, Role};
use millrace_types::{LogIndex, NodeId, ReplicaId, ShardId};

/// A leader and its follower, with nothing on its way between them.
fn pair() -> [Replica; 2] {
    let members = || {
        let founder = |n| (ReplicaId::new(n), NodeId::new(n));
        Members::founders((1..=2).map(founder)).unwrap()
    };
    let mut pair = [1, 2].map(|id| {
        let recovered = Recovered::founding(members()).unwrap();
        let options = ReplicaOptions::new(ShardId::new(1), ReplicaId::new(id));
        Replica::open(options, recovered, id).unwrap()
    });
    pair[0].campaign();
    talk(&mut pair);
    assert_eq!(pair[0].status().role, Role::Leader);
    pair
}

/// What a replica says, when all it writes is synced and all it has to apply is applied.
fn says(replica: &mut Replica) -> Vec<Message> {
    let mut said = Vec::new();
    while let Some(ready) = replica.ready() {
        if let Some(write) = &ready.write {
            replica.synced(write.number);
        }
        if let Some(last) = ready.committed.last() {
            replica.applied(last.index);
        }
        said.extend(ready.messages);
    }
    said
}

/// Carries what they say until nobody says anything; how many messages that were.
fn talk(pair: &mut [Replica; 2]) -> usize {
    let mut count = 0;
    loop {
        let [ours, theirs] = &mut *pair;
        let (to_theirs, to_ours) = (says(ours), says(theirs));
        if to_theirs.is_empty() && to_ours.is_empty() {
            return count;
        }
        count += to_theirs.len() + to_ours.len();
        to_theirs.into_iter().for_each(|m| theirs.step(m).unwrap());
        to_ours.into_iter().for_each(|m| ours.step(m).unwrap());
    }
}

fn propose(replica: &mut Replica) -> LogIndex {
    let command = Bytes::from_static(b"h");
    replica.propose(command, Bytes::new()).unwrap().1
}

#[test]
fn a_commit_travels_with_the_entries_that_leave_at_the_same_time() {
    let mut pair = pair();
    let first = propose(&mut pair[0]);
    let [leader, follower] = &mut pair;
    says(leader)
        .into_iter()
        .for_each(|m| follower.step(m).unwrap());
    says(follower)
        .into_iter()
        .for_each(|m| leader.step(m).unwrap());
    assert_eq!(leader.committed(), first);

    propose(leader);

    let said = says(leader);
    let [Message { payload, .. }] = &said[..] else {
        panic!("one message, not {said:?}");
    };
    let Payload::Append {
        commit, entries, ..
    } = payload
    else {
        panic!("entries, not {payload:?}");
    };
    assert_eq!((*commit, entries.len()), (first, 1));
}

#[test]
fn a_commit_is_told_at_once_when_there_is_nothing_to_send_with_it() {
    let mut pair = pair();
    let place = propose(&mut pair[0]);

    // Entry and acceptance, commit and acceptance.
    assert_eq!(talk(&mut pair), 4);

    assert_eq!(pair[1].applied_to(), place);
    assert_eq!(talk(&mut pair), 0);
}
