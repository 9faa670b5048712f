//! What a node is told about the others of its cluster, checked: whoever is told nonsense does not
//! start. Pure but for what it listens on, which is known by then.

use std::collections::BTreeSet;
use std::net::SocketAddr;

use millrace_engine::catalogue::REPLICATION_MAX;
use millrace_node::{Advertised, NodeFacts};
use millrace_types::{ADDRESS_BYTES_MAX, FEATURE_LEVEL, FOUNDERS_MAX};

use super::plan::{Terms, Way};
use crate::config::{Config, Meeting, Peering};

/// A zone, in bytes: the value of a Kubernetes label.
const ZONE_BYTES_MAX: usize = 63;

/// What a node says of itself, and what it was told to do.
#[derive(Clone, Debug)]
pub(crate) struct Settings {
    pub(crate) facts: NodeFacts,
    pub(crate) way: Way,
    pub(crate) terms: Terms,
}

/// Where a node listens.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Listening {
    pub(crate) peers: SocketAddr,
    pub(crate) clients: SocketAddr,
}

/// Why a node cannot be one of several as it was told to be.
#[derive(Debug, thiserror::Error)]
pub enum PeeringError {
    /// Anybody could be a node of the cluster.
    #[error(
        "peer address {address} is not loopback: --control-token-file is needed, or everybody who \
         reaches it could be a node of the cluster"
    )]
    Open {
        /// What was asked for.
        address: SocketAddr,
    },
    /// Not of the form `HOST:PORT`.
    #[error("{option} {address:?} is not of the form HOST:PORT")]
    Address {
        /// Which option says so.
        option: &'static str,
        /// As it was given.
        address: String,
    },
    /// Twice in a list.
    #[error("{option} names {address} twice")]
    Twice {
        /// Which option does.
        option: &'static str,
        /// What.
        address: String,
    },
    /// It would found a cluster without itself.
    #[error(
        "--peers must name this node too: {own} is not among them (--peer-advertise says where \
         others find it)"
    )]
    NotListed {
        /// Where it says it is.
        own: String,
    },
    /// Nobody could tell the others.
    #[error("--peer-listen {listen} is no address that others could use: give --peer-advertise")]
    Nowhere {
        /// Where it listens.
        listen: SocketAddr,
    },
    /// None or too many.
    #[error("--peers names {given} nodes; 1 to {FOUNDERS_MAX} can found a cluster")]
    Founders {
        /// How many.
        given: usize,
    },
    /// None or too many.
    #[error("--replication must be 1..={REPLICATION_MAX}, not {given}")]
    Replication {
        /// How many.
        given: u32,
    },
    /// Not what a label takes.
    #[error("--zone has at most {ZONE_BYTES_MAX} bytes, not {bytes}")]
    Zone {
        /// How many.
        bytes: usize,
    },
}

impl Settings {
    /// Checks what a node was told.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(crate) fn new(
        config: &Config,
        peering: &Peering,
        listening: Listening,
    ) -> Result<Self, PeeringError> {
        let address = listening.peers;
        if !address.ip().is_loopback() && config.control_token_file.is_none() {
            return Err(PeeringError::Open { address });
        }
        let own = own_address(peering, address)?;
        let given = peering.replication;
        if !(1..=REPLICATION_MAX).contains(&given) {
            return Err(PeeringError::Replication { given });
        }
        let bytes = peering.zone.len();
        if bytes > ZONE_BYTES_MAX {
            return Err(PeeringError::Zone { bytes });
        }
        let terms = Terms {
            cluster_id: config.cluster_id.clone(),
            shards: config.shards,
            replication: peering.replication,
        };
        let way = way(&peering.meeting, &own)?;
        let facts = NodeFacts {
            client_address: client_address(peering, listening.clients, &own)?,
            peer_address: own,
            zone: peering.zone.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            feature_level: FEATURE_LEVEL,
        };
        Ok(Self { facts, way, terms })
    }

    /// Where others find the node.
    pub(crate) fn advertised(&self) -> Advertised {
        Advertised {
            peer_address: self.facts.peer_address.clone(),
            client_address: self.facts.client_address.clone(),
            zone: self.facts.zone.clone(),
        }
    }
}

fn own_address(peering: &Peering, listen: SocketAddr) -> Result<String, PeeringError> {
    match &peering.advertise {
        Some(address) => checked("--peer-advertise", address),
        None if listen.ip().is_unspecified() => Err(PeeringError::Nowhere { listen }),
        None => Ok(listen.to_string()),
    }
}

fn client_address(
    peering: &Peering,
    listen: SocketAddr,
    peer_address: &str,
) -> Result<String, PeeringError> {
    if let Some(address) = &peering.client_advertise {
        return checked("--advertise", address);
    }
    if !listen.ip().is_unspecified() {
        return Ok(listen.to_string());
    }
    let host = peer_address.rsplit_once(':').map_or("", |(host, _)| host);
    Ok(format!("{host}:{}", listen.port()))
}

fn way(meeting: &Meeting, own: &str) -> Result<Way, PeeringError> {
    match meeting {
        Meeting::Join(addresses) => Ok(Way::Join(set("--join", addresses)?)),
        Meeting::Found(addresses) => {
            let peers = set("--peers", addresses)?;
            let given = peers.len();
            if !(1..=FOUNDERS_MAX).contains(&given) {
                return Err(PeeringError::Founders { given });
            }
            if !peers.contains(own) {
                return Err(PeeringError::NotListed { own: own.into() });
            }
            if given % 2 == 0 {
                tracing::warn!(
                    peers = given,
                    "an even number of nodes survives no more failures than one node less"
                );
            }
            Ok(Way::Found(peers))
        }
    }
}

fn set(option: &'static str, addresses: &[String]) -> Result<BTreeSet<String>, PeeringError> {
    let mut set = BTreeSet::new();
    for address in addresses {
        let address = checked(option, address)?;
        if !set.insert(address.clone()) {
            return Err(PeeringError::Twice { option, address });
        }
    }
    Ok(set)
}

/// `HOST:PORT`; names in lower case, as they are one whatever the case.
fn checked(option: &'static str, address: &str) -> Result<String, PeeringError> {
    let wrong = || PeeringError::Address {
        option,
        address: address.into(),
    };
    let (host, port) = address.rsplit_once(':').ok_or_else(wrong)?;
    let bare = host
        .strip_prefix('[')
        .and_then(|host| host.strip_suffix(']'));
    let is_name = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
    let is_host = match bare {
        Some(ip) => ip.parse::<std::net::Ipv6Addr>().is_ok(),
        None => !host.is_empty() && host.chars().all(is_name),
    };
    let is_port = port.parse::<u16>().is_ok_and(|port| port > 0);
    if !is_host || !is_port || address.len() > ADDRESS_BYTES_MAX {
        return Err(wrong());
    }
    Ok(address.to_ascii_lowercase())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peering(meeting: Meeting) -> Peering {
        Peering {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            advertise: None,
            client_advertise: None,
            meeting,
            zone: String::new(),
            replication: 3,
        }
    }

    fn listening(ip: [u8; 4]) -> Listening {
        Listening {
            peers: SocketAddr::from((ip, 7073)),
            clients: SocketAddr::from((ip, 7070)),
        }
    }

    fn found(peers: &[&str]) -> Meeting {
        Meeting::Found(peers.iter().map(ToString::to_string).collect())
    }

    fn settings(peering: &Peering, ip: [u8; 4]) -> Result<Settings, PeeringError> {
        let mut config = Config::local("data");
        config.control_token_file = Some("token".into());
        Settings::new(&config, peering, listening(ip))
    }

    #[test]
    fn a_node_among_its_peers_is_where_it_says_or_where_it_listens() {
        let three = peering(found(&["127.0.0.1:7073", "B:7073", "[::1]:1"]));
        let here = settings(&three, [127, 0, 0, 1]).unwrap();
        assert_eq!(here.facts.peer_address, "127.0.0.1:7073");
        assert_eq!(here.facts.client_address, "127.0.0.1:7070");
        let Way::Found(peers) = here.way else {
            panic!("it founds")
        };
        assert!(peers.contains("b:7073"));

        let mut pod = peering(found(&["pod-0.nodes:7073"]));
        pod.advertise = Some("pod-0.nodes:7073".into());
        let pod = settings(&pod, [0, 0, 0, 0]).unwrap();
        assert_eq!(pod.facts.client_address, "pod-0.nodes:7070");
    }

    #[test]
    fn nonsense_is_refused_in_the_words_of_the_command_line() {
        let cases: [(Peering, &str); 8] = [
            (
                peering(found(&["a:1", "b:1"])),
                "--peers must name this node too: 127.0.0.1:7073 is not among them \
                 (--peer-advertise says where others find it)",
            ),
            (
                peering(found(&["127.0.0.1:7073", "a:1", "A:1"])),
                "--peers names a:1 twice",
            ),
            (
                peering(found(&[])),
                "--peers names 0 nodes; 1 to 15 can found a cluster",
            ),
            (
                peering(found(&["http://a:1"])),
                "--peers \"http://a:1\" is not of the form HOST:PORT",
            ),
            (
                peering(Meeting::Join(vec!["a".into()])),
                "--join \"a\" is not of the form HOST:PORT",
            ),
            (
                Peering {
                    replication: 6,
                    ..peering(Meeting::Join(Vec::new()))
                },
                "--replication must be 1..=5, not 6",
            ),
            (
                Peering {
                    zone: "z".repeat(64),
                    ..peering(Meeting::Join(Vec::new()))
                },
                "--zone has at most 63 bytes, not 64",
            ),
            (
                Peering {
                    advertise: Some("a:0".into()),
                    ..peering(Meeting::Join(Vec::new()))
                },
                "--peer-advertise \"a:0\" is not of the form HOST:PORT",
            ),
        ];
        for (peering, text) in cases {
            let refused = settings(&peering, [127, 0, 0, 1]).unwrap_err();
            assert_eq!(refused.to_string(), text);
        }
        let nowhere = peering(found(&["a:7073"]));
        let refused = settings(&nowhere, [0, 0, 0, 0]).unwrap_err();
        assert!(matches!(refused, PeeringError::Nowhere { .. }));
        let open = Config::local("data");
        let refused = Settings::new(&open, &nowhere, listening([10, 0, 0, 1])).unwrap_err();
        assert!(matches!(refused, PeeringError::Open { .. }));
    }
}
