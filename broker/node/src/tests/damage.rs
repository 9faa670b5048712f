//! One damaged shard does not take the others with it.

use std::path::PathBuf;

use millrace_types::{ErrorCode, ShardId};

use super::*;
use crate::ObjectKind;

fn shard_of(running: &Running, queue: &str) -> ShardId {
    let view = running.broker.catalogue().borrow().clone();
    match view.lookup(&address(queue)).unwrap().kind {
        ObjectKind::Queue { shard, .. } => shard,
        ObjectKind::Topic { .. } => panic!("{queue} is a topic"),
    }
}

fn checkpoint_of(running: &Running, shard: ShardId) -> PathBuf {
    let directory = running.dir.path().join("shards").join(shard.to_string());
    let mut names = std::fs::read_dir(directory)
        .unwrap()
        .map(|entry| entry.unwrap().path());
    names
        .find(|path| path.to_string_lossy().contains("checkpoint-"))
        .unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_damaged_shard_is_quarantined_by_name_and_the_others_serve() {
    let running = running();
    let names: Vec<String> = (0..8).map(|n| format!("queue/test/q{n}")).collect();
    running
        .declare(names.iter().map(|name| queue(name)).collect())
        .await;
    for name in &names {
        running.publish(name, &["x"]).await;
    }
    let running = running.restarted().await;
    let damaged = shard_of(&running, &names[0]);
    let sound = names
        .iter()
        .find(|name| shard_of(&running, name) != damaged)
        .unwrap()
        .clone();
    let path = checkpoint_of(&running, damaged);
    let Running {
        broker,
        options,
        dir,
    } = running;
    broker.abort().await;
    let mut bytes = std::fs::read(&path).unwrap();
    let last = bytes.len() - 1;
    bytes[last] ^= 0xff;
    std::fs::write(&path, bytes).unwrap();

    let broker = Broker::start(options.clone()).unwrap();
    let running = Running {
        broker,
        options,
        dir,
    };
    let refusal = running.try_publish(&names[0], &["y"]).await.unwrap_err();
    assert_eq!(refusal.code, ErrorCode::ShardUnavailable);
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    assert!(refusal.message.contains(&name), "{refusal}");
    assert!(refusal.message.contains("at byte"), "{refusal}");
    assert_eq!(texts(&running.receive(&sound, 1).await), ["x"]);
    running.publish(&sound, &["y"]).await;
    let stats = running.broker.stats(1_000).await;
    assert!(stats.shards[&damaged].unavailable.is_some());
    let metadata = running.broker.metadata().await.unwrap();
    let object = metadata
        .objects
        .iter()
        .find(|o| o.address == address(&names[0]))
        .unwrap();
    assert_eq!(object.problems[0].reason, "ShardUnavailable");
}

/// A queue with a message on the disk, a bit of which has flipped; and the file.
async fn with_damaged_message(change: impl FnOnce(&mut NodeOptions)) -> (Running, ShardId, String) {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["x"]).await;
    let shard = shard_of(&running, "queue/test/orders");
    let Running {
        broker,
        mut options,
        dir,
    } = running;
    // The drain's checkpoint moves the body to the disk.
    in_time(broker.drain()).await;
    drop(broker);
    let segments = dir.path().join("shards").join(shard.to_string());
    let segments = std::fs::read_dir(segments.join("segments")).unwrap();
    let path = segments.last().unwrap().unwrap().path();
    let mut bytes = std::fs::read(&path).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    std::fs::write(&path, bytes).unwrap();

    change(&mut options);
    let broker = Broker::start(options.clone()).unwrap();
    let name = path.file_name().unwrap().to_string_lossy().into_owned();
    let running = Running {
        broker,
        options,
        dir,
    };
    (running, shard, name)
}

fn assert_names_damage(refusal: &Refusal, file: &str) {
    assert_eq!(refusal.code, ErrorCode::ShardUnavailable, "{refusal}");
    assert!(refusal.message.contains(file), "{refusal}");
    assert!(refusal.message.contains("at byte"), "{refusal}");
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_the_scrubber_finds_quarantines_its_shard() {
    let (running, shard, file) = with_damaged_message(|_| {}).await;
    until("it is quarantined", || async {
        let stats = running.broker.stats(1_000).await;
        stats.shards[&shard].unavailable.is_some()
    })
    .await;
    let refused = running.try_publish("queue/test/orders", &["y"]).await;
    assert_names_damage(&refused.unwrap_err(), &file);
    in_time(running.broker.drain()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn damage_that_a_read_finds_is_told_and_quarantines_its_shard() {
    let no_scrubber = |options: &mut NodeOptions| options.scrub_bytes_per_second = 0;
    let (running, shard, file) = with_damaged_message(no_scrubber).await;
    let call = receive("queue/test/orders", 1, PATIENCE / 2);
    let refused = in_time(running.broker.receive(call)).await;
    assert_names_damage(&refused.unwrap_err(), &file);
    let stats = running.broker.stats(1_000).await;
    assert!(stats.shards[&shard].unavailable.is_some());
    let refused = running.try_publish("queue/test/orders", &["y"]).await;
    assert_names_damage(&refused.unwrap_err(), &file);
    in_time(running.broker.drain()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_to_get_a_damaged_message_is_told() {
    let no_scrubber = |options: &mut NodeOptions| options.scrub_bytes_per_second = 0;
    let (running, _, file) = with_damaged_message(no_scrubber).await;
    let (_consumer, mut events) = running.open("queue/test/orders", plenty()).await;
    let Some(ConsumerEvent::Closed(refusal)) = in_time(events.next()).await else {
        panic!("the end expected");
    };
    assert_names_damage(&refusal, &file);
    in_time(running.broker.drain()).await;
}
