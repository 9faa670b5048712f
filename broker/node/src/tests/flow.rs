//! Declaring, orphaning, reading and publishing.

use millrace_types::{ErrorCode, Offset, Wall};

use super::*;
use crate::{List, Peek, PeekedState, Position, Read, SummaryKind};

fn read(from: Position) -> Read {
    Read {
        address: address("topic/test/events"),
        partition: 0,
        from,
        messages_max: 100,
        bytes_max: 1 << 20,
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_orphan_keeps_its_messages_until_its_resource_returns() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["kept"]).await;
    let removed = Removed {
        address: address("queue/test/orders"),
        uid: "uid-queue/test/orders".into(),
    };
    running.change(Vec::new(), vec![removed]).await;
    let refusal = running
        .try_publish("queue/test/orders", &["no"])
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::Orphaned);
    let refused = running
        .broker
        .receive(receive("queue/test/orders", 1, Duration::ZERO));
    assert_eq!(
        in_time(refused).await.unwrap_err().code,
        ErrorCode::Orphaned
    );

    let running = running.restarted().await;
    let listed = running.broker.metadata().await.unwrap();
    assert!(listed.objects.iter().any(|object| object.orphaned));
    running.declare(vec![queue("queue/test/orders")]).await;
    assert_eq!(
        texts(&running.receive("queue/test/orders", 1).await),
        ["kept"]
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_topic_is_read_from_any_position() {
    let running = running();
    running.declare(vec![topic("topic/test/events", 1)]).await;
    for text in ["0", "1", "2"] {
        running.publish("topic/test/events", &[text]).await;
    }
    let offsets = |answer: &crate::ReadAnswer| -> Vec<u64> {
        answer
            .records
            .iter()
            .map(|record| record.offset.get())
            .collect()
    };
    let earliest = running.broker.read(read(Position::Earliest)).await.unwrap();
    assert_eq!(
        (offsets(&earliest), earliest.next.get()),
        (vec![0, 1, 2], 3)
    );
    let latest = running.broker.read(read(Position::Latest)).await.unwrap();
    assert_eq!((offsets(&latest), latest.next.get()), (vec![], 3));
    let some = running
        .broker
        .read(read(Position::Offset(Offset::new(1))))
        .await
        .unwrap();
    assert_eq!(offsets(&some), [1, 2]);
    let stored_at = earliest.records[0].stored_at;
    let timed = running
        .broker
        .read(read(Position::Time(stored_at)))
        .await
        .unwrap();
    assert_eq!(offsets(&timed)[0], 0);
    let future = Position::Time(Wall::from_millis(u64::MAX));
    assert!(
        running
            .broker
            .read(read(future))
            .await
            .unwrap()
            .records
            .is_empty()
    );
    let beyond = running
        .broker
        .read(read(Position::Offset(Offset::new(4))))
        .await
        .unwrap_err();
    assert_eq!(beyond.code, ErrorCode::OffsetOutOfRange);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_reader_is_woken_by_the_next_message() {
    let running = running();
    running.declare(vec![topic("topic/test/events", 1)]).await;
    running.publish("topic/test/events", &["0"]).await;
    let waiting = tokio::spawn({
        let broker = running.broker.clone();
        async move {
            broker
                .wait_for(&address("topic/test/events"), 0, Offset::new(1))
                .await
        }
    });
    running.publish("topic/test/events", &["1"]).await;
    in_time(waiting).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn retention_trims_a_topic_and_readers_go_on_at_the_oldest_kept() {
    let running = running();
    running
        .declare(vec![topic_with("topic/test/events", 1, |p| {
            p.messages_max = Some(3)
        })])
        .await;
    for n in 0..10 {
        running
            .publish("topic/test/events", &[&n.to_string()])
            .await;
    }
    until("the topic is trimmed", || async {
        let answer = running.broker.read(read(Position::Earliest)).await.unwrap();
        answer.available.start.get() == 7
    })
    .await;
    let answer = running
        .broker
        .read(read(Position::Offset(Offset::new(2))))
        .await
        .unwrap();
    assert_eq!(answer.records[0].offset.get(), 7);
}

#[tokio::test(flavor = "multi_thread")]
async fn publishes_to_one_queue_keep_their_order_without_waiting() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    let to = address("queue/test/orders");
    let sent: Vec<_> = (0..100)
        .map(|n| {
            running
                .broker
                .publish(&to, vec![batch(&[message(&n.to_string(), "")])])
        })
        .collect();
    for sent in sent {
        in_time(sent).await.remove(0).unwrap();
    }
    let expected: Vec<String> = (0..100).map(|n: u32| n.to_string()).collect();
    assert_eq!(
        texts(&running.receive("queue/test/orders", 100).await),
        expected
    );
    let stats = running.broker.stats(1_000).await;
    assert!(
        stats.journal.fsyncs < stats.journal.records,
        "one sync carries many: {stats:?}"
    );
    assert_eq!(stats.published_messages, 100);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_message_of_a_topic_goes_to_the_partition_asked_for_or_in_turn() {
    let running = running();
    running.declare(vec![topic("topic/test/events", 3)]).await;
    let to = address("topic/test/events");
    let keyed = Batch {
        partition: Some(2),
        ..batch(&[message("x", "")])
    };
    let acknowledged = in_time(running.broker.publish(&to, vec![keyed]))
        .await
        .remove(0)
        .unwrap();
    assert_eq!(acknowledged.partition, 2);
    let mut partitions = Vec::new();
    for _ in 0..6 {
        partitions.push(running.publish("topic/test/events", &["y"]).await.partition);
    }
    partitions.sort_unstable();
    partitions.dedup();
    assert!(partitions.len() > 1, "one partition got everything");
    let none = Batch {
        partition: Some(3),
        ..batch(&[message("x", "")])
    };
    let refusal = in_time(running.broker.publish(&to, vec![none]))
        .await
        .remove(0)
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::NoSuchPartition);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peek_shows_states_and_takes_nothing() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running
        .publish("queue/test/orders", &["leased", "ready", "more"])
        .await;
    let leased = running.receive("queue/test/orders", 1).await;
    let from = Offset::new(0);
    let peek = Peek {
        address: address("queue/test/orders"),
        from,
        messages_max: 2,
    };
    let seen = running.broker.peek(peek).await.unwrap();
    let states: Vec<_> = seen.messages.iter().map(|one| one.state).collect();
    assert_eq!(states, [PeekedState::InFlight, PeekedState::Ready]);
    assert_eq!(seen.next, Some(Offset::new(2)));
    running.accept(&leased).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn lists_are_paged_and_count_dead_letters_with_their_queue() {
    let running = running();
    running
        .declare(vec![
            queue("queue/test/a"),
            queue("queue/other/b"),
            topic("topic/test/c", 2),
        ])
        .await;
    running.publish("queue/test/a", &["x"]).await;
    let got = running.receive("queue/test/a", 1).await;
    let reject = Settle::Reject {
        note: String::new(),
    };
    running.settle(&got, reject).await.remove(0).unwrap();
    running.receive("queue/test/a/dead", 1).await;

    let list = List {
        queues: true,
        topics: true,
        objects_max: 2,
        ..List::default()
    };
    let first = running.broker.list(list.clone()).await.unwrap();
    assert_eq!(first.items.len(), 2);
    let rest = List {
        after: first.next.clone(),
        ..list.clone()
    };
    let rest = running.broker.list(rest).await.unwrap();
    assert_eq!((rest.items.len(), rest.next), (1, None));
    let test = List {
        namespace: Some("test".into()),
        objects_max: 10,
        ..list
    };
    let test = running.broker.list(test).await.unwrap();
    let a = test
        .items
        .iter()
        .find(|item| item.address == address("queue/test/a"))
        .unwrap();
    let Some(SummaryKind::Queue(facts)) = &a.kind else {
        panic!("{a:?} is no queue")
    };
    assert_eq!((facts.dead_lettered, facts.stats.ready), (1, 0));
    assert_eq!(test.items.len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_delta_against_an_old_revision_or_for_another_cluster_is_refused() {
    let running = running();
    running.declare(vec![queue("queue/test/a")]).await;
    let delta = |cluster_id: Option<&str>, base_revision| TopologyDelta {
        cluster_id: cluster_id.map(Into::into),
        base_revision,
        upserts: vec![queue("queue/test/b")],
        removals: Vec::new(),
    };
    let refusal = running
        .broker
        .apply_topology(delta(None, 0))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::RevisionConflict);
    let refusal = running
        .broker
        .apply_topology(delta(Some("other"), 1))
        .await
        .unwrap_err();
    assert_eq!(refusal.code, ErrorCode::WrongCluster);
    let cluster = running.broker.metadata().await.unwrap().cluster_id;
    let revision = running
        .broker
        .apply_topology(delta(Some(&cluster), 1))
        .await
        .unwrap();
    running.applied(revision).await;
    let metadata = running.broker.metadata().await.unwrap();
    assert_eq!((metadata.revision, metadata.applied_revision), (2, 2));
    assert!(metadata.objects.iter().all(|object| object.applied));
}
