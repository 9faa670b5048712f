//! How queues and topics are called: `queue/NAMESPACE/NAME`, `queue/NAMESPACE/NAME/dead`,
//! `topic/NAMESPACE/NAME`. The namespace is the tenant.

use alloc::string::{String, ToString};
use core::fmt;
use core::str::FromStr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::{NAME_BYTES_MAX, NAMESPACE_BYTES_MAX};

/// A checked address.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Address {
    /// A declared queue.
    Queue {
        /// The tenant.
        namespace: String,
        /// Unique among the namespace's queues.
        name: String,
    },
    /// The implicit dead-letter queue of a declared queue.
    DeadLetter {
        /// The tenant.
        namespace: String,
        /// Of the declared queue.
        name: String,
    },
    /// A declared topic.
    Topic {
        /// The tenant.
        namespace: String,
        /// Unique among the namespace's topics.
        name: String,
    },
}

/// Why a text is no address.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum AddressError {
    /// Not of one of the three shapes.
    #[error(
        "address {0:?} is not of the form queue/NAMESPACE/NAME, queue/NAMESPACE/NAME/dead or \
         topic/NAMESPACE/NAME"
    )]
    Shape(String),
    /// The namespace is no DNS label.
    #[error("namespace {0:?} is not a DNS label of at most 63 characters [a-z0-9-]")]
    Namespace(String),
    /// The name is no DNS label.
    #[error("name {0:?} is not a DNS label of at most 63 characters [a-z0-9-]")]
    Name(String),
}

impl Address {
    /// The namespace, whatever the kind.
    #[must_use]
    pub fn namespace(&self) -> &str {
        let (Self::Queue { namespace, .. }
        | Self::DeadLetter { namespace, .. }
        | Self::Topic { namespace, .. }) = self;
        namespace
    }

    /// The declared resource's name.
    #[must_use]
    pub fn name(&self) -> &str {
        let (Self::Queue { name, .. } | Self::DeadLetter { name, .. } | Self::Topic { name, .. }) =
            self;
        name
    }

    /// Whether messages are consumed from it, rather than read.
    #[must_use]
    pub const fn is_queue(&self) -> bool {
        matches!(self, Self::Queue { .. } | Self::DeadLetter { .. })
    }

    /// The implicit dead-letter queue of a queue; nothing has one but a declared queue.
    #[must_use]
    pub fn dead_letter(&self) -> Option<Self> {
        match self {
            Self::Queue { namespace, name } => Some(Self::DeadLetter {
                namespace: namespace.clone(),
                name: name.clone(),
            }),
            Self::DeadLetter { .. } | Self::Topic { .. } => None,
        }
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, AddressError> {
        let mut parts = text.split('/');
        let (kind, namespace, name, rest) = (
            parts.next(),
            parts.next(),
            parts.next(),
            (parts.next(), parts.next()),
        );
        let (Some(kind), Some(namespace), Some(name)) = (kind, namespace, name) else {
            return Err(AddressError::Shape(text.to_string()));
        };
        if !is_dns_label(namespace, NAMESPACE_BYTES_MAX) {
            return Err(AddressError::Namespace(namespace.to_string()));
        }
        if !is_dns_label(name, NAME_BYTES_MAX) {
            return Err(AddressError::Name(name.to_string()));
        }
        let (namespace, name) = (namespace.to_string(), name.to_string());
        match (kind, rest) {
            ("queue", (None, None)) => Ok(Self::Queue { namespace, name }),
            ("queue", (Some("dead"), None)) => Ok(Self::DeadLetter { namespace, name }),
            ("topic", (None, None)) => Ok(Self::Topic { namespace, name }),
            _ => Err(AddressError::Shape(text.to_string())),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Queue { namespace, name } => write!(f, "queue/{namespace}/{name}"),
            Self::DeadLetter { namespace, name } => write!(f, "queue/{namespace}/{name}/dead"),
            Self::Topic { namespace, name } => write!(f, "topic/{namespace}/{name}"),
        }
    }
}

fn is_dns_label(text: &str, bytes_max: usize) -> bool {
    let inner = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-';
    let edge = |b: u8| b != b'-';
    let bytes = text.as_bytes();
    bytes.len() <= bytes_max
        && bytes.iter().copied().all(inner)
        && bytes.first().copied().is_some_and(edge)
        && bytes.last().copied().is_some_and(edge)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_being_printed_and_parsed() {
        for text in [
            "queue/a/b",
            "queue/team-1/orders/dead",
            "topic/default/audit",
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
        }
    }

    #[test]
    fn a_malformed_address_is_refused() {
        for text in [
            "",
            "queue",
            "queue/a",
            "queue//b",
            "queue/a/",
            "stream/a/b",
            "topic/a/b/dead",
            "queue/a/b/dead/x",
            "queue/A/b",
            "queue/a/-b",
            "queue/a/b-",
            "queue/a/b.c",
        ] {
            assert!(text.parse::<Address>().is_err(), "{text:?} was taken");
        }
    }
}
