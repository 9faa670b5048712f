//! Whatever happens to nodes, plans come to an end, and everything is where it belongs then.

use proptest::prelude::*;

use super::*;

/// Something that happens to a cluster.
#[derive(Clone, Debug)]
enum Event {
    /// A node registers, perhaps for the first time, at its own address.
    Register(u64, u64),
    /// A new node comes up at the address of another one, whose disk is gone.
    Wipe(u64),
    Cordon(u64),
    Uncordon(u64),
    Drain(u64),
    Undrain(u64),
    Lose(u64, u32),
    Replication(u32),
    /// Somebody declares what asks for another replication.
    Ask(u32),
    /// So many rounds pass.
    Rounds(usize),
}

fn any_event() -> impl Strategy<Value = Event> {
    let n = 1_u64..8;
    prop_oneof![
        4 => (n.clone(), 0_u64..3).prop_map(|(n, zone)| Event::Register(n, zone)),
        2 => n.clone().prop_map(Event::Wipe),
        2 => n.clone().prop_map(Event::Cordon),
        1 => n.clone().prop_map(Event::Uncordon),
        1 => n.clone().prop_map(Event::Drain),
        1 => n.clone().prop_map(Event::Undrain),
        1 => (1_u32..6).prop_map(Event::Ask),
        2 => (n, 0_u32..9).prop_map(|(n, shard)| Event::Lose(n, shard)),
        1 => (1_u32..6).prop_map(Event::Replication),
        4 => (0_usize..30).prop_map(Event::Rounds),
    ]
}

impl World {
    /// Whether all shards could go on without a node's disk.
    fn can_lose(&self, n: NodeId) -> bool {
        self.shards.iter().all(|(shard, group)| {
            let works = |m: &&Member| {
                let known = self.roster().node(m.node);
                let lost = known.and_then(|known| known.lost.get(shard));
                m.node != n && !self.down.contains(&m.node) && lost != Some(&m.replica)
            };
            let able = group.voters().filter(works).count();
            // A learner among them might be needed, too, and is not counted.
            able > group.voters().count() / 2
        })
    }

    fn may_lose(&self, n: u64) -> bool {
        !self.down.contains(&node(n)) && self.can_lose(node(n))
    }

    fn happen(&mut self, event: &Event) {
        match *event {
            Event::Register(n, zone) if !self.down.contains(&node(n)) => {
                self.register(n, n, &format!("zone-{zone}"));
            }
            Event::Wipe(at) if self.can_lose(self.at(at)) => {
                let new = 1_000 + self.index;
                self.down.insert(self.at(at));
                self.register(new, at, "zone-0");
            }
            Event::Lose(n, shard) if self.may_lose(n) => self.lose(n, ShardId::new(shard)),
            Event::Cordon(n) => drop(self.apply(RosterCommand::CordonNode { node: node(n) })),
            Event::Uncordon(n) => drop(self.apply(RosterCommand::UncordonNode { node: node(n) })),
            Event::Drain(n) => drop(self.apply(RosterCommand::DrainNode { node: node(n) })),
            Event::Undrain(n) => drop(self.apply(RosterCommand::UndrainNode { node: node(n) })),
            Event::Replication(replication) => {
                self.apply(RosterCommand::SetReplication { replication });
            }
            Event::Ask(replication) => self.ask(replication),
            Event::Rounds(rounds) => {
                for _ in 0..rounds {
                    self.plan();
                    self.steer();
                }
            }
            Event::Register(..) | Event::Wipe(..) | Event::Lose(..) => {}
        }
    }

    /// Who has the address of a node now.
    fn at(&self, n: u64) -> NodeId {
        let address = facts(n, "").peer_address;
        let mut nodes = self.roster().nodes();
        let there =
            nodes.find(|(_, it)| it.facts.peer_address == address && it.hosting == Hosting::Open);
        there.map_or(node(n), |(id, _)| id)
    }

    fn check_rest(&self) {
        let roster = self.roster();
        let open: BTreeMap<u64, &KnownNode> = roster
            .nodes()
            .filter(|(_, known)| known.hosting == Hosting::Open)
            .map(|(id, known)| (id.get(), known))
            .collect();
        for shard in self.data() {
            let class = roster.shard(ShardId::new(shard)).unwrap().class();
            let size = class.replication.unwrap_or(roster.replication());
            let size = (size as usize).min(open.len());
            let voters = self.voters(shard);
            assert_eq!(voters.len(), size, "shard {shard}: {voters:?}");
            assert!(voters.iter().all(|n| open.contains_key(n)));
            let mut zones: BTreeMap<&str, usize> = BTreeMap::new();
            for n in &voters {
                *zones.entry(&open[n].facts.zone).or_default() += 1;
            }
            let free = open.iter().filter(|(n, _)| !voters.contains(n));
            for (n, known) in free {
                let crowd = zones.get(&*known.facts.zone).copied().unwrap_or(0);
                let worst = zones.values().max().unwrap();
                assert!(*worst <= crowd + 1, "shard {shard} is better off on {n}");
            }
        }
        let everywhere: Vec<u64> = self.places(0).into_keys().collect();
        assert_eq!(everywhere, open.keys().copied().collect::<Vec<u64>>());
        let voters = match open.len() {
            0..3 => 1,
            3..5 => 3,
            _ => 5,
        };
        assert_eq!(self.voters(0).len(), voters);
        for (shard, replicas) in roster.shards() {
            assert!(replicas.is_converged() && !replicas.is_unborn());
            let leader = self.leader(shard.get());
            let may = open.get(&leader).is_some_and(|known| known.may_lead());
            let any = self.voters(shard.get());
            let any = any.iter().any(|n| open[n].may_lead());
            assert!(may || !any, "shard {shard} is led by {leader}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn everything_comes_to_be_where_it_belongs(
        nodes in 3_u64..6,
        events in prop::collection::vec(any_event(), 0..30),
    ) {
        let mut world = World::of(5, nodes, |n| format!("zone-{}", n % 3));
        world.check_rest();
        for event in &events {
            world.happen(event);
        }
        world.settle();
        world.check_rest();
        prop_assert!(plan(world.roster()).is_empty());
    }
}
