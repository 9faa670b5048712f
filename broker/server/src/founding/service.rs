//! `Membership`: on the peer port and the control port, behind the token.

use millrace_proto::membership::v1 as wire;
use millrace_proto::membership::v1::membership_server::Membership;
use tonic::{Request, Response, Status};

use super::seat::Seat;
use crate::convert::membership as convert;
use crate::status::status;
use crate::validate::invalid;

/// The service.
#[derive(Clone)]
pub(crate) struct Service(pub(crate) Seat);

#[tonic::async_trait]
impl Membership for Service {
    async fn identify(
        &self,
        _request: Request<wire::IdentifyRequest>,
    ) -> Result<Response<wire::IdentifyResponse>, Status> {
        let Self(seat) = self;
        let answer = convert::identity(seat.node(), seat.settings(), seat.cluster());
        Ok(Response::new(answer))
    }

    async fn bootstrap(
        &self,
        request: Request<wire::BootstrapRequest>,
    ) -> Result<Response<wire::BootstrapResponse>, Status> {
        let record = request.into_inner().founding;
        let record = record.ok_or_else(|| status(invalid("founding", "it is missing")))?;
        let record = convert::read_founding(record).map_err(status)?;
        let recorded = self.0.found(record).await.map_err(status)?;
        Ok(Response::new(wire::BootstrapResponse {
            node_id: self.0.node().get(),
            founding: Some(convert::founding(&recorded)),
        }))
    }

    async fn register(
        &self,
        request: Request<wire::RegisterRequest>,
    ) -> Result<Response<wire::RegisterResponse>, Status> {
        let request = request.into_inner();
        let cluster_id = request.cluster_id.clone();
        let registration = convert::read_registration(request).map_err(status)?;
        let registered = self.0.register(registration, &cluster_id);
        let registered = registered.await.map_err(status)?;
        Ok(Response::new(convert::registered(registered)))
    }
}
