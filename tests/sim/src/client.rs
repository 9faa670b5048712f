//! What clients do to a node, each call as a future of its own: it says what it asks before it
//! asks, and what it was told when it was told. A call that a crash cuts off says nothing more,
//! which leaves it unknown; one that went to a node that does not lead goes elsewhere.

mod again;
mod consumers;
mod publish;
mod take;
mod topology;

use std::collections::BTreeMap;
use std::future::Future;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use millrace_node::{Broker, Host as _, ObjectKind, Peek, Position, Read, Stats};
use millrace_types::{Address, Applied, ErrorCode, LogId, Offset, Refusal, ShardId, Wall};

use crate::declared;
use crate::event::{Answer, Body, Event, Read as ReadEvent, ShardFigures};
use crate::facts::Log;
use crate::host::SimHost;
use crate::network::Net;
use crate::plan::{From, Shape};
use crate::watch::Watch;
use again::Calls;

pub(crate) use consumers::{Consumers, Wants};
pub(crate) use take::Wish;

/// Everything a reader may take at once.
const READ_BYTES_MAX: u64 = 1 << 30;

/// Messages that a reader may take at once: all there are.
const READ_MESSAGES_MAX: u32 = 10_000;
/// Messages that a peek may show: what a broker allows.
const PEEK_MESSAGES_MAX: u32 = 1_000;

/// What outlives a node.
pub(crate) struct Lasting {
    /// Sees everything.
    pub watch: Watch,
    /// What each place declares, as far as its kind goes.
    pub objects: Vec<Shape>,
    /// Bytes of a message at most.
    pub message_bytes_max: u64,
    numbers: Mutex<Numbers>,
    calls: Mutex<Calls>,
}

#[derive(Default)]
struct Numbers {
    message: u64,
    call: u64,
    /// Of what was sent to any node.
    order: u64,
    generation: i64,
    /// A change of the topology is on its way, over this node.
    declaring: Option<usize>,
    /// Changes of the topology so far,
    declaration: u64,
    /// and the last of them that is in force.
    in_force: u64,
}

impl Lasting {
    /// Nothing has been numbered yet.
    #[must_use]
    pub(crate) fn new(watch: Watch, objects: Vec<Shape>, message_bytes_max: u64) -> Arc<Self> {
        Arc::new(Self {
            watch,
            objects,
            message_bytes_max,
            numbers: Mutex::default(),
            calls: Mutex::default(),
        })
    }

    /// Calls of a node that is gone are over.
    pub(crate) fn forget_calls(&self, node: usize) {
        let mut numbers = self.numbers();
        numbers.declaring = numbers.declaring.filter(|at| *at != node);
        drop(numbers);
        self.send_again(node);
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn numbers(&self) -> MutexGuard<'_, Numbers> {
        self.numbers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn call(&self) -> u64 {
        let mut numbers = self.numbers();
        numbers.call += 1;
        numbers.call
    }

    fn order(&self) -> u64 {
        let mut numbers = self.numbers();
        numbers.order += 1;
        numbers.order
    }
}

/// Where a node is, and what is around it.
#[derive(Clone)]
pub(crate) struct Place {
    /// Its place in the world.
    pub node: usize,
    /// There is no other.
    pub alone: bool,
    /// The way to the others.
    pub net: Arc<Net>,
}

/// Clients of one life of a node.
#[derive(Clone)]
pub(crate) struct Client {
    pub(crate) lasting: Arc<Lasting>,
    pub(crate) broker: Broker,
    pub(crate) host: SimHost,
    pub(crate) place: Place,
}

impl Client {
    /// Clients of a node that has just started.
    #[must_use]
    pub(crate) fn new(
        lasting: &Arc<Lasting>,
        broker: &Broker,
        host: &SimHost,
        place: Place,
    ) -> Self {
        Self {
            place,
            lasting: Arc::clone(lasting),
            broker: broker.clone(),
            host: host.clone(),
        }
    }

    /// Starts a call.
    pub(crate) fn run(&self, call: impl Future<Output = ()> + Send + 'static) {
        self.host.spawn(Box::pin(call));
    }

    pub(crate) fn tell(&self, event: &Event) {
        self.lasting.watch.tell(event);
    }

    pub(crate) fn now_ms(&self) -> u64 {
        self.host.clock().time().millis()
    }

    /// How many events there were.
    pub(crate) fn events(&self) -> u64 {
        self.lasting.watch.with(|state| state.facts.events)
    }

    /// How an object is called.
    pub(crate) fn address(&self, object: usize) -> Address {
        declared::address(object, &self.lasting.objects[object])
    }

    /// The present life behind an address.
    pub(crate) fn log(&self, address: &Address, partition: u32) -> Option<LogId> {
        Some(self.whereabouts(address, partition)?.1)
    }

    /// The shard behind an address.
    pub(crate) fn shard(&self, address: &Address, partition: u32) -> Option<u32> {
        Some(self.whereabouts(address, partition)?.0.get())
    }

    fn whereabouts(&self, address: &Address, partition: u32) -> Option<(ShardId, LogId)> {
        let view = self.broker.catalogue().borrow().clone();
        match &view.lookup(address)?.kind {
            ObjectKind::Queue { shard, log, .. } => Some((*shard, *log)),
            ObjectKind::Topic { partitions } => {
                partitions.get(usize::try_from(partition).ok()?).copied()
            }
        }
    }

    /// Takes note of every life there is.
    pub(crate) fn note_logs(&self) {
        let view = self.broker.catalogue().borrow().clone();
        let mut found: BTreeMap<LogId, Log> = BTreeMap::new();
        for object in 0..self.lasting.objects.len() {
            let address = self.address(object);
            let dead = address.dead_letter();
            for (address, dead) in [(Some(address), false), (dead, true)] {
                let Some(address) = address else { continue };
                let Some(declared) = view.lookup(&address) else {
                    continue;
                };
                let logs = match &declared.kind {
                    ObjectKind::Queue { shard, log, .. } => vec![(*shard, *log)],
                    ObjectKind::Topic { partitions } => partitions.to_vec(),
                };
                for (shard, log) in logs {
                    let one = Log {
                        address: address.clone(),
                        object,
                        dead,
                        condemned: false,
                        shard: shard.get(),
                    };
                    found.insert(log, one);
                }
            }
        }
        self.lasting.watch.with(|state| {
            for (id, log) in found {
                state.facts.logs.entry(id).or_insert(log);
            }
        });
    }

    /// Reads a topic once.
    pub(crate) fn read(&self, topic: usize, partition: u32, from: From, messages_max: u32) {
        self.read_again((topic, partition), from, messages_max, 0);
    }

    fn read_again(
        &self,
        (topic, partition): (usize, u32),
        place: From,
        messages_max: u32,
        tries: u32,
    ) {
        let address = self.address(topic);
        let Some(log) = self.log(&address, partition) else {
            return;
        };
        self.note_logs();
        let end = self.lasting.watch.with(|state| state.facts.end_max(log));
        let (from, start, since_wall) = match place {
            From::Earliest => (Position::Earliest, None, None),
            From::Latest => (Position::Latest, None, None),
            From::Part(part) => {
                let at = end * part / 1_000;
                (Position::Offset(Offset::new(at)), Some(at), None)
            }
            From::Ago(millis) => {
                let wall = self.host.clock().wall_millis().saturating_sub(millis);
                (Position::Time(Wall::from_millis(wall)), None, Some(wall))
            }
        };
        let read = Read {
            address,
            partition,
            from,
            messages_max,
            bytes_max: READ_BYTES_MAX,
        };
        let (client, asked_ms, asked) = (self.clone(), self.now_ms(), self.events());
        self.run(async move {
            let answer = match client.broker.read(read).await {
                Ok(answer) => answer,
                Err(refusal) => {
                    client.elsewhere(&refusal, tries, move |client| {
                        client.read_again((topic, partition), place, messages_max, tries + 1);
                    });
                    return;
                }
            };
            let records = answer.records.into_iter();
            let event = ReadEvent {
                log,
                from: start,
                from_latest: place == From::Latest,
                since_wall,
                records: records
                    .map(|r| (r.offset.get(), r.stored_at.as_millis(), Body(r.message)))
                    .collect(),
                next: answer.next.get(),
                available: answer.available.start.get()..answer.available.end.get(),
                asked_ms,
                asked,
            };
            client.tell(&Event::Read(event));
        });
    }

    /// Asks for figures.
    pub(crate) fn look(&self) {
        let client = self.clone();
        let asked = self.events();
        self.run(async move {
            let stats = client.broker.stats(1_000).await;
            client.tell_figures(asked, &stats);
        });
    }

    /// Whether nobody may be surprised that messages behind an address do not come.
    pub(crate) fn may_be_missed(&self, address: &Address, partition: u32) -> bool {
        let log = self.log(address, partition);
        let watch = &self.lasting.watch;
        log.is_some_and(|log| watch.with(|state| state.facts.may_be_missed(log)))
    }

    /// Reads everything that an object holds; tells when its shard refuses.
    pub(crate) fn examine(&self, object: usize, shape: &Shape) {
        let partitions = match shape {
            Shape::Queue(_) => 0,
            Shape::Topic(topic) => topic.partitions,
        };
        let (client, address) = (self.clone(), self.address(object));
        let dead = address.dead_letter();
        self.run(async move {
            for partition in 0..partitions {
                let read = Read {
                    address: address.clone(),
                    partition,
                    from: Position::Earliest,
                    messages_max: READ_MESSAGES_MAX,
                    bytes_max: READ_BYTES_MAX,
                };
                let refused = client.broker.read(read).await.err();
                client.examined(&address, partition, refused);
            }
            let queue = (partitions == 0).then_some(address);
            for address in queue.into_iter().chain(dead) {
                let peek = Peek {
                    address: address.clone(),
                    from: Offset::default(),
                    messages_max: PEEK_MESSAGES_MAX,
                };
                let refused = client.broker.peek(peek).await.err();
                client.examined(&address, 0, refused);
            }
        });
    }

    fn examined(&self, address: &Address, partition: u32, refused: Option<Refusal>) {
        let unreadable = [ErrorCode::Internal, ErrorCode::ShardUnavailable];
        let refused = refused.filter(|refusal| unreadable.contains(&refusal.code));
        let (Some(refusal), Some(log)) = (refused, self.log(address, partition)) else {
            return;
        };
        let watch = &self.lasting.watch;
        let shard = watch.with(|state| state.facts.logs.get(&log).map(|log| log.shard));
        if let Some(shard) = shard
            && !watch.with(|state| state.facts.damage.has_said(shard))
        {
            let why = refusal.to_string();
            self.tell(&Event::Unreadable { shard, why });
        }
    }

    /// Tells what was said about the shards.
    pub(crate) fn tell_figures(&self, asked: u64, stats: &Stats) {
        let shards = stats.shards.iter().map(|(id, facts)| ShardFigures {
            shard: id.get(),
            replica: facts.replica.map(millrace_types::ReplicaId::get),
            unavailable: facts.unavailable.clone(),
            last: facts.last.get(),
            synced: facts.synced.get(),
            committed: facts.committed.get(),
            term: facts.term.get(),
            applied: facts.applied.get(),
            checkpoint: facts.checkpoint.get(),
        });
        let shards = shards.collect();
        let node = self.place.node;
        self.tell(&Event::Figures {
            node,
            asked,
            shards,
        });
    }

    /// Asks for checksums of the data shards.
    pub(crate) fn compare(&self, shards: u32) {
        let client = self.clone();
        self.run(async move {
            for shard in 1..=shards {
                let answer = client.broker.checksum(ShardId::new(shard)).await;
                if let Ok((applied, checksum)) = answer {
                    client.tell(&Event::Checksum {
                        node: client.place.node,
                        shard,
                        applied: applied.get(),
                        checksum,
                    });
                }
            }
        });
    }

    /// Resolves when so many milliseconds have passed.
    pub(crate) fn sleep(&self, millis: u64) -> impl Future<Output = ()> + Send + use<> {
        self.host.sleep(Duration::from_millis(millis))
    }
}

/// What a client knows after this.
pub(crate) fn answer<T>(result: Result<T, Refusal>) -> Answer<T> {
    match result {
        Ok(done) => Answer::Done(done),
        Err(refusal) if refusal.applied == Applied::No => {
            Answer::Refused(refusal.code.reason().to_owned())
        }
        Err(_) => Answer::Unknown,
    }
}
