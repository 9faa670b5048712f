//! One client's `PublishStream`: frames go where their partitions are led, in the order of the
//! stream.
//!
//! Promises: a batch never overtakes one before it of its shard. Nothing goes to a shard's new
//! leader while the old one has something undecided; and when something was not stored for want of
//! a leader, or nobody knows, nothing of the stream goes to its shard any more.

use std::collections::{BTreeMap, btree_map};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures::future::join_all;
use millrace_node::Batch;
use millrace_proto::v1;
use millrace_types::{Applied, ErrorCode, NodeId, Refusal, ShardId};
use tokio::sync::Notify;

use super::link::Link;
use super::publish::{self, Answer, Entry, Target, aim, unanswered};
use super::{Origin, Place};
use crate::services::Context;

/// After this long it is worth beginning anew.
const RETRY_AFTER_MS: u64 = 50;

/// The ways of one stream. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes(Arc<Inner>);

struct Inner {
    context: Context,
    origin: Origin,
    shards: Mutex<BTreeMap<ShardId, Lane>>,
    /// Somebody left a lane.
    left: Notify,
    links: Mutex<BTreeMap<NodeId, Link>>,
}

/// The way to one shard.
#[derive(Debug, Default)]
struct Lane {
    /// Where its last frame went; `None`: nowhere else.
    node: Option<NodeId>,
    /// Frames under way.
    undecided: usize,
    /// Something was not stored that should have been.
    broken: bool,
}

/// How a frame gets to a shard.
enum Way {
    Here,
    There(Link),
    /// And why.
    Nowhere(Refusal),
}

/// Answers to come.
pub(crate) type Answers = Pin<Box<dyn Future<Output = Vec<Answer>> + Send>>;

impl Lanes {
    /// Of a stream that was just opened.
    pub(crate) fn new(context: &Context, origin: Origin) -> Self {
        Self(Arc::new(Inner {
            context: context.clone(),
            origin,
            shards: Mutex::default(),
            left: Notify::new(),
            links: Mutex::default(),
        }))
    }

    /// Sends a frame's batches on their way, when those before it let it; gives the answers to
    /// come.
    pub(crate) async fn send(&self, target: Target, mut entries: Vec<Entry>) -> Answers {
        let mut answers = vec![Err(unanswered()); entries.len()];
        let groups = aim(&self.0.context, &target, &mut entries, &mut answers);
        let (mut here, mut there) = (Vec::new(), Vec::new());
        let mut ways: BTreeMap<ShardId, Way> = BTreeMap::new();
        for ((shard, partition), places) in groups {
            let way = match ways.entry(shard) {
                btree_map::Entry::Occupied(known) => known.into_mut(),
                btree_map::Entry::Vacant(new) => new.insert(self.enter(shard).await),
            };
            match way {
                Way::There(link) => {
                    let batches = places.iter().filter_map(|at| entries.get(*at));
                    let frame = frame(&target, partition, batches.map(publish::wire).collect());
                    there.push((places, link.send(shard, frame).await));
                }
                Way::Nowhere(refusal) => {
                    for at in places {
                        answers[at] = Err(refusal.clone());
                    }
                }
                Way::Here => here.extend(places),
            }
        }
        here.sort_unstable();
        let batches = here
            .iter()
            .filter_map(|at| Some(entries.get(*at)?.batch.clone()));
        let batches: Vec<Batch> = batches.collect();
        let own = match batches.is_empty() {
            true => None,
            false => {
                let broker = &self.0.context.broker;
                Some(
                    broker
                        .publish_paced(&target.address, batches, target.options)
                        .await,
                )
            }
        };
        let lanes = self.clone();
        Box::pin(async move {
            if let Some(own) = own {
                for (at, answer) in here.iter().zip(own.await) {
                    answers[*at] = answer;
                }
            }
            let others = there
                .into_iter()
                .map(|(places, found)| async { (places, found.await) });
            for (places, found) in join_all(others).await {
                let mut found = found.into_iter();
                for at in places {
                    answers[at] = found.next().unwrap_or_else(|| Err(unanswered()));
                }
            }
            let is_broken = answers.iter().any(breaks);
            for (shard, way) in ways {
                if !matches!(way, Way::Nowhere(_)) {
                    lanes.leave(shard, is_broken);
                }
            }
            let broker = &lanes.0.context.broker;
            let hint = |answer: Answer| answer.map_err(|refusal| broker.hint(refusal));
            answers.into_iter().map(hint).collect()
        })
    }

    /// Waits until a frame may go to a shard, and says how.
    async fn enter(&self, shard: ShardId) -> Way {
        let Inner {
            context, origin, ..
        } = &*self.0;
        loop {
            let left = self.0.left.notified();
            let place = match context.forward.call(origin, shard).place().await {
                Ok(place) => place,
                Err(refusal) => {
                    // The next frame may find somebody: it must not overtake this one.
                    self.lane(shard, |lane| lane.broken = true);
                    return Way::Nowhere(refusal);
                }
            };
            let node = match &place {
                Place::Here => None,
                Place::There(remote) => Some(remote.node()),
            };
            match self.take(shard, node) {
                Some(Ok(())) => {}
                Some(Err(refusal)) => return Way::Nowhere(refusal),
                None => {
                    left.await;
                    continue;
                }
            }
            return match place {
                Place::Here => Way::Here,
                Place::There(remote) => match self.link(shard, remote) {
                    Some(link) => Way::There(link),
                    None => {
                        self.leave(shard, true);
                        Way::Nowhere(overtaking(shard))
                    }
                },
            };
        }
    }

    /// Enters the lane of a shard, if what is in it goes to the same node.
    fn take(&self, shard: ShardId, node: Option<NodeId>) -> Option<Result<(), Refusal>> {
        let mut shards = self.shards();
        let lane = shards.entry(shard).or_default();
        if lane.broken {
            return Some(Err(overtaking(shard)));
        }
        if lane.undecided > 0 && lane.node != node {
            return None;
        }
        lane.node = node;
        lane.undecided += 1;
        Some(Ok(()))
    }

    fn leave(&self, shard: ShardId, is_broken: bool) {
        self.lane(shard, |lane| {
            lane.undecided = lane.undecided.saturating_sub(1);
            lane.broken |= is_broken;
        });
        self.0.left.notify_waiters();
    }

    fn lane(&self, shard: ShardId, change: impl FnOnce(&mut Lane)) {
        change(self.shards().entry(shard).or_default());
    }

    /// The stream to a node, made anew when it has broken; not while something that was sent on the
    /// broken one is undecided, which this would overtake.
    fn link(&self, shard: ShardId, remote: super::Remote) -> Option<Link> {
        let alone = self
            .shards()
            .get(&shard)
            .is_none_or(|lane| lane.undecided <= 1);
        let links = &self.0.links;
        let mut links = links.lock().unwrap_or_else(PoisonError::into_inner);
        let node = remote.node();
        if let Some(link) = links.get(&node).filter(|link| link.is_open()) {
            return Some(link.clone());
        }
        if !alone {
            return None;
        }
        let link = Link::open(&self.0.context, &self.0.origin, remote);
        links.insert(node, link.clone());
        Some(link)
    }

    fn shards(&self) -> MutexGuard<'_, BTreeMap<ShardId, Lane>> {
        // Nothing panics while holding it.
        self.0.shards.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether what follows would overtake what this answer is about when that is sent again: as
/// publishers do by themselves with what nobody knows, and with what passes by itself.
pub(crate) fn breaks(answer: &Answer) -> bool {
    let Err(refusal) = answer else {
        return false;
    };
    let passes = match refusal.code {
        ErrorCode::NotLeader | ErrorCode::Draining | ErrorCode::Overloaded => true,
        ErrorCode::ShardUnavailable => refusal.retry_after_ms.is_some(),
        _ => false,
    };
    passes || refusal.applied == Applied::Unknown
}

/// Batches of one partition, as another node takes them.
fn frame(target: &Target, partition: u32, batches: Vec<v1::RecordBatch>) -> v1::PublishFrame {
    v1::PublishFrame {
        address: target.address.to_string(),
        batches,
        acknowledge: target.acknowledge,
        partition: Some(partition),
        ..v1::PublishFrame::default()
    }
}

fn overtaking(shard: ShardId) -> Refusal {
    let text = "a message before this one of the stream was not stored; send this one after it";
    Refusal::new(ErrorCode::NotLeader, text)
        .with("shard", shard.to_string())
        .retry_after_millis(RETRY_AFTER_MS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_overtakes_what_is_sent_again() {
        let refused = |code| -> Answer { Err(Refusal::new(code, "no")) };
        let later = |code| -> Answer { Err(Refusal::new(code, "no").retry_after_millis(1)) };
        for code in [
            ErrorCode::NotLeader,
            ErrorCode::Overloaded,
            ErrorCode::Draining,
        ] {
            assert!(breaks(&refused(code)), "{code:?}");
        }
        assert!(breaks(&later(ErrorCode::ShardUnavailable)));
        // What a publisher is told and does not send again by itself breaks nothing.
        for code in [
            ErrorCode::ShardUnavailable,
            ErrorCode::QueueFull,
            ErrorCode::DiskFull,
        ] {
            assert!(!breaks(&refused(code)), "{code:?}");
        }
        let unknown = Refusal::new(ErrorCode::QueueFull, "?").unknown();
        assert!(breaks(&Err(unknown)));
    }
}
