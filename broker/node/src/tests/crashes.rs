//! A disk that fails: nothing is acknowledged that is not there afterwards.

use millrace_storage::{Fault, FaultyDisk, Operation, RealDisk};
use millrace_types::{Applied, ErrorCode};

use super::*;

fn on(disk: &FaultyDisk, dir: TempDir, options: NodeOptions) -> Running {
    let host = Arc::new(crate::SystemHost::current());
    let broker = Broker::start_on(
        Arc::new(disk.clone()),
        host,
        Arc::new(Alone),
        options.clone(),
    )
    .unwrap();
    Running {
        broker,
        options,
        dir,
    }
}

fn on_faulty() -> (FaultyDisk, Running) {
    let dir = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(Arc::new(RealDisk));
    let options = options(&dir);
    let running = on(&disk, dir, options);
    (disk, running)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failed_sync_stops_the_node_and_what_was_under_way_is_unknown() {
    let (disk, running) = on_faulty();
    running.declare(vec![queue("queue/test/orders")]).await;
    running
        .publish("queue/test/orders", &["acknowledged"])
        .await;

    disk.fail(Operation::Sync, Fault::Broken, 0, "journal");
    let refusal = running
        .try_publish("queue/test/orders", &["unknown"])
        .await
        .unwrap_err();
    assert_eq!(
        (refusal.code, refusal.applied),
        (ErrorCode::ShardUnavailable, Applied::Unknown)
    );
    let failure = in_time(running.broker.failed()).await;
    assert!(failure.to_string().contains("journal"), "{failure}");
    let refusal = running
        .try_publish("queue/test/orders", &["refused"])
        .await
        .unwrap_err();
    assert_eq!(
        (refusal.code, refusal.applied),
        (ErrorCode::ShardUnavailable, Applied::No)
    );
    in_time(running.broker.drain()).await;

    let running = running.killed().await;
    let got = texts(&running.look("queue/test/orders").await);
    assert_eq!(got[0], "acknowledged");
    assert!(!got.contains(&"refused".to_owned()));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_checkpoint_that_finds_the_disk_full_is_given_up_and_nothing_is_lost() {
    let (disk, running) = on_faulty();
    let Running {
        broker,
        options,
        dir,
    } = running;
    in_time(broker.drain()).await;
    drop(broker);
    let running = on(
        &disk,
        dir,
        NodeOptions {
            checkpoint_entries: 10,
            ..options
        },
    );
    running.declare(vec![queue("queue/test/orders")]).await;
    for after in 0..4 {
        disk.fail(Operation::Write, Fault::Full, after, "shards");
    }
    for n in 0..100 {
        running
            .publish("queue/test/orders", &[&n.to_string()])
            .await;
    }
    let running = running.killed().await;
    let expected: Vec<String> = (0..100).map(|n: u32| n.to_string()).collect();
    assert_eq!(
        texts(&running.receive("queue/test/orders", 1000).await),
        expected
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dead_letter_that_cannot_be_read_waits_and_is_reported() {
    let (disk, running) = on_faulty();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["dead"]).await;
    let got = running.receive("queue/test/orders", 1).await;
    let Running {
        broker,
        options,
        dir,
    } = running;
    // The drain's checkpoint moves the body to the disk.
    in_time(broker.drain()).await;
    drop(broker);

    let running = on(&disk, dir, options);
    disk.fail_always(Operation::Read, Fault::Broken, ".seg");
    let reject = Settle::Reject {
        note: String::new(),
    };
    running.settle(&got, reject).await.remove(0).unwrap();
    until("it is reported", || async {
        let metadata = running.broker.metadata().await.unwrap();
        metadata
            .objects
            .iter()
            .flat_map(|o| &o.problems)
            .any(|p| p.reason == "Stalled")
    })
    .await;
    let stats = running.broker.stats(1_000).await;
    assert_eq!(stats.queues[&address("queue/test/orders")].dying, 1);

    // The next start reads it.
    disk.heal();
    let running = running.killed().await;
    assert_eq!(
        texts(&running.receive("queue/test/orders/dead", 1).await),
        ["dead"]
    );
}
