//! Stories of whole clusters.

use super::*;

fn no_zone(_: u64) -> String {
    String::new()
}

/// Three zones, in turn.
fn three_zones(n: u64) -> String {
    format!("zone-{}", n % 3)
}

#[test]
fn a_node_alone_needs_nothing() {
    let mut world = World::alone(4);
    assert!(world.plan());
    assert!(world.steer());
    assert_eq!(world.voters(0), [1]);
}

#[test]
fn three_nodes_have_everything_and_lead_alike() {
    let world = World::of(6, 3, no_zone);
    for shard in 0..=6 {
        assert_eq!(world.voters(shard), [1, 2, 3]);
    }
    let mut leads = BTreeMap::new();
    for shard in 0..=6 {
        *leads.entry(world.leader(shard)).or_insert(0) += 1;
    }
    assert!(
        leads.values().all(|count| (2..=3).contains(count)),
        "{leads:?}"
    );
}

#[test]
fn everybody_has_the_catalogue_and_an_odd_number_votes_on_it() {
    for (nodes, voters) in [(1, 1), (2, 1), (3, 3), (4, 3), (5, 5), (7, 5)] {
        let world = World::of(2, nodes, no_zone);
        assert_eq!(world.places(0).len() as u64, nodes);
        assert_eq!(world.voters(0).len(), voters, "of {nodes} nodes");
    }
}

#[test]
fn replicas_are_spread_over_zones_then_over_nodes() {
    let world = World::of(12, 6, three_zones);
    for shard in world.data() {
        let zones: BTreeSet<u64> = world.voters(shard).iter().map(|n| n % 3).collect();
        assert_eq!(zones.len(), 3, "shard {shard}: {:?}", world.voters(shard));
    }
    let loads = world.loads();
    assert!(
        loads.values().all(|load| (5..=7).contains(load)),
        "{loads:?}"
    );
}

#[test]
fn a_fourth_node_takes_its_share_and_no_more_moves_than_that() {
    let mut world = World::of(8, 3, no_zone);
    let before: Vec<Vec<u64>> = (1..=8).map(|shard| world.voters(shard)).collect();
    world.register(4, 4, "");
    world.settle();
    assert_eq!(
        world.loads(),
        BTreeMap::from([(1, 6), (2, 6), (3, 6), (4, 6)])
    );
    let stayed = |(shard, before): (u32, &Vec<u64>)| {
        let now = world.voters(shard);
        before.iter().filter(|node| now.contains(node)).count()
    };
    let stayed: usize = (1..).zip(&before).map(stayed).sum();
    assert_eq!(stayed, 24 - 6);
}

#[test]
fn three_nodes_become_one_when_two_are_cordoned() {
    let mut world = World::of(4, 3, no_zone);
    for n in [2, 3] {
        assert!(world.apply(RosterCommand::CordonNode { node: node(n) }));
    }
    world.settle();
    for shard in 0..=4 {
        assert_eq!(world.voters(shard), [1]);
        assert_eq!(world.places(shard).len(), 1);
    }
    for n in [2, 3] {
        assert!(world.apply(RosterCommand::ForgetNode { node: node(n) }));
    }
    assert!(world.plan());
}

#[test]
fn a_wiped_nodes_replicas_go_to_the_node_that_has_its_address() {
    let mut world = World::of(4, 3, no_zone);
    world.down.insert(node(2));
    world.register(12, 2, "");
    world.settle();
    for shard in 0..=4 {
        assert_eq!(world.voters(shard), [1, 3, 12]);
    }
    assert!(world.roster().node(node(2)).is_none(), "it is forgotten");
}

#[test]
fn a_damaged_replica_is_replaced_where_it_is_under_another_id() {
    let mut world = World::of(4, 3, no_zone);
    let shard = ShardId::new(2);
    let damaged = world.roster().wanted(shard, node(3)).unwrap();
    world.lose(3, shard);
    world.settle();
    assert_eq!(world.voters(2), [1, 2, 3]);
    assert_ne!(world.roster().wanted(shard, node(3)), Some(damaged));
    assert!(world.roster().is_gone(shard, damaged));
}

#[test]
fn who_alone_had_a_shard_and_lost_it_keeps_its_place() {
    let mut world = World::alone(2);
    world.lose(1, ShardId::new(1));
    assert!(world.plan());
    world.register(2, 2, "");
    let plan = plan(world.roster());
    let damaged = world.roster().wanted(ShardId::new(1), node(1));
    for command in plan {
        if let RosterCommand::Place {
            shard, replicas, ..
        } = command
            && shard == ShardId::new(1)
        {
            assert!(replicas.iter().any(|wish| wish.replica == damaged));
        }
    }
}

#[test]
fn few_shards_move_at_a_time() {
    let mut world = World::alone(20);
    for n in [2, 3] {
        world.register(n, n, "");
    }
    world.plan();
    let moving = world.roster().shards();
    let moving = moving.filter(|(id, it)| id.get() > 0 && !it.is_converged());
    assert_eq!(moving.count(), 4);
    world.settle();
    assert!((1..=20).all(|shard| world.voters(shard).len() == 3));
}

#[test]
fn a_drained_node_leads_nothing_until_it_may_again() {
    let mut world = World::of(6, 3, no_zone);
    let led = |world: &World| (0..=6).filter(|s| world.leader(*s) == 2).count();
    let before = led(&world);
    assert!(before > 0);
    world.apply(RosterCommand::DrainNode { node: node(2) });
    world.settle();
    assert_eq!(led(&world), 0);
    assert!((0..=6).all(|shard| world.voters(shard) == [1, 2, 3]));
    world.apply(RosterCommand::UndrainNode { node: node(2) });
    world.settle();
    assert_eq!(led(&world), before);
}

#[test]
fn a_node_that_goes_before_its_replicas_arrived_holds_nothing_up() {
    let mut world = World::of(4, 3, no_zone);
    world.down.insert(node(4));
    world.register(4, 4, "");
    for _ in 0..20 {
        world.plan();
        world.steer();
    }
    world.apply(RosterCommand::CordonNode { node: node(4) });
    world.settle();
    for shard in world.data() {
        assert_eq!(world.voters(shard), [1, 2, 3]);
    }
    assert!(!world.roster().is_in_use(node(4)));
}

#[test]
fn a_shard_that_is_asked_for_begins_with_all_replicas_and_keeps_their_number() {
    let mut world = World::of(2, 5, three_zones);
    for replication in [1, 5, 1] {
        world.ask(replication);
    }
    world.plan();
    let sizes = |world: &World| [3, 4, 5].map(|shard| world.voters(shard).len());
    assert_eq!(sizes(&world), [1, 5, 1]);
    assert_ne!(world.voters(3), world.voters(5));
    world.settle();
    world.apply(RosterCommand::SetReplication { replication: 2 });
    world.settle();
    assert_eq!(sizes(&world), [1, 5, 1]);
    assert_eq!(world.voters(1).len(), 2);
}

#[test]
fn a_shard_begins_smaller_where_nodes_are_missing_and_grows_with_them() {
    let mut world = World::of(2, 2, no_zone);
    world.ask(3);
    world.settle();
    assert_eq!(world.voters(3), [1, 2]);
    world.register(3, 3, "");
    world.settle();
    assert_eq!(world.voters(3), [1, 2, 3]);
}
