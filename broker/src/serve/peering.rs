//! The options of `millrace serve` for a node that is one of several.

use std::net::SocketAddr;

use millrace_server::config::{Meeting, Peering, REPLICATION_DEFAULT};

/// With `--peer-listen` a node is one of several: it never founds a cluster alone.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Several nodes")]
pub(super) struct Options {
    /// Where the other nodes of the cluster connect; anything but loopback needs a token file.
    /// Without it, this node is a cluster of its own
    #[arg(long, value_name = "ADDR", env = "MILLRACE_PEER_LISTEN")]
    peer_listen: Option<SocketAddr>,
    /// Where the other nodes find this one [default: --peer-listen]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MILLRACE_PEER_ADVERTISE",
        requires = "peer_listen"
    )]
    peer_advertise: Option<String>,
    /// Where clients find this node [default: --listen, or its port at the host of
    /// --peer-advertise]
    #[arg(
        long,
        value_name = "HOST:PORT",
        env = "MILLRACE_ADVERTISE",
        requires = "peer_listen"
    )]
    advertise: Option<String>,
    /// The nodes to found a cluster with, this one among them; the same list on each. It is founded
    /// once all of them are there and empty; a node that comes back with an empty disk joins it
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "MILLRACE_PEERS",
        value_delimiter = ',',
        requires = "peer_listen",
        conflicts_with = "join"
    )]
    peers: Vec<String>,
    /// Nodes of a cluster to join, or names that stand for all of them. Founds none: without a
    /// cluster, waits until there is one or somebody sends a founding record
    #[arg(
        long,
        value_name = "HOST:PORT,…",
        env = "MILLRACE_JOIN",
        value_delimiter = ',',
        requires = "peer_listen"
    )]
    join: Vec<String>,
    /// What fails together with this node, like a rack or a zone: replicas are spread over them
    #[arg(
        long,
        value_name = "NAME",
        env = "MILLRACE_ZONE",
        default_value = "",
        hide_default_value = true
    )]
    zone: String,
    /// Replicas of each shard, of a cluster that is founded with --peers
    #[arg(
        long,
        value_name = "N",
        env = "MILLRACE_REPLICATION",
        default_value_t = REPLICATION_DEFAULT
    )]
    replication: u32,
}

impl Options {
    /// How the node meets others; `None` when it is alone.
    pub(super) fn peering(self) -> Option<Peering> {
        Some(Peering {
            listen: self.peer_listen?,
            advertise: self.peer_advertise,
            client_advertise: self.advertise,
            meeting: if self.peers.is_empty() {
                Meeting::Join(self.join)
            } else {
                Meeting::Found(self.peers)
            },
            zone: self.zone,
            replication: self.replication,
        })
    }
}
