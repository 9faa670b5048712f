//! A shard that is led by others now and then. The other member is a replica of the test's own,
//! without a state: it votes, leads and has the log.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use futures::future::BoxFuture;
use millrace_engine::command::{BatchHeader, Command, Entry};
use millrace_replica::{
    Body, Change, Lane, Mark, Members, Message as PeerMessage, Next, Payload, Recovered, Replica,
    ReplicaOptions, Role, ShardMessage, SnapshotAck, SnapshotChunk,
};
use millrace_storage::MemoryDisk;
use millrace_types::{Applied, Elapsed, ErrorCode, NodeId, ReplicaId, ShardId, Stamp, Term, Wall};

use super::host::TestHost;
use super::*;
use crate::input::Input;
use crate::pumps::Job;
use crate::{Alone, Host as _, Network, Peer, Route, Unreachable};

const OTHER: ReplicaId = ReplicaId::new(77);
const OTHER_NODE: NodeId = NodeId::new(777);
const QUEUE: &str = "queue/test/orders";
const TOPIC: &str = "topic/test/events";

/// A node, and the other member of the shard where the queue is.
#[derive(Clone)]
struct Pair {
    host: TestHost,
    broker: Broker,
    shard: ShardId,
    own: ReplicaId,
    other: Arc<Mutex<Replica>>,
    cut: Arc<AtomicBool>,
    wire: Arc<Wire>,
}

/// What the node says to others, and how often it said that it lacks something.
#[derive(Default)]
struct Wire(Mutex<Vec<ShardMessage>>, AtomicUsize);

impl Network for Wire {
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        assert_eq!(to, OTHER_NODE);
        assert!(messages.iter().all(|message| message.lane() == lane));
        let rejections = messages.iter().filter(|message| is_rejection(message));
        self.1.fetch_add(rejections.count(), Ordering::Relaxed);
        self.0.lock().unwrap().extend(messages);
    }

    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        Alone.call(to, request)
    }
}

/// Runs a story on a node with a queue.
fn live<F>(story: impl FnOnce(Pair) -> F + Send + 'static)
where
    F: Future<Output = ()> + Send + 'static,
{
    let host = TestHost::new(5);
    let disk = Arc::new(MemoryDisk::new());
    let wire = Arc::new(Wire::default());
    let network = Arc::clone(&wire);
    let runs = Arc::new(host.clone());
    let broker = Broker::start_on(disk, runs, network, options_at("data")).unwrap();
    host.run({
        let host = host.clone();
        async move { story(Pair::new(host, broker, wire).await).await }
    });
    host.kill();
}

impl Pair {
    /// The other one is not a member yet.
    async fn new(host: TestHost, broker: Broker, wire: Arc<Wire>) -> Self {
        let delta = TopologyDelta {
            cluster_id: None,
            base_revision: 0,
            upserts: vec![topic(TOPIC, 2), bound(QUEUE, TOPIC, "#")],
            removals: Vec::new(),
        };
        let revision = broker.apply_topology(delta).await.unwrap();
        let mut view = broker.catalogue();
        let applied = view.wait_for(|view| view.applied_revision() >= revision);
        let (shard, _) = applied
            .await
            .unwrap()
            .require_queue(&address(QUEUE))
            .unwrap();
        let own = broker.node.data_dir.replica(shard).unwrap();
        let options = ReplicaOptions::new(shard, OTHER);
        let other = Replica::open(options, Recovered::default(), 9).unwrap();
        Self {
            host,
            broker,
            shard,
            own,
            other: Arc::new(Mutex::new(other)),
            cut: Arc::default(),
            wire,
        }
    }

    /// Does something with the node's replica.
    fn drive(&self, act: impl FnOnce(&mut Replica) + Send + 'static) {
        let slot = self.broker.node.slot(self.shard).unwrap();
        slot.inbox.send(Input::Drive(self.shard, Box::new(act)));
    }

    /// Asks the node's replica.
    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&mut Replica) -> T + Send + 'static,
    ) -> T {
        let (sender, answer) = tokio::sync::oneshot::channel();
        self.drive(move |replica| {
            sender.send(question(replica)).ok();
        });
        answer.await.unwrap()
    }

    /// Waits for something.
    async fn until(
        &self,
        what: &str,
        condition: impl Fn(&mut Replica) -> bool + Clone + Send + 'static,
    ) {
        for _ in 0..2_000 {
            if self.ask(condition.clone()).await {
                return;
            }
            self.host.sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    /// Carries messages both ways, and lets time pass for the other one, from now on.
    fn connect(&self) {
        let pair = self.clone();
        self.host.spawn(Box::pin(async move {
            for round in 0_u64.. {
                for message in pair.relay(round.is_multiple_of(20)) {
                    let lane = message.lane();
                    pair.broker.received(OTHER_NODE, lane, vec![message]).await;
                }
                pair.host.sleep(Duration::from_millis(5)).await;
            }
        }));
    }

    /// Tells the other one what the node said; what it says itself.
    fn relay(&self, ticks: bool) -> Vec<ShardMessage> {
        let mut said = Vec::new();
        let mut other = self.other.lock().unwrap();
        if ticks {
            other.tick();
        }
        let sent = std::mem::take(&mut *self.wire.0.lock().unwrap());
        let cut = self.cut.load(Ordering::Relaxed);
        for message in sent.into_iter().filter(|_| !cut) {
            match message.body {
                Body::Raft(message) => {
                    other.step(message).ok();
                }
                // It has no state that would have to arrive.
                Body::Chunk(chunk) => said.push(took(self.shard, &chunk)),
                Body::Ack(_) => {}
            }
        }
        while let Some(ready) = other.ready() {
            if let Some(write) = &ready.write {
                other.synced(write.number);
            }
            if let Some(last) = ready.committed.last() {
                other.applied(last.index);
            }
            let shard = self.shard;
            let says = |message| ShardMessage {
                shard,
                body: Body::Raft(message),
            };
            said.extend(ready.messages.into_iter().filter(|_| !cut).map(says));
        }
        said
    }

    /// Makes the other one a voter.
    async fn join(&self) {
        self.connect();
        let add = Change::Add {
            replica: OTHER,
            node: OTHER_NODE,
        };
        self.ask(move |replica| replica.change_members(&[add]).unwrap())
            .await;
        self.until("the learner has everything", |replica| {
            let last = replica.last();
            let mut progress = replica.progress().into_iter();
            progress.any(|p| p.replica == OTHER && p.matched == last)
        })
        .await;
        let promote = Change::Promote { replica: OTHER };
        self.ask(move |replica| replica.change_members(&[promote]).unwrap())
            .await;
        let own = self.own;
        self.until("both vote", move |replica| {
            !is_alone(replica.members(), own)
        })
        .await;
    }

    /// The other one leads from here on.
    async fn hand_over(&self) {
        self.ask(|replica| replica.transfer_to(OTHER).unwrap())
            .await;
        self.until("the other leads", |replica| {
            replica.status().leader == Some(OTHER)
        })
        .await;
    }

    /// And now the node again.
    async fn take_back(&self) {
        let own = self.own;
        self.other.lock().unwrap().transfer_to(own).unwrap();
        self.until("the node leads", move |replica| {
            replica.status().role == Role::Leader
        })
        .await;
    }

    /// The other one orders a command.
    fn order(&self, command: Command, body: Bytes) {
        let entry = Entry {
            stamp: Stamp {
                wall: Wall::from_millis(1),
                elapsed: Elapsed::from_millis(1),
            },
            command,
        };
        let mut other = self.other.lock().unwrap();
        other.propose(entry.encode(), body).unwrap();
    }

    async fn publish(&self, text: &str) -> Result<Acknowledged, Refusal> {
        let sent = vec![batch(&[message(text, "")])];
        self.broker.publish(&address(QUEUE), sent).await.remove(0)
    }

    async fn take(&self) -> Vec<String> {
        let taken = self
            .broker
            .receive(receive(QUEUE, 10, Duration::from_secs(1)))
            .await;
        texts(&taken.unwrap())
    }
}

/// Says that a stretch of a snapshot has arrived.
fn took(shard: ShardId, chunk: &SnapshotChunk) -> ShardMessage {
    let body = Body::Ack(SnapshotAck {
        from: chunk.to,
        to: chunk.from,
        id: chunk.id,
        next: Next::From(chunk.offset + chunk.data.len() as u64),
    });
    ShardMessage { shard, body }
}

fn is_rejection(message: &ShardMessage) -> bool {
    matches!(&message.body, Body::Raft(message)
        if matches!(message.payload, Payload::Rejected { .. }))
}

fn is_alone(members: &Members, own: ReplicaId) -> bool {
    members.is_only_voter(own)
}

fn assert_not_leader(refusal: &Refusal, applied: Applied) {
    assert_eq!(
        (refusal.code, refusal.applied),
        (ErrorCode::NotLeader, applied),
        "{refusal}"
    );
    assert!(refusal.retry_after_ms.is_some());
}

#[test]
fn what_a_leader_says_of_its_log_is_heard_in_the_order_it_was_said() {
    live(|pair| async move {
        pair.join().await;
        pair.hand_over().await;
        let own = pair.own;
        pair.until("it has what the leader began with", |replica| {
            replica.applied_to() == replica.last()
        })
        .await;
        // And the leader knows.
        pair.host.sleep(Duration::from_millis(50)).await;
        let commit = pair.ask(|replica| replica.committed()).await;
        pair.order(Command::Lead, Bytes::new());
        let (term, last, entries) = {
            let mut other = pair.other.lock().unwrap();
            let mut said = Vec::new();
            while let Some(ready) = other.ready() {
                said.extend(ready.messages);
                if let Some(write) = &ready.write {
                    other.synced(write.number);
                }
            }
            (other.status().term, other.last(), said)
        };
        let before = pair.wire.1.load(Ordering::Relaxed);
        // As behind entries that are on their way, when a commit is told.
        let told = PeerMessage {
            from: OTHER,
            to: own,
            term,
            payload: Payload::Append {
                prev: Mark { index: last, term },
                commit,
                entries: Vec::new(),
            },
        };
        let said = entries
            .into_iter()
            .chain([told])
            .map(|message| ShardMessage {
                shard: pair.shard,
                body: Body::Raft(message),
            });

        let said: Vec<_> = said.filter(|m| m.lane() == Lane::Appends).collect();
        assert!(said.len() > 1);
        pair.broker.received(OTHER_NODE, Lane::Appends, said).await;

        pair.until("it has the entry", move |replica| replica.last() >= last)
            .await;
        assert_eq!(pair.wire.1.load(Ordering::Relaxed), before);
    });
}

#[test]
fn who_loses_the_lead_tells_everybody_and_who_wins_it_goes_on_from_the_state() {
    live(|pair| async move {
        pair.join().await;
        pair.publish("one").await.unwrap();
        assert_eq!(pair.take().await, ["one"]);
        let opened = pair.broker.open_consumer(open(QUEUE, plenty())).await;
        let (_consumer, mut events) = opened.unwrap();
        let waiting = tokio_join(&pair);

        pair.hand_over().await;

        match events.next().await {
            Some(ConsumerEvent::Closed(refusal)) => assert_not_leader(&refusal, Applied::No),
            other => panic!("the connection is closed, not {other:?}"),
        }
        assert_not_leader(&waiting.await.unwrap().unwrap_err(), Applied::No);
        let refusal = pair.publish("refused").await.unwrap_err();
        assert_not_leader(&refusal, Applied::No);
        assert_eq!(refusal.metadata["leader"], OTHER_NODE.to_string());
        let declared = pair.broker.stats(10).await.shards[&pair.shard].clone();

        // What another leader orders is applied, and nobody here is given anything.
        let log = pair
            .broker
            .node
            .view
            .borrow()
            .require_queue(&address(QUEUE))
            .unwrap()
            .1;
        let batch = batch(&[message("two", "")]);
        let header = BatchHeader {
            count: 1,
            bytes: batch.records.len() as u64,
        };
        pair.order(Command::Lead, Bytes::new());
        pair.order(
            Command::Publish {
                log,
                batch: header,
                dedup: None,
            },
            batch.records,
        );
        pair.until("it is applied", move |replica| {
            replica.applied_to() >= declared.applied.next().next()
        })
        .await;
        let before = pair.broker.stats(10).await;
        assert_eq!(before.queues[&address(QUEUE)].ready, 1);
        assert_eq!(before.published_messages, 1, "as a leader");

        pair.take_back().await;

        assert_eq!(pair.take().await, ["two"]);
        pair.publish("three").await.unwrap();
        assert_eq!(pair.take().await, ["three"]);
    });
}

/// A call that waits for a message beside the one that has a session.
fn tokio_join(pair: &Pair) -> tokio::sync::oneshot::Receiver<Result<Vec<Delivered>, Refusal>> {
    let (sender, answer) = tokio::sync::oneshot::channel();
    let broker = pair.broker.clone();
    pair.host.spawn(Box::pin(async move {
        let wait = receive(QUEUE, 1, PATIENCE);
        sender.send(broker.receive(wait).await).ok();
    }));
    answer
}

#[test]
fn who_is_cut_off_from_the_others_says_unknown_and_never_hangs() {
    live(|pair| async move {
        pair.join().await;
        pair.cut.store(true, Ordering::Relaxed);
        let began = pair.host.elapsed();

        let refusal = pair.publish("perhaps").await.unwrap_err();

        assert_not_leader(&refusal, Applied::Unknown);
        let election = Duration::from_millis(1_700);
        assert!(
            pair.host.elapsed() - began < election,
            "within an election's time"
        );
        assert_not_leader(&pair.publish("no").await.unwrap_err(), Applied::No);

        pair.cut.store(false, Ordering::Relaxed);
        pair.until("somebody leads", |replica| {
            replica.status().leader.is_some()
        })
        .await;
        if pair
            .ask(|replica| replica.status().role != Role::Leader)
            .await
        {
            pair.take_back().await;
        }
        // The other one had nothing else in its place.
        assert_eq!(pair.take().await, ["perhaps"]);
    });
}

#[test]
fn who_is_alone_leads_again_at_once_and_answers_what_it_had_taken() {
    live(|pair| async move {
        pair.publish("one").await.unwrap();
        let own = pair.own;
        let term = pair
            .ask(move |replica| {
                let status = replica.status();
                let heartbeat = PeerMessage {
                    from: OTHER,
                    to: own,
                    term: Term::new(status.term.get() + 5),
                    payload: Payload::Heartbeat {
                        commit: replica.committed(),
                        round: millrace_replica::Round::default(),
                    },
                };
                replica.step(heartbeat).unwrap();
                status.term
            })
            .await;

        pair.until("it leads again", move |replica| {
            let status = replica.status();
            status.role == Role::Leader && status.term > term
        })
        .await;
        pair.publish("two").await.unwrap();

        assert_eq!(pair.take().await, ["one", "two"]);
    });
}

#[test]
fn messages_of_a_topic_wait_for_whoever_leads_the_queue() {
    live(|pair| async move {
        pair.join().await;
        pair.hand_over().await;
        let view = pair.broker.node.view.borrow().clone();
        let partitions = view.require_topic(&address(TOPIC)).unwrap();
        let elsewhere = partitions
            .iter()
            .position(|(shard, _)| *shard != pair.shard);
        let mut sent = batch(&[message("moved", "a")]);
        sent.partition = Some(elsewhere.unwrap().try_into().unwrap());

        let published = pair.broker.publish(&address(TOPIC), vec![sent]).await;

        assert!(
            published.iter().all(Result::is_ok),
            "that shard is led here"
        );
        pair.host.sleep(Duration::from_secs(3)).await;
        let stats = pair.broker.stats(10).await;
        assert_eq!(stats.queues[&address(QUEUE)].ready, 0);
        let queue = view.require_queue(&address(QUEUE)).unwrap().1;
        let job = Job::Transfer {
            shard: pair.shard,
            queue,
        };
        assert!(pair.broker.node.pumps.blocked(job).is_none());
        // What is applied here may not be all, and the other one cannot be asked.
        let unsure = pair.broker.describe(&address(QUEUE)).await.unwrap_err();
        assert_not_leader(&unsure, Applied::No);

        pair.take_back().await;

        assert_eq!(pair.take().await, ["moved"]);
    });
}

#[test]
fn a_call_is_routed_to_who_leads_if_it_is_known_where_that_is() {
    live(|pair| async move {
        let route = |pair: &Pair| pair.broker.route(&address(QUEUE), 0).unwrap();
        pair.join().await;
        assert_eq!(route(&pair), Route::Here);

        pair.hand_over().await;

        assert_eq!(route(&pair), Route::Nobody);
        pair.broker.set_client_address(OTHER_NODE, "other:7070");
        let peer = Peer {
            node: OTHER_NODE,
            client: "other:7070".into(),
        };
        assert_eq!(route(&pair), Route::There(peer.clone()));
        let refusal = pair.broker.hint(pair.publish("refused").await.unwrap_err());
        assert_eq!(refusal.metadata["leader_address"], "other:7070");
        let map = pair.broker.map();
        assert_eq!(map.leaders[&pair.shard], OTHER_NODE);
        assert_eq!(map.leaders[&ShardId::METADATA], map.node);

        let there = Route::There(peer);
        let broker = pair.broker.clone();
        let shard = pair.shard;
        let waits = async move { broker.rerouted(shard, &there, Duration::from_mins(1)).await };
        let (back, ()) = tokio::join!(waits, pair.take_back());
        assert!(back);
        assert_eq!(route(&pair), Route::Here);
    });
}

#[test]
fn nobody_speaks_for_a_replica_of_another_node() {
    live(|pair| async move {
        pair.join().await;
        let (shard, own) = (pair.shard, pair.own);
        let status = pair.ask(|replica| replica.status()).await;
        let term = Term::new(status.term.get() + 5);
        let heartbeat = move |from| ShardMessage {
            shard,
            body: Body::Raft(PeerMessage {
                from,
                to: own,
                term,
                payload: Payload::Heartbeat {
                    commit: millrace_types::LogIndex::default(),
                    round: millrace_replica::Round::default(),
                },
            }),
        };
        let told = |node, message| pair.broker.received(node, Lane::Votes, vec![message]);

        told(NodeId::new(1), heartbeat(OTHER)).await;
        assert_eq!(pair.ask(|replica| replica.status()).await, status);

        // From where it is, it counts.
        told(OTHER_NODE, heartbeat(OTHER)).await;
        let after = pair.ask(|replica| replica.status()).await;
        assert_eq!((after.term, after.leader), (term, Some(OTHER)));
    });
}
