//! Which services each port has.

use std::sync::Arc;

use millrace_proto::membership::v1::membership_server::MembershipServer;
use millrace_proto::v1::admin_server::AdminServer;
use millrace_proto::v1::cluster_server::ClusterServer;
use millrace_proto::v1::consumer_server::ConsumerServer;
use millrace_proto::v1::publisher_server::PublisherServer;
use millrace_proto::v1::routing_server::RoutingServer;
use millrace_proto::v1::stream_reader_server::StreamReaderServer;
use millrace_types::{ErrorCode, Refusal};
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::service::{Interceptor, Routes};
use tonic::transport::server::Router;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::founding::seat::Seat;
use crate::founding::service as founding;
use crate::mesh::Mesh;
use crate::services::{Context, admin, cluster, consumer, publisher, routing, stream};
use crate::start_error::StartError;
use crate::status::status;
use crate::token::Guard;
use crate::transport::{self, GRPC_MESSAGE_BYTES_MAX};

/// What nodes say to become a cluster: the addresses of all of them many times over.
const MEMBERSHIP_BYTES_MAX: usize = 256 << 10;
/// Whoever starts several nodes does so within seconds.
const WAITING_RETRY_MS: u64 = 1_000;

/// The client port: everything that moves messages, looking at queues and topics, health,
/// reflection.
pub(crate) fn clients(
    context: &Context,
    health: HealthServer<impl Health>,
) -> Result<Router, StartError> {
    let reflection = tonic_reflection::server::Builder::configure()
        .register_encoded_file_descriptor_set(millrace_proto::DESCRIPTOR_SET)
        .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
        .build_v1()
        .map_err(|error| StartError::Internal(format!("bad descriptors: {error}")))?;
    let publisher = PublisherServer::new(publisher::Service(context.clone()));
    let consumer = ConsumerServer::new(consumer::Service(context.clone()));
    let reader = StreamReaderServer::new(stream::Service(context.clone()));
    let admin = AdminServer::new(admin::Service(context.clone()));
    Ok(transport::server()
        .add_service(publisher.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX))
        .add_service(consumer.max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX))
        .add_service(reader)
        .add_service(admin)
        .add_service(RoutingServer::new(routing::Service(context.clone())))
        .add_service(health)
        .add_service(reflection))
}

/// The peer port: what nodes say to each other, and how they become a cluster, for those who have
/// the token.
pub(crate) fn peers(mesh: &Mesh, seat: &Seat, guard: &Arc<Guard>) -> Router {
    let timing = millrace_peers::Timing::default();
    millrace_peers::server(&timing)
        .add_service(millrace_peers::limited(mesh.clone()))
        .add_service(membership(seat, guard))
}

/// The control port: the cluster's topology, and how nodes become one, for those who have the
/// token.
pub(crate) fn control(context: &Context, guard: &Arc<Guard>, seat: Option<&Seat>) -> Router {
    let cluster = ClusterServer::new(cluster::Service(context.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let mut routes = Routes::new(guarded(cluster, guard));
    if let Some(seat) = seat {
        routes = routes.add_service(membership(seat, guard));
    }
    transport::server().add_routes(routes)
}

/// How nodes become a cluster, for those who have the token.
pub(crate) fn membership(
    seat: &Seat,
    guard: &Arc<Guard>,
) -> InterceptedService<MembershipServer<founding::Service>, impl Interceptor + Clone + use<>> {
    let service = MembershipServer::new(founding::Service(seat.clone()));
    guarded(
        service.max_decoding_message_size(MEMBERSHIP_BYTES_MAX),
        guard,
    )
}

/// A port of a node that belongs to no cluster yet, for those with the token.
pub(crate) fn waiting_control(seat: &Seat, guard: &Arc<Guard>) -> Router {
    let routes = Routes::new(membership(seat, guard));
    transport::server().add_routes(otherwise_waiting(routes))
}

/// The client port of a node that belongs to no cluster yet.
pub(crate) fn waiting_clients(health: HealthServer<impl Health>) -> Router {
    let routes = Routes::new(health);
    transport::server().add_routes(otherwise_waiting(routes))
}

/// Everything else is refused, for now.
fn otherwise_waiting(mut routes: Routes) -> Routes {
    let router = routes.axum_router_mut();
    let refuse = || async {
        let text = "the node does not belong to a cluster yet";
        let refusal = Refusal::new(ErrorCode::ShardUnavailable, text);
        status(refusal.retry_after_millis(WAITING_RETRY_MS)).into_http::<axum::body::Body>()
    };
    *router = std::mem::take(router).fallback(refuse);
    routes
}

fn guarded<S>(
    service: S,
    guard: &Arc<Guard>,
) -> InterceptedService<S, impl Interceptor + Clone + use<S>> {
    let guard = Arc::clone(guard);
    InterceptedService::new(service, move |request: Request<()>| {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(tonic::metadata::MetadataValue::as_encoded_bytes);
        guard.check(authorization).map_err(status)?;
        Ok(request)
    })
}
