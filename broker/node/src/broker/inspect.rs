//! Looking at queues and topics, and figures for metrics.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::future::join_all;
use millrace_engine::outcome::{QueueStats, SessionView};
use millrace_storage::{Area, TimesSeen, Traffic};
use millrace_types::{Address, ErrorCode, LogId, LogIndex, Offset, Refusal, ShardId};

use super::Broker;
use crate::facts::{
    BindingFacts, ConsumerFacts, Description, JournalFacts, List, Listed, QueueFacts, ShardFacts,
    Stats, Summary, SummaryKind, TopicFacts,
};
use crate::input::Input;
use crate::log_facts::{self, LOGS_SLICE, LogFacts};
use crate::options::MESSAGES_MAX;
use crate::pumps::Job;
use crate::reply::Reply;
use crate::view::{CatalogueView, Object, ObjectKind};

/// Figures by log.
type ByLog = BTreeMap<LogId, LogFacts>;

/// What figures are true of.
#[derive(Clone, Copy)]
enum AsOf {
    /// Everything that was acknowledged before.
    Now,
    /// What is applied here, perhaps a moment behind: good enough for metrics.
    Applied,
}

impl Broker {
    /// A page of what is declared or kept.
    ///
    /// # Errors
    /// `INVALID_ARGUMENT`; `SHARD_UNAVAILABLE` when the catalogue cannot be read.
    pub async fn list(&self, list: List) -> Result<Listed, Refusal> {
        let limit = MESSAGES_MAX as usize;
        if !(1..=limit).contains(&list.objects_max) {
            let given = list.objects_max;
            return Err(Refusal::new(
                ErrorCode::InvalidArgument,
                format!("a page has 1..={limit} objects, not {given}"),
            )
            .with("field", "page_size"));
        }
        let view = self.node.view.borrow().clone();
        let topology = view.topology()?;
        let all: Box<dyn Iterator<Item = _> + Send> = match &list.after {
            Some(after) => Box::new(topology.iter_after(after)),
            None => Box::new(topology.iter()),
        };
        let mut page: Vec<(&Address, Object<'_>)> = all
            .filter(|(_, object)| match object.kind {
                ObjectKind::Queue { .. } => list.queues,
                ObjectKind::Topic { .. } => list.topics,
            })
            .filter(|(address, _)| {
                list.namespace
                    .as_ref()
                    .is_none_or(|namespace| address.namespace() == namespace)
            })
            .take(list.objects_max + 1)
            .collect();
        let more = page.len() > list.objects_max;
        page.truncate(list.objects_max);
        let next = if more {
            page.last().map(|(address, _)| (*address).clone())
        } else {
            None
        };
        let items = self.summaries(&view, &page).await;
        Ok(Listed { items, next })
    }

    async fn summaries(
        &self,
        view: &CatalogueView,
        page: &[(&Address, Object<'_>)],
    ) -> Vec<Summary> {
        let mut logs = Vec::new();
        for (address, object) in page {
            logs.extend(places(object));
            let dead = address.dead_letter().and_then(|dead| view.lookup(&dead));
            logs.extend(dead.iter().flat_map(places));
        }
        let facts = self.log_facts(logs, AsOf::Now).await;
        page.iter()
            .map(|(address, object)| summary(view, address, object, &facts))
            .collect()
    }

    /// Figures of logs; those of shards that cannot be asked are missing.
    async fn log_facts(&self, logs: Vec<(ShardId, LogId)>, as_of: AsOf) -> ByLog {
        let asked = self.facts_by_shard(logs, as_of).await;
        asked
            .into_iter()
            .flat_map(Result::unwrap_or_default)
            .collect()
    }

    /// The same, all at once, with why a shard cannot be asked.
    async fn facts_by_shard(
        &self,
        logs: Vec<(ShardId, LogId)>,
        as_of: AsOf,
    ) -> Vec<Result<ByLog, Refusal>> {
        let mut by_shard: BTreeMap<ShardId, Vec<LogId>> = BTreeMap::new();
        for (shard, log) in logs {
            by_shard.entry(shard).or_default().push(log);
        }
        let shards = by_shard.into_iter();
        join_all(shards.map(|(id, logs)| self.facts_of(id, logs, as_of))).await
    }

    async fn facts_of(&self, id: ShardId, logs: Vec<LogId>, as_of: AsOf) -> Result<ByLog, Refusal> {
        let mut facts = BTreeMap::new();
        // A slice at a time, so that those who publish are not held up.
        for slice in logs.chunks(LOGS_SLICE) {
            let slice = slice.to_vec();
            facts.extend(match as_of {
                AsOf::Now => self.node.log_facts(id, slice).await?,
                // Each node shows what it has; no other one is asked for metrics.
                AsOf::Applied if !self.node.hosts(id) => break,
                AsOf::Applied => {
                    let question =
                        move |shard: &millrace_engine::Shard| log_facts::of(shard, &slice);
                    self.node.ask(id, question).await?
                }
            });
        }
        Ok(facts)
    }

    /// One queue or topic in full.
    ///
    /// # Errors
    /// `NO_SUCH_QUEUE`, `NO_SUCH_TOPIC`, `SHARD_UNAVAILABLE`.
    pub async fn describe(&self, address: &Address) -> Result<Description, Refusal> {
        self.find(address).await?;
        let view = self.node.view.borrow().clone();
        let object = view.require(address)?;
        let mut logs = places(&object);
        let dead = address.dead_letter().and_then(|dead| view.lookup(&dead));
        logs.extend(dead.iter().flat_map(places));
        let mut facts = BTreeMap::new();
        for asked in self.facts_by_shard(logs, AsOf::Now).await {
            facts.extend(asked?);
        }
        let mut description = Description {
            summary: summary(&view, address, &object, &facts),
            wire: object.wire.clone(),
            consumers: Vec::new(),
            bindings: Vec::new(),
            partitions: Vec::new(),
        };
        match object.kind {
            ObjectKind::Topic { partitions } => {
                description.partitions = partitions
                    .iter()
                    .filter_map(|(_, log)| match facts.get(log) {
                        Some(LogFacts::Partition(partition)) => Some(partition.clone()),
                        _ => None,
                    })
                    .collect();
            }
            ObjectKind::Queue { shard, log, .. } => {
                self.describe_queue(shard, log, &mut description).await?;
            }
        }
        Ok(description)
    }

    async fn describe_queue(
        &self,
        shard: ShardId,
        log: LogId,
        description: &mut Description,
    ) -> Result<(), Refusal> {
        let found = self.node.ask_current(shard, move |shard| {
            let queue = shard.queue(log)?;
            let sessions: Vec<SessionView> = queue.sessions().collect();
            let cursors: BTreeMap<LogId, Offset> = queue.cursors().collect();
            Some((sessions, Arc::clone(queue.spec()), cursors))
        });
        let Some((sessions, spec, cursors)) = found.await? else {
            return Ok(());
        };
        description.consumers = sessions
            .into_iter()
            .map(|session| ConsumerFacts {
                name: session.consumer,
                in_flight: session.in_flight,
                connected: session.attached,
            })
            .collect();
        let stalled = self.node.pumps.blocked(Job::Transfer { shard, queue: log });
        let stalled = stalled.map(|problem| problem.message).unwrap_or_default();
        let bound = spec.bindings.iter().flat_map(|bound| &bound.partitions);
        let ends = self.ends(bound.copied()).await?;
        for bound in &spec.bindings {
            for (log, partition) in bound.partitions.iter().zip(0..) {
                let cursor = cursors.get(log).copied().unwrap_or_default();
                let lag = ends.get(log).map_or(0, |end| cursor.until(*end));
                description.bindings.push(BindingFacts {
                    topic: bound.topic.clone(),
                    partition,
                    cursor,
                    lag,
                    stalled: if lag > 0 {
                        stalled.clone()
                    } else {
                        String::new()
                    },
                });
            }
        }
        Ok(())
    }

    /// Where partitions end now: nobody who was told of a message is told that it is no lag.
    async fn ends(
        &self,
        partitions: impl Iterator<Item = LogId>,
    ) -> Result<BTreeMap<LogId, Offset>, Refusal> {
        let (mut ends, mut asked) = (BTreeMap::new(), BTreeMap::<ShardId, Vec<LogId>>::new());
        for log in partitions {
            match self.node.home(log)? {
                Some(shard) if self.node.hosts(shard) => asked.entry(shard).or_default().push(log),
                // What its neighbours said last.
                _ => {
                    let extent = self.node.logs.extent(log);
                    ends.extend(extent.map(|extent| (log, extent.borrow().end)));
                }
            }
        }
        for (shard, logs) in asked {
            let question = move |shard: &millrace_engine::Shard| -> Vec<(LogId, Offset)> {
                let end = |log| Some((log, shard.partition(log)?.end()));
                logs.into_iter().filter_map(end).collect()
            };
            ends.extend(self.node.ask_current(shard, question).await?);
        }
        Ok(ends)
    }

    /// How many entries a data shard has applied, and a number to compare its state by: equal on
    /// every replica, and after every replay, at an equal index. Encodes the whole state.
    ///
    /// # Errors
    /// `SHARD_UNAVAILABLE`.
    pub async fn checksum(&self, shard: ShardId) -> Result<(LogIndex, u64), Refusal> {
        let found = self
            .node
            .ask(shard, |shard| (shard.applied(), shard.checksum()));
        found.await
    }

    /// Figures for metrics: of `objects_max` queues (those for dead letters are counted, too) and
    /// as many topics, the first ones in order of addresses.
    pub async fn stats(&self, objects_max: usize) -> Stats {
        let figures = &self.node.figures;
        let mut stats = Stats {
            journal: self.journal_facts(),
            disk_free_bytes: self.node.disk_free_bytes(),
            disk_reserve_bytes: self.node.options.disk_reserve_bytes,
            published_messages: figures.published_messages.get(),
            published_bytes: figures.published_bytes.get(),
            delivered_messages: figures.delivered_messages.get(),
            settled_messages: figures.settled_messages.get(),
            transferred_messages: figures.transferred_messages.get(),
            dead_lettered_messages: figures.dead_lettered_messages.get(),
            missed_messages: figures.missed_messages.get(),
            snapshots_sent: figures.snapshots_sent.get(),
            snapshot_sent_bytes: figures.snapshot_sent_bytes.get(),
            snapshots_received: figures.snapshots_received.get(),
            snapshot_received_bytes: figures.snapshot_received_bytes.get(),
            snapshots_failed: figures.snapshots_failed.get(),
            snapshots_under_way: self.node.snapshots.under_way() as u64,
            worker_turns: figures.worker_turns.seen(),
            checkpoints: figures.checkpoints.seen(),
            traffic: self.traffic(),
            refusals: figures.refusals(),
            ..Stats::default()
        };
        for inbox in &self.node.inboxes {
            let (reply, pending) = Reply::channel();
            Arc::clone(inbox).send(Input::Facts(reply));
            let facts = self.node.soon(ShardId::METADATA, pending.answer());
            // One that hangs, or has stopped, is left out.
            if let Ok(facts) = facts.await {
                stats.waiting_receives += facts.waiting_receives;
                stats.shards.extend(facts.shards);
            }
        }
        for (number, slot) in (0..).zip(self.node.used_slots()) {
            let id = ShardId::new(number);
            if let unavailable @ Some(_) = slot.damage() {
                stats.shards.insert(
                    id,
                    ShardFacts {
                        unavailable,
                        ..ShardFacts::default()
                    },
                );
            }
        }
        self.add_objects(objects_max, &mut stats).await;
        stats
    }

    async fn add_objects(&self, objects_max: usize, stats: &mut Stats) {
        let view = self.node.view.borrow().clone();
        let (mut queues, mut topics) = (Vec::new(), Vec::new());
        for (address, object) in view.iter() {
            match object.kind {
                ObjectKind::Queue { .. } => {
                    let dead = address.dead_letter();
                    let dead = dead.and_then(|dead| Some((dead.clone(), view.lookup(&dead)?)));
                    let both = [Some((address.clone(), object)), dead];
                    stats.omitted_objects += add(&mut queues, both, objects_max);
                }
                ObjectKind::Topic { .. } => {
                    let one = [Some((address.clone(), object))];
                    stats.omitted_objects += add(&mut topics, one, objects_max);
                }
            }
        }
        let all = queues.iter().chain(&topics);
        let logs = all.flat_map(|(_, object)| places(object)).collect();
        let facts = self.log_facts(logs, AsOf::Applied).await;
        for (address, object) in queues.into_iter().chain(topics) {
            match summary(&view, &address, &object, &facts).kind {
                Some(SummaryKind::Queue(queue)) => {
                    stats.queues.insert(address, queue.stats);
                }
                Some(SummaryKind::Topic(topic)) => {
                    stats.topics.insert(address, topic);
                }
                // It lives elsewhere.
                None => stats.omitted_objects += 1,
            }
        }
    }

    fn journal_facts(&self) -> JournalFacts {
        let stats = self.node.journal.stats();
        JournalFacts {
            fsyncs: stats.fsyncs,
            records: stats.records,
            bytes: stats.bytes,
            live_bytes: stats.live_bytes.values().sum(),
            last_sync: stats.sync.last,
            syncs: stats.syncs,
        }
    }

    fn traffic(&self) -> Vec<(Area, u64, TimesSeen)> {
        let traffic = self.node.data_dir.disk().traffic();
        traffic.map(Traffic::seen).unwrap_or_default()
    }
}

/// Takes objects while there is room for all of them; says how many were left out.
fn add<'a, const N: usize>(
    taken: &mut Vec<(Address, Object<'a>)>,
    objects: [Option<(Address, Object<'a>)>; N],
    objects_max: usize,
) -> u64 {
    let new = objects.into_iter().flatten();
    if taken.len() + N > objects_max {
        return new.count() as u64;
    }
    taken.extend(new);
    0
}

fn places(object: &Object<'_>) -> Vec<(ShardId, LogId)> {
    match object.kind {
        ObjectKind::Queue { shard, log, .. } => vec![(shard, log)],
        ObjectKind::Topic { partitions } => partitions.to_vec(),
    }
}

fn summary(
    view: &CatalogueView,
    address: &Address,
    object: &Object<'_>,
    facts: &BTreeMap<LogId, LogFacts>,
) -> Summary {
    let queue = |log: &LogId| match facts.get(log) {
        Some(LogFacts::Queue(stats)) => Some(*stats),
        _ => None,
    };
    let kind = match object.kind {
        ObjectKind::Queue { log, .. } => queue(&log).map(|stats| {
            let dead = address.dead_letter().and_then(|dead| view.lookup(&dead));
            let dead = dead
                .iter()
                .flat_map(places)
                .find_map(|(_, log)| queue(&log));
            let unsettled = |s: QueueStats| s.ready + s.in_flight + s.delayed + s.dying;
            SummaryKind::Queue(QueueFacts {
                stats,
                dead_lettered: dead.map_or(0, unsettled),
            })
        }),
        ObjectKind::Topic { partitions } => {
            let mut topic = TopicFacts {
                partitions: u32::try_from(partitions.len()).unwrap_or(u32::MAX),
                ..TopicFacts::default()
            };
            let mut found = false;
            for (_, log) in partitions {
                if let Some(LogFacts::Partition(partition)) = facts.get(log) {
                    topic.messages += partition.offsets.start.until(partition.offsets.end);
                    topic.bytes += partition.bytes;
                    found = true;
                }
            }
            found.then_some(SummaryKind::Topic(topic))
        }
    };
    Summary {
        address: address.clone(),
        orphaned: object.orphaned,
        kind,
    }
}
