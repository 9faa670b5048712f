//! Makes a plan from a seed. Which kinds of steps a plan has is drawn first, so that some seeds are
//! all crashes and others none, and rare things meet often.

use millrace_storage::Operation;

use super::{
    Bound, Cluster, End, From, LEASE_MS_MIN, Loss, NodeShape, Plan, QueueShape, Shape, Step,
    TopicShape,
};
use super::{cluster, spice};
use crate::message::PATTERNS;
use crate::random::Random;

/// Topics of a plan at most.
const TOPICS_MAX: u64 = 2;
/// Queues at most.
const QUEUES_MAX: usize = 4;
/// Consumers at most.
pub const CONSUMERS: usize = 3;
/// Steps at least and at most: enough for files to turn over, few enough to be read.
const STEPS: (u64, u64) = (60, 320);

/// Where on the disk something goes wrong.
const PARTS: [&str; 3] = ["journal/", "shards/", "/"];

/// The plan of a seed.
#[must_use]
pub fn plan(seed: u64) -> Plan {
    let mut random = Random::new(seed);
    let schedule = random.bits();
    let node = node(&mut random);
    let objects = objects(&mut random);
    let mix = Mix::new(&mut random);
    let count = random.within(STEPS.0, STEPS.1);
    let mut steps = Vec::new();
    for _ in 0..count {
        let mut scope = Scope {
            random: &mut random,
            objects: &objects,
        };
        steps.push(mix.step(&mut scope));
        if scope.random.percent(mix.pauses) {
            let turns = scope.random.within(1, mix.turns_max);
            steps.push(Step::Run {
                turns: u32::try_from(turns).unwrap_or(1),
            });
        }
    }
    spice::spice(seed, &objects, &mut steps);
    let mut plan = Plan {
        seed,
        schedule,
        cluster: Cluster::alone(),
        node,
        objects,
        steps,
    };
    cluster::spread(&mut plan);
    plan
}

/// Whether the plan of a seed has several nodes.
#[must_use]
pub fn has_several_nodes(seed: u64) -> bool {
    cluster::has_several_nodes(seed)
}

/// Whether a disk is lost in it.
#[must_use]
pub fn loses_a_disk(seed: u64) -> bool {
    cluster::losses(seed) == Some(cluster::Loses::ADisk)
}

/// Whether a replica is damaged in it, of which there are others.
#[must_use]
pub fn loses_a_replica(seed: u64) -> bool {
    cluster::losses(seed) == Some(cluster::Loses::AReplica)
}

fn node(random: &mut Random) -> NodeShape {
    NodeShape {
        shards: *random.pick(&[2, 2, 3, 4]),
        workers: *random.pick(&[1, 1, 2, 3]),
        journal_file_bytes: *random.pick(&[16 << 10, 16 << 10, 32 << 10, 64 << 10]),
        batch_records_max: *random.pick(&[1, 4, 64]),
        checkpoint_journal_bytes: *random.pick(&[2 << 10, 8 << 10, 32 << 10, 1 << 20]),
        checkpoint_entries: *random.pick(&[5, 20, 100, 1_000]),
        memory_bytes_max: *random.pick(&[64 << 10, 1 << 20, 64 << 20]),
        session_ttl_ms: *random.pick(&[2_000, 10_000, 60_000]),
        lost_effects_percent: *random.pick(&[0, 0, 5, 50]),
        message_bytes_max: *random.pick(&[20, 200, 1_500]),
    }
}

fn objects(random: &mut Random) -> Vec<Shape> {
    let topics = random.within(1, TOPICS_MAX);
    let queues = 2 + random.below(QUEUES_MAX - 1);
    let mut objects = Vec::new();
    for _ in 0..topics {
        objects.push(Shape::Topic(topic(random)));
    }
    let topics = objects.len();
    let all = topics + queues;
    while objects.len() < all {
        let place = objects.len();
        objects.push(Shape::Queue(queue(random, topics, place, all)));
    }
    objects
}

fn topic(random: &mut Random) -> TopicShape {
    let bounded = random.percent(40);
    TopicShape {
        partitions: *random.pick(&[1, 1, 2, 3]),
        messages_max: bounded.then(|| random.within(1, 40)),
        age_ms_max: (bounded && random.percent(40)).then(|| random.within(1_000, 60_000)),
        deletes: random.percent(40),
    }
}

fn queue(random: &mut Random, topics: usize, place: usize, all: usize) -> QueueShape {
    let mut bindings = Vec::new();
    for _ in 0..random.below(3) {
        bindings.push(Bound {
            topic: random.below(topics),
            pattern: random.below(PATTERNS.len()),
            marked: random.percent(25),
        });
    }
    // Dead letters only go to later queues, so that none runs in circles.
    let later = place + 1..all;
    let dead_letter =
        (!later.is_empty() && random.percent(50)).then(|| later.start + random.below(later.len()));
    QueueShape {
        bindings,
        lease_ms: *random.pick(&[LEASE_MS_MIN, 5_000, 60_000]),
        deliveries_max: *random.pick(&[1, 2, 3, 20]),
        backoff_ms: *random.pick(&[0, 0, 100, 3_000]),
        messages_max: random.percent(25).then(|| random.within(2, 60)),
        in_flight_max: *random.pick(&[1, 5, 1_000, 1_000]),
        dead_letter,
        deletes: random.percent(40),
    }
}

/// What a step is drawn from.
struct Scope<'a> {
    random: &'a mut Random,
    objects: &'a [Shape],
}

impl Scope<'_> {
    fn any(&mut self) -> usize {
        self.random.below(self.objects.len())
    }

    fn queue(&mut self) -> usize {
        let topics = self.topics();
        topics + self.random.below(self.objects.len() - topics)
    }

    fn topic(&mut self) -> usize {
        let topics = self.topics();
        self.random.below(topics)
    }

    fn topics(&self) -> usize {
        let is_topic = |shape: &&Shape| matches!(shape, Shape::Topic(_));
        self.objects.iter().filter(is_topic).count()
    }

    fn partition(&mut self, place: usize) -> u32 {
        match &self.objects[place] {
            Shape::Topic(topic) => {
                let partition = self.random.below(topic.partitions as usize);
                u32::try_from(partition).unwrap_or(0)
            }
            Shape::Queue(_) => 0,
        }
    }

    fn loss(&mut self) -> Loss {
        loss(self.random)
    }
}

/// What is left of what was not synced.
pub(super) fn loss(random: &mut Random) -> Loss {
    match random.below(4) {
        0 => Loss::Nothing,
        1 => Loss::Everything,
        _ => Loss::Some(random.bits()),
    }
}

/// How often which kind of step comes.
struct Mix {
    weights: [u64; 10],
    pauses: u64,
    turns_max: u64,
}

impl Mix {
    fn new(random: &mut Random) -> Self {
        let mut drawn = |choices: &[u64]| *random.pick(choices);
        let damaged = drawn(&[0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
        Self {
            weights: [
                drawn(&[30, 30, 60]),
                drawn(&[10, 25]),
                drawn(&[20, 30]),
                drawn(&[0, 15, 30]),
                drawn(&[3, 10]),
                drawn(&[0, 0, 4, 10]),
                drawn(&[5, 12]),
                drawn(&[0, 3, 10]),
                drawn(&[0, 0, 2, 5]),
                damaged,
            ],
            pauses: drawn(&[20, 50, 90]),
            turns_max: drawn(&[5, 40, 300]),
        }
    }

    fn step(&self, scope: &mut Scope<'_>) -> Step {
        let sum: u64 = self.weights.iter().sum();
        let mut at = scope.random.bits() % sum;
        let mut kind = 0;
        while at >= self.weights[kind] {
            at -= self.weights[kind];
            kind += 1;
        }
        match kind {
            0 => publish(scope),
            1 => receive(scope),
            2 => settle(scope),
            3 => session(scope),
            4 => look(scope),
            5 => declare(scope),
            6 => time(scope),
            7 => crash(scope),
            8 => fault(scope),
            _ => Step::Flip {
                part: PARTS[scope.random.below(PARTS.len())],
                at: scope.random.bits(),
            },
        }
    }
}

fn publish(scope: &mut Scope<'_>) -> Step {
    let to = scope.any();
    let partition = scope.partition(to);
    let batches = *scope.random.pick(&[1, 1, 1, 2, 4]);
    let counts = (0..batches).map(|_| *scope.random.pick(&[1, 1, 2, 5, 12]));
    Step::Publish {
        to,
        partition,
        counts: counts.collect(),
    }
}

fn receive(scope: &mut Scope<'_>) -> Step {
    Step::Receive {
        from: scope.queue(),
        dead: scope.random.percent(20),
        messages_max: *scope.random.pick(&[1, 3, 10, 50]),
        wait_ms: *scope.random.pick(&[0, 0, 500, 20_000]),
        lease_ms: *scope.random.pick(&[None, None, Some(1_000), Some(30_000)]),
        give_up_ms: *scope.random.pick(&[None, None, None, Some(0), Some(300)]),
    }
}

fn settle(scope: &mut Scope<'_>) -> Step {
    if scope.random.percent(8) {
        return Step::SettleStale { count: 3 };
    }
    let ends = [
        End::Accept,
        End::Accept,
        End::Accept,
        End::Release,
        End::Retry,
        End::Retry,
        End::Reject,
        End::Extend,
    ];
    Step::Settle {
        count: *scope.random.pick(&[1, 2, 5, 20]),
        end: *scope.random.pick(&ends),
        at: scope.random.bits(),
    }
}

fn session(scope: &mut Scope<'_>) -> Step {
    let consumer = scope.random.below(CONSUMERS);
    match scope.random.below(8) {
        0..=2 => Step::Attach {
            consumer,
            queue: scope.queue(),
            window: *scope.random.pick(&[1, 4, 100]),
            credit: *scope.random.pick(&[0, 2, 1_000]),
        },
        3..=5 => Step::Credit {
            consumer,
            more: scope.random.within(1, 10),
        },
        6 => Step::Detach { consumer },
        _ => Step::Close { consumer },
    }
}

fn look(scope: &mut Scope<'_>) -> Step {
    match scope.random.below(4) {
        0 => Step::Look,
        1 => Step::Peek {
            queue: scope.queue(),
            messages_max: *scope.random.pick(&[1, 10, 100]),
        },
        _ => {
            let topic = scope.topic();
            Step::Read {
                partition: scope.partition(topic),
                topic,
                from: match scope.random.below(4) {
                    0 => From::Earliest,
                    1 => From::Part(scope.random.within(0, 1_000)),
                    2 => From::Ago(scope.random.within(0, 30_000)),
                    _ => From::Latest,
                },
                messages_max: *scope.random.pick(&[1, 7, 1_000]),
            }
        }
    }
}

fn declare(scope: &mut Scope<'_>) -> Step {
    let object = scope.any();
    if scope.random.percent(35) {
        return Step::Remove { object };
    }
    let (topics, all) = (scope.topics(), scope.objects.len());
    let shape = match &scope.objects[object] {
        Shape::Topic(old) => Shape::Topic(TopicShape {
            partitions: old.partitions,
            deletes: old.deletes,
            ..topic(scope.random)
        }),
        Shape::Queue(old) => {
            let new = queue(scope.random, topics, object, all);
            let kept = scope.random.percent(60);
            Shape::Queue(QueueShape {
                bindings: if kept {
                    old.bindings.clone()
                } else {
                    new.bindings
                },
                deletes: old.deletes,
                ..new
            })
        }
    };
    Step::Declare { object, shape }
}

fn time(scope: &mut Scope<'_>) -> Step {
    if scope.random.percent(5) {
        let millis = i64::try_from(scope.random.within(0, 20_000)).unwrap_or(0);
        return Step::Jump {
            millis: millis - 10_000,
        };
    }
    Step::Wait {
        millis: *scope.random.pick(&[1, 50, 700, 1_100, 6_000, 30_000]),
    }
}

fn crash(scope: &mut Scope<'_>) -> Step {
    let loss = scope.loss();
    match scope.random.below(5) {
        0 => Step::Restart,
        1 | 2 => Step::Crash { loss },
        _ => Step::CrashInside {
            operations: *scope.random.pick(&[1, 3, 10, 30, 100]) + scope.random.within(0, 9),
            carried_out: scope.random.percent(50),
            loss,
        },
    }
}

fn fault(scope: &mut Scope<'_>) -> Step {
    if scope.random.percent(40) {
        return Step::Full {
            left: *scope.random.pick(&[0, 2_000, 20_000, 100_000]),
            millis: *scope.random.pick(&[500, 8_000, 30_000]),
        };
    }
    let operations = [
        Operation::Write,
        Operation::Sync,
        Operation::SyncDir,
        Operation::Create,
        Operation::Rename,
        Operation::Remove,
        Operation::Read,
    ];
    Step::Fail {
        operation: *scope.random.pick(&operations),
        after: *scope.random.pick(&[0, 1, 5, 20]),
        part: PARTS[scope.random.below(PARTS.len())],
        short: scope.random.percent(50),
    }
}
