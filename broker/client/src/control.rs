//! Steers a cluster: its control port, with the control token.

use std::time::Duration;

use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::{
    ApplyTopologyRequest, ApplyTopologyResponse, BlockersResponse, MetadataRequest,
    MetadataResponse, MoveReplicaRequest, NodeRequest, NodesRequest, NodesResponse,
    OrderedResponse, SetReplicationRequest, ShardsRequest, ShardsResponse, TransferLeaderRequest,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request};

use crate::client::{Client, ClientOptions, REPLY_BYTES_MAX};
use crate::error::{Applied, Error};
use crate::routing::Way;

/// The calls of the control port.
#[derive(Clone, Debug)]
pub struct Control {
    client: Client,
    authorization: MetadataValue<Ascii>,
}

impl Control {
    /// Prepares a connection; it is made by the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The URL is malformed, or the token has characters that a header cannot carry.
    pub fn connect(options: impl Into<ClientOptions>, token: &str) -> Result<Self, Error> {
        let client = Client::connect(options)?;
        let authorization = MetadataValue::try_from(format!("Bearer {}", token.trim()));
        let mut authorization = authorization.map_err(|_| {
            let text = "the control token has characters that a header cannot carry".to_owned();
            Error::local(
                Error::INVALID_OPTION,
                Code::InvalidArgument,
                Applied::No,
                text,
            )
        })?;
        authorization.set_sensitive(true);
        Ok(Self {
            client,
            authorization,
        })
    }

    /// Who this cluster is and which topology it has.
    ///
    /// # Errors
    /// Nobody answers, or the token is refused.
    pub async fn metadata(&self) -> Result<MetadataResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(MetadataRequest {});
            async move { rpc(&way).metadata(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Changes the topology by a delta; all of it is applied, or nothing.
    ///
    /// # Errors
    /// `REVISION_CONFLICT` when the topology changed since `base_revision`; whatever else the
    /// server finds wrong with the delta; nobody answers.
    pub async fn apply_topology(
        &self,
        delta: ApplyTopologyRequest,
    ) -> Result<ApplyTopologyResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(delta.clone());
            async move { rpc(&way).apply_topology(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// All nodes.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn nodes(&self) -> Result<NodesResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodesRequest {});
            async move { rpc(&way).nodes(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// All shards, and how far their replicas are.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn shards(&self) -> Result<ShardsResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(ShardsRequest {});
            async move { rpc(&way).shards(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// What keeps a node from stopping; empty when it can.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn can_stop(&self, node_id: &str) -> Result<BlockersResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).can_stop(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// What a node still lacks of what it should have.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn caught_up(&self, node_id: &str) -> Result<BlockersResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).caught_up(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Has a node hand over what it leads, and keeps it from leading.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn drain_node(&self, node_id: &str) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).drain_node(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Lets a node lead again.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn undrain_node(&self, node_id: &str) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).undrain_node(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Has a node's replicas moved to others, and keeps it from getting new ones.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn cordon_node(&self, node_id: &str) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).cordon_node(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Lets a node have replicas again.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn uncordon_node(&self, node_id: &str) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).uncordon_node(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Strikes a node off that has no replicas any more.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn forget_node(&self, node_id: &str) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(NodeRequest {
                node_id: node_id.to_owned(),
            });
            async move { rpc(&way).forget_node(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Has another node lead a shard, and prefers it from here on.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn transfer_leader(
        &self,
        asked: TransferLeaderRequest,
    ) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(asked.clone());
            async move { rpc(&way).transfer_leader(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Moves a replica of a data shard to another node.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn move_replica(&self, asked: MoveReplicaRequest) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(asked.clone());
            async move { rpc(&way).move_replica(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// How many replicas of a data shard vote.
    ///
    /// # Errors
    /// Whatever the server says against it; nobody answers, or the token is refused.
    pub async fn set_replication(
        &self,
        asked: SetReplicationRequest,
    ) -> Result<OrderedResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(asked);
            async move { rpc(&way).set_replication(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request
    }
}

fn rpc(way: &Way) -> ClusterClient<tonic::transport::Channel> {
    ClusterClient::new(way.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_no_header_can_carry_is_refused() {
        let error = Control::connect("http://127.0.0.1:1", "a\nb").unwrap_err();
        assert_eq!(error.reason, Error::INVALID_OPTION);
    }
}
