//! What a verb works on: a full address, or `queue/NAME` with the namespace beside it.

use clap::Args;
use millrace_crds::DEFAULT_NAMESPACE;
use millrace_types::{Address, AddressError};

use crate::exit::Failure;

/// One queue or topic.
#[derive(Debug, Args)]
pub(crate) struct Target {
    /// queue/NAME or topic/NAME, or in full: queue/NAMESPACE/NAME, queue/NAMESPACE/NAME/dead (its
    /// dead letters), topic/NAMESPACE/NAME
    #[arg(value_name = "ADDRESS")]
    address: String,
    /// Of an address that does not say it
    /// [default: default]
    #[arg(short, long, env = "MILLRACE_NAMESPACE")]
    pub(crate) namespace: Option<String>,
}

impl Target {
    /// The checked address.
    pub(crate) fn address(&self) -> Result<Address, Failure> {
        let namespace = self.namespace.as_deref().unwrap_or(DEFAULT_NAMESPACE);
        let text = match self.address.split('/').collect::<Vec<_>>().as_slice() {
            [kind, name] => format!("{kind}/{namespace}/{name}"),
            _ => self.address.clone(),
        };
        text.parse().map_err(|error| match error {
            AddressError::Shape(_) => Failure::usage(format_args!(
                "{:?} is not an address such as queue/NAME, topic/NAME, queue/NAMESPACE/NAME, \
                 queue/NAMESPACE/NAME/dead or topic/NAMESPACE/NAME",
                self.address
            )),
            error => Failure::usage(error),
        })
    }

    /// The checked address of something that is consumed.
    pub(crate) fn queue(&self) -> Result<Address, Failure> {
        match self.address()? {
            address @ Address::Topic { .. } => Err(Failure::usage(format_args!(
                "{address} is a topic: it is read, not consumed; use `millrace read`, or a queue \
                 that is bound to it"
            ))),
            address => Ok(address),
        }
    }

    /// The checked address of something that is read.
    pub(crate) fn topic(&self) -> Result<Address, Failure> {
        match self.address()? {
            address @ Address::Topic { .. } => Ok(address),
            address => Err(Failure::usage(format_args!(
                "{address} is a queue: it is consumed, not read; use `millrace consume` or \
                 `millrace peek`"
            ))),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(address: &str) -> Target {
        Target {
            address: address.into(),
            namespace: Some("team".into()),
        }
    }

    #[test]
    fn a_short_address_gets_the_namespace() {
        for (short, full) in [
            ("queue/orders", "queue/team/orders"),
            ("topic/t", "topic/team/t"),
            ("queue/other/orders", "queue/other/orders"),
            ("queue/other/orders/dead", "queue/other/orders/dead"),
        ] {
            assert_eq!(target(short).address().unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_no_address_is_wrong_usage() {
        for wrong in ["orders", "stream/orders", "queue/a/b/c", "queue/A", ""] {
            assert!(target(wrong).address().is_err(), "{wrong:?} was taken");
        }
    }
}
