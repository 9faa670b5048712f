//! A publisher that never gives up, and what became of its messages.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use millrace_engine::command::{Dedup, DedupId};

use super::*;

/// Between two messages.
const PAUSE: Duration = Duration::from_millis(40);

/// Messages with numbers, one after the other, into one queue, until it is ended.
pub(super) struct Load {
    cluster: Cluster,
    queue: &'static str,
    shard: ShardId,
    ends: Arc<AtomicBool>,
    acknowledged: Arc<AtomicU64>,
    ended: oneshot::Receiver<()>,
}

impl Cluster {
    /// Begins to publish into a queue.
    pub(super) fn load(&self, queue: &'static str) -> Load {
        let (ended, wait) = oneshot::channel();
        let load = Load {
            cluster: self.clone(),
            queue,
            shard: self.shard(queue),
            ends: Arc::default(),
            acknowledged: Arc::default(),
            ended: wait,
        };
        let (cluster, shard) = (self.clone(), load.shard);
        let (ends, count) = (Arc::clone(&load.ends), Arc::clone(&load.acknowledged));
        self.host.spawn(Box::pin(async move {
            while !ends.load(Ordering::Relaxed) {
                let number = count.load(Ordering::Relaxed);
                if cluster.try_number((queue, shard), number).await {
                    count.fetch_add(1, Ordering::Relaxed);
                }
                cluster.host.sleep(PAUSE).await;
            }
            ended.send(()).ok();
        }));
        load
    }

    /// The node that leads a shard now, of those that are alive.
    pub(super) fn leading(&self, shard: ShardId) -> Option<Broker> {
        let state = self.net.state();
        let mut brokers = state.brokers.values();
        let leads = |broker: &&Broker| broker.node.leaders.get(shard) == Led::Here;
        brokers.find(leads).cloned()
    }

    async fn try_number(&self, (queue, shard): (&str, ShardId), number: u64) -> bool {
        let Some(broker) = self.leading(shard) else {
            return false;
        };
        // However often it is sent, it is one message.
        let id = DedupId::of_batch(b"load", number, 0);
        let sent = Batch {
            dedup: Some(Dedup { id, age_ms: 0 }),
            ..batch(&[message(&number.to_string(), "")])
        };
        let answers = broker.publish(&address(queue), vec![sent]);
        answers.await.remove(0).is_ok()
    }
}

impl Load {
    /// Waits until so many more are acknowledged.
    pub(super) async fn goes_on(&self, more: u64) {
        let since = self.cluster.host.elapsed();
        let enough = self.acknowledged.load(Ordering::Relaxed) + more;
        while self.acknowledged.load(Ordering::Relaxed) < enough {
            self.cluster.wait(since, "messages are acknowledged").await;
        }
    }

    /// Stops; everything acknowledged is delivered, once and in order, and nothing else.
    pub(super) async fn check(self) {
        self.ends.store(true, Ordering::Relaxed);
        self.ended.await.unwrap();
        let count = self.acknowledged.load(Ordering::Relaxed);
        assert!(count > 0);
        let (mut delivered, since) = (Vec::new(), self.cluster.host.elapsed());
        while (delivered.len() as u64) < count {
            if let Some(broker) = self.cluster.leading(self.shard) {
                let all = receive(self.queue, 1_000, Duration::ZERO);
                let taken = broker.receive(all).await.unwrap_or_default();
                delivered.extend(texts(&taken));
            }
            self.cluster.wait(since, "everything is delivered").await;
        }
        let expected: Vec<String> = (0..count).map(|number| number.to_string()).collect();
        assert_eq!(delivered, expected);
    }
}
