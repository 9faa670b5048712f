//! From topics into a bound queue: reads on from the cursor, keeps what the filters want, and
//! proposes both the messages and the cursor's move as one command.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{Outcome, Room};
use millrace_engine::routing::Matcher;
use millrace_engine::spec::QueueSpec;
use millrace_storage::records::{framed_bytes, push_record};
use millrace_storage::{Limits, ReadError, StoredRecord};
use millrace_types::{BATCH_MESSAGES_MAX, Count, ErrorCode, LogId, Offset, Refusal, ShardId};

use super::{Ended, Pumps, STEP_BYTES_MAX, STEP_MESSAGES_MAX};
use crate::bodies::Bodies;
use crate::message;
use crate::node::Node;

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
    bodies: Bodies,
    /// The same for each partition of a topic.
    filters: Arc<Vec<Matcher>>,
    cursor: Offset,
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
            Err(refusal) => return Ended::Stuck(refusal.to_string()),
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
    for topic in &bound.spec.bindings {
        let filters: Result<_, _> = topic.filters.iter().map(Matcher::new).collect();
        let filters = match filters {
            Ok(filters) => Arc::new(filters),
            Err(error) => {
                stuck = Some(error.to_string());
                continue;
            }
        };
        for partition in &topic.partitions {
            let Some(cursor) = bound.cursors.get(partition) else {
                continue;
            };
            let place = (shard, queue, revision);
            match Lane::new(node, place, (*partition, *cursor), &filters) {
                Ok(Some(lane)) => lanes.push(lane),
                // Not configured yet: that wakes this pump again.
                Ok(None) => {}
                Err(why) => stuck = Some(why),
            }
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
                Stepped::Ended(Ended::Stuck(why)) => {
                    stuck = Some(why);
                    lanes.swap_remove(at);
                }
                Stepped::Ended(ended) => return Some(ended),
            }
        }
        match look(node, shard, queue).await {
            Ok(Some((now, _))) if now != revision => return None,
            Ok(Some((_, now))) => room = now,
            Ok(None) => return Some(Ended::CaughtUp),
            Err(refusal) => return Some(Ended::Stuck(refusal.to_string())),
        }
    }
    Some(stuck.map_or(Ended::CaughtUp, Ended::Stuck))
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

impl<'a> Lane<'a> {
    fn new(
        node: &'a Node,
        place: (ShardId, LogId, u64),
        (partition, cursor): (LogId, Offset),
        filters: &Arc<Vec<Matcher>>,
    ) -> Result<Option<Self>, String> {
        let Some(home) = node.logs.shard(partition) else {
            return Ok(None);
        };
        let bodies = node.bodies(home).map_err(|refusal| refusal.to_string())?;
        Ok(Some(Self {
            node,
            shard: place.0,
            queue: place.1,
            revision: place.2,
            partition,
            bodies,
            filters: Arc::clone(filters),
            cursor,
        }))
    }

    async fn step(&mut self, room: Room) -> Stepped {
        let Some(extent) = self.node.logs.extent(self.partition) else {
            return Stepped::AtEnd;
        };
        let extent = extent.borrow().clone();
        if self.cursor >= extent.end {
            return Stepped::AtEnd;
        }
        let step = if self.cursor < extent.start {
            self.miss(extent.start)
        } else {
            let limits = Limits {
                messages_max: STEP_MESSAGES_MAX,
                bytes_max: STEP_BYTES_MAX,
            };
            match self
                .bodies
                .range(self.partition, self.cursor, extent.end, limits)
                .await
            {
                Ok(records) if records.is_empty() => {
                    // Trimmed since we looked; what is left is found by looking again.
                    return self.look_again(extent.start);
                }
                Ok(records) => match select(&self.filters, &records, room) {
                    Ok(step) if step.to == self.cursor => {
                        return Stepped::Ended(Ended::StillFull);
                    }
                    Ok(step) => step,
                    Err(why) => return Stepped::Ended(Ended::Stuck(why)),
                },
                Err(ReadError::Discarded { .. }) => return self.look_again(extent.start),
                Err(error) => return Stepped::Ended(Ended::Stuck(error.to_string())),
            }
        };
        self.propose(step).await
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

    fn look_again(&self, first: Offset) -> Stepped {
        let moved = self
            .node
            .logs
            .extent(self.partition)
            .is_some_and(|extent| extent.borrow().start > first);
        if moved {
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
            Pumps::wait_for_room(self.node).await;
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
                    _ => Ended::Stuck(refusal.to_string()),
                });
            }
        }
        Stepped::On
    }
}

/// What the filters want of these records, up to the first that the queue has no room for. One
/// message is tried whatever the room, unless the queue knows that somebody waits.
fn select(filters: &[Matcher], records: &[StoredRecord], room: Room) -> Result<Step, String> {
    let first = records
        .first()
        .map(|record| record.offset)
        .unwrap_or_default();
    let mut step = Step {
        to: first,
        records: Vec::new(),
        count: 0,
    };
    for record in records {
        let wanted = message::is_wanted(filters, &record.message)
            .map_err(|error| format!("offset {}: {error}", record.offset))?;
        if wanted {
            let bytes = step.records.len() + framed_bytes(record.message.len());
            let fits = u64::from(step.count) < room.messages.min(u64::from(BATCH_MESSAGES_MAX))
                && bytes as u64 <= room.bytes;
            if !fits && (step.count > 0 || room.awaited) {
                break;
            }
            push_record(&mut step.records, &record.message);
            step.count += 1;
            if !fits {
                step.to = record.offset.plus(1);
                break;
            }
        }
        step.to = record.offset.plus(1);
    }
    Ok(step)
}
