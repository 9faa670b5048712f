//! Why a stream is refused, or ended.

use std::time::Duration;

use millrace_types::NodeId;

/// What a refusal is about; stable, for programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Reason {
    /// The cluster's token is missing or another one.
    Token,
    /// The other side is of another cluster.
    Cluster,
    /// Another node lives at the address.
    Node,
    /// The address is our own.
    Itself,
    /// No version of the protocol that both speak.
    Version,
    /// Another connection of the same node and lane came later: the node dialled again, or somebody
    /// else uses its id.
    Superseded,
    /// A frame cannot be read, is damaged, or was not to come then.
    Protocol,
    /// No room for another stream.
    Busy,
    /// The other side is going down, or has forgotten us.
    Closing,
    /// A newer version's reason.
    Unknown,
}

impl Reason {
    /// Whether trying again at once is of no use: a person, or a roll-out, has to change something.
    #[must_use]
    pub const fn lasts(self) -> bool {
        !matches!(self, Self::Closing)
    }
}

/// A typed no from either side of a stream; the text names both.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text}")]
pub struct Refusal {
    /// What it is about.
    pub reason: Reason,
    /// For people.
    pub text: String,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, text: impl Into<String>) -> Self {
        Self {
            reason,
            text: text.into(),
        }
    }
}

/// Who refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// This node.
    Us,
    /// The peer.
    Them,
}

/// Why a connection to a peer was not made, or is no more.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not of the form `HOST:PORT`.
    #[error("address {address:?} is not of the form HOST:PORT")]
    Address {
        /// As it was given.
        address: String,
    },
    /// Nobody answers there.
    #[error("cannot connect to {address}: {text}")]
    Connect {
        /// Where.
        address: String,
        /// Why.
        text: String,
    },
    /// It took too long until the peer's hello.
    #[error("{address} did not answer within {within:?}")]
    Silent {
        /// Where.
        address: String,
        /// How long was waited.
        within: Duration,
    },
    /// One of the two does not want the other.
    #[error("{}: {refusal}", match side { Side::Us => "refused by us", Side::Them => "refused" })]
    Refused {
        /// Who.
        side: Side,
        /// Why.
        refusal: Refusal,
    },
    /// The connection was made and has ended.
    #[error("connection to {address} lost: {text}")]
    Lost {
        /// Where.
        address: String,
        /// Why.
        text: String,
    },
}

impl LinkError {
    /// Whether trying again at once is of no use.
    #[must_use]
    pub const fn lasts(&self) -> bool {
        match self {
            Self::Address { .. } => true,
            Self::Refused { refusal, .. } => refusal.reason.lasts(),
            Self::Connect { .. } | Self::Silent { .. } | Self::Lost { .. } => false,
        }
    }
}

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CallError {
    /// It has not arrived, or was not looked at.
    #[error("{text}")]
    NotSent {
        /// Why.
        text: String,
    },
    /// It may have arrived.
    #[error("{text}")]
    NoAnswer {
        /// Why.
        text: String,
    },
}

impl CallError {
    pub(crate) fn not_sent(error: LinkError) -> Self {
        let text = error.to_string();
        Self::NotSent { text }
    }
}

/// Why a node cannot become a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressRefused {
    /// It is this node.
    #[error("node {node} is this node: it is no peer of itself")]
    Itself {
        /// Which.
        node: NodeId,
    },
    /// There are too many.
    #[error("a node has at most {peers_max} peers")]
    TooMany {
        /// The limit.
        peers_max: usize,
    },
}
