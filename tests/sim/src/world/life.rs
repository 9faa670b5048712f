//! One life of a node: how it starts, and all the ways it ends.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use millrace_node::{Alone, Broker, NodeOptions, StartError};
use millrace_storage::{Crash, Fault, JournalOptions, Operation};

use super::{Over, STARTS_MAX, World};
use crate::client::Client;
use crate::disk::SimDisk;
use crate::event::Event;
use crate::guard;
use crate::host::{Setting, SimHost};
use crate::plan::{Loss, NodeShape, Step};

/// How long a clean end takes at most.
const RESTART_MS_MAX: u64 = 120_000;
/// Where a node keeps its data.
const DATA_DIR: &str = "/data";

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
    /// Starts the node, again if a fault keeps it from starting.
    pub(super) fn start(&mut self) -> Result<(), Over> {
        for _ in 0..STARTS_MAX {
            let before = self.medium.failed();
            match self.try_start() {
                Ok(life) => {
                    life.watch_failure();
                    self.life = Some(life);
                    self.lives += 1;
                    self.started();
                    return Ok(());
                }
                Err(error) if self.medium.has_ended() => {
                    self.report.crashes += 1;
                    self.tell_stopped(&format!("it died while it started: {error}"));
                    self.lose(crash(self.loss));
                }
                Err(error) if self.may_not_start(&error) => {
                    // It said so, which is all that can be asked of it.
                    return Err(Over);
                }
                Err(error) if self.medium.failed() > before => {
                    self.tell_stopped(&format!("it did not start: {error}"));
                    self.make_room();
                    self.lose(crash(self.loss));
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

    fn try_start(&mut self) -> Result<Life, StartError> {
        let lost = self.plan.node.lost_effects_percent;
        let host = SimHost::new(Setting {
            clock: Arc::clone(&self.clock),
            schedule: self.random.fork(),
            chance: self.random.fork(),
            disk_operations: self.medium.operations(),
            lost_effects_percent: if self.calm { 0 } else { lost },
        });
        self.medium.begin();
        let disk = SimDisk::new(&self.medium);
        let failed_before = self.medium.failed();
        let ahead = std::mem::take(&mut self.ahead);
        let (mut misread, threatened) = (false, !ahead.is_empty());
        for deceit in ahead {
            let first = deceit.operation != Operation::Read || !misread;
            misread |= deceit.operation == Operation::Read;
            if first {
                disk.deceive(deceit.operation, deceit.fault, deceit.after, deceit.part);
            }
        }
        let broker = Broker::start_on(
            Arc::new(disk.clone()),
            Arc::new(host.clone()),
            Arc::new(Alone),
            options(&self.plan.node),
        );
        self.note_struck();
        let broker = match broker {
            Ok(broker) => broker,
            Err(error) => {
                host.kill();
                return Err(error);
            }
        };
        Ok(Life {
            client: Client::new(&self.lasting, &broker, &host),
            host,
            threatened,
            misread,
            disk,
            broker,
            failure: Arc::default(),
            failed_before,
        })
    }

    fn started(&self) {
        let Some(client) = self.client().cloned() else {
            return;
        };
        client.compare(self.plan.node.shards);
        if self.lasting.watch.with(|state| state.facts.damage.is_any()) {
            // Who does not serve says so from the start.
            client.look();
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

    fn tell_stopped(&self, why: &str) {
        let why = why.to_owned();
        self.lasting.watch.tell(&Event::Stopped { why });
    }

    /// Whether the process goes on after what just ran; if not, the next one starts.
    pub(super) fn check_life(&mut self) -> Result<(), Over> {
        self.note_struck();
        if self.medium.has_ended() {
            return self.crash(
                self.loss,
                "the process died inside an operation of the disk",
            );
        }
        let Some(life) = &self.life else {
            return Ok(());
        };
        let Some(failure) = life.failure() else {
            return Ok(());
        };
        if self.medium.failed() == life.failed_before {
            return Err(self.violated("failure", format!("it failed without a cause: {failure}")));
        }
        self.report.faults += 1;
        let loss = match self.random.below(3) {
            0 => Loss::Nothing,
            1 => Loss::Everything,
            _ => Loss::Some(self.random.bits()),
        };
        self.make_room();
        self.crash(loss, &format!("the node failed: {failure}"))
    }

    /// What must hold when nothing is left to do.
    pub(super) fn check_idle(&self) -> Result<(), Over> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        match self.medium.fatal() {
            Some(what) if life.failure().is_none() => {
                Err(self.violated("failure", format!("it goes on after {what}")))
            }
            _ => Ok(()),
        }
    }

    /// Ends the process, loses what it had not synced, and starts the next one.
    pub(super) fn crash(&mut self, loss: Loss, why: &str) -> Result<(), Over> {
        self.report.crashes += 1;
        self.stop(crash(loss), why);
        self.start()
    }

    fn stop(&mut self, crash: Crash, why: &str) {
        self.tell_stopped(why);
        // First: nothing that is dropped below reaches the disk any more.
        self.lose(crash);
        if let Some(life) = self.life.take() {
            life.host.kill();
            self.consumers.disconnect();
            self.lasting.forget_calls();
        }
    }

    /// The end of a run.
    pub(super) fn end(&mut self) {
        self.stop(Crash::KeepAll, "the simulation ends");
        self.report.faults += self.medium.failed();
    }

    /// A clean end, and the next life.
    pub(super) fn restart(&mut self) -> Result<(), Over> {
        let Some(life) = &self.life else {
            return Ok(());
        };
        let number = self.lives;
        let drained = Arc::new(AtomicBool::new(false));
        let (broker, done) = (life.broker.clone(), Arc::clone(&drained));
        life.client.run(async move {
            broker.drain().await;
            done.store(true, Ordering::Relaxed);
        });
        let until = self.clock.now() + Duration::from_millis(RESTART_MS_MAX);
        while !drained.load(Ordering::Relaxed) {
            self.wait(20)?;
            if self.lives != number {
                // It died of something else meanwhile.
                return Ok(());
            }
            let patient = self.full_until.is_some() || self.clock.now() < until;
            if !patient {
                return Err(self.violated("liveness", "a drain does not end"));
            }
        }
        self.stop(Crash::KeepAll, "it was asked to");
        self.start()
    }

    /// A bit flips while the node is down.
    pub(super) fn flip(&mut self, part: &str, at: u64) -> Result<(), Over> {
        self.stop(Crash::KeepAll, "somebody drops the disk");
        self.rot(part, at);
        self.judge_tail();
        self.start()
    }

    /// Everything that runs the node; a panic there is a defect of the node.
    pub(super) fn guarded(&mut self, run: impl FnOnce(&mut Self) -> Result<(), Over>) {
        if catch_unwind(AssertUnwindSafe(|| run(self).ok())).is_err() {
            let text = guard::last().unwrap_or_default();
            self.lasting.watch.violated("panic", text);
        }
    }

    /// The disk is not full any more.
    pub(super) fn make_room(&mut self) {
        self.medium.set_capacity(None);
        self.full_until = None;
    }
}

const fn crash(loss: Loss) -> Crash {
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
