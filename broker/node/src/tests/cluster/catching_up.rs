//! A node that was away, and what it gets when it is back.

use super::*;

const QUEUE: &str = "queue/test/orders";
/// More than a leader keeps in memory for followers.
const MESSAGES: usize = 24;
const BODY: usize = 96 << 10;

/// Where a node's log begins, and where its last checkpoint is.
async fn kept(cluster: &Cluster, node: usize, shard: ShardId) -> (LogIndex, LogIndex) {
    let (sender, answer) = oneshot::channel();
    let ask = Box::new(move |replica: &mut millrace_replica::Replica| {
        sender.send(replica.compacted()).ok();
    });
    let broker = cluster.broker(node);
    let slot = broker.node.slot_at_all(shard);
    slot.inbox.send(Input::Drive(shard, ask));
    let checkpoint = broker.stats(0).await.shards[&shard].checkpoint;
    (answer.await.unwrap(), checkpoint)
}

/// Publishes a lot to a leader, and has it make a checkpoint.
async fn fill(cluster: &Cluster, leader: usize, shard: ShardId) {
    let big = "x".repeat(BODY);
    for _ in 0..MESSAGES {
        cluster.publish(leader, QUEUE, &big).await.unwrap();
    }
    let applied = cluster.applied(leader, shard).await;
    cluster.broker(leader).checkpoint();
    let since = cluster.host.elapsed();
    while kept(cluster, leader, shard).await.1 < applied {
        cluster.wait(since, "there is a checkpoint").await;
    }
}

#[test]
fn a_follower_that_was_away_for_a_moment_gets_what_it_lacks_from_the_journal() {
    let small = |options: &mut NodeOptions| options.memory_bytes_max = 32 << 20;
    live(31, small, |cluster| async move {
        cluster.declare(vec![queue(QUEUE)]).await;
        let shard = cluster.shard(QUEUE);
        let leader = cluster.leader(shard, &[0, 1, 2]).await;
        let away = (leader + 1) % 3;
        cluster.isolate(away);
        fill(&cluster, leader, shard).await;
        let lacks = cluster.applied(away, shard).await;
        let (gone, checkpoint) = kept(&cluster, leader, shard).await;
        assert!(
            gone <= lacks && lacks < checkpoint,
            "{gone} {lacks} {checkpoint}"
        );

        cluster.join(away);
        cluster.catches_up(away, leader, shard).await;

        // Nobody needs it any more.
        let since = cluster.host.elapsed();
        while kept(&cluster, leader, shard).await.0 < checkpoint {
            cluster.wait(since, "the journal is let go").await;
        }
    });
}

#[test]
fn who_is_away_for_long_is_not_waited_for() {
    live(
        32,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let leader = cluster.leader(shard, &[0, 1, 2]).await;
            cluster.kill((leader + 1) % 3);
            fill(&cluster, leader, shard).await;
            let (gone, checkpoint) = kept(&cluster, leader, shard).await;
            assert!(gone < checkpoint);

            cluster.host.sleep(Duration::from_secs(70)).await;

            assert_eq!(kept(&cluster, leader, shard).await.0, checkpoint);
        },
    );
}
