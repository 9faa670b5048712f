//! From topics into a bound queue: reads on from the cursor, keeps what the filters want, and
//! proposes both the messages and the cursor's move as one command.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{Outcome, Room};
use millrace_engine::routing::Matcher;
use millrace_engine::spec::QueueSpec;
use millrace_storage::records::{framed_bytes, push_record};
use millrace_storage::{Limits, ReadError};
use millrace_types::{
    Address, BATCH_MESSAGES_MAX, Count, ErrorCode, LogId, Offset, Refusal, ShardId,
};

use super::{Ended, Pumps, STEP_BYTES_MAX, STEP_MESSAGES_MAX};
use crate::bodies::Bodies;
use crate::leaders::Led;
use crate::message;
use crate::node::Node;
use crate::view::CatalogueView;

/// A queue and what it is bound to, at one moment.
struct Bound {
    revision: u64,
    spec: Arc<QueueSpec>,
    /// Of its partitions.
    cursors: BTreeMap<LogId, Offset>,
    room: Room,
}

/// One binding at work.
struct Lane<'a> {
    node: &'a Node,
    shard: ShardId,
    queue: LogId,
    revision: u64,
    partition: LogId,
    source: Source,
    /// The same for each partition of a topic.
    filters: Arc<Vec<Matcher>>,
    cursor: Offset,
}

/// Where a partition is read.
enum Source {
    /// From the replica of this node.
    Here(Bodies),
    /// From the leader of this shard.
    There(ShardId),
}

/// What there is from a cursor on.
enum Found {
    /// Nothing.
    Nothing,
    /// Some of it; nothing before `first` is there any more.
    Messages {
        first: Offset,
        messages: Vec<(Offset, Bytes)>,
    },
}

/// What one step proposes.
struct Step {
    to: Offset,
    records: Vec<u8>,
    count: Count,
}

/// How a step went.
enum Stepped {
    /// The cursor has moved.
    On,
    /// Nothing is there to read.
    AtEnd,
    /// No further.
    Ended(Ended),
}

/// Runs all bindings of a queue until each has caught up, with the filters it has by then.
pub(super) async fn run(node: &Arc<Node>, shard: ShardId, queue: LogId) -> Ended {
    loop {
        let bound = match ask(node, shard, queue).await {
            Ok(Some(bound)) => bound,
            // Frozen or gone: its return wakes this pump again.
            Ok(None) => return Ended::CaughtUp,
            Err(refusal) => return Ended::refused(&refusal),
        };
        if let Some(ended) = run_configured(node, shard, queue, bound).await {
            return ended;
        }
    }
}

/// The same, the bindings taking turns; nothing when the queue has been configured anew meanwhile.
async fn run_configured(node: &Node, shard: ShardId, queue: LogId, bound: Bound) -> Option<Ended> {
    let (revision, mut room) = (bound.revision, bound.room);
    let mut lanes = Vec::new();
    let mut stuck = None;
    let view = node.view.borrow().clone();
    for topic in &bound.spec.bindings {
        let filters: Result<_, _> = topic.filters.iter().map(Matcher::new).collect();
        let filters = match filters {
            Ok(filters) => Arc::new(filters),
            Err(error) => {
                stuck = Some(Ended::Stuck(error.to_string()));
                continue;
            }
        };
        for partition in &topic.partitions {
            let Some(cursor) = bound.cursors.get(partition) else {
                continue;
            };
            let source = match source(node, &view, &topic.topic, *partition) {
                Ok(Some(source)) => source,
                // Not configured yet: that wakes this pump again.
                Ok(None) => continue,
                Err(refusal) => {
                    stuck = Some(Ended::refused(&refusal));
                    continue;
                }
            };
            lanes.push(Lane {
                node,
                shard,
                queue,
                revision,
                partition: *partition,
                source,
                filters: Arc::clone(&filters),
                cursor: *cursor,
            });
        }
    }
    while !lanes.is_empty() {
        let mut at = 0;
        while at < lanes.len() {
            match lanes[at].step(room).await {
                Stepped::On => at += 1,
                Stepped::AtEnd => {
                    lanes.swap_remove(at);
                }
                Stepped::Ended(ended @ (Ended::Stuck(_) | Ended::Away(_))) => {
                    stuck = Some(ended);
                    lanes.swap_remove(at);
                }
                Stepped::Ended(ended) => return Some(ended),
            }
        }
        match look(node, shard, queue).await {
            Ok(Some((now, _))) if now != revision => return None,
            Ok(Some((_, now))) => room = now,
            Ok(None) => return Some(Ended::CaughtUp),
            Err(refusal) => return Some(Ended::refused(&refusal)),
        }
    }
    Some(stuck.unwrap_or(Ended::CaughtUp))
}

async fn ask(node: &Node, shard: ShardId, queue: LogId) -> Result<Option<Bound>, Refusal> {
    node.ask(shard, move |shard| {
        let queue = shard.queue(queue).filter(|queue| !queue.is_frozen())?;
        Some(Bound {
            revision: queue.revision(),
            spec: Arc::clone(queue.spec()),
            cursors: queue.cursors().collect(),
            room: queue.room(),
        })
    })
    .await
}

/// What changes while a queue is configured as it is: nothing but its room, and then its revision.
async fn look(node: &Node, shard: ShardId, queue: LogId) -> Result<Option<(u64, Room)>, Refusal> {
    node.ask(shard, move |shard| {
        let queue = shard.queue(queue).filter(|queue| !queue.is_frozen())?;
        Some((queue.revision(), queue.room()))
    })
    .await
}

/// The replica of a partition here, or the way to one elsewhere.
fn source(
    node: &Node,
    view: &CatalogueView,
    topic: &Address,
    partition: LogId,
) -> Result<Option<Source>, Refusal> {
    let home = node.logs.shard(partition).or_else(|| {
        let topic = view.lookup(topic)?;
        let mut places = topic.partitions().iter();
        let (shard, _) = places.find(|(_, log)| *log == partition)?;
        // Where there is a replica, it is not configured yet.
        (!node.hosts(*shard)).then_some(*shard)
    });
    let Some(home) = home else {
        return Ok(None);
    };
    if !node.hosts(home) && matches!(node.led(home), Led::There(_)) {
        return Ok(Some(Source::There(home)));
    }
    node.bodies(home).map(|bodies| Some(Source::Here(bodies)))
}

impl Lane<'_> {
    async fn step(&mut self, room: Room) -> Stepped {
        let found = match &self.source {
            Source::Here(bodies) => self.read_here(bodies).await,
            Source::There(shard) => self.read_there(*shard).await,
        };
        let (first, messages) = match found {
            Ok(Found::Nothing) => return Stepped::AtEnd,
            Ok(Found::Messages { first, messages }) => (first, messages),
            Err(ended) => return Stepped::Ended(ended),
        };
        let step = if self.cursor < first {
            self.miss(first)
        } else if messages.is_empty() {
            // Trimmed since we looked; what is left is found by looking again.
            return self.look_again(first);
        } else {
            match select(&self.filters, &messages, room) {
                Ok(step) if step.to == self.cursor => {
                    return Stepped::Ended(Ended::StillFull);
                }
                Ok(step) => step,
                Err(why) => return Stepped::Ended(Ended::Stuck(why)),
            }
        };
        // They count as memory, and the next may have to wait for some.
        drop(messages);
        self.propose(step).await
    }

    /// What the replica here has applied, which everybody has or will have.
    async fn read_here(&self, bodies: &Bodies) -> Result<Found, Ended> {
        let Some(extent) = self.node.logs.extent(self.partition) else {
            return Ok(Found::Nothing);
        };
        let extent = extent.borrow().clone();
        if self.cursor >= extent.end {
            return Ok(Found::Nothing);
        }
        let mut messages = Vec::new();
        if self.cursor >= extent.start {
            let limits = Limits {
                messages_max: STEP_MESSAGES_MAX,
                bytes_max: STEP_BYTES_MAX,
            };
            let (from, end) = (self.cursor, extent.end);
            match bodies.range(self.partition, from, end, limits).await {
                Ok(records) => messages.extend(records.into_iter().map(|r| (r.offset, r.message))),
                Err(ReadError::Discarded { .. }) => {}
                Err(error) => return Err(Ended::Stuck(error.to_string())),
            }
        }
        Ok(Found::Messages {
            first: extent.start,
            messages,
        })
    }

    /// What the leader has.
    async fn read_there(&self, shard: ShardId) -> Result<Found, Ended> {
        let found = self.node.read_there(shard, self.partition, self.cursor);
        let found = found.await.map_err(|refusal| Ended::refused(&refusal))?;
        if self.cursor >= found.end {
            return Ok(Found::Nothing);
        }
        let messages = found.messages.into_iter();
        Ok(Found::Messages {
            first: found.first,
            messages: messages.map(|(at, bytes)| (at, bytes.into())).collect(),
        })
    }

    /// The messages up to `first` were trimmed before they were looked at.
    fn miss(&self, first: Offset) -> Step {
        let (queue, partition, missed) = (self.queue, self.partition, self.cursor.until(first));
        // A binding starts at 0: what was trimmed before it was declared is no loss.
        if self.cursor > Offset::default() {
            self.node.figures.missed_messages.add(missed);
            tracing::warn!(%queue, %partition, missed,
                "messages were trimmed from a topic before a bound queue had taken them");
        }
        Step {
            to: first,
            records: Vec::new(),
            count: 0,
        }
    }

    fn look_again(&mut self, first: Offset) -> Stepped {
        if let Source::Here(bodies) = &self.source
            && bodies.is_replaced()
        {
            return match self.node.bodies(bodies.shard()) {
                Ok(bodies) => {
                    self.source = Source::Here(bodies);
                    Stepped::On
                }
                Err(refusal) => Stepped::Ended(Ended::refused(&refusal)),
            };
        }
        let extent = self.node.logs.extent(self.partition);
        let moved = extent.is_some_and(|extent| extent.borrow().start > first);
        if moved || matches!(self.source, Source::There(_)) {
            return Stepped::On;
        }
        Stepped::Ended(Ended::Stuck(format!(
            "partition {} has no message at {} though it should",
            self.partition, self.cursor
        )))
    }

    async fn propose(&mut self, step: Step) -> Stepped {
        let count = step.count;
        let batch = (count > 0).then_some(BatchHeader {
            count,
            bytes: step.records.len() as u64,
        });
        let command = Command::Transfer {
            queue: self.queue,
            revision: self.revision,
            partition: self.partition,
            from: self.cursor,
            to: step.to,
            batch,
        };
        if count > 0 {
            Pumps::wait_for_room(self.node, self.shard).await;
        }
        let pending = self
            .node
            .start(self.shard, command, step.records.into_boxed_slice().into());
        match pending.answer().await {
            Ok(Outcome::Cursor(cursor)) => self.cursor = cursor,
            Ok(_) => {
                self.cursor = step.to;
                self.node.figures.transferred_messages.add(u64::from(count));
            }
            Err(refusal) => {
                return Stepped::Ended(match refusal.code {
                    ErrorCode::QueueFull => Ended::Full(refusal.message),
                    ErrorCode::Orphaned | ErrorCode::NoSuchQueue | ErrorCode::NoSuchPartition => {
                        Ended::CaughtUp
                    }
                    _ => Ended::refused(&refusal),
                });
            }
        }
        Stepped::On
    }
}

/// What the filters want of these records, up to the first that the queue has no room for. One
/// message is tried whatever the room, unless the queue knows that somebody waits.
fn select(filters: &[Matcher], records: &[(Offset, Bytes)], room: Room) -> Result<Step, String> {
    let first = records.first().map(|(first, _)| *first);
    let first = first.unwrap_or_default();
    let mut step = Step {
        to: first,
        records: Vec::new(),
        count: 0,
    };
    for (offset, message) in records {
        let wanted = message::is_wanted(filters, message)
            .map_err(|error| format!("offset {offset}: {error}"))?;
        if wanted {
            let bytes = step.records.len() + framed_bytes(message.len());
            let fits = u64::from(step.count) < room.messages.min(u64::from(BATCH_MESSAGES_MAX))
                && bytes as u64 <= room.bytes;
            if !fits && (step.count > 0 || room.awaited) {
                break;
            }
            push_record(&mut step.records, message);
            step.count += 1;
            if !fits {
                step.to = offset.plus(1);
                break;
            }
        }
        step.to = offset.plus(1);
    }
    Ok(step)
}
