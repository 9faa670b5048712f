//! Data directories that earlier versions wrote, byte for byte, open and go on.

use std::path::Path;

use super::*;

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), to).unwrap();
        }
    }
}

/// Killed before any checkpoint; two of a queue's nine messages are settled, a third is leased.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_from_before_consensus_is_a_group_of_one_that_goes_on() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/directory-1");
    let running = running_with(|options| {
        copy(&golden, &options.data_dir);
        options.journal.file_bytes = 16 << 10;
    });
    let left = running.receive("queue/test/orders", 10).await;
    assert_eq!(texts(&left), ["3", "4", "5", "6", "7", "8"]);
    assert_eq!(running.look("queue/test/fresh").await.len(), 3);
    running.accept(&left).await;
    running.publish("topic/test/events", &["more"]).await;

    let running = running.killed().await;
    let mut moved = Vec::new();
    while moved.last().is_none_or(|last| last != "more") {
        moved.extend(texts(&running.receive("queue/test/bound", 10).await));
    }
    let stats = running.broker.stats(1_000).await;
    assert!(stats.shards.values().all(|shard| shard.term.get() > 2));
    assert_eq!(stats.queues[&address("queue/test/orders")].in_flight, 1);
    let running = running.restarted().await;
    assert!(running.look("queue/test/orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_from_before_there_were_members_is_of_a_group_of_one() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["one", "two"]).await;
    let Running {
        broker,
        options,
        dir,
    } = running;
    broker.drain().await;
    drop(broker);
    let mut found = 0;
    for shard in 0..=options.shards {
        let shard = options.data_dir.join("shards").join(shard.to_string());
        for file in std::fs::read_dir(shard).unwrap() {
            let path = file.unwrap().path();
            if path.is_file() {
                let file = std::fs::read(&path).unwrap();
                let older = millrace_storage::fuzz::checkpoint_of_version_1(file).unwrap();
                std::fs::write(&path, older).unwrap();
                found += 1;
            }
        }
    }
    assert_eq!(found, 3);

    let broker = Broker::start(options.clone()).unwrap();
    let running = Running {
        broker,
        options,
        dir,
    };
    assert_eq!(
        texts(&running.receive("queue/test/orders", 2).await),
        ["one", "two"]
    );
    running.publish("queue/test/orders", &["three"]).await;
    let running = running.killed().await;
    assert_eq!(texts(&running.look("queue/test/orders").await), ["three"]);
}
