//! Tables of single decisions; what they add up to is in `world.rs`.

mod world;

use super::*;

fn set(addresses: &[&str]) -> BTreeSet<String> {
    addresses.iter().map(ToString::to_string).collect()
}

fn terms() -> Terms {
    Terms {
        cluster_id: None,
        shards: 4,
        replication: 3,
    }
}

/// The first of three.
fn own() -> Own {
    Own {
        node: NodeId::new(10),
        way: Way::Found(set(&["a:1", "b:1", "c:1"])),
        terms: terms(),
    }
}

fn empty(node: u64) -> Answer {
    let peers = set(&["a:1", "b:1", "c:1"]);
    let terms = terms();
    peer(node, PeerState::Empty { peers, terms })
}

fn peer(node: u64, state: PeerState) -> Answer {
    Answer::Peer(Peer {
        node: NodeId::new(node),
        address: String::new(),
        state,
    })
}

fn member(node: u64, founding: &Founding) -> Answer {
    let state = PeerState::Member {
        cluster_id: founding.cluster_id().into(),
        founding: Some(founding.clone()),
    };
    peer(node, state)
}

fn founding(cluster_id: &str, nodes: &[(u64, &str)]) -> Founding {
    let founder = |(node, peer): &(u64, &str)| Founder {
        node: NodeId::new(*node),
        peer: (*peer).into(),
    };
    let draft = FoundingDraft {
        cluster_id: cluster_id.into(),
        shards: 4,
        replication: 3,
        founders: nodes.iter().map(founder).collect(),
    };
    draft.try_into().unwrap()
}

fn answers(all: [(&str, Answer); 3]) -> BTreeMap<String, Answer> {
    let all = all.into_iter();
    all.map(|(address, answer)| (address.into(), answer))
        .collect()
}

fn all_empty() -> BTreeMap<String, Answer> {
    answers([("a:1", empty(10)), ("b:1", empty(20)), ("c:1", empty(30))])
}

fn with(address: &str, answer: Answer) -> BTreeMap<String, Answer> {
    let mut answers = all_empty();
    answers.insert(address.into(), answer);
    answers
}

fn waits(next: Next) -> Reason {
    match next {
        Next::Wait(reason) => reason,
        other => panic!("does not wait: {other:?}"),
    }
}

#[test]
fn the_lowest_node_makes_the_record_when_all_are_there_and_agree() {
    let Next::Bootstrap(record) = next(&own(), &all_empty()) else {
        panic!("everybody is there");
    };
    let expected = [(10, "a:1"), (20, "b:1"), (30, "c:1")];
    let id = Founding::cluster_id_of([10, 20, 30].map(NodeId::new));
    assert_eq!(record, founding(&id, &expected));
    let node = NodeId::new(20);
    let other = Own { node, ..own() };
    let founds = Reason::Founds {
        node: NodeId::new(10),
    };
    assert_eq!(waits(next(&other, &all_empty())), founds);

    let mut named = own();
    named.terms.cluster_id = Some("ours".into());
    let named_too = |node| {
        let (peers, terms) = (set(&["a:1", "b:1", "c:1"]), named.terms.clone());
        peer(node, PeerState::Empty { peers, terms })
    };
    let all = answers([
        ("a:1", named_too(10)),
        ("b:1", named_too(20)),
        ("c:1", named_too(30)),
    ]);
    let record = founding("ours", &expected);
    assert_eq!(next(&named, &all), Next::Bootstrap(record));
}

#[test]
fn whoever_is_not_there_or_wants_something_else_is_waited_for() {
    let silence = Answer::Silence("no such name".into());
    let missing = waits(next(&own(), &with("c:1", silence)));
    assert_eq!(
        missing.to_string(),
        "waits to be founded: 2 of 3 peers reachable; c:1: no such name"
    );
    let two = set(&["a:1", "b:1"]);
    let state = PeerState::Empty {
        peers: two.clone(),
        terms: terms(),
    };
    let other_peers = Reason::OtherPeers {
        address: "b:1".into(),
        peers: two,
    };
    assert_eq!(
        waits(next(&own(), &with("b:1", peer(20, state)))),
        other_peers
    );
    let mut more = terms();
    more.shards = 8;
    let state = PeerState::Empty {
        peers: set(&["a:1", "b:1", "c:1"]),
        terms: more,
    };
    let other = waits(next(&own(), &with("b:1", peer(20, state))));
    assert!(matches!(other, Reason::OtherTerms { .. }));
    let joins = waits(next(&own(), &with("c:1", peer(30, PeerState::Joining))));
    assert!(matches!(joins, Reason::OnlyJoins { .. }));
    // One node at two addresses, and this one at none.
    let twice = waits(next(&own(), &with("c:1", empty(20))));
    assert!(matches!(twice, Reason::Twice { .. }));
    let stranger = waits(next(&own(), &with("a:1", empty(5))));
    assert_eq!(
        stranger.to_string(),
        "waits to be founded: none of the --peers is this node, 10"
    );
}

#[test]
fn who_is_in_a_record_takes_it_and_who_is_not_joins() {
    let ours = founding("ours", &[(10, "a:1"), (20, "b:1"), (30, "c:1")]);
    let found = with("b:1", member(20, &ours));
    assert_eq!(next(&own(), &found), Next::Take(ours.clone()));
    // Its disk was wiped: another node now, whatever it was told.
    let node = NodeId::new(11);
    let wiped = Own { node, ..own() };
    let join = Next::Join {
        addresses: vec!["b:1".into()],
        founding: ours.clone(),
    };
    assert_eq!(next(&wiped, &found), join);
    // With two gone as well.
    let mut alone = found.clone();
    for address in ["a:1", "c:1"] {
        alone.insert(address.into(), Answer::Silence("refused".into()));
    }
    assert_eq!(next(&wiped, &alone), join);
    let joins = Own {
        way: Way::Join(set(&["b:1"])),
        ..wiped
    };
    assert_eq!(next(&joins, &alone), join);
    let in_it = Own {
        way: Way::Join(set(&["b:1"])),
        ..own()
    };
    assert_eq!(next(&in_it, &found), Next::Take(ours));
}

#[test]
fn of_two_clusters_none_is_taken() {
    let ours = founding("ours", &[(10, "a:1"), (20, "b:1"), (30, "c:1")]);
    let theirs = founding("theirs", &[(10, "a:1"), (20, "b:1"), (30, "c:1")]);
    let again = founding("ours", &[(10, "a:1"), (20, "b:1"), (40, "c:1")]);
    for other in [theirs, again] {
        let mut found = with("b:1", member(20, &ours));
        found.insert("c:1".into(), member(30, &other));
        let two = waits(next(&own(), &found));
        assert!(matches!(two, Reason::TwoClusters { .. }), "{two}");
    }
    let mut asked = own();
    asked.terms.cluster_id = Some("mine".into());
    let other = waits(next(&asked, &with("b:1", member(20, &ours))));
    assert!(matches!(other, Reason::OtherCluster { .. }));
    let state = PeerState::Member {
        cluster_id: "ours".into(),
        founding: None,
    };
    let nobody = waits(next(&own(), &with("b:1", peer(20, state))));
    assert!(matches!(nobody, Reason::NoRecord { .. }));
}

#[test]
fn who_was_told_of_nobody_to_found_with_waits() {
    let waiting = Own {
        way: Way::Join(set(&["a:1", "b:1", "c:1"])),
        ..own()
    };
    let reason = waits(next(&waiting, &all_empty()));
    assert_eq!(reason, Reason::NoCluster { reachable: 2 });
    let alone = Own {
        way: Way::Join(BTreeSet::new()),
        ..own()
    };
    let reason = waits(next(&alone, &BTreeMap::new()));
    assert_eq!(reason, Reason::NoCluster { reachable: 0 });
}
