//! Nodes that ask each other, one question at a time, and act on what they were told a while ago;
//! that die at any point, are not known by name yet, and lose their disks.

use super::*;

const NODES: usize = 3;
/// A fair world needs far fewer.
const STEPS: u32 = 400;

/// A node, its disk, and how far its process has come with what it does.
#[derive(Clone, Debug)]
struct Place {
    node: NodeId,
    record: Option<Founding>,
    joined: Option<Founding>,
    doing: Doing,
}

/// What a process does, a step at a time.
#[derive(Clone, Debug)]
enum Doing {
    /// It does not run.
    Dead,
    /// It asks one after the other.
    Asking(BTreeMap<String, Answer>),
    /// It sends a record to one after the other, in the order of their addresses.
    Sending(Founding, usize),
}

/// What may go wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Wipes {
    /// A disk is lost once the cluster runs.
    Later,
    /// A disk is lost at any time.
    Anytime,
}

struct World {
    places: Vec<Place>,
    /// Whose names are known.
    named: [bool; NODES],
    seed: u64,
    ids: u64,
    wipes_left: u32,
    wipes: Wipes,
    /// The operator's record, once it is written down, and how far it was sent; it may die.
    operator: Option<(Option<Founding>, usize)>,
}

fn address(place: usize) -> String {
    format!("{}:1", ["a", "b", "c"][place])
}

impl World {
    fn new(seed: u64, wipes: Wipes, has_operator: bool) -> Self {
        let mut world = Self {
            places: Vec::new(),
            named: [false; NODES],
            seed,
            ids: 0,
            wipes_left: 1,
            wipes,
            operator: has_operator.then_some((None, 0)),
        };
        for _ in 0..NODES {
            let node = world.mint();
            world.places.push(Place {
                node,
                record: None,
                joined: None,
                doing: Doing::Dead,
            });
        }
        world
    }

    fn draw(&mut self, below: u64) -> u64 {
        self.seed = self
            .seed
            .wrapping_mul(0x5851_f42d_4c95_7f2d)
            .wrapping_add(1);
        (self.seed >> 33) % below
    }

    fn place(&mut self) -> usize {
        usize::try_from(self.draw(NODES as u64)).unwrap()
    }

    /// Ids come in any order.
    fn mint(&mut self) -> NodeId {
        self.ids += 1;
        let high = self.draw(1000);
        NodeId::new(high * 100 + self.ids)
    }

    fn own(&self, place: usize) -> Own {
        let all = (0..NODES).map(address).collect();
        Own {
            node: self.places[place].node,
            way: match self.operator {
                None => Way::Found(all),
                Some(_) => Way::Join(all),
            },
            terms: terms(),
        }
    }

    /// What a place answers now.
    fn ask(&self, place: usize) -> Answer {
        let Place {
            node,
            record,
            joined,
            doing,
        } = &self.places[place];
        if !self.named[place] {
            return Answer::Silence("no such name".into());
        }
        if matches!(doing, Doing::Dead) {
            return Answer::Silence("refused".into());
        }
        let own = self.own(place);
        let state = match (record.as_ref().or(joined.as_ref()), own.way) {
            (Some(founding), _) => PeerState::Member {
                cluster_id: founding.cluster_id().into(),
                founding: Some(founding.clone()),
            },
            (None, Way::Found(peers)) => PeerState::Empty {
                peers,
                terms: own.terms,
            },
            (None, Way::Join(_)) => PeerState::Joining,
        };
        Answer::Peer(Peer {
            node: *node,
            address: address(place),
            state,
        })
    }

    /// A record reaches a place; whether it is taken.
    fn bootstrap(&mut self, place: usize, record: &Founding) -> bool {
        let is_up = self.named[place] && !matches!(self.places[place].doing, Doing::Dead);
        let at = &mut self.places[place];
        match &at.record {
            Some(known) => known.is_same(record),
            None if is_up && at.joined.is_none() && record.is_founder(at.node) => {
                at.record = Some(record.clone());
                true
            }
            None => false,
        }
    }

    /// One place goes on by one step.
    fn go_on(&mut self, place: usize) {
        let at = &self.places[place];
        let is_member = at.record.is_some() || at.joined.is_some();
        self.places[place].doing = match at.doing.clone() {
            Doing::Dead => Doing::Asking(BTreeMap::new()),
            doing if is_member => doing,
            Doing::Asking(mut answers) if answers.len() < NODES => {
                let next = answers.len();
                answers.insert(address(next), self.ask(next));
                Doing::Asking(answers)
            }
            Doing::Asking(answers) => self.act(place, next(&self.own(place), &answers)),
            Doing::Sending(record, sent) => {
                let mut founders: Vec<&Founder> = record.founders().iter().collect();
                founders.sort_by(|one, other| one.peer.cmp(&other.peer));
                let to = founders.get(sent);
                let to = to.and_then(|to| (0..NODES).find(|place| address(*place) == to.peer));
                match to {
                    Some(to) if self.bootstrap(to, &record) => Doing::Sending(record, sent + 1),
                    _ => Doing::Asking(BTreeMap::new()),
                }
            }
        };
    }

    fn act(&mut self, place: usize, next: Next) -> Doing {
        match next {
            Next::Wait(_) => {}
            Next::Bootstrap(record) => return Doing::Sending(record, 0),
            Next::Take(record) => self.places[place].record = Some(record),
            Next::Join { founding, .. } => {
                // Only a cluster that runs can take anybody.
                if self.holders(&founding) * 2 > founding.founders().len() {
                    self.places[place].joined = Some(founding);
                }
            }
        }
        Doing::Asking(BTreeMap::new())
    }

    fn holders(&self, founding: &Founding) -> usize {
        let holds = |place: &&Place| {
            let record = place.record.as_ref();
            record.is_some_and(|record| record.is_same(founding))
        };
        self.places.iter().filter(holds).count()
    }

    /// The operator writes its record down when it has seen everybody, and sends it, again and
    /// again.
    fn operate(&mut self) {
        let Some((record, sent)) = self.operator.clone() else {
            return;
        };
        let Some(record) = record else {
            let answers: Vec<Answer> = (0..NODES).map(|place| self.ask(place)).collect();
            let founder = |(place, answer): (usize, &Answer)| match answer {
                Answer::Peer(peer) => Some((peer.node.get(), address(place))),
                Answer::Silence(_) => None,
            };
            let founders: Option<Vec<_>> = answers.iter().enumerate().map(founder).collect();
            if let Some(founders) = founders {
                let founders: Vec<_> = founders.iter().map(|(id, at)| (*id, &**at)).collect();
                self.operator = Some((Some(founding("ours", &founders)), 0));
            }
            return;
        };
        self.bootstrap(sent % NODES, &record);
        self.operator = Some((Some(record), sent + 1));
    }

    fn disturb(&mut self) {
        let place = self.place();
        match self.draw(6) {
            0 => self.named[place] = true,
            1 => self.named[place] = false,
            2 | 3 => self.places[place].doing = Doing::Dead,
            4 => {
                if let Some((_, sent)) = &mut self.operator {
                    // It was killed, and begins again with what it wrote down.
                    *sent = 0;
                }
            }
            _ => {
                let founded = self.places[place].record.is_some()
                    && self.places.iter().all(|place| place.record.is_some());
                if self.wipes_left > 0 && (self.wipes == Wipes::Anytime || founded) {
                    self.wipes_left -= 1;
                    let node = self.mint();
                    self.places[place] = Place {
                        node,
                        record: None,
                        joined: None,
                        doing: Doing::Dead,
                    };
                }
            }
        }
    }

    fn run(&mut self) {
        for _ in 0..STEPS {
            if self.draw(4) == 0 {
                self.disturb();
            }
            if self.draw(3) == 0 {
                self.operate();
            }
            let place = self.place();
            self.go_on(place);
            self.check();
        }
        self.named = [true; NODES];
        for _ in 0..STEPS {
            self.operate();
            let place = self.place();
            self.go_on(place);
            self.check();
        }
    }

    /// No two clusters could ever serve.
    fn check(&self) {
        let records = self.places.iter().filter_map(|place| place.record.as_ref());
        let serves = |record: &&Founding| self.holders(record) * 2 > record.founders().len();
        let mut serving: Vec<&Founding> = records.filter(serves).collect();
        serving.dedup_by(|one, other| one.is_same(other));
        assert!(serving.len() <= 1, "two clusters: {serving:?}");
    }

    /// Everybody is of the same cluster.
    fn check_done(&self) {
        let of = |place: &Place| {
            let founding = place.record.as_ref().or(place.joined.as_ref());
            founding.map_or("none", Founding::cluster_id).to_owned()
        };
        let clusters: BTreeSet<String> = self.places.iter().map(of).collect();
        assert!(
            clusters.len() == 1 && !clusters.contains("none"),
            "{:?}",
            self.places
        );
    }
}

#[test]
fn one_cluster_comes_to_be_whoever_dies_and_a_disk_that_is_lost_comes_back_as_a_new_node() {
    for seed in 0..500 {
        for has_operator in [false, true] {
            let mut world = World::new(seed, Wipes::Later, has_operator);
            world.run();
            world.check_done();
        }
    }
}

#[test]
fn two_clusters_never_come_to_be_not_even_if_a_disk_is_lost_while_they_agree() {
    for seed in 0..500 {
        World::new(seed, Wipes::Anytime, false).run();
    }
}
