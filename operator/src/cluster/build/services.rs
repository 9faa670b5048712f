//! The two Services of a cluster.

use k8s_openapi::api::core::v1::{Service, ServicePort, ServiceSpec};
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;

use super::meta;
use crate::cluster::desired::Desired;
use crate::{labels, names};

/// What clients connect to: only brokers that are ready, only the client port.
pub(super) fn client(desired: &Desired) -> Service {
    Service {
        metadata: meta(desired, desired.key.client_service()),
        spec: Some(ServiceSpec {
            selector: Some(labels::selector(&desired.key)),
            ports: Some(vec![port(names::CLIENT_PORT_NAME, names::CLIENT_PORT)]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

/// A name in DNS for each pod, ready or not: the operator and other brokers must reach one that is
/// not ready yet.
pub(super) fn nodes(desired: &Desired) -> Service {
    Service {
        metadata: meta(desired, desired.key.nodes_service()),
        spec: Some(ServiceSpec {
            cluster_ip: Some("None".to_owned()),
            publish_not_ready_addresses: Some(true),
            selector: Some(labels::selector(&desired.key)),
            ports: Some(vec![
                port(names::CLIENT_PORT_NAME, names::CLIENT_PORT),
                port(names::CONTROL_PORT_NAME, names::CONTROL_PORT),
                port(names::PEER_PORT_NAME, names::PEER_PORT),
                port(names::METRICS_PORT_NAME, names::METRICS_PORT),
            ]),
            ..ServiceSpec::default()
        }),
        ..Service::default()
    }
}

fn port(name: &str, number: u16) -> ServicePort {
    ServicePort {
        name: Some(name.to_owned()),
        port: i32::from(number),
        // Half of the key by which server-side apply tells ports apart.
        protocol: Some("TCP".to_owned()),
        target_port: Some(IntOrString::String(name.to_owned())),
        ..ServicePort::default()
    }
}
