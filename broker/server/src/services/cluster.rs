//! `Cluster`: who this cluster is, and its topology. On the control port, behind the token.

use millrace_proto::v1;
use millrace_proto::v1::cluster_server::Cluster;
use tonic::{Request, Response, Status};

use super::Context;
use crate::convert::{facts, topology};
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
}
