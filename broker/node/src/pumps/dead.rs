//! From a queue into its dead-letter queue: reads the bodies of what the outbox holds, adds why
//! each died, proposes them under their numbers to the target's shard, and confirms what has
//! arrived. Both queues may live in one shard or in two.
//!
//! When the queue has another dead-letter queue than the one its letters may have been sent to,
//! that one says first which have arrived, and takes no more of them; the rest goes to the new one.

use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::Queue;
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{DeadLetter, Outcome, Room};
use millrace_storage::records::{framed_bytes, push_record};
use millrace_storage::{ReadError, StoredRecord};
use millrace_types::{Address, Count, ErrorCode, LogId, Refusal, ShardId};

use super::{Ended, Job, Pumps, STEP_BYTES_MAX};
use crate::message;
use crate::node::Node;

/// Dead letters of one step: a note of up to 1 KiB comes with each.
const STEP_LETTERS_MAX: usize = 256;

/// A queue's outbox, at one moment.
struct Outbox {
    address: Address,
    target: LogId,
    /// The target is no longer the dead-letter queue.
    recall: bool,
    first: u64,
    /// One past the last letter.
    end: u64,
    letters: Vec<DeadLetter>,
}

/// Runs until the outbox is empty.
pub(super) async fn run(node: &Arc<Node>, shard: ShardId, queue: LogId) -> Ended {
    let mut sent_to = None;
    loop {
        let outbox = match ask(node, shard, queue).await {
            Ok(Some(outbox)) => outbox,
            // Empty, gone, or without a target: that is a change which wakes this pump again.
            Ok(None) => {
                // There was room, and there may be more: others wait for it.
                sent_to
                    .into_iter()
                    .for_each(|target| Pumps::room(node, target));
                return Ended::CaughtUp;
            }
            Err(refusal) => return Ended::Stuck(refusal.to_string()),
        };
        let done = if outbox.recall {
            redirect(node, (shard, queue), &outbox).await
        } else {
            send(node, (shard, queue), &outbox).await
        };
        if let Err(ended) = done {
            return ended;
        }
        sent_to = Some(outbox.target);
    }
}

async fn ask(node: &Node, shard: ShardId, queue: LogId) -> Result<Option<Outbox>, Refusal> {
    node.ask(shard, move |shard| {
        let queue = shard.queue(queue)?;
        let first = queue.first_dead_letter();
        let letters = queue.dead_letters(first, STEP_LETTERS_MAX);
        (!letters.is_empty()).then_some(Outbox {
            address: queue.address().clone(),
            target: queue.dead_letter_target()?,
            recall: queue.recalls_dead_letters(),
            first,
            end: queue.next_dead_letter(),
            letters,
        })
    })
    .await
}

/// Asks the queue they may have been sent to which have arrived; the rest is for another one.
async fn redirect(node: &Node, place: (ShardId, LogId), outbox: &Outbox) -> Result<(), Ended> {
    let (shard, queue) = place;
    let from = outbox.target;
    node.pumps.expect_room(from, Job::Dead { shard, queue });
    let arrived = match node.logs.arrivals(from) {
        _ if millrace_types::mutant!(RecallSkipped) => outbox.first,
        Some(home) => recall(node, home, queue, outbox).await?,
        // Removed, and it knows of none that has arrived.
        None if is_gone(node, from)? => outbox.first,
        // Not configured yet: that wakes this pump again, like room does.
        None => return Err(Ended::CaughtUp),
    };
    let command = Command::RedirectDead {
        queue,
        from,
        first: outbox.first,
        arrived,
    };
    match node.start(shard, command, Bytes::new()).answer().await {
        Ok(_) => Ok(()),
        Err(refusal) => Err(Ended::Stuck(refusal.to_string())),
    }
}

/// One past the last letter that has arrived.
async fn recall(node: &Node, home: ShardId, source: LogId, outbox: &Outbox) -> Result<u64, Ended> {
    let command = Command::RecallDead {
        queue: outbox.target,
        source,
        number: outbox.end,
    };
    match node.start(home, command, Bytes::new()).answer().await {
        Ok(Outcome::Numbered(arrived)) => Ok(arrived),
        Ok(other) => Err(Ended::Stuck(format!(
            "recalling was answered with {other:?}"
        ))),
        // Removed, and nothing of this source had arrived.
        Err(refusal) if refusal.code == ErrorCode::NoSuchQueue => Ok(outbox.first),
        Err(refusal) => Err(Ended::Stuck(refusal.to_string())),
    }
}

/// Whether a log that no shard has is removed for good, not just on its way.
pub(super) fn is_gone(node: &Node, log: LogId) -> Result<bool, Ended> {
    let catalogue = node.view.borrow().clone();
    let topology = catalogue
        .topology()
        .map_err(|refusal| Ended::Stuck(refusal.to_string()))?;
    if let Some(refusal) = node.slots.iter().find_map(|slot| slot.check().err()) {
        // It may be there, and have letters.
        let why = format!(
            "no shard that serves here has log {log}: {}",
            refusal.message
        );
        return Err(Ended::Stuck(why));
    }
    Ok(!topology.has_log(log))
}

async fn send(node: &Node, place: (ShardId, LogId), outbox: &Outbox) -> Result<(), Ended> {
    let stuck = |refusal: Refusal| Ended::Stuck(refusal.to_string());
    let (shard, queue) = place;
    node.pumps
        .expect_room(outbox.target, Job::Dead { shard, queue });
    let Some(home) = node.logs.shard(outbox.target) else {
        // Not configured yet: that wakes this pump again, like room does.
        return Err(Ended::CaughtUp);
    };
    let bodies = node.bodies(shard).map_err(stuck)?;
    let offsets = outbox.letters.iter().map(|letter| letter.offset).collect();
    let bodies = bodies.each(queue, offsets, STEP_BYTES_MAX).await;
    let target = outbox.target;
    let room = node
        .ask(home, move |shard| shard.queue(target).map(Queue::room))
        .await;
    let Some(room) = room.map_err(stuck)? else {
        return Err(Ended::CaughtUp);
    };
    let (records, count) = encode(outbox, bodies, room)?;
    let number = outbox.letters.first().map_or(0, |letter| letter.number);
    Pumps::wait_for_room(node).await;
    let next = accept(node, home, outbox.target, queue, (number, count, records)).await?;
    let command = Command::ConfirmDead {
        queue,
        number: next,
    };
    match node.start(shard, command, Bytes::new()).answer().await {
        Ok(_) => Ok(()),
        Err(refusal) => Err(Ended::Stuck(refusal.to_string())),
    }
}

/// One past the last letter that has arrived.
async fn accept(
    node: &Node,
    home: ShardId,
    target: LogId,
    source: LogId,
    (number, count, records): (u64, Count, Vec<u8>),
) -> Result<u64, Ended> {
    let batch = BatchHeader {
        count,
        bytes: records.len() as u64,
    };
    let command = Command::AcceptDead {
        queue: target,
        source,
        number,
        batch,
    };
    let body = records.into_boxed_slice().into();
    match node.start(home, command, body).answer().await {
        // Some arrived before a restart; the rest follows with the next step.
        Ok(Outcome::Numbered(next)) => Ok(next),
        Ok(_) => {
            node.figures.dead_lettered_messages.add(u64::from(count));
            Ok(number + u64::from(count))
        }
        Err(refusal) => Err(match refusal.code {
            ErrorCode::QueueFull | ErrorCode::Orphaned | ErrorCode::NoSuchQueue => {
                Ended::Full(refusal.message)
            }
            _ => Ended::Stuck(refusal.to_string()),
        }),
    }
}

/// As many letters as a step takes and the target has room for; one in any case, unless the target
/// knows that somebody waits.
fn encode(
    outbox: &Outbox,
    bodies: Vec<Result<StoredRecord, ReadError>>,
    room: Room,
) -> Result<(Vec<u8>, Count), Ended> {
    let mut records = Vec::new();
    let mut count = 0;
    for (letter, body) in outbox.letters.iter().zip(bodies) {
        let buried = body.map_err(|error| error.to_string()).and_then(|body| {
            message::bury(&body.message, &outbox.address, letter).map_err(|error| error.to_string())
        });
        let buried = match buried {
            Ok(buried) => buried,
            // Those before it are sent first.
            Err(_) if count > 0 => break,
            Err(why) => {
                let at = letter.offset;
                return Err(Ended::Stuck(format!(
                    "the dead letter at offset {at}: {why}"
                )));
            }
        };
        let bytes = records.len() + framed_bytes(buried.len());
        let fits =
            bytes as u64 <= STEP_BYTES_MAX.min(room.bytes) && u64::from(count) < room.messages;
        if !fits && count > 0 {
            break;
        }
        if !fits && room.awaited {
            return Err(Ended::StillFull);
        }
        push_record(&mut records, &buried);
        count += 1;
    }
    Ok((records, count))
}
