//! One call, tried where its shard is led, and again when it was not applied because nobody led or
//! the leader was gone, for about as long as an election takes.

use std::time::{Duration, Instant};

use millrace_node::{Broker, Peer, Route};
use millrace_proto::v1::admin_client::AdminClient;
use millrace_proto::v1::consumer_client::ConsumerClient;
use millrace_proto::v1::publisher_client::PublisherClient;
use millrace_proto::v1::stream_reader_client::StreamReaderClient;
use millrace_types::{Applied, ErrorCode, NodeId, Refusal, ShardId};
use tokio::sync::OwnedSemaphorePermit;
use tonic::transport::Channel;
use tonic::{Response, Status};

use super::pool::Line;
use super::{Forward, Origin, failed};
use crate::transport::GRPC_MESSAGE_BYTES_MAX;

/// How long a call waits for somebody to lead, at most, and no longer than half of its time: an
/// election takes less.
const LEADER_WAIT: Duration = Duration::from_secs(1);
/// Between two attempts, unless the leader is known to have changed.
const PAUSE: Duration = Duration::from_millis(50);
/// Another node leads by then: it is worth another attempt.
const RETRY_AFTER_MS: u64 = 50;
/// Largest answer of another node: one message of the largest size, and frames.
const ANSWER_BYTES_MAX: usize = 2 * GRPC_MESSAGE_BYTES_MAX;

/// A node that hears that another one leads has answered, or ended its streams, by then; one that
/// stands still has not.
pub(super) const GRACE: Duration = Duration::from_millis(250);

/// Where to do something.
#[derive(Debug)]
pub(crate) enum Place {
    /// On this node.
    Here,
    /// On another one.
    There(Remote),
}

/// A call to another node, about a shard that it leads.
#[derive(Debug)]
pub(crate) struct Remote {
    broker: Broker,
    peer: Peer,
    shard: ShardId,
    channel: Channel,
    _permit: OwnedSemaphorePermit,
}

impl Remote {
    fn new(broker: &Broker, peer: Peer, shard: ShardId, line: Line) -> Self {
        let Line { channel, permit } = line;
        Self {
            broker: broker.clone(),
            peer,
            shard,
            channel,
            _permit: permit,
        }
    }

    /// Who is asked.
    pub(crate) const fn node(&self) -> NodeId {
        self.peer.node
    }

    pub(crate) fn publisher(&self) -> PublisherClient<Channel> {
        PublisherClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn consumer(&self) -> ConsumerClient<Channel> {
        ConsumerClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn reader(&self) -> StreamReaderClient<Channel> {
        StreamReaderClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    pub(crate) fn admin(&self) -> AdminClient<Channel> {
        AdminClient::new(self.channel.clone()).max_decoding_message_size(ANSWER_BYTES_MAX)
    }

    /// Asks; no longer than it is known to lead, and a moment.
    ///
    /// # Errors
    /// What it says; *unknown* when it does not answer.
    pub(crate) async fn ask<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        tokio::select! {
            biased;
            answer = call => match answer {
                Ok(answer) => Ok(answer.into_inner()),
                Err(status) => Err(self.failed(&status)),
            },
            () = self.replaced() => Err(self.silent()),
        }
    }

    /// The same, when it changes nothing whether the call was answered or not.
    ///
    /// # Errors
    /// What it says.
    pub(crate) async fn look<T>(
        &self,
        call: impl Future<Output = Result<Response<T>, Status>>,
    ) -> Result<T, Refusal> {
        self.ask(call).await.map_err(|refusal| Refusal {
            applied: Applied::No,
            ..refusal
        })
    }

    /// Resolves when another node has led its shard for a moment: what this one has not said by
    /// then does not come.
    pub(crate) async fn replaced(&self) {
        self.moved(self.shard).await;
        tokio::time::sleep(GRACE).await;
    }

    /// Resolves when another node leads a shard.
    pub(super) async fn moved(&self, shard: ShardId) {
        self.broker.led_elsewhere(shard, self.peer.node).await;
    }

    /// It says nothing, and another one leads.
    pub(crate) fn silent(&self) -> Refusal {
        let (node, shard) = (self.peer.node, self.shard);
        let text = format!("node {node} did not answer and leads shard {shard} no more");
        Refusal::new(ErrorCode::NotLeader, text)
            .with("shard", shard.to_string())
            .retry_after_millis(RETRY_AFTER_MS)
            .unknown()
    }

    /// What the failure of a call to it means.
    pub(crate) fn failed(&self, status: &Status) -> Refusal {
        failed::of_call(status, &self.peer, self.shard)
    }
}

/// A call about one shard, as often as it is tried.
#[derive(Debug)]
pub(crate) struct Attempts<'a> {
    forward: &'a Forward,
    origin: &'a Origin,
    shard: ShardId,
    until: Instant,
    /// Where it was tried last.
    route: Route,
}

impl<'a> Attempts<'a> {
    pub(super) fn new(forward: &'a Forward, origin: &'a Origin, shard: ShardId) -> Self {
        let left = origin.left().map_or(LEADER_WAIT, |left| left / 2);
        Self {
            forward,
            origin,
            shard,
            until: Instant::now() + left.min(LEADER_WAIT),
            route: Route::Nobody,
        }
    }

    /// Where to try now. Waits a while when nobody leads; this node says so after that.
    ///
    /// # Errors
    /// `NOT_LEADER` when the call has been passed on too often, `OVERLOADED`.
    pub(crate) async fn place(&mut self) -> Result<Place, Refusal> {
        let broker = &self.forward.broker;
        self.route = broker.route_of_shard(self.shard);
        if self.route == Route::Nobody {
            let left = self.until.saturating_duration_since(Instant::now());
            broker.rerouted(self.shard, &Route::Nobody, left).await;
            self.route = broker.route_of_shard(self.shard);
        }
        self.now(self.route.clone())
    }

    fn now(&self, route: Route) -> Result<Place, Refusal> {
        match route {
            Route::Here | Route::Nobody => Ok(Place::Here),
            Route::There(_) if !self.origin.may_go_on() => {
                Err(self.forward.broker.not_leader(self.shard))
            }
            Route::There(peer) => {
                let line = self.forward.pool.line(&peer)?;
                Ok(Place::There(Remote::new(
                    &self.forward.broker,
                    peer,
                    self.shard,
                    line,
                )))
            }
        }
    }

    /// Whether a refused call is worth another attempt: then it is time for it.
    pub(crate) async fn again(&self, refusal: &Refusal) -> bool {
        let elsewhere = refusal.code == ErrorCode::NotLeader && refusal.applied == Applied::No;
        let left = self.until.saturating_duration_since(Instant::now());
        if !elsewhere || left.is_zero() {
            return false;
        }
        let broker = &self.forward.broker;
        broker
            .rerouted(self.shard, &self.route, PAUSE.min(left))
            .await;
        true
    }

    /// A refusal as the caller gets it: with where the leader is, if it is one of who does not
    /// lead.
    pub(crate) fn hinted(&self, refusal: Refusal) -> Refusal {
        if refusal.metadata.contains_key("leader_address") {
            return refusal;
        }
        self.forward.broker.hint(refusal)
    }
}
