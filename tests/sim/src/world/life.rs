//! The lives of nodes: how each starts, and all the ways it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_node::{Alone, Broker, Network, NodeOptions, StartError};
use millrace_storage::{Crash, Fault, JournalOptions, Operation};

use super::{Over, STARTS_MAX, World};
use crate::client::{Client, Place};
use crate::disk::SimDisk;
use crate::event::Event;
use crate::guard;
use crate::host::{Setting, SimHost};
use crate::network::SimNetwork;
use crate::plan::{Loss, NodeShape, Step};

/// How long a clean end takes at most.
const RESTART_MS_MAX: u64 = 120_000;
/// Where a node keeps its data.
pub(super) const DATA_DIR: &str = "/data";

/// A running node.
pub(super) struct Life {
    pub(super) host: SimHost,
    pub(super) client: Client,
    /// Faults were planned in it that may not have come yet.
    pub(super) threatened: bool,
    /// A read was planned to go wrong without a word.
    pub(super) misread: bool,
    pub(super) disk: SimDisk,
    broker: Broker,
    failure: Arc<Mutex<Option<String>>>,
    /// Operations of the disk that had failed before.
    failed_before: u64,
}

impl Life {
    /// An operation of the disk will fail.
    pub(super) fn fail(&mut self, step: &Step) {
        if let Step::Fail {
            operation,
            after,
            part,
            short,
        } = step
        {
            let fault = if *short { Fault::Short } else { Fault::Broken };
            self.disk.fail(*operation, fault, *after, part);
            self.threatened = true;
        }
    }

    fn failure(&self) -> Option<String> {
        let failure = self.failure.lock();
        failure.ok().and_then(|failure| failure.clone())
    }

    fn watch_failure(&self) {
        let (broker, failure) = (self.broker.clone(), Arc::clone(&self.failure));
        self.client.run(async move {
            let failed = broker.failed().await;
            if let Ok(mut failure) = failure.lock() {
                *failure = Some(failed.to_string());
            }
        });
    }
}

impl World<'_> {
    /// Starts a node, again if a fault keeps it from starting.
    pub(super) fn start(&mut self, node: usize) -> Result<(), Over> {
        if self.nodes[node].is_blank {
            return self.join(node);
        }
        self.nodes[node].down_until = None;
        for _ in 0..STARTS_MAX {
            let before = self.nodes[node].medium.failed();
            match self.try_start(node) {
                Ok(life) => {
                    life.watch_failure();
                    self.nodes[node].life = Some(life);
                    self.nodes[node].lives += 1;
                    self.started(node);
                    return Ok(());
                }
                Err(error) if self.nodes[node].medium.has_ended() => {
                    self.report.crashes += 1;
                    self.tell_stopped(node, &format!("it died while it started: {error}"));
                    self.lose(node, crash(self.nodes[node].loss));
                }
                Err(error) if self.may_not_start(&error) => {
                    // It said so, which is all that can be asked of it.
                    return Err(Over);
                }
                Err(error) if self.nodes[node].medium.failed() > before => {
                    self.tell_stopped(node, &format!("it did not start: {error}"));
                    self.nodes[node].make_room();
                    self.lose(node, crash(self.nodes[node].loss));
                }
                Err(error) => {
                    return Err(self.violated("starts", format!("it does not start: {error}")));
                }
            }
        }
        Err(self.violated(
            "starts",
            format!("it did not start in {STARTS_MAX} attempts"),
        ))
    }

    /// Whether damage is reason enough, and named.
    fn may_not_start(&self, error: &StartError) -> bool {
        let text = format!("{error:?}");
        let watch = &self.lasting.watch;
        watch.with(|state| state.facts.damage.keeps_from_starting(&text))
    }

    /// A host for the next life of a node.
    pub(super) fn host(&mut self, node: usize) -> SimHost {
        let lost = self.plan.node.lost_effects_percent;
        SimHost::new(Setting {
            clock: Arc::clone(&self.nodes[node].clock),
            schedule: self.random.fork(),
            chance: self.random.fork(),
            disk_operations: self.nodes[node].medium.operations(),
            lost_effects_percent: if self.calm { 0 } else { lost },
        })
    }

    fn try_start(&mut self, node: usize) -> Result<Life, StartError> {
        let host = self.host(node);
        let member = &mut self.nodes[node];
        member.medium.begin();
        let disk = SimDisk::new(&member.medium);
        let failed_before = member.medium.failed();
        let ahead = std::mem::take(&mut member.ahead);
        let (mut misread, threatened) = (false, !ahead.is_empty());
        for deceit in ahead {
            let first = deceit.operation != Operation::Read || !misread;
            misread |= deceit.operation == Operation::Read;
            if first {
                disk.deceive(deceit.operation, deceit.fault, deceit.after, deceit.part);
            }
        }
        let network: Arc<dyn Network> = if self.is_alone() {
            Arc::new(Alone)
        } else {
            let net = Arc::clone(&self.net);
            Arc::new(SimNetwork { net, own: node })
        };
        let founding = self.founding.clone();
        let founding = founding.filter(|_| self.nodes[node].is_founder);
        let broker = Broker::start_on(
            Arc::new(disk.clone()),
            Arc::new(host.clone()),
            network,
            NodeOptions {
                founding,
                ..options(&self.plan.node)
            },
        );
        self.note_struck(node);
        let broker = match broker {
            Ok(broker) => broker,
            Err(error) => {
                host.kill();
                return Err(error);
            }
        };
        let place = Place {
            node,
            alone: self.is_alone(),
            net: Arc::clone(&self.net),
        };
        Ok(Life {
            client: Client::new(&self.lasting, &broker, &host, place),
            host,
            threatened,
            misread,
            disk,
            broker,
            failure: Arc::default(),
            failed_before,
        })
    }

    fn started(&self, node: usize) {
        let Some(client) = self.client(node).cloned() else {
            return;
        };
        client.compare(self.plan.node.shards);
        if self.lasting.watch.with(|state| state.facts.damage.is_any()) {
            // Who does not serve says so from the start.
            client.look();
        }
        if !self.is_alone() {
            // Who has just started may have to catch up.
            self.lasting.watch.tell(&Event::Up { node });
            return;
        }
        let asking = client.clone();
        let asked = client.events();
        client.run(async move {
            if let Ok(metadata) = asking.broker.metadata().await {
                let revision = metadata.revision;
                asking.tell(&Event::Started { revision, asked });
            }
        });
    }

    pub(super) fn tell_stopped(&self, node: usize, why: &str) {
        let why = why.to_owned();
        self.lasting.watch.tell(&Event::Stopped { node, why });
    }

    /// Whether a process goes on after what just ran; if not, the next one starts.
    pub(super) fn check_life(&mut self, node: usize) -> Result<(), Over> {
        self.note_struck(node);
        let member = &self.nodes[node];
        if member.medium.has_ended() {
            return self.crash(
                node,
                member.loss,
                "the process died inside an operation of the disk",
            );
        }
        let Some(life) = &member.life else {
            return Ok(());
        };
        let Some(failure) = life.failure() else {
            return Ok(());
        };
        if member.medium.failed() == life.failed_before {
            return Err(self.violated("failure", format!("it failed without a cause: {failure}")));
        }
        self.report.faults += 1;
        let loss = match self.random.below(3) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            _ => Loss::Some(self.random.bits()),
        };
        self.nodes[node].make_room();
        self.crash(node, loss, &format!("the node failed: {failure}"))
    }

    /// What must hold when nothing is left to do.
    pub(super) fn check_idle(&self) -> Result<(), Over> {
        for member in &self.nodes {
            let failure = member.life.as_ref().map(Life::failure);
            if let (Some(what), Some(None)) = (member.medium.fatal(), failure) {
                return Err(self.violated("failure", format!("it goes on after {what}")));
            }
        }
        Ok(())
    }

    /// Ends the process, loses what it had not synced, and starts the next one.
    pub(super) fn crash(&mut self, node: usize, loss: Loss, why: &str) -> Result<(), Over> {
        self.report.crashes += 1;
        self.stop(node, crash(loss), why);
        self.start(node)
    }

    /// Ends the process, loses what it had not synced, and starts the next one after a while.
    pub(super) fn go_down(&mut self, node: usize, loss: Loss, millis: u64) {
        if self.nodes[node].life.is_none() {
            return;
        }
        self.report.crashes += 1;
        self.stop(node, crash(loss), "the machine is switched off");
        let until = self.time.now() + Duration::from_millis(millis);
        self.nodes[node].down_until = Some(until);
    }

    pub(super) fn stop(&mut self, node: usize, crash: Crash, why: &str) {
        self.tell_stopped(node, why);
        // First: nothing that is dropped below reaches the disk any more.
        self.lose(node, crash);
        self.nodes[node].go_on();
        if let Some(life) = self.nodes[node].life.take() {
            life.host.kill();
            self.consumers.disconnect(node);
            self.lasting.forget_calls(node);
        }
    }

    /// The end of a run.
    pub(super) fn end(&mut self) {
        for node in 0..self.nodes.len() {
            self.stop(node, Crash::KeepAll, "the simulation ends");
            self.report.faults += self.nodes[node].medium.failed();
        }
        self.net.end();
        self.lasting.end();
    }

    /// A clean end, and the next life.
    pub(super) fn restart(&mut self, node: usize) -> Result<(), Over> {
        let Some(life) = &self.nodes[node].life else {
            return Ok(());
        };
        let number = self.nodes[node].lives;
        let drained = Arc::new(AtomicBool::new(false));
        let (broker, done) = (life.broker.clone(), Arc::clone(&drained));
        life.client.run(async move {
            broker.drain().await;
            done.store(true, Ordering::Relaxed);
        });
        let until = self.time.now() + Duration::from_millis(RESTART_MS_MAX);
        while !drained.load(Ordering::Relaxed) {
            self.wait(20)?;
            let member = &self.nodes[node];
            if member.lives != number || member.life.is_none() {
                // It died of something else meanwhile.
                return Ok(());
            }
            let patient = member.is_full() || self.time.now() < until;
            if !patient {
                return Err(self.violated("liveness", "a drain does not end"));
            }
        }
        self.stop(node, Crash::KeepAll, "it was asked to");
        self.start(node)
    }

    /// A bit flips while the node is down.
    pub(super) fn flip(&mut self, node: usize, part: &str, at: u64) -> Result<(), Over> {
        self.stop(node, Crash::KeepAll, "somebody drops the disk");
        self.rot(node, part, at);
        self.judge_tail(node);
        self.start(node)
    }

    /// Everything that runs the nodes; a panic there is a defect of a node.
    pub(super) fn guarded(&mut self, run: impl FnOnce(&mut Self) -> Result<(), Over>) {
        if catch_unwind(AssertUnwindSafe(|| run(self).ok())).is_err() {
            let text = guard::last().unwrap_or_default();
            self.lasting.watch.violated("panic", text);
        }
    }
}

pub(super) const fn crash(loss: Loss) -> Crash {
    match loss {
        Loss::Nothing => Crash::KeepAll,
        Loss::Everything => Crash::DropAll,
        Loss::Some(seed) => Crash::Random(seed),
    }
}

fn options(shape: &NodeShape) -> NodeOptions {
    NodeOptions {
        shards: shape.shards,
        workers: shape.workers,
        memory_bytes_max: shape.memory_bytes_max,
        disk_reserve_bytes: 0,
        checkpoint_journal_bytes: shape.checkpoint_journal_bytes,
        checkpoint_entries: shape.checkpoint_entries,
        session_ttl: Duration::from_millis(shape.session_ttl_ms),
        journal: JournalOptions {
            file_bytes: shape.journal_file_bytes,
            batch_records_max: shape.batch_records_max,
            ..JournalOptions::default()
        },
        ..NodeOptions::new(PathBuf::from(DATA_DIR))
    }
}
