//! What moves between logs: bindings and dead letters, within a shard and across.

use millrace_types::ShardId;

use super::*;
use crate::ObjectKind;

fn shard_of(view: &CatalogueView, queue: &str) -> ShardId {
    match view.lookup(&address(queue)).unwrap().kind {
        ObjectKind::Queue { shard, .. } => shard,
        ObjectKind::Topic { .. } => panic!("{queue} is a topic"),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_bound_queue_gets_what_its_pattern_matches() {
    let running = running();
    running
        .declare(vec![
            topic("topic/test/events", 3),
            bound("queue/test/orders", "topic/test/events", "orders.*"),
            bound("queue/test/all", "topic/test/events", "#"),
        ])
        .await;
    for (text, subject) in [
        ("1", "orders.new"),
        ("2", "bills.new"),
        ("3", "orders.paid"),
    ] {
        running
            .try_send("topic/test/events", &[message(text, subject)])
            .await
            .unwrap();
    }
    let mut orders = Vec::new();
    while orders.len() < 2 {
        orders.extend(running.receive("queue/test/orders", 10).await);
    }
    let mut orders = texts(&orders);
    orders.sort_unstable();
    assert_eq!(orders, ["1", "3"]);
    let mut all = Vec::new();
    while all.len() < 3 {
        all.extend(running.receive("queue/test/all", 10).await);
    }
    assert_eq!(all.len(), 3);
    assert!(running.look("queue/test/orders").await.is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_binding_moves_each_message_once_over_kills() {
    let mut running = running();
    let names = ["queue/test/a", "queue/test/b"];
    let mut objects = vec![topic("topic/test/events", 2)];
    objects.extend(names.map(|name| bound(name, "topic/test/events", "#")));
    running.declare(objects).await;
    for round in 0..4 {
        for n in 0..10 {
            running
                .publish("topic/test/events", &[&format!("{round}-{n}")])
                .await;
        }
        running = running.killed().await;
    }
    for name in names {
        let mut got = Vec::new();
        while got.len() < 40 {
            got.extend(texts(&running.receive(name, 100).await));
        }
        got.sort_unstable();
        let mut expected: Vec<String> = (0..4)
            .flat_map(|round| (0..10).map(move |n| format!("{round}-{n}")))
            .collect();
        expected.sort_unstable();
        assert_eq!(got, expected);
        assert!(running.look(name).await.is_empty());
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_queue_stalls_its_binding_until_it_has_room() {
    let running = running();
    let small = queue_with("queue/test/small", |queue| {
        queue.bindings.push(binding("topic/test/events", "#"));
        queue.limits.messages_max = Some(2);
    });
    running
        .declare(vec![topic("topic/test/events", 1), small])
        .await;
    running
        .publish("topic/test/events", &["1", "2", "3", "4", "5"])
        .await;
    until("the binding stalls", || async {
        let metadata = running.broker.metadata().await.unwrap();
        metadata
            .objects
            .iter()
            .flat_map(|o| &o.problems)
            .any(|p| p.reason == "TargetFull")
    })
    .await;
    let described = running
        .broker
        .describe(&address("queue/test/small"))
        .await
        .unwrap();
    assert_eq!(
        (
            described.bindings[0].cursor.get(),
            described.bindings[0].lag
        ),
        (2, 3)
    );
    assert!(
        described.bindings[0].stalled.contains("full"),
        "{described:?}"
    );

    let mut got = Vec::new();
    while got.len() < 5 {
        let some = running.receive("queue/test/small", 1).await;
        got.extend(texts(&some));
        running.accept(&some).await;
    }
    assert_eq!(got, ["1", "2", "3", "4", "5"]);
    until("nothing stalls", || async {
        let metadata = running.broker.metadata().await.unwrap();
        metadata
            .objects
            .iter()
            .all(|object| object.problems.is_empty())
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_rejected_message_reaches_the_implicit_dead_letter_queue() {
    let running = running();
    running.declare(vec![queue("queue/test/orders")]).await;
    running.publish("queue/test/orders", &["bad"]).await;
    let got = running.receive("queue/test/orders", 1).await;
    let reject = Settle::Reject {
        note: "cannot be parsed".into(),
    };
    running.settle(&got, reject).await.remove(0).unwrap();
    let dead = running.receive("queue/test/orders/dead", 1).await;
    let death = decoded(&dead[0]).death.unwrap();
    assert_eq!(texts(&dead), ["bad"]);
    assert_eq!(
        (death.queue.as_str(), death.note.as_str()),
        ("queue/test/orders", "cannot be parsed")
    );
    assert_eq!((death.count, death.offset), (1, 0));
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_cross_shards_once_over_kills() {
    let mut running = running();
    let targets: Vec<Declared> = (0..4)
        .map(|n| queue(&format!("queue/test/dead-{n}")))
        .collect();
    running.declare(targets).await;
    running.declare(vec![queue("queue/test/orders")]).await;
    let view = running.broker.catalogue().borrow().clone();
    let home = shard_of(&view, "queue/test/orders");
    let target = (0..4)
        .map(|n| format!("queue/test/dead-{n}"))
        .find(|name| shard_of(&view, name) != home)
        .expect("queues are spread over shards");
    let changed = queue_with("queue/test/orders", |queue| {
        queue.deliveries_max = 1;
        queue.dead_letter.queue = Some(address(&target));
    });
    running
        .declare(vec![Declared {
            generation: 2,
            ..changed
        }])
        .await;

    for round in 0..4 {
        let message_texts: Vec<String> = (0..10).map(|n| format!("{round}-{n}")).collect();
        let message_texts: Vec<&str> = message_texts.iter().map(String::as_str).collect();
        running.publish("queue/test/orders", &message_texts).await;
        let got = running.receive("queue/test/orders", 10).await;
        let retry = Settle::Retry {
            delay_ms: None,
            note: String::new(),
        };
        for result in running.settle(&got, retry).await {
            result.unwrap();
        }
        running = running.killed().await;
    }
    let mut dead = Vec::new();
    while dead.len() < 40 {
        dead.extend(running.receive(&target, 100).await);
    }
    let mut arrived = texts(&dead);
    arrived.sort_unstable();
    arrived.dedup();
    assert_eq!((arrived.len(), dead.len()), (40, 40));
    assert!(
        dead.iter()
            .all(|one| decoded(one).death.unwrap().attempts == 1)
    );
    until("the outbox is empty", || async {
        let stats = running.broker.stats(1_000).await;
        stats.queues[&address("queue/test/orders")].dying == 0
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_wait_for_room_in_their_queue() {
    let running = running();
    let small = queue_with("queue/test/orders", |queue| {
        queue.dead_letter.limits.messages_max = Some(1);
    });
    running.declare(vec![small]).await;
    running.publish("queue/test/orders", &["1", "2", "3"]).await;
    for _ in 0..3 {
        let got = running.receive("queue/test/orders", 1).await;
        let reject = Settle::Reject {
            note: String::new(),
        };
        running.settle(&got, reject).await.remove(0).unwrap();
    }
    let mut dead = Vec::new();
    while dead.len() < 3 {
        let some = running.receive("queue/test/orders/dead", 1).await;
        dead.extend(texts(&some));
        running.accept(&some).await;
    }
    assert_eq!(dead, ["1", "2", "3"]);
}

/// A queue that sends its dead letters to this one.
fn sending(name: &str, to: &str, generation: i64) -> Declared {
    let declared = queue_with(name, |queue| {
        queue.dead_letter.queue = Some(address(to));
        queue.deletion = DeletionPolicy::Delete;
    });
    Declared {
        generation,
        ..declared
    }
}

fn deletable(name: &str) -> Declared {
    queue_with(name, |queue| queue.deletion = DeletionPolicy::Delete)
}

fn gone(name: &str) -> Removed {
    Removed {
        address: address(name),
        uid: format!("uid-{name}"),
    }
}

impl Running {
    async fn die(&self, queue: &str, count: u32) {
        let got = self.receive(queue, count).await;
        let note = String::new();
        for result in self.settle(&got, Settle::Reject { note }).await {
            result.unwrap();
        }
    }

    /// The first half of what a pump does: the first dead letter of `from` arrives in `to`.
    async fn arrive(&self, from: &str, to: &str) {
        let view = self.broker.catalogue().borrow().clone();
        let (_, source) = view.require_queue(&address(from)).unwrap();
        let (home, queue) = view.require_queue(&address(to)).unwrap();
        let sent = batch(&[message("1", "")]);
        let command = millrace_engine::command::Command::AcceptDead {
            queue,
            source,
            number: 0,
            batch: millrace_engine::command::BatchHeader {
                count: 1,
                bytes: sent.records.len() as u64,
            },
        };
        let accepted = self.broker.node.start(home, command, sent.records).answer();
        in_time(accepted).await.unwrap();
    }

    async fn dying(&self, queue: &str) -> u64 {
        self.broker.stats(1_000).await.queues[&address(queue)].dying
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn dead_letters_arrive_once_though_their_queue_changes_before_they_are_confirmed() {
    for removed in [false, true] {
        let running = running();
        let (old, new) = ("queue/test/old", "queue/test/new");
        running.declare(vec![deletable(old), deletable(new)]).await;
        running.declare(vec![sending("queue/test/a", old, 1)]).await;
        running.publish("queue/test/a", &["1", "2", "3"]).await;
        in_time(running.broker.node.pumps.stop()).await;
        running.die("queue/test/a", 3).await;
        running.arrive("queue/test/a", old).await;
        let arrived = texts(&running.look(old).await);
        assert_eq!(arrived, ["1"]);
        let removals = if removed { vec![gone(old)] } else { Vec::new() };
        let changed = vec![sending("queue/test/a", new, 2)];
        running.change(changed, removals).await;

        let running = running.killed().await;
        let mut dead = Vec::new();
        while dead.len() < 2 {
            dead.extend(texts(&running.receive(new, 10).await));
        }
        assert_eq!(dead, ["2", "3"]);
        until("the outbox is empty", || async {
            running.dying("queue/test/a").await == 0
        })
        .await;
        assert!(running.look(new).await.is_empty());
        if removed {
            let view = running.broker.catalogue().borrow().clone();
            let (_, source) = view.require_queue(&address("queue/test/a")).unwrap();
            until("the removed queue has forgotten", || async {
                let node = &running.broker.node;
                let departed = |shard| node.ask(shard, |shard| shard.departed().count());
                let one = departed(ShardId::new(1)).await.unwrap();
                one + departed(ShardId::new(2)).await.unwrap() == 0
            })
            .await;
            assert!(running.broker.node.logs.shard(source).is_some());
        }
    }
}
