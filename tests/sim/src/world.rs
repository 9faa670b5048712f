//! Runs a plan: lives of a node one after the other, and clients who come and go with them. At the
//! end faults stop, and everything that was promised has to happen within bounded time.

mod damage;
mod drain;
mod life;

use std::sync::Arc;
use std::time::Duration;

use crate::client::{Client, Consumers, Lasting, Wants, Wish};
use crate::disk::Medium;
use crate::host::{Clock, Turn};
use crate::plan::{Deceit, End, Loss, Plan, Step};
use crate::random::Random;
use crate::watch::{Violation, Watch};
use damage::Open;
use life::Life;

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
    clock: Arc<Clock>,
    medium: Arc<Medium>,
    lasting: Arc<Lasting>,
    consumers: Consumers,
    random: Random,
    life: Option<Life>,
    report: Report,
    /// What a crash inside an operation loses.
    loss: Loss,
    /// When the disk has room again.
    full_until: Option<Duration>,
    /// Faults are over.
    calm: bool,
    /// Lives so far.
    lives: u64,
    /// What the disk of the next life will say nothing of.
    ahead: Vec<Deceit>,
    open: Open,
}

/// Why a run ends early.
pub(crate) struct Over;

/// Runs a plan. A loud one prints every event.
#[must_use]
pub fn run(plan: &Plan, loud: bool) -> Report {
    let clock = Clock::new();
    let watch = Watch::new(Arc::clone(&clock), loud);
    let lasting = Lasting::new(
        watch.clone(),
        plan.objects.clone(),
        plan.node.message_bytes_max,
    );
    let mut world = World {
        plan,
        clock,
        medium: Medium::new(),
        lasting,
        consumers: Consumers::default(),
        random: Random::new(plan.schedule),
        life: None,
        report: Report::default(),
        loss: Loss::Nothing,
        full_until: None,
        calm: false,
        lives: 0,
        ahead: Vec::new(),
        open: Open::default(),
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
        self.start()?;
        self.declare_all()?;
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

    fn client(&self) -> Option<&Client> {
        self.life.as_ref().map(|life| &life.client)
    }

    fn step(&mut self, step: &Step) -> Result<(), Over> {
        match step {
            Step::Run { turns } => self.turns(*turns).map(|_| ()),
            Step::Wait { millis } => self.wait(*millis),
            Step::Jump { millis } => {
                self.clock.jump(*millis);
                Ok(())
            }
            Step::Crash { loss } => {
                if self.random.percent(REST_PERCENT) {
                    self.rest()?;
                }
                self.crash(*loss, "the process was killed")
            }
            Step::CrashInside {
                operations,
                carried_out,
                loss,
            } => {
                self.loss = *loss;
                self.medium.end_after(*operations, *carried_out);
                Ok(())
            }
            Step::Restart => self.restart(),
            Step::Rot { part, at } => {
                self.rot(part, *at);
                Ok(())
            }
            Step::Deceive(deceit) => {
                self.deceive(*deceit);
                Ok(())
            }
            Step::Checkpoint => {
                if let Some(client) = self.client() {
                    client.broker.checkpoint();
                }
                Ok(())
            }
            Step::Fail { .. } => {
                self.life.iter_mut().for_each(|life| life.fail(step));
                Ok(())
            }
            Step::Full { left, millis } => {
                let used = self.medium.used_bytes();
                self.medium.set_capacity(Some(used + left));
                self.full_until = Some(self.clock.now() + Duration::from_millis(*millis));
                self.report.faults += 1;
                Ok(())
            }
            Step::Flip { part, at } => self.flip(part, *at),
            _ => {
                self.report.operations += 1;
                self.ask(step);
                Ok(())
            }
        }
    }

    /// Starts what a client or the operator asks for.
    fn ask(&self, step: &Step) {
        let Some(client) = self.client() else {
            return;
        };
        match step {
            Step::Publish {
                to,
                partition,
                counts,
            } => client.publish(*to, *partition, counts),
            Step::Receive {
                from,
                dead,
                messages_max,
                wait_ms,
                lease_ms,
                give_up_ms,
            } => {
                let wish = Wish {
                    messages_max: *messages_max,
                    wait_ms: *wait_ms,
                    lease_ms: *lease_ms,
                    give_up_ms: *give_up_ms,
                };
                client.receive(*from, *dead, wish);
            }
            Step::Settle { count, end, at } => client.settle(*count, *end, *at),
            Step::SettleStale { count } => client.settle_stale(*count),
            Step::Read {
                topic,
                partition,
                from,
                messages_max,
            } => client.read(*topic, *partition, *from, *messages_max),
            Step::Peek {
                queue,
                messages_max,
            } => client.peek(*queue, *messages_max),
            Step::Declare { object, shape } => {
                client.declare(vec![(*object, Some(shape.clone()))]);
            }
            Step::Remove { object } => client.declare(vec![(*object, None)]),
            Step::Look => client.look(),
            _ => self.ask_consumer(client, step),
        }
    }

    fn ask_consumer(&self, client: &Client, step: &Step) {
        let consumers = &self.consumers;
        match step {
            Step::Attach {
                consumer,
                queue,
                window,
                credit,
            } => {
                let wants = Wants {
                    window: *window,
                    credit: *credit,
                };
                client.attach(consumers, *consumer, *queue, wants);
            }
            Step::Credit { consumer, more } => {
                client.credit(consumers, *consumer, *more);
                // A client that takes more has handled some.
                let count = usize::try_from(more / 2).unwrap_or(0);
                client.settle_here(consumers, *consumer, count, End::Accept);
            }
            Step::Detach { consumer } => client.detach(consumers, *consumer),
            Step::Close { consumer } => client.close(consumers, *consumer),
            _ => {}
        }
    }

    /// Lets everything finish that is under way, and takes note of the state.
    fn rest(&mut self) -> Result<(), Over> {
        self.wait(1)?;
        if let Some(client) = self.client() {
            client.compare(self.plan.node.shards);
        }
        self.wait(0)
    }

    /// Lets things run; whether there is more to run.
    fn turns(&mut self, turns: u32) -> Result<Turn, Over> {
        let mut last = Turn::Ran;
        for _ in 0..turns {
            let Some(life) = &self.life else {
                return Ok(last);
            };
            last = life.host.turn();
            self.check_life()?;
            if last != Turn::Ran {
                break;
            }
        }
        let step = Duration::from_micros(TURN_MICROS * u64::from(turns.min(1_000)));
        let now = self.clock.now() + step;
        self.advance_to(now);
        Ok(last)
    }

    fn advance_to(&mut self, now: Duration) {
        if let Some(life) = &self.life {
            life.host.advance_to(now);
        } else {
            self.clock.set(now);
        }
        if self.full_until.is_some_and(|until| until <= now) {
            self.full_until = None;
            self.medium.set_capacity(None);
        }
    }

    /// Lets time pass, and everything happen that happens meanwhile.
    fn wait(&mut self, millis: u64) -> Result<(), Over> {
        let target = self.clock.now() + Duration::from_millis(millis);
        let mut turns = 0;
        loop {
            let Some(life) = &self.life else {
                return Ok(());
            };
            match life.host.turn() {
                Turn::Ran => turns += 1,
                Turn::Idle(next) => {
                    self.check_idle()?;
                    let now = self.clock.now();
                    if now >= target {
                        return Ok(());
                    }
                    let least = now + Duration::from_micros(TURN_MICROS);
                    let until = self.full_until.unwrap_or(target);
                    let next = next.unwrap_or(target).min(target).min(until).max(least);
                    self.advance_to(next);
                }
            }
            self.check_life()?;
            if turns > TURNS_MAX {
                return Err(self.violated(
                    "liveness",
                    format!("the node is still busy after {TURNS_MAX} turns"),
                ));
            }
        }
    }
}
