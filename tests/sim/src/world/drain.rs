//! The end of a run: faults stop, everything declared is there again, and within bounded time every
//! message has been handed out and handled, every dead letter and transfer has arrived, and the
//! queues are empty. Then everything that can be read is read.

use std::sync::{Arc, Mutex};

use millrace_types::ErrorCode;

use super::{Over, World};
use crate::client::{Client, Wish};
use crate::event::Event;
use crate::plan::{End, From, Loss, QueueShape, Shape};

/// Time between two looks.
const LOOK_EVERY_MS: u64 = 2_000;
/// Looks until everything must have happened: well beyond the longest lease (a minute), two
/// lifetimes of a session (two), and all backoffs.
const LOOKS_MAX: u32 = 200;
/// Looks in a row that find nothing left.
const LOOKS_CALM: u32 = 2;
/// Messages read at once: all there are.
const READ_MAX: u32 = 10_000;
/// How long declaring takes at most.
const DECLARE_MS_MAX: u64 = 60_000;

impl World<'_> {
    /// Declares everything for the first time.
    pub(super) fn declare_all(&mut self) -> Result<(), Over> {
        let shapes = self.plan.objects.iter().cloned().map(Some);
        self.declare(shapes.enumerate().collect())
    }

    fn declare(&mut self, changes: Vec<(usize, Option<Shape>)>) -> Result<(), Over> {
        let until = self.time.millis() + DECLARE_MS_MAX;
        let mut declaration = None;
        loop {
            let node = self.leader_of(0);
            let Some(client) = self.client(node).cloned() else {
                return Err(Over);
            };
            declaration = client.declare(changes.clone()).or(declaration);
            self.wait(200)?;
            if declaration.is_some_and(|number| client.is_in_force(number)) {
                return Ok(());
            }
            if self.is_excused() {
                return Err(Over);
            }
            if self.time.millis() > until {
                // Damage that only the scrubber has met is told to who asks.
                client.look();
                self.wait(200)?;
            }
            if self.time.millis() > until && self.has_any_said() {
                // Those that serve have it.
                return Ok(());
            }
            if self.time.millis() > until {
                return Err(self.violated("liveness", "the topology is not taken"));
            }
        }
    }

    /// The node that leads a shard, or any.
    fn leader_of(&mut self, shard: u32) -> usize {
        match self.net.leader(shard) {
            _ if self.is_alone() => 0,
            Some(leader) if self.client(leader).is_some() => leader,
            _ => self.anybody(),
        }
    }

    /// Faults stop; everything has to come to its end.
    pub(super) fn drain(&mut self) -> Result<(), Over> {
        self.calm = true;
        self.heal()?;
        for node in 0..self.nodes.len() {
            let member = &mut self.nodes[node];
            member.make_room();
            member.medium.stay();
            member.ahead.clear();
            match &member.life {
                Some(life) if life.threatened => {
                    self.crash(node, Loss::Nothing, "faults are over")?;
                }
                Some(life) => life.host.keep_effects(),
                None => {}
            }
            self.consumers.disconnect(node);
        }
        self.wait(LOOK_EVERY_MS)?;
        self.stop_at_violation()?;
        self.take_back()?;
        self.settle_down()?;
        if self.scrub()? {
            // What was found by then is replaced.
            self.settle_down()?;
        }
        if self.has_catalogue_said() {
            return Err(Over);
        }
        if self.has_any_said() {
            // One that waits for a damaged shard waits for ever.
            (0..self.nodes.len()).for_each(|node| self.lasting.forget_calls(node));
        }
        let finals = self.final_shapes();
        self.declare(finals)?;
        let mut calm = 0;
        for _ in 0..LOOKS_MAX {
            self.take_everything()?;
            self.stop_at_violation()?;
            calm = match self.look_for_rest()? {
                None => calm + 1,
                Some(_) => 0,
            };
            if calm == LOOKS_CALM {
                return self.afterwards();
            }
        }
        if self.is_excused() {
            return Err(Over);
        }
        let rest = self.look_for_rest()?.unwrap_or_default();
        Err(self.violated("liveness", format!("still not done: {rest}")))
    }

    /// Every object as it was last, without what would keep messages from moving.
    fn final_shapes(&self) -> Vec<(usize, Option<Shape>)> {
        self.lasting.watch.with(|state| {
            let eras = state.facts.eras.iter().enumerate();
            let shapes = eras.filter_map(|(object, eras)| {
                let shape = match eras.iter().rev().find_map(|era| era.shape.clone())? {
                    Shape::Queue(queue) => Shape::Queue(QueueShape {
                        messages_max: None,
                        in_flight_max: 1_000,
                        // Changes something in any case, so that the revision moves.
                        lease_ms: queue.lease_ms + 1,
                        ..queue
                    }),
                    topic => topic,
                };
                Some((object, Some(shape)))
            });
            shapes.collect()
        })
    }

    /// Takes what can be taken now, and accepts it.
    fn take_everything(&mut self) -> Result<(), Over> {
        for (object, shape) in self.plan.objects.iter().enumerate() {
            if !matches!(shape, Shape::Queue(_)) {
                continue;
            }
            for dead in [false, true] {
                let Some(client) = self.client_of(object, dead, 0) else {
                    return Err(Over);
                };
                take(&client, object, dead);
            }
        }
        self.wait(LOOK_EVERY_MS)
    }

    /// Clients of the node that leads the shard of a queue or partition.
    fn client_of(&mut self, object: usize, dead: bool, partition: u32) -> Option<Client> {
        let client = self.clients().next()?;
        let shard = client.shard(&client.queue(object, dead), partition);
        let node = self.leader_of(shard.unwrap_or_default());
        self.client(node).cloned()
    }

    /// What is left to be done, for people.
    pub(super) fn look_for_rest(&mut self) -> Result<Option<String>, Over> {
        let clients: Vec<Client> = self.clients().cloned().collect();
        if clients.len() < self.nodes.len() {
            return Err(Over);
        }
        let found = Arc::new(Mutex::new(Vec::new()));
        for client in &clients {
            let (asking, place) = (client.clone(), Arc::clone(&found));
            client.run(async move {
                let rest = rest(&asking).await;
                if let Ok(mut place) = place.lock() {
                    place.push(rest);
                }
            });
        }
        self.wait(LOOK_EVERY_MS)?;
        let found = found.lock().map(|mut found| std::mem::take(&mut *found));
        let found = found.unwrap_or_default();
        if found.len() < clients.len() {
            return Ok(Some("somebody does not answer".into()));
        }
        Ok(found.into_iter().flatten().next())
    }

    fn afterwards(&mut self) -> Result<(), Over> {
        self.read_everything()?;
        self.lasting.watch.tell(&Event::Drained);
        self.stop_at_violation()?;
        self.rest()?;
        for node in 0..self.nodes.len() {
            self.restart(node)?;
        }
        self.settle_down()?;
        self.read_everything()?;
        self.take_everything()?;
        self.clients().for_each(Client::look);
        self.wait(LOOK_EVERY_MS)?;
        self.stop_at_violation()?;
        match self.look_for_rest()? {
            Some(rest) if !self.is_excused() && !self.has_catalogue_said() => {
                Err(self.violated("settled", format!("after a clean restart: {rest}")))
            }
            _ => Ok(()),
        }
    }

    fn read_everything(&mut self) -> Result<(), Over> {
        for (object, shape) in self.plan.objects.iter().enumerate() {
            let Shape::Topic(topic) = shape else {
                continue;
            };
            for partition in 0..topic.partitions {
                if let Some(client) = self.client_of(object, false, partition) {
                    client.read(object, partition, From::Earliest, READ_MAX);
                }
            }
        }
        self.wait(LOOK_EVERY_MS)
    }
}

/// Takes from a queue until it has nothing more, accepting everything.
fn take(client: &Client, object: usize, dead: bool) {
    let wish = Wish {
        messages_max: 100,
        wait_ms: 0,
        lease_ms: None,
        give_up_ms: None,
    };
    let address = client.queue(object, dead);
    let Some(log) = client.log(&address, 0) else {
        return;
    };
    client.note_logs();
    let taking = client.clone();
    client.run(async move {
        loop {
            let leases = taking.take(address.clone(), log, wish).await;
            let leases = leases.unwrap_or_default();
            if leases.is_empty() {
                return;
            }
            taking.end_now(&leases, End::Accept).await;
        }
    });
}

/// What is not done yet.
async fn rest(client: &Client) -> Option<String> {
    let asked = client.events();
    let stats = client.broker.stats(1_000).await;
    client.tell_figures(asked, &stats);
    let watch = &client.lasting.watch;
    let some_said = watch.with(|state| state.facts.damage.has_any_said());
    for (address, queue) in &stats.queues {
        if client.may_be_missed(address, 0) {
            continue;
        }
        // Whether a letter has arrived is known to the shard that it went to.
        let dying = if some_said { 0 } else { queue.dying };
        let unsettled = queue.ready + queue.in_flight + queue.delayed + dying;
        if unsettled > 0 {
            return Some(format!("{address} holds {queue:?}"));
        }
    }
    for object in 0..client.lasting.objects.len() {
        let address = client.address(object);
        let missable = client.may_be_missed(&address, 0);
        match client.broker.describe(&address).await {
            Err(_) if missable => {}
            Err(refusal) if !client.place.alone && refusal.code == ErrorCode::NotLeader => {}
            Err(refusal) => return Some(refusal.to_string()),
            Ok(_) if missable => {}
            Ok(description) => {
                let mut bindings = description.bindings.iter();
                let behind = bindings.find(|binding| {
                    binding.lag > 0 && !client.may_be_missed(&binding.topic, binding.partition)
                });
                if let Some(behind) = behind {
                    return Some(format!("{address} lags: {behind:?}"));
                }
                if description.summary.kind.is_none() && client.place.alone {
                    return Some(format!("{address} has no figures"));
                }
            }
        }
    }
    None
}
