//! What clients and the operator ask for, and whom they ask: mostly who leads, as far as they know,
//! and sometimes anybody.

use std::time::Duration;

use super::World;
use crate::client::{Client, Wants, Wish};
use crate::plan::{End, Step};

/// Calls of a hundred that go to any node: who does not lead has to say so.
const ASTRAY_PERCENT: u64 = 15;
/// When no node is up, somebody who asks waits for so long.
const NOBODY_UP_MS: u64 = 100;

impl World<'_> {
    /// The node that a client asks.
    pub(super) fn choose(&mut self, step: &Step) -> usize {
        let astray = self.random.percent(ASTRAY_PERCENT);
        let leader = self.shard_of(step).and_then(|shard| self.net.leader(shard));
        let leader = leader.filter(|leader| self.client(*leader).is_some());
        match leader {
            Some(leader) if !astray => leader,
            _ => self.anybody(),
        }
    }

    /// A node that is up, if there is one.
    pub(super) fn anybody(&mut self) -> usize {
        let up = |node: &usize| self.nodes[*node].life.is_some();
        let up: Vec<usize> = (0..self.nodes.len()).filter(up).collect();
        match up.is_empty() {
            true => 0,
            false => *self.random.pick(&up),
        }
    }

    /// The shard that a step is about.
    fn shard_of(&self, step: &Step) -> Option<u32> {
        let (object, dead, partition) = match step {
            Step::Publish { to, partition, .. } => (*to, false, *partition),
            Step::Receive { from, dead, .. } => (*from, *dead, 0),
            Step::Read {
                topic, partition, ..
            } => (*topic, false, *partition),
            Step::Peek { queue, .. } | Step::Attach { queue, .. } => (*queue, false, 0),
            Step::Declare { .. } | Step::Remove { .. } => return Some(0),
            _ => return None,
        };
        let client = self.clients().next()?;
        client.shard(&client.queue(object, dead), partition)
    }

    /// Calls that were told to go elsewhere do so.
    pub(super) fn call_again(&mut self, now: Duration) {
        while let Some(again) = self.lasting.due(now) {
            let hinted = again.to.filter(|node| self.client(*node).is_some());
            let node = hinted.unwrap_or_else(|| self.anybody());
            match self.client(node) {
                Some(client) => (again.call)(client),
                None => {
                    let at = now + Duration::from_millis(NOBODY_UP_MS);
                    self.lasting.again(at, None, again.call);
                }
            }
        }
    }

    /// Starts what a client or the operator asks for.
    pub(super) fn ask(&self, node: usize, step: &Step) {
        let Some(client) = self.client(node) else {
            return;
        };
        match step {
            Step::Publish {
                to,
                partition,
                counts,
            } => client.publish(*to, *partition, counts),
            Step::Receive {
                from,
                dead,
                messages_max,
                wait_ms,
                lease_ms,
                give_up_ms,
            } => {
                let wish = Wish {
                    messages_max: *messages_max,
                    wait_ms: *wait_ms,
                    lease_ms: *lease_ms,
                    give_up_ms: *give_up_ms,
                };
                client.receive(*from, *dead, wish);
            }
            Step::Settle { count, end, at } => client.settle(*count, *end, *at),
            Step::SettleStale { count } => client.settle_stale(*count),
            Step::Read {
                topic,
                partition,
                from,
                messages_max,
            } => client.read(*topic, *partition, *from, *messages_max),
            Step::Peek {
                queue,
                messages_max,
            } => client.peek(*queue, *messages_max),
            Step::Declare { object, shape } => {
                client.declare(vec![(*object, Some(shape.clone()))]);
            }
            Step::Remove { object } => {
                client.declare(vec![(*object, None)]);
            }
            Step::Look => client.look(),
            _ => self.ask_consumer(client, step),
        }
    }

    fn ask_consumer(&self, client: &Client, step: &Step) {
        let consumers = &self.consumers;
        match step {
            Step::Attach {
                consumer,
                queue,
                window,
                credit,
            } => {
                let wants = Wants {
                    window: *window,
                    credit: *credit,
                };
                client.attach(consumers, *consumer, *queue, wants);
            }
            Step::Credit { consumer, more } => {
                client.credit(consumers, *consumer, *more);
                // A client that takes more has handled some.
                let count = usize::try_from(more / 2).unwrap_or(0);
                client.settle_here(consumers, *consumer, count, End::Accept);
            }
            Step::Detach { consumer } => client.detach(consumers, *consumer),
            Step::Close { consumer } => client.close(consumers, *consumer),
            _ => {}
        }
    }
}
