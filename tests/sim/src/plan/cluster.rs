//! Several nodes: what is between them, and which steps are about which of them. Some seeds have
//! them; the others are as they were before there were any, so that seeds that once failed still
//! do what they did.

use std::ops::Range;

use super::{NodeShape, Plan, Step};
use crate::clock::{DRIFT_PERCENT_MAX, Drift};
use crate::random::{Random, mix};

/// Decides which seeds have several nodes; chosen so that none has of those that `seeds.txt` had
/// before there were any.
const SALT: u64 = 7_200;
/// Seeds of a hundred that have several nodes. None until a follower that is behind what its leader
/// has in memory is caught up.
const CLUSTERS: Range<u64> = 0..0;
/// Steps at most: more time passes, and more happens, with each of them than with one node.
const STEPS_MAX: usize = 160;
/// A machine's time of day is off by so much at most.
const AHEAD_MS_MAX: u64 = 5_000;

/// The nodes of a world.
#[derive(Clone, Debug)]
pub struct Cluster {
    /// How the clock of each is off.
    pub drifts: Vec<Drift>,
    /// What the network is like while faults last.
    pub weather: Weather,
}

impl Cluster {
    /// One node, which has nobody to talk to.
    #[must_use]
    pub fn alone() -> Self {
        Self {
            drifts: vec![Drift::default()],
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
            Between::Around(Who::LeaderOf(_)) => false,
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
    let nodes = *random.pick(&[3, 3, 3, 3]);
    plan.cluster = Cluster {
        drifts: (0..nodes).map(|_| drift(&mut random)).collect(),
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
        let at = random.below(plan.steps.len() + 1);
        let step = trouble(&mut random, nodes, &plan.node);
        plan.steps.insert(at, step);
    }
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
        in_order: random.percent(50),
    }
}

fn who(random: &mut Random, nodes: usize, shape: &NodeShape) -> Who {
    if random.percent(50) {
        let shards = usize::try_from(shape.shards).unwrap_or(0) + 1;
        return Who::LeaderOf(u32::try_from(random.below(shards)).unwrap_or(0));
    }
    Who::Node(random.below(nodes))
}

fn trouble(random: &mut Random, nodes: usize, shape: &NodeShape) -> Step {
    let node = who(random, nodes, shape);
    let millis = *random.pick(&[50, 400, 1_500, 4_000, 15_000]);
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
