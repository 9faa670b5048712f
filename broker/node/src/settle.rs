//! Ends leases by their tags, whatever queues and shards they are of: sorts them by queue, proposes
//! one command for each, and puts the answers back into the order of the tags.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use millrace_engine::command::{Command, Settle, Settlement};
use millrace_engine::outcome::Outcome;
use millrace_types::{ErrorCode, LogId, Refusal, ShardId};

use super::api::SettleTag;
use super::input::{Caller, Proposal};
use super::leaders::Led;
use super::node::Node;
use super::reply::Reply;
use super::tag::{self, Tag};

/// What came of each tag, in order.
pub(super) type Results = Vec<Result<(), Refusal>>;

/// Settlements of one command: what the engine takes at once.
const SETTLEMENTS_MAX: usize = 10_000;

/// Where a tag's queue lives.
type Place = (ShardId, LogId);

/// Settlements of one queue, and where their results belong.
#[derive(Default)]
struct Group {
    settlements: Vec<Settlement>,
    positions: Vec<usize>,
}

/// Answers that come one by one.
struct Collected<F> {
    results: Results,
    missing: usize,
    done: Option<F>,
}

/// Proposes all settlements before it returns, those of shards that are led elsewhere there; `done`
/// is called when all are decided, on whatever
/// thread the last answer comes from, and must not block. With `only`, tags of other queues are
/// `INVALID_TAG`.
pub(super) fn start(
    node: &Arc<Node>,
    only: Option<Place>,
    settlements: Vec<SettleTag>,
    done: impl FnOnce(Results) + Send + 'static,
) {
    let (groups, results) = sort(only, settlements);
    if groups.is_empty() {
        done(results);
        return;
    }
    let missing = groups.iter().map(|(_, group)| group.positions.len()).sum();
    let collected = Arc::new(Mutex::new(Collected {
        results,
        missing,
        done: Some(done),
    }));
    for ((shard, queue), group) in groups {
        let Group {
            settlements,
            positions,
        } = group;
        let collected = Arc::clone(&collected);
        if matches!(node.led(shard), Led::There(_)) {
            let elsewhere = Arc::clone(node);
            node.host.spawn(Box::pin(async move {
                let command = Command::Settle { queue, settlements };
                let outcome = elsewhere.order(shard, command, Bytes::new()).await;
                collect(&collected, &positions, outcome);
            }));
            continue;
        }
        let reply = Reply::to(move |outcome| collect(&collected, &positions, outcome));
        node.propose(Proposal {
            shard,
            command: Command::Settle { queue, settlements },
            body: Bytes::new(),
            caller: Caller::Reply(reply),
        });
    }
}

/// Groups in order of their places; results with the refusals that need no shard.
fn sort(only: Option<Place>, settlements: Vec<SettleTag>) -> (Vec<(Place, Group)>, Results) {
    let mut groups: BTreeMap<(Place, usize), Group> = BTreeMap::new();
    let mut counts: BTreeMap<Place, usize> = BTreeMap::new();
    let mut results = Vec::with_capacity(settlements.len());
    for (position, SettleTag { tag, settle }) in settlements.into_iter().enumerate() {
        let tag = Tag::decode(&tag).filter(|tag| {
            tag.shard != ShardId::METADATA && only.is_none_or(|only| only == (tag.shard, tag.queue))
        });
        let Some(tag) = tag else {
            results.push(Err(tag::invalid()));
            continue;
        };
        results.push(Ok(()));
        let place = (tag.shard, tag.queue);
        let count = counts.entry(place).or_default();
        let group = groups.entry((place, *count / SETTLEMENTS_MAX)).or_default();
        *count += 1;
        group.settlements.push(settlement(&tag, settle));
        group.positions.push(position);
    }
    let groups = groups
        .into_iter()
        .map(|((place, _), group)| (place, group))
        .collect();
    (groups, results)
}

fn settlement(tag: &Tag, settle: Settle) -> Settlement {
    Settlement {
        owner: tag.owner,
        held: tag.held,
        settle,
    }
}

fn collect<F: FnOnce(Results)>(
    collected: &Mutex<Collected<F>>,
    positions: &[usize],
    outcome: Result<Outcome, Refusal>,
) {
    let mut state = collected.lock().unwrap_or_else(PoisonError::into_inner);
    match outcome {
        Ok(Outcome::Settled(results)) if results.len() == positions.len() => {
            for (position, result) in positions.iter().zip(results) {
                state.results[*position] = result;
            }
        }
        Ok(other) => {
            let refusal = Refusal::new(
                ErrorCode::Internal,
                format!("settling was answered with {other:?}"),
            );
            positions
                .iter()
                .for_each(|at| state.results[*at] = Err(refusal.clone()));
        }
        Err(refusal) => {
            let refusal = about_tags(refusal);
            positions
                .iter()
                .for_each(|at| state.results[*at] = Err(refusal.clone()));
        }
    }
    state.missing -= positions.len();
    if state.missing > 0 {
        return;
    }
    let results = std::mem::take(&mut state.results);
    let done = state.done.take();
    drop(state);
    if let Some(done) = done {
        done(results);
    }
}

/// A queue that is gone took its leases with it; a shard that never was had none.
fn about_tags(refusal: Refusal) -> Refusal {
    if refusal.code == ErrorCode::NoSuchQueue {
        return Refusal::new(
            ErrorCode::StaleDelivery,
            "the queue of this delivery is gone",
        );
    }
    refusal
}

#[cfg(test)]
mod tests {
    use millrace_engine::command::Held;
    use millrace_types::{Offset, SessionId};

    use super::*;

    fn tagged(shard: u32, queue: u64, offset: u64) -> SettleTag {
        let tag = Tag {
            shard: ShardId::new(shard),
            queue: LogId::new(queue),
            owner: SessionId::new(5),
            held: Held {
                offset: Offset::new(offset),
                acquired: 1,
            },
        };
        SettleTag {
            tag: tag.encode(),
            settle: Settle::Accept,
        }
    }

    fn garbage() -> SettleTag {
        SettleTag {
            tag: Bytes::from_static(b"?"),
            settle: Settle::Accept,
        }
    }

    #[test]
    fn settlements_are_sorted_by_queue_and_remember_their_places() {
        let tags = vec![tagged(1, 7, 0), garbage(), tagged(2, 8, 1), tagged(1, 7, 2)];
        let (groups, results) = sort(None, tags);
        let positions: Vec<_> = groups
            .iter()
            .map(|(_, group)| group.positions.clone())
            .collect();
        assert_eq!(positions, [vec![0, 3], vec![2]]);
        assert_eq!(results[1], Err(tag::invalid()));
        assert_eq!(groups[1].0, (ShardId::new(2), LogId::new(8)));
    }

    #[test]
    fn a_tag_of_another_queue_is_refused_when_the_queue_is_named() {
        let only = (ShardId::new(1), LogId::new(7));
        let tags = vec![
            tagged(1, 8, 0),
            tagged(2, 7, 0),
            tagged(0, 7, 0),
            tagged(1, 7, 0),
        ];
        let (groups, results) = sort(Some(only), tags);
        assert_eq!(groups.len(), 1);
        assert_eq!(results.iter().filter(|result| result.is_err()).count(), 3);
    }

    #[test]
    fn answers_are_given_once_and_in_the_order_of_the_tags() {
        let given = Arc::new(Mutex::new(Vec::new()));
        let done = {
            let given = Arc::clone(&given);
            move |results: Results| given.lock().unwrap().push(results)
        };
        let collected = Mutex::new(Collected {
            results: vec![Ok(()); 3],
            missing: 3,
            done: Some(done),
        });
        let stale = Refusal::new(ErrorCode::StaleDelivery, "over");
        let first = Outcome::Settled(vec![Err(stale.clone()), Ok(())]);
        collect(&collected, &[2, 0], Ok(first));
        assert!(given.lock().unwrap().is_empty());
        let gone = Refusal::new(ErrorCode::NoSuchQueue, "gone");
        collect(&collected, &[1], Err(gone));
        let given = given.lock().unwrap();
        assert_eq!(given.len(), 1);
        assert_eq!(given[0][0], Ok(()));
        assert_eq!(
            given[0][1].as_ref().unwrap_err().code,
            ErrorCode::StaleDelivery
        );
        assert_eq!(given[0][2], Err(stale));
    }
}
