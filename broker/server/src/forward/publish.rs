//! One `Publish` call: each batch goes where its partition is led, all at once, and again when it
//! was not applied for want of a leader. What each batch is told is true of it alone.

use std::collections::{BTreeMap, BTreeSet};

use futures::future::{join, join_all};
use millrace_node::{Acknowledged, Batch, PublishOptions};
use millrace_proto::v1;
use millrace_types::{Address, ErrorCode, Refusal, ShardId};

use super::{Attempts, Origin, Place, Remote};
use crate::convert;
use crate::services::Context;

/// What became of a batch.
pub(crate) type Answer = Result<Acknowledged, Refusal>;

/// A batch as the broker takes it, and as its client sent it, if it sent batches.
#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub(crate) batch: Batch,
    pub(crate) wire: Option<v1::RecordBatch>,
}

/// Where batches go, and how.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: Address,
    pub(crate) options: PublishOptions,
    /// As the client asked for it.
    pub(crate) acknowledge: i32,
}

/// Batches of one partition, by their places among all.
pub(super) type Groups = BTreeMap<(ShardId, u32), Vec<usize>>;

/// Publishes; gives one answer for each batch, in their order.
pub(crate) async fn call(
    context: &Context,
    origin: &Origin,
    target: &Target,
    mut entries: Vec<Entry>,
) -> Vec<Answer> {
    let mut answers = vec![Err(unanswered()); entries.len()];
    let mut todo = aim(context, target, &mut entries, &mut answers);
    let mut attempts: BTreeMap<ShardId, Attempts<'_>> = BTreeMap::new();
    for (shard, _) in todo.keys() {
        let call = || context.forward.call(origin, *shard);
        attempts.entry(*shard).or_insert_with(call);
    }
    while !todo.is_empty() {
        round(
            context,
            origin,
            target,
            (&entries, &todo),
            (&mut attempts, &mut answers),
        )
        .await;
        let mut again = BTreeSet::new();
        for ((shard, _), places) in &todo {
            let refused = places
                .iter()
                .find_map(|at| answers.get(*at)?.as_ref().err());
            if let (Some(refusal), Some(call)) = (refused, attempts.get(shard))
                && !again.contains(shard)
                && call.again(refusal).await
            {
                again.insert(*shard);
            }
        }
        todo.retain(|(shard, _), places| {
            // Of one partition all that follow the first one that was not applied.
            places.retain(|at| matches!(answers.get(*at), Some(Err(refusal)) if is_moved(refusal)));
            again.contains(shard) && !places.is_empty()
        });
    }
    let hint = |answer: Answer| answer.map_err(|refusal| context.broker.hint(refusal));
    answers.into_iter().map(hint).collect()
}

/// Tries once.
async fn round(
    context: &Context,
    origin: &Origin,
    target: &Target,
    (entries, todo): (&[Entry], &Groups),
    (attempts, answers): (&mut BTreeMap<ShardId, Attempts<'_>>, &mut [Answer]),
) {
    let (mut here, mut there) = (Vec::new(), Vec::new());
    for ((shard, partition), places) in todo {
        let Some(call) = attempts.get_mut(shard) else {
            continue;
        };
        match call.place().await {
            Ok(Place::Here) => here.extend(places.iter().copied()),
            Ok(Place::There(remote)) => there.push((remote, *partition, places)),
            Err(refusal) => set(answers, places, |_| Err(refusal.clone())),
        }
    }
    // As they came, for those of one partition.
    here.sort_unstable();
    let batches = here
        .iter()
        .filter_map(|at| Some(entries.get(*at)?.batch.clone()));
    let batches: Vec<Batch> = batches.collect();
    let own = async {
        if batches.is_empty() {
            return Vec::new();
        }
        let Target {
            address, options, ..
        } = target;
        let paced = context.broker.publish_paced(address, batches, *options);
        paced.await.await
    };
    let others = there.iter().map(|(remote, partition, places)| async move {
        (
            *places,
            send(remote, origin, target, (*partition, entries, places)).await,
        )
    });
    let (own, others) = join(own, join_all(others)).await;
    let mut own = own.into_iter();
    set(answers, &here, |_| {
        own.next().unwrap_or_else(|| Err(unanswered()))
    });
    for (places, found) in others {
        let mut found = found.into_iter();
        set(answers, places, |_| {
            found.next().unwrap_or_else(|| Err(unanswered()))
        });
    }
}

fn set(answers: &mut [Answer], places: &[usize], mut answer: impl FnMut(usize) -> Answer) {
    for at in places {
        if let Some(place) = answers.get_mut(*at) {
            *place = answer(*at);
        }
    }
}

/// Has the leader publish batches of one partition.
async fn send(
    remote: &Remote,
    origin: &Origin,
    target: &Target,
    (partition, entries, places): (u32, &[Entry], &[usize]),
) -> Vec<Answer> {
    let batches = places.iter().filter_map(|at| entries.get(*at)).map(wire);
    let request = v1::PublishRequest {
        address: target.address.to_string(),
        batches: batches.collect(),
        acknowledge: target.acknowledge,
        partition: Some(partition),
        ..v1::PublishRequest::default()
    };
    let mut publisher = remote.publisher();
    match remote.ask(publisher.publish(origin.request(request))).await {
        Ok(answer) => answer
            .results
            .into_iter()
            .map(convert::publish_answer)
            .collect(),
        Err(refusal) => vec![Err(refusal); places.len()],
    }
}

/// Fixes where each batch goes; those that go nowhere are answered.
pub(super) fn aim(
    context: &Context,
    target: &Target,
    entries: &mut [Entry],
    answers: &mut [Answer],
) -> Groups {
    let mut groups = Groups::new();
    for (at, (entry, answer)) in entries.iter_mut().zip(answers).enumerate() {
        match context.broker.aim(&target.address, &mut entry.batch) {
            Ok(place) => groups.entry(place).or_default().push(at),
            Err(refusal) => *answer = Err(refusal),
        }
    }
    groups
}

/// A batch as another node takes it.
pub(super) fn wire(entry: &Entry) -> v1::RecordBatch {
    if let Some(wire) = &entry.wire {
        return wire.clone();
    }
    let Batch { count, records, .. } = &entry.batch;
    v1::RecordBatch {
        count: *count,
        crc32c: crc32c::crc32c(records),
        records: records.clone(),
        ..v1::RecordBatch::default()
    }
}

/// Whether it says that somebody else leads, or nobody, and nothing was done.
fn is_moved(refusal: &Refusal) -> bool {
    refusal.code == ErrorCode::NotLeader && refusal.applied == millrace_types::Applied::No
}

pub(super) fn unanswered() -> Refusal {
    Refusal::new(ErrorCode::Internal, "there was no answer to a batch").unknown()
}
