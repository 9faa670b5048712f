//! Several nodes: what is between them, and which steps are about which of them. Some seeds have
//! them; the others are as they were before there were any, so that seeds that once failed still
//! do what they did.

use std::ops::Range;

use super::{NodeShape, Plan, Step, script};
use crate::clock::{DRIFT_PERCENT_MAX, Drift};
use crate::random::{Random, mix};

/// Decides which seeds have several nodes; chosen so that none has of those that `seeds.txt` had
/// before there were any.
const SALT: u64 = 7_200;
/// Decides what is lost in them.
const SALT_OF_LOSSES: u64 = 7_201;
/// Seeds of a hundred that have several nodes.
const CLUSTERS: Range<u64> = 0..20;
/// Steps at most: more time passes, and more happens, with each of them than with one node.
const STEPS_MAX: usize = 160;
/// A machine's time of day is off by so much at most.
const AHEAD_MS_MAX: u64 = 5_000;

/// The nodes of a world.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How the clock of each is off.
    pub drifts: Vec<Drift>,
    /// When each of them hears that it founds a cluster, and what becomes of it then.
    pub found: Vec<Found>,
    /// What the network is like while faults last.
    pub weather: Weather,
}

/// How a founder begins: the record reaches some earlier than others, and is sent again to those
/// that died over it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Found {
    /// After this time; the cluster may be at work by then.
    pub after_ms: u64,
    /// It dies inside the operation of its disk that comes after so many.
    pub dies_after: Option<u64>,
}

impl Cluster {
    /// One node, which has nobody to talk to.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            drifts: vec![Drift::default()],
            found: vec![Found::default()],
            weather: Weather::CALM,
        }
    }
}

/// What a network does to what it carries.
#[derive(Clone, Copy, Debug)]
pub struct Weather {
    /// How long most of it takes at most.
    pub micros_max: u64,
    /// So many of a hundred take longer,
    pub late_percent: u64,
    /// by so much at most.
    pub late_ms_max: u64,
    /// So many of a hundred never arrive,
    pub lost_percent: u64,
    /// and so many twice.
    pub twice_percent: u64,
    /// Of stretches of snapshots, so many of a hundred arrive with a bit that was another one.
    pub flipped_percent: u64,
    /// Whether what comes later waits for what is late.
    pub in_order: bool,
}

impl Weather {
    /// Nothing goes wrong.
    pub const CALM: Self = Self {
        micros_max: 500,
        late_percent: 0,
        late_ms_max: 1,
        lost_percent: 0,
        twice_percent: 0,
        flipped_percent: 0,
        in_order: true,
    };
}

/// A node that a step means.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Who {
    /// This one.
    Node(usize),
    /// Whoever leads this shard when the step comes.
    LeaderOf(u32),
    /// Whoever leads the shard of a queue or of a topic's first partition, by its place,
    LeaderOfObject(usize),
    /// and whoever led it before that one.
    FormerLeaderOfObject(usize),
}

/// What somebody asks of a cluster who steers it. What is not possible is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Steer {
    /// A node hands over what it leads, and leads no more.
    Drain(Who),
    /// It may lead again.
    Undrain(Who),
    /// A node loses all its replicas.
    Cordon(Who),
    /// It may have some again.
    Uncordon(Who),
    /// A shard is to be led by a node.
    Transfer(u32, usize),
    /// A replica of a shard goes from one node to another.
    Move(u32, Who, usize),
    /// So many replicas of a data shard vote.
    Replication(u32),
}

/// Links that let nothing through for a while.
#[derive(Clone, Copy, Debug)]
pub struct Cut {
    /// Which.
    pub between: Between,
    /// In which direction.
    pub way: Way,
    /// How long.
    pub millis: u64,
}

/// Where a network is cut.
#[derive(Clone, Copy, Debug)]
pub enum Between {
    /// One node and another.
    Two(usize, usize),
    /// One node and all others.
    Around(Who),
    /// Those whose bit is set and the others.
    Halves(u64),
}

/// In which direction nothing goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Neither.
    Both,
    /// Nothing leaves the first.
    Out,
    /// Nothing reaches the first.
    In,
}

impl Cut {
    /// Whether it lets nothing through from one node to another.
    pub(crate) fn concerns(&self, from: usize, to: usize) -> bool {
        let leaves = |from: usize, to: usize| match self.between {
            Between::Two(one, other) => (from, to) == (one, other),
            Between::Around(Who::Node(node)) => from == node && to != node,
            Between::Around(_) => false,
            Between::Halves(mask) => mask >> from & 1 == 1 && mask >> to & 1 == 0,
        };
        (self.way != Way::In && leaves(from, to)) || (self.way != Way::Out && leaves(to, from))
    }
}

/// Whether a seed has several nodes.
pub(super) fn has_several_nodes(seed: u64) -> bool {
    CLUSTERS.contains(&(mix(seed ^ SALT) % 100))
}

/// Makes a plan one of several nodes, if its seed is one of those.
pub(super) fn spread(plan: &mut Plan) {
    if !has_several_nodes(plan.seed) {
        return;
    }
    let mut random = Random::new(mix(plan.seed ^ SALT));
    let nodes = *random.pick(&[3, 3, 3, 5]);
    plan.cluster = Cluster {
        drifts: (0..nodes).map(|_| drift(&mut random)).collect(),
        found: founders(&mut random, nodes),
        weather: weather(&mut random),
    };
    // What a disk does without a word is for worlds of one node.
    plan.steps.retain(|step| {
        !matches!(
            step,
            Step::Deceive(_) | Step::Rot { .. } | Step::Flip { .. }
        )
    });
    plan.steps.truncate(STEPS_MAX);
    let troubles = *random.pick(&[0, 4, 12, 30]);
    for step in &mut plan.steps {
        let of_a_node = matches!(
            step,
            Step::Jump { .. }
                | Step::Crash { .. }
                | Step::CrashInside { .. }
                | Step::Restart
                | Step::Fail { .. }
                | Step::Full { .. }
                | Step::Checkpoint
        );
        if of_a_node {
            *step = Step::On {
                node: who(&mut random, nodes, &plan.node),
                step: Box::new(step.clone()),
            };
        }
    }
    for _ in 0..troubles {
        let step = trouble(&mut random, nodes, &plan.node);
        insert(&mut random, &mut plan.steps, vec![step]);
    }
    let losses = losses(plan.seed).unwrap_or(Loses::Nothing);
    for _ in 0..*random.pick(&[0, 0, 4, 10]) {
        let step = steer(&mut random, nodes, &plan.node, losses);
        insert(&mut random, &mut plan.steps, vec![step]);
    }
    for _ in 0..*random.pick(&[0, 0, 1, 3]) {
        let steps = script::stale(&mut random, plan);
        insert(&mut random, &mut plan.steps, steps);
    }
    for _ in 0..*random.pick(&[0, 0, 0, 1]) {
        let steps = script::behind(&mut random, plan, nodes);
        insert(&mut random, &mut plan.steps, steps);
    }
    let steps = script::loss(&mut random, plan, nodes, losses);
    insert(&mut random, &mut plan.steps, steps);
}

/// What a world loses for good. One replica of a shard at a time is what it can do without.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Loses {
    /// Nothing.
    Nothing,
    /// All that a node has.
    ADisk,
    /// What one node has of some shards.
    AReplica,
}

/// What the world of a seed loses, if it has several nodes.
pub(super) fn losses(seed: u64) -> Option<Loses> {
    let losses = match mix(seed ^ SALT_OF_LOSSES) % 100 {
        0..=24 => Loses::ADisk,
        25..=39 => Loses::AReplica,
        _ => Loses::Nothing,
    };
    has_several_nodes(seed).then_some(losses)
}

fn insert(random: &mut Random, steps: &mut Vec<Step>, new: Vec<Step>) {
    let at = random.below(steps.len() + 1);
    steps.splice(at..at, new);
}

fn founders(random: &mut Random, nodes: usize) -> Vec<Found> {
    let at_once = random.percent(60);
    let mut found = |_| Found {
        after_ms: match at_once {
            true => 0,
            false => *random.pick(&[0, 0, 300, 3_000, 20_000]),
        },
        dies_after: (!at_once && random.percent(40)).then(|| random.within(1, 60)),
    };
    (0..nodes).map(&mut found).collect()
}

fn drift(random: &mut Random) -> Drift {
    let signed = |number: u64, middle: u64| {
        i64::try_from(number).unwrap_or(0) - i64::try_from(middle).unwrap_or(0)
    };
    let ppm_max = *random.pick(&[0, 200, DRIFT_PERCENT_MAX * 10_000]);
    let ahead_max = *random.pick(&[0, 50, AHEAD_MS_MAX]);
    Drift {
        gains_ppm: signed(random.within(0, 2 * ppm_max), ppm_max),
        ahead_ms: signed(random.within(0, 2 * ahead_max), ahead_max),
    }
}

fn weather(random: &mut Random) -> Weather {
    if random.percent(30) {
        return Weather::CALM;
    }
    Weather {
        micros_max: *random.pick(&[200, 1_000, 20_000]),
        late_percent: *random.pick(&[0, 1, 5]),
        late_ms_max: *random.pick(&[20, 400, 3_000]),
        lost_percent: *random.pick(&[0, 0, 1, 5, 20]),
        twice_percent: *random.pick(&[0, 0, 1, 10]),
        flipped_percent: *random.pick(&[0, 0, 5, 30]),
        in_order: random.percent(50),
    }
}

fn who(random: &mut Random, nodes: usize, shape: &NodeShape) -> Who {
    if random.percent(50) {
        return Who::LeaderOf(any_shard(random, shape));
    }
    Who::Node(random.below(nodes))
}

/// Somebody has something moved. A cluster that loses a disk keeps three voters of each shard.
fn steer(random: &mut Random, nodes: usize, shape: &NodeShape, losses: Loses) -> Step {
    let node = who(random, nodes, shape);
    let shard = any_shard(random, shape);
    let spare = nodes > 3;
    let step = match random.below(10) {
        0 | 1 => Steer::Transfer(shard, random.below(nodes)),
        2 => Steer::Drain(node),
        3 => Steer::Undrain(node),
        4 if spare || losses == Loses::Nothing => Steer::Cordon(node),
        5 => Steer::Uncordon(node),
        6 if losses == Loses::Nothing => Steer::Replication(*random.pick(&[1, 2, 3, 5])),
        6 => Steer::Replication(*random.pick(&[3, 5])),
        _ => Steer::Move(shard, node, random.below(nodes)),
    };
    Step::Steer(step)
}

fn any_shard(random: &mut Random, shape: &NodeShape) -> u32 {
    let shards = usize::try_from(shape.shards).unwrap_or(0) + 1;
    u32::try_from(random.below(shards)).unwrap_or(0)
}

fn trouble(random: &mut Random, nodes: usize, shape: &NodeShape) -> Step {
    let node = who(random, nodes, shape);
    // Who is away for more than a minute gets no entries of that time, but a snapshot.
    let millis = *random.pick(&[50, 400, 1_500, 4_000, 15_000, 70_000]);
    match random.below(10) {
        0..=3 => Step::Down {
            node,
            loss: super::generate::loss(random),
            millis,
        },
        4 => Step::Pause { node, millis },
        _ => Step::Cut(Cut {
            between: match random.below(4) {
                0 => Between::Two(random.below(nodes), random.below(nodes)),
                1 => Between::Halves(random.bits()),
                _ => Between::Around(node),
            },
            way: *random.pick(&[Way::Both, Way::Both, Way::Out, Way::In]),
            millis,
        }),
    }
}
