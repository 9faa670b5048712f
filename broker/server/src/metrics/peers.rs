//! What can be seen of the streams to other nodes.

use std::fmt;

use millrace_peers::{LaneStatus, Link, PeerStatus};
use prometheus_client::encoding::DescriptorEncoder;

use super::tables::{LANE, Metric, PEER};
use super::{Labels, family};

/// Of each peer, labelled `node`, and of each lane to it, labelled `node` and `lane`.
pub(super) fn figures(encoder: &mut DescriptorEncoder<'_>, peers: &[PeerStatus]) -> fmt::Result {
    let node = |peer: &PeerStatus| ("node", peer.node.to_string());
    let nodes: Vec<_> = peers.iter().map(|peer| (vec![node(peer)], peer)).collect();
    some(encoder, &PEER, &nodes)?;
    let lanes = peers.iter().flat_map(|peer| {
        let labels = move |lane: &LaneStatus| vec![node(peer), ("lane", lane.lane.to_string())];
        peer.lanes.iter().map(move |lane| (labels(lane), lane))
    });
    some(encoder, &LANE, &lanes.collect::<Vec<_>>())
}

/// A node that is alone has no series of peers, not even empty ones.
fn some<T>(
    encoder: &mut DescriptorEncoder<'_>,
    metrics: &[Metric<T>],
    objects: &[(Labels, &T)],
) -> fmt::Result {
    if objects.is_empty() {
        return Ok(());
    }
    family(encoder, metrics, objects)
}

/// 1 while a lane is connected.
pub(super) fn is_up(lane: &LaneStatus) -> Option<f64> {
    let is_up = matches!(lane.link, Link::Up { .. });
    Some(f64::from(u8::from(is_up)))
}
