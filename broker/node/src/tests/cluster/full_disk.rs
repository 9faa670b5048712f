//! A follower whose disk fills up: nobody stops, the leader refuses what would not fit, and what
//! makes room goes on.

use millrace_types::{Applied, ErrorCode};

use super::*;

const QUEUE: &str = "queue/test/orders";

/// Publishes until it is refused, or taken.
async fn until_refused(cluster: &Cluster, leader: usize) -> Refusal {
    let since = cluster.host.elapsed();
    loop {
        if let Err(refusal) = cluster.publish(leader, QUEUE, "more").await {
            return refusal;
        }
        cluster.wait(since, "a publish is refused").await;
    }
}

#[test]
fn a_full_disk_of_a_follower_stops_publishing_and_nothing_else_until_it_has_room() {
    let reserve = |options: &mut NodeOptions| options.disk_reserve_bytes = 64 << 10;
    live(41, reserve, |cluster| async move {
        cluster.declare(vec![queue(QUEUE)]).await;
        let shard = cluster.shard(QUEUE);
        let leader = cluster.leader(shard, &[0, 1, 2]).await;
        let full = (leader + 1) % 3;
        for text in ["one", "two", "three"] {
            cluster.publish(leader, QUEUE, text).await.unwrap();
        }

        cluster.disk(full).set_capacity(Some(0));
        let refusal = until_refused(&cluster, leader).await;

        assert_eq!(
            (refusal.code, refusal.applied),
            (ErrorCode::DiskFull, Applied::No)
        );
        assert_eq!(refusal.metadata["node"], cluster.id(full).to_string());
        let broker = cluster.broker(leader);
        for _ in 0..3 {
            let one = receive(QUEUE, 1, Duration::from_secs(1));
            let taken = broker.receive(one).await.unwrap();
            let tags = taken.iter().map(|one| settle_tag(one, Settle::Accept));
            let settled = broker.settle(None, tags.collect()).await;
            assert!(settled.iter().all(Result::is_ok), "{settled:?}");
        }
        for node in [0, 1, 2] {
            assert!(cluster.broker(node).failed().now_or_never().is_none());
        }

        cluster.disk(full).set_capacity(None);
        let since = cluster.host.elapsed();
        while let Err(refusal) = cluster.publish(leader, QUEUE, "after").await {
            assert_eq!(refusal.code, ErrorCode::DiskFull);
            cluster.wait(since, "publishes are taken again").await;
        }
        cluster.catches_up(full, leader, shard).await;
    });
}
