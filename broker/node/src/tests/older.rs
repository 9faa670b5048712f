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

fn delivered(them: &[Delivered]) -> Vec<(String, u32)> {
    let attempts = them.iter().map(|one| one.attempts);
    let mut delivered: Vec<_> = texts(them).into_iter().zip(attempts).collect();
    delivered.sort_unstable();
    delivered
}

/// Receives until it has so many.
async fn gather(running: &Running, from: &str, count: usize) -> Vec<Delivered> {
    let mut all = Vec::new();
    while all.len() < count {
        all.extend(running.receive(from, 100).await);
    }
    all
}

fn some(texts: &[(&str, u32)]) -> Vec<(String, u32)> {
    let one = |(text, attempts): &(&str, u32)| ((*text).to_owned(), *attempts);
    texts.iter().map(one).collect()
}

/// Two rounds of messages, a clean stop between them, killed after the second. In each round three
/// messages wait, of which the second is settled; one is leased for five seconds, one failed, one
/// waits ten hours and one four seconds; one is rejected into the dead-letter queue of its own and
/// one into another queue; and of two subjects a queue is bound to one.
#[tokio::test(flavor = "multi_thread")]
async fn a_directory_with_checkpoints_from_before_replication_goes_on_where_it_was() {
    let golden = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden/directory-2");
    let running = running_with(|options| {
        copy(&golden, &options.data_dir);
        options.journal.file_bytes = 16 << 10;
    });
    let stats = running.broker.stats(1_000).await;
    assert_eq!(stats.queues[&address("queue/test/leased")].in_flight, 2);
    assert_eq!(stats.queues[&address("queue/test/delayed")].delayed, 4);
    let running = running.restarted().await; // as it is written today
    for (queue, expected) in [
        (
            "waiting",
            some(&[("a0", 0), ("a1", 0), ("c0", 0), ("c1", 0)]),
        ),
        ("tried", some(&[("tried0", 2), ("tried1", 1)])),
        ("hopeless/dead", some(&[("hopeless0", 0), ("hopeless1", 0)])),
        ("letters", some(&[("lost0", 0), ("lost1", 0)])),
        ("leased", some(&[("leased0", 1), ("leased1", 1)])),
        ("delayed", some(&[("short0", 1), ("short1", 1)])),
        (
            "bound",
            some(&[
                ("orders.new00", 0),
                ("orders.new01", 0),
                ("orders.new10", 0),
                ("orders.new11", 0),
            ]),
        ),
    ] {
        let queue = format!("queue/test/{queue}");
        let them = gather(&running, &queue, expected.len()).await;
        assert_eq!(delivered(&them), expected, "{queue}");
        running.accept(&them).await;
        assert!(running.look(&queue).await.is_empty(), "{queue}");
    }

    let view = running.broker.catalogue().borrow().clone();
    let orphan = view.lookup(&address("queue/test/orphan")).unwrap();
    assert!(orphan.orphaned);
    running.declare(vec![queue("queue/test/orphan")]).await;
    assert_eq!(texts(&running.look("queue/test/orphan").await), ["kept"]);
    let new = message("new", "orders.new");
    running.try_send("topic/test/events", &[new]).await.unwrap();
    let moved = gather(&running, "queue/test/bound", 1).await;
    assert_eq!(texts(&moved), ["new"]);
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
