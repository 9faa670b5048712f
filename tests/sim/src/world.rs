//! Runs a plan: lives of nodes one after the other, a network between them, and clients who come
//! and go with them. At the end faults stop, and everything that was promised has to happen within
//! bounded time.

mod ask;
mod cluster;
mod damage;
mod drain;
mod joining;
mod life;
mod member;
mod steering;

use std::sync::Arc;
use std::time::Duration;

use millrace_types::Founding;

use crate::client::{Client, Consumers, Lasting};
use crate::clock::{Clock, Time};
use crate::host::Turn;
use crate::network::Net;
use crate::plan::{Plan, Step};
use crate::random::Random;
use crate::watch::{Violation, Watch};
use member::Member;

/// Turns that a node takes at most before it comes to rest: more is a node that spins.
const TURNS_MAX: u32 = 400_000;
/// What a turn takes: time goes on while something happens.
const TURN_MICROS: u64 = 20;
/// Starts in a row that may fail because of a fault on the disk.
const STARTS_MAX: u32 = 20;

/// Crashes of a hundred that find the node at rest: then its state can be compared afterwards.
const REST_PERCENT: u64 = 40;

/// What a run came to.
#[derive(Clone, Debug, Default)]
pub struct Report {
    /// What clients asked for, and the operator.
    pub operations: u64,
    /// Ends of a process that were not asked for by itself.
    pub crashes: u64,
    /// Operations of the disk that failed on purpose, flips and full disks.
    pub faults: u64,
    /// Numbers equal runs.
    pub trace: u64,
    /// The first one.
    pub violation: Option<Violation>,
    /// The last events before it.
    pub recent: Vec<String>,
}

/// A run.
pub(crate) struct World<'a> {
    plan: &'a Plan,
    time: Arc<Time>,
    net: Arc<Net>,
    nodes: Vec<Member>,
    lasting: Arc<Lasting>,
    consumers: Consumers,
    random: Random,
    report: Report,
    /// How several nodes began.
    founding: Option<Founding>,
    /// A disk was lost.
    wiped: bool,
    /// Faults are over.
    calm: bool,
}

/// Why a run ends early.
pub(crate) struct Over;

/// Runs a plan. A loud one prints every event.
#[must_use]
pub fn run(plan: &Plan, loud: bool) -> Report {
    let time = Time::new();
    let drifts = plan.cluster.drifts.iter();
    let clocks: Vec<Arc<Clock>> = drifts.map(|drift| Clock::new(&time, *drift)).collect();
    let watch = Watch::new(&time, clocks.clone(), loud);
    let net = Net::new(&time, &watch, plan);
    let lasting = Lasting::new(
        watch.clone(),
        plan.objects.clone(),
        plan.node.message_bytes_max,
    );
    let mut world = World {
        plan,
        time,
        net,
        nodes: clocks.into_iter().map(Member::new).collect(),
        lasting,
        consumers: Consumers::default(),
        random: Random::new(plan.schedule),
        report: Report::default(),
        founding: None,
        wiped: false,
        calm: false,
    };
    world.guarded(World::play);
    world.guarded(|world| {
        world.end();
        Ok(())
    });
    let mut report = world.report;
    report.trace = watch.trace();
    report.violation = watch.violation();
    report.recent = watch.recent();
    report
}

impl World<'_> {
    fn play(&mut self) -> Result<(), Over> {
        self.found()?;
        self.declare_all()?;
        self.net.expose(self.plan.cluster.weather);
        for (place, step) in self.plan.steps.iter().enumerate() {
            if self.is_loud() {
                println!("-- step {place}: {step:?}");
            }
            self.step(step)?;
            self.stop_at_violation()?;
        }
        self.drain()
    }

    fn is_loud(&self) -> bool {
        self.lasting.watch.with(|state| state.is_loud())
    }

    /// Whether what was acknowledged may be gone without a word.
    fn is_excused(&self) -> bool {
        self.lasting.watch.with(|state| state.facts.damage.excused)
    }

    /// Whether a shard has said that it is damaged.
    fn has_any_said(&self) -> bool {
        let watch = &self.lasting.watch;
        watch.with(|state| state.facts.damage.has_any_said())
    }

    /// Whether the catalogue has: without it, nothing can be declared or looked up.
    fn has_catalogue_said(&self) -> bool {
        let watch = &self.lasting.watch;
        watch.with(|state| state.facts.damage.has_catalogue_said())
    }

    fn stop_at_violation(&self) -> Result<(), Over> {
        match self.lasting.watch.violation() {
            Some(_) => Err(Over),
            None => Ok(()),
        }
    }

    fn violated(&self, invariant: &'static str, what: impl Into<String>) -> Over {
        self.lasting.watch.violated(invariant, what);
        Over
    }

    /// Whether there is only one node, which is always the same one.
    const fn is_alone(&self) -> bool {
        self.nodes.len() == 1
    }

    /// Clients of a node, unless it is down.
    fn client(&self, node: usize) -> Option<&Client> {
        self.nodes[node].life.as_ref().map(|life| &life.client)
    }

    /// Clients of every node that is up.
    fn clients(&self) -> impl Iterator<Item = &Client> {
        let lives = self.nodes.iter().filter_map(|node| node.life.as_ref());
        lives.map(|life| &life.client)
    }

    fn step(&mut self, step: &Step) -> Result<(), Over> {
        match step {
            Step::On { node, step } => self.step_on(node.resolve(self), step),
            Step::Run { turns } => self.turns(*turns),
            Step::Wait { millis } => self.wait(*millis),
            Step::Down { node, loss, millis } => {
                let node = node.resolve(self);
                self.go_down(node, *loss, *millis);
                Ok(())
            }
            Step::Pause { node, millis } => {
                let node = node.resolve(self);
                self.pause(node, *millis);
                Ok(())
            }
            Step::Cut(cut) => {
                self.cut(cut);
                Ok(())
            }
            Step::Wipe { node, millis } => {
                let node = node.resolve(self);
                self.wipe(node, *millis);
                Ok(())
            }
            Step::Steer(steer) => {
                self.steer(*steer);
                Ok(())
            }
            _ if self.is_alone() => self.step_on(0, step),
            _ => {
                let node = self.choose(step);
                self.step_on(node, step)
            }
        }
    }

    /// A step that is about a node, or asks it.
    fn step_on(&mut self, node: usize, step: &Step) -> Result<(), Over> {
        match step {
            Step::Jump { millis } => {
                self.nodes[node].clock.jump(*millis);
                Ok(())
            }
            Step::Crash { loss } => {
                if self.random.percent(REST_PERCENT) {
                    self.rest()?;
                }
                self.crash(node, *loss, "the process was killed")
            }
            Step::CrashInside {
                operations,
                carried_out,
                loss,
            } => {
                self.nodes[node].loss = *loss;
                self.nodes[node].medium.end_after(*operations, *carried_out);
                Ok(())
            }
            Step::Restart => self.restart(node),
            Step::Rot { part, at } => {
                self.rot(node, part, *at);
                Ok(())
            }
            Step::Deceive(deceit) => {
                self.nodes[node].deceive(*deceit);
                Ok(())
            }
            Step::Checkpoint => {
                if let Some(client) = self.client(node) {
                    client.broker.checkpoint();
                }
                Ok(())
            }
            Step::Fail { .. } => {
                let life = &mut self.nodes[node].life;
                life.iter_mut().for_each(|life| life.fail(step));
                Ok(())
            }
            Step::Full { left, millis } => {
                let until = self.time.now() + Duration::from_millis(*millis);
                self.nodes[node].fill(*left, until);
                self.report.faults += 1;
                Ok(())
            }
            Step::Flip { part, at } => self.flip(node, part, *at),
            _ => {
                self.report.operations += 1;
                self.ask(node, step);
                Ok(())
            }
        }
    }

    /// Lets everything finish that is under way, and takes note of the state.
    fn rest(&mut self) -> Result<(), Over> {
        self.wait(1)?;
        self.compare();
        self.wait(0)
    }

    fn compare(&self) {
        let shards = self.plan.node.shards;
        self.clients().for_each(|client| client.compare(shards));
    }

    /// Lets one thing run on one of the nodes that can.
    fn turn(&mut self) -> Result<Turn, Over> {
        let now = self.time.now();
        let first = match self.nodes.len() {
            1 => 0,
            nodes => self.random.below(nodes),
        };
        let mut next: Option<Duration> = None;
        for node in (first..self.nodes.len()).chain(0..first) {
            let member = &self.nodes[node];
            let Some(life) = member.life.as_ref().filter(|_| !member.is_paused(now)) else {
                continue;
            };
            match life.host.turn() {
                Turn::Ran => {
                    self.check_life(node)?;
                    return Ok(Turn::Ran);
                }
                Turn::Idle(at) => next = earlier(next, at),
            }
        }
        Ok(Turn::Idle(next))
    }

    /// Lets things run.
    fn turns(&mut self, turns: u32) -> Result<(), Over> {
        for _ in 0..turns {
            if self.turn()? != Turn::Ran {
                break;
            }
        }
        let step = Duration::from_micros(TURN_MICROS * u64::from(turns.min(1_000)));
        let now = self.time.now() + step;
        self.advance_to(now)
    }

    /// Time goes on: what waited for it happens.
    fn advance_to(&mut self, now: Duration) -> Result<(), Over> {
        self.time.set(now);
        for member in &mut self.nodes {
            member.time_passed(now);
        }
        self.deliver(now);
        self.call_again(now);
        self.come_up(now)
    }

    /// When something happens that no node knows of.
    fn next_outside(&self) -> Option<Duration> {
        let members = self.nodes.iter().filter_map(Member::next_change);
        let others = self.net.next_time().into_iter();
        members.chain(others).chain(self.lasting.next_call()).min()
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    fn wait(&mut self, millis: u64) -> Result<(), Over> {
        let target = self.time.now() + Duration::from_millis(millis);
        let mut turns = 0;
        loop {
            match self.turn()? {
                Turn::Ran => turns += 1,
                Turn::Idle(next) => {
                    turns = 0;
                    self.check_idle()?;
                    let now = self.time.now();
                    if now >= target {
                        return Ok(());
                    }
                    let least = now + Duration::from_micros(TURN_MICROS);
                    let next = earlier(next, self.next_outside());
                    let next = next.unwrap_or(target).min(target).max(least);
                    self.advance_to(next)?;
                }
            }
            if turns > TURNS_MAX {
                return Err(self.violated(
                    "liveness",
                    format!("the nodes are still busy after {TURNS_MAX} turns"),
                ));
            }
        }
    }
}

fn earlier(one: Option<Duration>, other: Option<Duration>) -> Option<Duration> {
    one.into_iter().chain(other).min()
}
