//! A replica that needs more than the log has gets the state, while everybody serves.

use std::sync::atomic::{AtomicBool, Ordering};

use millrace_replica::{Body, Change, Payload, Replica};
use millrace_types::{Applied, ReplicaId};

use super::*;

const QUEUE: &str = "queue/test/orders";
/// A replica that comes later.
const ADDED: ReplicaId = ReplicaId::new(4_711);
/// Nobody keeps entries for who was not heard of for so long.
const FORGOTTEN: Duration = Duration::from_secs(70);
/// A pace at which a few hundred kilobytes take seconds.
/// What a disk keeps for others than states.
const RESERVE: u64 = 1 << 20;
const SLOW: fn(&mut NodeOptions) = |options| options.snapshot_bytes_per_second = 200_000;

/// Makes checkpoints of everything that a node has of a shard: its log begins behind that.
async fn compact(cluster: &Cluster, node: usize, shard: ShardId) {
    let since = cluster.host.elapsed();
    loop {
        let facts = cluster.broker(node).stats(0).await.shards[&shard].clone();
        if facts.checkpoint == facts.applied {
            return;
        }
        cluster.broker(node).checkpoint();
        cluster.wait(since, "there is a checkpoint").await;
    }
}

fn large(number: u64) -> String {
    format!("message {number} {}", "x".repeat(20_000))
}

/// Publishes messages to who leads, which may be another one at any time.
async fn publish(cluster: &Cluster, numbers: std::ops::Range<u64>) {
    let shard = cluster.shard(QUEUE);
    for number in numbers {
        let since = cluster.host.elapsed();
        loop {
            let leader = cluster.leader(shard, &cluster.alive()).await;
            match cluster.publish(leader, QUEUE, &large(number)).await {
                Ok(_) => break,
                Err(refusal) => assert_eq!(refusal.applied, Applied::No, "{refusal}"),
            }
            cluster.wait(since, "it is published").await;
        }
    }
}

/// The numbers of all messages of a queue, which are as they were published.
async fn numbers(cluster: &Cluster, node: usize) -> Vec<u64> {
    let mut numbers = Vec::new();
    loop {
        let taken = cluster.take(node, QUEUE).await;
        if taken.is_empty() {
            return numbers;
        }
        for text in taken {
            let number = text.split(' ').nth(1).unwrap().parse().unwrap();
            assert!(text == large(number), "message {number} is another one");
            numbers.push(number);
        }
    }
}

/// A cluster in which a follower is away and will need the state: the leader and that one.
async fn behind(cluster: &Cluster) -> (ShardId, usize, usize) {
    cluster.declare(vec![queue(QUEUE)]).await;
    let shard = cluster.shard(QUEUE);
    let leader = cluster.leader(shard, &[0, 1, 2]).await;
    let away = (leader + 1) % 3;
    cluster.kill(away);
    publish(cluster, 0..40).await;
    cluster.host.sleep(FORGOTTEN).await;
    for node in cluster.alive() {
        compact(cluster, node, shard).await;
    }
    let leader = cluster.leader(shard, &cluster.alive()).await;
    (shard, leader, away)
}

/// Everything is there when a replica has nobody but one that was away itself.
async fn check(cluster: &Cluster, shard: ShardId, (leader, away): (usize, usize), count: u64) {
    let next = [leader, away];
    let third = (0..3).find(|node| !next.contains(node)).unwrap();
    cluster.kill(leader);
    let second = cluster.leader(shard, &[away, third]).await;
    cluster.start(leader);
    cluster.catches_up(leader, second, shard).await;
    cluster.kill(third);
    let last = cluster.leader(shard, &next).await;
    let all: Vec<u64> = (0..count).collect();
    assert_eq!(numbers(cluster, last).await, all);
}

/// What lies beside the checkpoint of a shard on a node's disk.
fn leftovers(cluster: &Cluster, node: usize, shard: ShardId) -> Vec<String> {
    use millrace_storage::Disk as _;
    let directory = Path::new("data").join(format!("shards/{shard}"));
    let names = cluster.disk(node).list(&directory).unwrap();
    let is_other = |name: &String| !name.starts_with("checkpoint-") && name != "segments";
    names.into_iter().filter(is_other).collect()
}

/// Bytes of states that reached a node.
fn state_bytes(cluster: &Cluster, node: usize) -> usize {
    let id = cluster.id(node);
    let state = cluster.net.state();
    let bytes = |(to, message): &(NodeId, ShardMessage)| match &message.body {
        Body::Chunk(chunk) if *to == id => chunk.data.len(),
        _ => 0,
    };
    state.states.iter().map(bytes).sum()
}

/// Bytes of the whole state that a node is sent, as soon as some of it was.
async fn state_total(cluster: &Cluster, node: usize, shard: ShardId) -> usize {
    let (id, since) = (cluster.id(node), cluster.host.elapsed());
    loop {
        let found = cluster.net.state().states.iter().find_map(|(to, message)| {
            let is_it = *to == id && message.shard == shard;
            match &message.body {
                Body::Chunk(chunk) if is_it => usize::try_from(chunk.total).ok(),
                _ => None,
            }
        });
        match found {
            Some(total) => return total,
            None => cluster.wait(since, "something of a state comes").await,
        }
    }
}

#[test]
fn a_follower_that_was_away_for_too_long_gets_the_state_while_everybody_serves() {
    for seed in [31, 32, 33] {
        live(
            seed,
            |_| {},
            |cluster| async move {
                let (shard, leader, away) = behind(&cluster).await;
                cluster.start(away);
                publish(&cluster, 40..60).await;
                cluster.catches_up(away, leader, shard).await;

                let facts = cluster.broker(away).stats(0).await.shards[&shard].clone();
                assert!(facts.checkpoint.get() >= 40, "it has got a state");
                assert_eq!(leftovers(&cluster, away, shard), [""; 0]);
                check(&cluster, shard, (leader, away), 60).await;
            },
        );
    }
}

#[test]
fn a_state_goes_on_where_it_was_cut() {
    live(41, SLOW, |cluster| async move {
        let (shard, leader, away) = behind(&cluster).await;
        cluster.start(away);
        let total = state_total(&cluster, away, shard).await;
        let since = cluster.host.elapsed();
        while state_bytes(&cluster, away) < total / 2 {
            cluster.wait(since, "half of it has come").await;
        }
        cluster.isolate(away);
        publish(&cluster, 40..50).await;
        cluster.host.sleep(Duration::from_secs(20)).await;
        cluster.join(away);
        cluster.catches_up(away, leader, shard).await;

        let sent = state_bytes(&cluster, away);
        assert!(sent < total * 3 / 2, "{sent} bytes of {total} were sent");
        check(&cluster, shard, (leader, away), 50).await;
    });
}

#[test]
fn entries_that_are_published_while_a_state_travels_come_from_the_log() {
    live(42, SLOW, |cluster| async move {
        let (shard, leader, away) = behind(&cluster).await;
        cluster.start(away);
        let total = state_total(&cluster, away, shard).await;
        for number in 40..60 {
            publish(&cluster, number..number + 1).await;
            // Each of them would be the end of the log.
            cluster.broker(leader).checkpoint();
            cluster.host.sleep(Duration::from_millis(200)).await;
        }
        cluster.catches_up(away, leader, shard).await;
        let sent = state_bytes(&cluster, away);
        assert!(sent < total * 3 / 2, "{sent} bytes of {total} were sent");
        check(&cluster, shard, (leader, away), 60).await;
    });
}

#[test]
fn a_receiver_that_crashes_anywhere_has_one_state_or_the_other_and_gets_the_rest() {
    let lived = Arc::new(AtomicBool::new(false));
    let mut operations = 0;
    while !lived.load(Ordering::Relaxed) {
        let lived = Arc::clone(&lived);
        live(50 + operations, SLOW, move |cluster| async move {
            let (shard, leader, away) = behind(&cluster).await;
            cluster.start(away);
            state_total(&cluster, away, shard).await;
            let disk = cluster.disk(away);
            let crashes = disk.crashes();
            disk.crash_after(operations, Crash::Random(operations));
            let since = cluster.host.elapsed();
            let all = cluster.applied(leader, shard).await;
            while disk.crashes() == crashes && !lived.load(Ordering::Relaxed) {
                let stats = cluster.broker(away).stats(0).await;
                let facts = stats.shards.get(&shard);
                let done = facts.is_some_and(|facts| facts.applied >= all);
                lived.store(done, Ordering::Relaxed);
                cluster.wait(since, "it crashes or has everything").await;
            }
            // It has failed, or is killed now.
            cluster.kill(away);
            cluster.start(away);
            publish(&cluster, 40..45).await;
            cluster.catches_up(away, leader, shard).await;
            assert_eq!(leftovers(&cluster, away, shard), [""; 0]);
            check(&cluster, shard, (leader, away), 45).await;
        });
        operations += 4;
    }
    assert!(operations > 10, "no crash in {operations} operations");
}

#[test]
fn a_full_disk_refuses_a_state_and_takes_it_when_it_has_room_again() {
    live(
        61,
        |options| options.disk_reserve_bytes = RESERVE,
        |cluster| async move {
            let (shard, leader, away) = behind(&cluster).await;
            let used = |disk: &MemoryDisk| {
                use millrace_storage::Disk as _;
                (1 << 40) - disk.free_bytes(Path::new("data")).unwrap()
            };
            let disk = cluster.disk(away);
            cluster.start(away);
            // Room for the journal, not for a state besides the reserve.
            disk.set_capacity(Some(used(&disk) + RESERVE + 500_000));
            cluster.host.sleep(Duration::from_secs(10)).await;
            assert!(cluster.applied(away, shard).await < cluster.applied(leader, shard).await);
            assert_eq!(leftovers(&cluster, away, shard), [""; 0]);
            // The node goes on: of the other shards it has everything.
            let other = ShardId::new(3 - shard.get());
            cluster.catches_up(away, leader, other).await;
            cluster.catches_up(away, leader, ShardId::METADATA).await;

            disk.set_capacity(None);
            cluster.host.sleep(Duration::from_secs(20)).await;
            cluster.catches_up(away, leader, shard).await;
            check(&cluster, shard, (leader, away), 40).await;
        },
    );
}

#[test]
fn a_state_that_comes_late_takes_nothing_back() {
    live(
        71,
        |_| {},
        |cluster| async move {
            let (shard, leader, away) = behind(&cluster).await;
            cluster.start(away);
            cluster.catches_up(away, leader, shard).await;
            publish(&cluster, 40..60).await;
            cluster.catches_up(away, leader, shard).await;
            let applied = cluster.applied(away, shard).await;
            let (id, from) = (cluster.id(away), cluster.id(leader));
            let states = cluster.net.state().states.clone();
            let late = states
                .into_iter()
                .filter(|(to, message)| *to == id && message.shard == shard);
            let late: Vec<ShardMessage> = late.map(|(_, message)| message).collect();
            let is_end = |message: &ShardMessage| {
                matches!(&message.body, Body::Raft(message)
                if matches!(message.payload, Payload::Snapshot { .. }))
            };
            assert!(late.iter().any(is_end));

            for message in late {
                let ends = is_end(&message);
                if ends {
                    // What came before it is staged.
                    cluster.host.sleep(Duration::from_secs(1)).await;
                }
                let broker = cluster.broker(away);
                broker.received(from, Lane::Snapshots, vec![message]).await;
                cluster.host.sleep(Duration::from_millis(20)).await;
            }
            cluster.host.sleep(Duration::from_secs(1)).await;

            assert_eq!(cluster.applied(away, shard).await, applied);
            assert_eq!(leftovers(&cluster, away, shard), [""; 0]);
            check(&cluster, shard, (leader, away), 60).await;
        },
    );
}

#[test]
fn a_blank_learner_joins_a_shard_while_publishes_go_on() {
    live(
        81,
        |_| {},
        |cluster| async move {
            cluster.declare(vec![queue(QUEUE)]).await;
            let shard = cluster.shard(QUEUE);
            let leader = cluster.leader(shard, &[0, 1, 2]).await;
            publish(&cluster, 0..40).await;
            compact(&cluster, leader, shard).await;
            let fourth = Member::new(&cluster.host, |dir| {
                let ours = millrace_storage::Cluster {
                    id: "ours".into(),
                    shards: SHARDS,
                    founding: None,
                };
                dir.join(ours, ReplicaId::new(4_710)).unwrap();
                dir.hold(shard, ADDED).unwrap();
            });
            let node = fourth.id;
            cluster.members().push(fourth);
            cluster.start(3);

            let replica = ADDED;
            change(&cluster, (leader, shard), Change::Add { replica, node }).await;
            for number in 40..60 {
                publish(&cluster, number..number + 1).await;
                cluster.host.sleep(Duration::from_millis(50)).await;
            }
            cluster.catches_up(3, leader, shard).await;
            let facts = cluster.broker(3).stats(0).await.shards[&shard].clone();
            assert!(facts.checkpoint.get() >= 40, "it has got a state");
            change(&cluster, (leader, shard), Change::Promote { replica }).await;
            // Whoever is left has everything with it.
            let others: Vec<usize> = (0..3).filter(|node| *node != leader).collect();
            cluster.kill(leader);
            let next = cluster.leader(shard, &[others[0], others[1], 3]).await;
            publish(&cluster, 60..61).await;
            assert_eq!(numbers(&cluster, next).await, (0..61).collect::<Vec<_>>());
        },
    );
}

/// Changes the members of a shard, as its leader does.
async fn change(cluster: &Cluster, (leader, shard): (usize, ShardId), change: Change) {
    let (sender, answer) = oneshot::channel();
    let drive = Box::new(move |replica: &mut Replica| {
        sender.send(replica.change_members(&[change])).ok();
    });
    let broker = cluster.broker(leader);
    let slot = broker.node.slot_at_all(shard);
    slot.inbox.send(Input::Drive(shard, drive));
    answer.await.unwrap().unwrap();
}
