//! Who leads, and what becomes of what was acknowledged when that one is gone.

use millrace_types::{Applied, ErrorCode};

use super::*;

const QUEUE: &str = "queue/test/orders";

#[test]
fn three_nodes_elect_a_leader_and_acknowledge_what_two_have_synced() {
    live(
        1,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let leader = cluster.leader(shard, &[0, 1, 2]).await;
            cluster.publish(leader, QUEUE, "one").await.unwrap();

            // Another one leads nothing here, and says who does.
            let other = (leader + 1) % 3;
            let refusal = cluster.publish(other, QUEUE, "no").await.unwrap_err();
            assert_eq!(
                (refusal.code, refusal.applied),
                (ErrorCode::NotLeader, Applied::No)
            );
            assert_eq!(refusal.metadata["leader"], cluster.id(leader).to_string());

            // One of three may be gone, and nobody notices.
            cluster.kill(other);
            cluster.publish(leader, QUEUE, "two").await.unwrap();
            assert_eq!(cluster.take(leader, QUEUE).await, ["one", "two"]);
        },
    );
}

#[test]
fn when_a_leader_dies_another_one_leads_and_nothing_acknowledged_is_lost() {
    for seed in [11, 12, 13] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                cluster.declare(vec![queue(QUEUE)]).await;
                let shard = cluster.shard(QUEUE);
                let first = cluster.leader(shard, &[0, 1, 2]).await;
                let mut expected = Vec::new();
                for number in 0..20 {
                    let text = format!("message {number}");
                    cluster.publish(first, QUEUE, &text).await.unwrap();
                    expected.push(text);
                }

                cluster.kill(first);
                let died = cluster.host.elapsed();
                let rest = cluster.alive();
                let second = cluster.leader(shard, &rest).await;
                assert!(cluster.host.elapsed() - died < ELECTION);
                cluster.publish(second, QUEUE, "after").await.unwrap();
                expected.push("after".into());

                // The one that was gone follows, and can lead again when it has caught up.
                cluster.start(first);
                let term = cluster.status(second, shard).await.term;
                cluster.catches_up(first, second, shard).await;
                assert_eq!(
                    cluster.status(second, shard).await.term,
                    term,
                    "nobody was disturbed"
                );
                cluster.kill(second);
                let third = cluster.leader(shard, &cluster.alive()).await;
                assert_eq!(cluster.take(third, QUEUE).await, expected);
            },
        );
    }
}

#[test]
fn a_leader_that_nobody_hears_refuses_and_what_it_had_taken_is_unknown() {
    live(
        21,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let first = cluster.leader(shard, &[0, 1, 2]).await;
            cluster.publish(first, QUEUE, "before").await.unwrap();

            cluster.isolate(first);
            let began = cluster.host.elapsed();
            let refusal = cluster.publish(first, QUEUE, "perhaps").await.unwrap_err();
            assert_eq!(
                (refusal.code, refusal.applied),
                (ErrorCode::NotLeader, Applied::Unknown)
            );
            assert!(cluster.host.elapsed() - began < Duration::from_millis(1_700));
            let refusal = cluster.publish(first, QUEUE, "no").await.unwrap_err();
            assert_eq!(
                (refusal.code, refusal.applied),
                (ErrorCode::NotLeader, Applied::No)
            );
            assert!(refusal.retry_after_ms.is_some());

            let rest: Vec<usize> = (0..3).filter(|node| *node != first).collect();
            let second = cluster.leader(shard, &rest).await;
            cluster.publish(second, QUEUE, "meanwhile").await.unwrap();
            let term = cluster.status(second, shard).await.term;

            // It asks before it raises the term: its return disturbs nobody.
            cluster.host.sleep(Duration::from_secs(10)).await;
            cluster.join(first);
            cluster.follows(first, shard).await;
            assert_eq!(cluster.status(second, shard).await.term, term);
            assert_eq!(cluster.leader(shard, &[0, 1, 2]).await, second);
            // What nobody else had is gone for good.
            assert_eq!(cluster.take(second, QUEUE).await, ["before", "meanwhile"]);
        },
    );
}

#[test]
fn a_node_that_drains_hands_over_what_it_leads_though_messages_go_on_coming() {
    live(
        51,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let first = cluster.leader(shard, &[0, 1, 2]).await;
            cluster.publish(first, QUEUE, "before").await.unwrap();
            let rest: Vec<usize> = (0..3).filter(|node| *node != first).collect();
            let began = cluster.host.elapsed();
            let drained = Arc::new(Mutex::new(None));
            let place = Arc::clone(&drained);
            let leaving = cluster.clone();
            cluster.host.spawn(Box::pin(async move {
                leaving.broker(first).drain().await;
                *place.lock().unwrap() = Some(leaving.host.elapsed());
            }));

            let second = cluster.leader(shard, &rest).await;

            let gap = cluster.host.elapsed() - began;
            assert!(
                gap < Duration::from_millis(500),
                "{gap:?}, no election by time"
            );
            let mut count = 0;
            while drained.lock().unwrap().is_none() {
                cluster.publish(second, QUEUE, "meanwhile").await.unwrap();
                count += 1;
                cluster.wait(began, "it has drained").await;
            }
            let took = drained.lock().unwrap().unwrap() - began;
            assert!(took < Duration::from_secs(6), "{took:?}");
            cluster.kill(first);
            assert_eq!(cluster.take(second, QUEUE).await.len(), count + 1);
        },
    );
}
