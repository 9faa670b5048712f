//! From a queue into its dead-letter queue: reads the bodies of what the outbox holds, adds why
//! each died, proposes them under their numbers to the target's shard, and confirms what has
//! arrived. Both queues may live in one shard or in two.
//!
//! When the queue has another dead-letter queue than the one its letters may have been sent to,
//! that one says first which have arrived, and takes no more of them; the rest goes to the new one.

use std::sync::Arc;

use bytes::Bytes;
use millrace_engine::command::{BatchHeader, Command};
use millrace_engine::outcome::{DeadLetter, Outcome, Room};
use millrace_storage::records::{framed_bytes, push_record};
use millrace_storage::{ReadError, StoredRecord};
use millrace_types::{Address, Count, ErrorCode, LogId, Refusal, ShardId};

use super::{Ended, Job, Pumps, STEP_BYTES_MAX};
use crate::leaders::Led;
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
            Err(refusal) => return Ended::refused(&refusal),
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
        _ if millrace_types::mutant!(RecallSkipped) => Some(outbox.first),
        Some(home) => recall(node, home, queue, outbox).await?,
        None => recall_anywhere(node, queue, outbox).await?,
    };
    let command = Command::RedirectDead {
        queue,
        from,
        first: outbox.first,
        arrived: arrived.unwrap_or(outbox.first),
    };
    order(node, shard, command).await.map(|_| ())
}

/// One past the last letter that has arrived; `None` when the queue is not there and knows of none.
async fn recall(
    node: &Node,
    home: ShardId,
    source: LogId,
    outbox: &Outbox,
) -> Result<Option<u64>, Ended> {
    let command = Command::RecallDead {
        queue: outbox.target,
        source,
        number: outbox.end,
    };
    match node.order(home, command, Bytes::new()).await {
        Ok(Outcome::Numbered(arrived)) => Ok(Some(arrived)),
        Ok(other) => Err(Ended::Stuck(format!(
            "recalling was answered with {other:?}"
        ))),
        Err(refusal) if refusal.code == ErrorCode::NoSuchQueue => Ok(None),
        Err(refusal) => Err(Ended::refused(&refusal)),
    }
}

/// The same of a queue that no shard here knows. Whether those that are led elsewhere do, only
/// their leaders can say: what is applied here may be old.
async fn recall_anywhere(
    node: &Node,
    source: LogId,
    outbox: &Outbox,
) -> Result<Option<u64>, Ended> {
    for home in (1..=node.data_shards()).map(ShardId::new) {
        if node.led(home) == Led::Here && node.hosts(home) {
            continue;
        }
        if let Some(arrived) = recall(node, home, source, outbox).await? {
            return Ok(Some(arrived));
        }
    }
    if is_declared(node, outbox.target)? {
        // Not configured yet: that wakes this pump again, like room does.
        return Err(Ended::CaughtUp);
    }
    // Removed, and it knows of none that has arrived.
    Ok(None)
}

/// Whether a log that no shard has is on its way, not removed for good.
fn is_declared(node: &Node, log: LogId) -> Result<bool, Ended> {
    let catalogue = node.view.borrow().clone();
    let topology = catalogue.topology();
    let topology = topology.map_err(|refusal| Ended::refused(&refusal))?;
    Ok(topology.has_log(log))
}

async fn order(node: &Node, shard: ShardId, command: Command) -> Result<Outcome, Ended> {
    let outcome = node.order(shard, command, Bytes::new()).await;
    outcome.map_err(|refusal| Ended::refused(&refusal))
}

async fn send(node: &Node, place: (ShardId, LogId), outbox: &Outbox) -> Result<(), Ended> {
    let refused = |refusal: Refusal| Ended::refused(&refusal);
    let (shard, queue) = place;
    let target = outbox.target;
    node.pumps.expect_room(target, Job::Dead { shard, queue });
    let Some(home) = node.home(target).map_err(refused)? else {
        // Not configured yet: that wakes this pump again, like room does.
        return Err(Ended::CaughtUp);
    };
    let bodies = node.bodies(shard).map_err(refused)?;
    let offsets = outbox.letters.iter().map(|letter| letter.offset).collect();
    let bodies = bodies.each(queue, offsets, STEP_BYTES_MAX).await;
    let Some(room) = node.room(home, target).await.map_err(refused)? else {
        return Err(Ended::CaughtUp);
    };
    let (records, count) = encode(outbox, bodies, room)?;
    let number = outbox.letters.first().map_or(0, |letter| letter.number);
    Pumps::wait_for_room(node, home).await;
    let next = accept(node, home, target, queue, (number, count, records)).await?;
    let command = Command::ConfirmDead {
        queue,
        number: next,
    };
    order(node, shard, command).await.map(|_| ())
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
    match node.order(home, command, body).await {
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
            _ => Ended::refused(&refusal),
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
