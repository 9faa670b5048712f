//! `Cluster`: who this cluster is, its topology, its nodes and what steers them. On the control
//! port, behind the token.

use millrace_proto::v1;
use millrace_proto::v1::cluster_server::Cluster;
use millrace_types::{NodeId, Refusal};
use tonic::{Request, Response, Status};

use super::Context;
use crate::convert::{facts, nodes, topology};
use crate::status::status;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl Cluster for Service {
    async fn metadata(
        &self,
        _request: Request<v1::MetadataRequest>,
    ) -> Result<Response<v1::MetadataResponse>, Status> {
        let metadata = self.0.broker.metadata().await.map_err(status)?;
        Ok(Response::new(facts::metadata(metadata)))
    }

    async fn apply_topology(
        &self,
        request: Request<v1::ApplyTopologyRequest>,
    ) -> Result<Response<v1::ApplyTopologyResponse>, Status> {
        self.0.admit()?;
        let delta = topology::delta(request.into_inner()).map_err(status)?;
        let revision = self.0.broker.apply_topology(delta).await.map_err(status)?;
        Ok(Response::new(v1::ApplyTopologyResponse { revision }))
    }

    async fn nodes(
        &self,
        _request: Request<v1::NodesRequest>,
    ) -> Result<Response<v1::NodesResponse>, Status> {
        let found = self.0.broker.nodes().await.map_err(status)?;
        let nodes = found.into_iter().map(nodes::node).collect();
        Ok(Response::new(v1::NodesResponse { nodes }))
    }

    async fn shards(
        &self,
        _request: Request<v1::ShardsRequest>,
    ) -> Result<Response<v1::ShardsResponse>, Status> {
        let found = self.0.broker.shards().await.map_err(status)?;
        let shards = found.into_iter().map(nodes::standing).collect();
        Ok(Response::new(v1::ShardsResponse { shards }))
    }

    async fn can_stop(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::BlockersResponse>, Status> {
        let node = node(&request.into_inner())?;
        let blockers = self.0.broker.can_stop(node).await.map_err(status)?;
        Ok(Response::new(nodes::blockers(blockers)))
    }

    async fn caught_up(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::BlockersResponse>, Status> {
        let node = node(&request.into_inner())?;
        let blockers = self.0.broker.caught_up(node).await.map_err(status)?;
        Ok(Response::new(nodes::blockers(blockers)))
    }

    async fn drain_node(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let node = node(&request.into_inner())?;
        ordered(self.0.broker.drain_node(node).await)
    }

    async fn undrain_node(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let node = node(&request.into_inner())?;
        ordered(self.0.broker.undrain_node(node).await)
    }

    async fn cordon_node(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let node = node(&request.into_inner())?;
        ordered(self.0.broker.cordon_node(node).await)
    }

    async fn uncordon_node(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let node = node(&request.into_inner())?;
        ordered(self.0.broker.uncordon_node(node).await)
    }

    async fn forget_node(
        &self,
        request: Request<v1::NodeRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let node = node(&request.into_inner())?;
        ordered(self.0.broker.forget_node(node).await)
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let asked = request.into_inner();
        let to = nodes::node_id("node_id", &asked.node_id).map_err(status)?;
        let shard = nodes::shard(asked.shard);
        ordered(self.0.broker.transfer_leader(shard, to).await)
    }

    async fn move_replica(
        &self,
        request: Request<v1::MoveReplicaRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let asked = request.into_inner();
        let from = nodes::node_id("from_node_id", &asked.from_node_id).map_err(status)?;
        let to = nodes::node_id("to_node_id", &asked.to_node_id).map_err(status)?;
        let shard = nodes::shard(asked.shard);
        ordered(self.0.broker.move_replica(shard, from, to).await)
    }

    async fn set_replication(
        &self,
        request: Request<v1::SetReplicationRequest>,
    ) -> Result<Response<v1::OrderedResponse>, Status> {
        let replication = request.into_inner().replication;
        ordered(self.0.broker.set_replication(replication).await)
    }
}

fn node(request: &v1::NodeRequest) -> Result<NodeId, Status> {
    nodes::node_id("node_id", &request.node_id).map_err(status)
}

fn ordered(ordered: Result<(), Refusal>) -> Result<Response<v1::OrderedResponse>, Status> {
    ordered.map_err(status)?;
    Ok(Response::new(v1::OrderedResponse {}))
}
