//! Why a node does not start: one clear line each, and an exit code that tells them apart.

use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;

use millrace_storage::{BelongError, OpenError};

use crate::exit;
use crate::founding::settings::PeeringError;
use crate::token::TokenError;
use crate::topology_file::TopologyError;

/// Why a node does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The control port would be open to everybody.
    #[error(
        "control address {address} is not loopback: --control-token-file is needed, or everybody \
         who reaches it could change the topology"
    )]
    ControlOpen {
        /// What was asked for.
        address: SocketAddr,
    },
    /// It cannot be one of several nodes as it was told to be.
    #[error(transparent)]
    Peering(#[from] PeeringError),
    /// The control token cannot be used.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// A listener cannot be opened.
    #[error("cannot listen on {address} for {purpose}")]
    Listen {
        /// What was asked for.
        address: SocketAddr,
        /// Clients, control or metrics.
        purpose: &'static str,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The topology file is wrong or cannot be applied.
    #[error(transparent)]
    Topology(#[from] TopologyError),
    /// The broker cannot start on its data directory.
    #[error(transparent)]
    Broker(#[from] millrace_node::StartError),
    /// The file that says we are ready cannot be written.
    #[error("cannot write ready file {path}")]
    ReadyFile {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A defect of ours.
    #[error("{0}")]
    Internal(String),
}

impl StartError {
    /// The exit code of a process that could not start for this reason.
    #[must_use]
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::ControlOpen { .. } | Self::Peering(_) | Self::Token(_) => exit::USAGE,
            Self::Listen { .. } => exit::LISTEN,
            Self::Topology(_) => exit::TOPOLOGY,
            Self::Broker(millrace_node::StartError::Shards { .. }) => exit::USAGE,
            Self::Broker(millrace_node::StartError::Open(error)) => open(error),
            Self::Broker(millrace_node::StartError::Belong { source, .. }) => belong(source),
            Self::Broker(
                millrace_node::StartError::Thread(_) | millrace_node::StartError::Random(_),
            )
            | Self::ReadyFile { .. }
            | Self::Internal(_) => exit::FAILURE,
        }
    }
}

const fn open(error: &OpenError) -> u8 {
    match error {
        OpenError::Locked { .. } => exit::DATA_DIR_LOCKED,
        OpenError::AnotherCluster { .. } => exit::DATA_DIR_FOREIGN,
        OpenError::NewerVersion { .. } => exit::DATA_DIR_NEWER,
        OpenError::IdentityMissing { .. } | OpenError::Corrupt { .. } => exit::DATA_DIR_DAMAGED,
        OpenError::ShardCount { .. }
        | OpenError::ShardsOutOfRange { .. }
        | OpenError::Founding { .. } => exit::USAGE,
        OpenError::Belong { source } => belong(source),
        OpenError::Io { .. } => exit::DATA_DIR,
    }
}

const fn belong(error: &BelongError) -> u8 {
    match error {
        BelongError::Disk(_) => exit::DATA_DIR,
        BelongError::NoCluster { .. } => exit::USAGE,
        BelongError::Already { .. }
        | BelongError::NotFounder { .. }
        | BelongError::Founder { .. }
        | BelongError::NoShard { .. }
        | BelongError::NotMember { .. }
        | BelongError::Held { .. }
        | BelongError::Retired { .. } => exit::DATA_DIR_FOREIGN,
    }
}
