//! Which services each port has.

use std::sync::Arc;

use millrace_proto::v1::admin_server::AdminServer;
use millrace_proto::v1::cluster_server::ClusterServer;
use millrace_proto::v1::consumer_server::ConsumerServer;
use millrace_proto::v1::publisher_server::PublisherServer;
use millrace_proto::v1::stream_reader_server::StreamReaderServer;
use tonic::Request;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::server::Router;
use tonic_health::pb::health_server::{Health, HealthServer};

use crate::mesh::Mesh;
use crate::services::{Context, admin, cluster, consumer, publisher, stream};
use crate::start_error::StartError;
use crate::status::status;
use crate::token::Guard;
use crate::transport::{self, GRPC_MESSAGE_BYTES_MAX};

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
        .add_service(health)
        .add_service(reflection))
}

/// The peer port: what nodes say to each other, for those who have the token.
pub(crate) fn peers(mesh: &Mesh) -> Router {
    let timing = millrace_peers::Timing::default();
    millrace_peers::server(&timing).add_service(millrace_peers::limited(mesh.clone()))
}

/// The control port: the cluster's topology, for those who have the token.
pub(crate) fn control(context: &Context, guard: Arc<Guard>) -> Router {
    let cluster = ClusterServer::new(cluster::Service(context.clone()))
        .max_decoding_message_size(GRPC_MESSAGE_BYTES_MAX);
    let guarded = InterceptedService::new(cluster, move |request: Request<()>| {
        let authorization = request.metadata().get("authorization");
        let authorization = authorization.map(tonic::metadata::MetadataValue::as_encoded_bytes);
        guard.check(authorization).map_err(status)?;
        Ok(request)
    });
    transport::server().add_service(guarded)
}
