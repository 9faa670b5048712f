//! `Routing`: who leads what and where everybody is, for clients that want to go there directly.
//! Advice: nothing here promises anything about the next moment.

use futures::future::join_all;
use millrace_node::{Broker, Map};
use millrace_proto::v1;
use millrace_proto::v1::routing_server::Routing;
use millrace_types::Refusal;
use tonic::{Request, Response, Status};

use super::Context;
use super::outbox::{Gone, Outbox, Replies, outbox};
use crate::convert;
use crate::status::status;
use crate::tasks::Kind;
use crate::validate::{self, invalid};

/// Addresses of one `Locate`: what a client may use at once, mostly; each is a look-up.
const ADDRESSES_MAX: usize = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl Routing for Service {
    type WatchMetadataStream = Replies<v1::RoutingState>;

    async fn metadata(
        &self,
        _request: Request<v1::RoutingRequest>,
    ) -> Result<Response<v1::RoutingState>, Status> {
        Ok(Response::new(state(&self.0.broker)))
    }

    async fn watch_metadata(
        &self,
        _request: Request<v1::RoutingRequest>,
    ) -> Result<Response<Self::WatchMetadataStream>, Status> {
        self.0.admit()?;
        let (outbox, replies) = outbox();
        let context = self.0.clone();
        self.0
            .tasks
            .spawn(Kind::Stream, "metadata watch", async move {
                // A client that is gone, or reads nothing, needs no more.
                let _gone = watch(context, outbox).await;
                Ok::<(), Refusal>(())
            });
        Ok(Response::new(replies))
    }

    async fn locate(
        &self,
        request: Request<v1::LocateRequest>,
    ) -> Result<Response<v1::LocateResponse>, Status> {
        let addresses = request.into_inner().addresses;
        if !(1..=ADDRESSES_MAX).contains(&addresses.len()) {
            let text = format!("are {}; want 1..={ADDRESSES_MAX}", addresses.len());
            return Err(status(invalid("addresses", text)));
        }
        let located = addresses.iter().map(|it| located(&self.0.broker, it));
        Ok(Response::new(v1::LocateResponse {
            located: join_all(located).await,
        }))
    }
}

/// Tells the state at once and whenever it has changed. Whoever reads slowly misses some in
/// between.
async fn watch(context: Context, outbox: Outbox<v1::RoutingState>) -> Result<(), Gone> {
    let stop = context.tasks.stop().clone();
    let mut changes = context.broker.map_changes();
    let mut told = None;
    loop {
        let now = state(&context.broker);
        if told.as_ref() != Some(&now) {
            outbox.send(now.clone()).await?;
            told = Some(now);
        }
        tokio::select! {
            biased;
            () = stop.draining() => return Ok(()),
            () = outbox.closed() => return Err(Gone),
            () = changes.next() => {}
        }
    }
}

fn state(broker: &Broker) -> v1::RoutingState {
    let Map {
        cluster_id,
        node,
        nodes,
        leaders,
    } = broker.map();
    let nodes = nodes.into_iter().map(|(node, client)| v1::RoutingNode {
        node_id: convert::node_id(node),
        client_address: client.to_string(),
    });
    let leaders = leaders.into_iter().map(|(shard, node)| v1::ShardLeader {
        shard: shard.get(),
        node_id: convert::node_id(node),
    });
    v1::RoutingState {
        cluster_id,
        node_id: convert::node_id(node),
        nodes: nodes.collect(),
        leaders: leaders.collect(),
    }
}

async fn located(broker: &Broker, address: &str) -> v1::Located {
    let shards = match validate::address(address) {
        Ok(address) => broker.shards_of(&address).await,
        Err(refusal) => Err(refusal),
    };
    match shards {
        Ok(shards) => v1::Located {
            shards: shards.into_iter().map(|shard| shard.get()).collect(),
            refused: None,
        },
        Err(refusal) => v1::Located {
            shards: Vec::new(),
            refused: Some(convert::error(refusal)),
        },
    }
}
