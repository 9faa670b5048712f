//! A replica that lost anything it once synced does not vote, and is replaced under another id,
//! while messages are published.

use std::path::PathBuf;

use millrace_types::ReplicaId;

use super::*;

const QUEUE: &str = "queue/test/orders";

/// What a bit flips in.
#[derive(Clone, Copy)]
enum Rots {
    Journal,
    Checkpoint,
    Segment,
}

impl Cluster {
    /// Files of a node's disk in a directory, under names that begin so; the last one first.
    fn files_named(&self, node: usize, directory: &str, prefix: &str) -> Vec<PathBuf> {
        use millrace_storage::Disk as _;
        let directory = Path::new("data").join(directory);
        let mut names = self.disk(node).list(&directory).unwrap_or_default();
        names.retain(|name| name.starts_with(prefix) && !name.ends_with(".idx"));
        names.sort_by(|a, b| b.cmp(a));
        names.into_iter().map(|name| directory.join(name)).collect()
    }

    /// Flips a bit of a dead node's disk in what it has of a shard.
    fn rot(&self, node: usize, shard: ShardId, what: Rots) {
        let disk = self.disk(node);
        let (path, at) = match what {
            Rots::Journal => self.frame_of_journal(node),
            Rots::Checkpoint => self.end_of(node, &format!("shards/{shard}"), "checkpoint-"),
            Rots::Segment => self.end_of(node, &format!("shards/{shard}/segments"), ""),
        };
        disk.corrupt(&path, at, 0x10).unwrap();
    }

    /// Near the end of the last file of these.
    fn end_of(&self, node: usize, directory: &str, prefix: &str) -> (PathBuf, usize) {
        let files = self.files_named(node, directory, prefix);
        let path = files.first().expect("there is such a file").clone();
        let content = self.disk(node).content(&path).unwrap();
        let written = content.iter().rposition(|byte| *byte != 0).unwrap();
        (path, written - 10)
    }

    /// In a frame of a batch that has successors, of the oldest journal file.
    fn frame_of_journal(&self, node: usize) -> (PathBuf, usize) {
        let mut files = self.files_named(node, "journal", "");
        files.retain(|path| path.extension().is_some_and(|it| it == "journal"));
        let path = files.pop().expect("there is a journal");
        let content = self.disk(node).content(&path).unwrap();
        let batches = (4096..content.len()).step_by(512);
        let is_batch = |at: &usize| content[*at..].starts_with(b"MRBT");
        let batches: Vec<usize> = batches.filter(is_batch).collect();
        let batch = batches[batches.len() / 2];
        // Behind the header, which ends with the shards and begins with 48 bytes.
        let shards = usize::from(content[batch + 44]);
        (path, batch + 48 + 4 * shards + 50)
    }

    /// Makes a checkpoint of everything that a node has of a shard.
    async fn covers(&self, node: usize, shard: ShardId) {
        let (since, applied) = (self.host.elapsed(), self.applied(node, shard).await);
        while self.broker(node).stats(0).await.shards[&shard].checkpoint < applied {
            self.broker(node).checkpoint();
            self.wait(since, "there is a checkpoint").await;
        }
    }

    /// Waits until a node has another replica of a shard than before, which votes.
    async fn is_replaced(&self, node: usize, shard: ShardId, former: ReplicaId) {
        let since = self.host.elapsed();
        let other = (node + 1) % 3;
        loop {
            let now = self.broker(node).node.data_dir.replica(shard);
            let votes = self.voters(other, shard).contains(&self.id(node));
            if votes && now.is_some_and(|now| now != former) {
                return;
            }
            self.wait_long(since, "it is replaced").await;
        }
    }

    fn replica(&self, node: usize, shard: ShardId) -> ReplicaId {
        let dir = &self.broker(node).node.data_dir;
        dir.replica(shard).unwrap()
    }
}

/// A follower's disk loses something of a shard; it comes back, and then it is needed.
fn a_follower_loses(seed: u64, shard: Option<ShardId>, what: Rots) {
    let quick = |options: &mut NodeOptions| options.scrub_bytes_per_second = 1 << 20;
    live(seed, quick, move |cluster| async move {
        cluster.declare(vec![queue(QUEUE)]).await;
        cluster.settles(&[0, 1, 2]).await;
        let load = cluster.load(QUEUE);
        load.goes_on(20).await;
        let shard = shard.unwrap_or_else(|| cluster.shard(QUEUE));
        let leader = cluster.leader(shard, &[0, 1, 2]).await;
        let follower = (leader + 1) % 3;
        cluster.catches_up(follower, leader, shard).await;
        let former = cluster.replica(follower, shard);
        if !matches!(what, Rots::Journal) {
            cluster.covers(follower, shard).await;
        }
        cluster.kill(follower);
        load.goes_on(20).await;
        cluster.rot(follower, shard, what);
        cluster.start(follower);

        cluster.is_replaced(follower, shard, former).await;
        cluster.settles(&[0, 1, 2]).await;
        load.goes_on(20).await;
        // The new one counts.
        cluster.kill(leader);
        load.goes_on(20).await;
        load.check().await;
    });
}

#[test]
fn a_follower_with_a_damaged_checkpoint_is_replaced() {
    a_follower_loses(131, None, Rots::Checkpoint);
}

#[test]
fn a_follower_with_a_damaged_segment_is_replaced() {
    a_follower_loses(132, None, Rots::Segment);
}

#[test]
fn a_follower_with_a_damaged_journal_is_replaced() {
    a_follower_loses(133, None, Rots::Journal);
}

#[test]
fn a_node_whose_catalogue_is_damaged_learns_from_others_that_it_is_replaced() {
    a_follower_loses(134, Some(ShardId::METADATA), Rots::Checkpoint);
}
