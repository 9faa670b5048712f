//! Takes calls to where their shard is led: decides where that is, asks there, and says truthfully
//! what is known when the answer does not come.
//!
//! Promises: a call is forwarded at most [`HOPS_MAX`] times, with what is left of its time and with
//! its caller's identity. One that was not applied, because nobody leads or the leader cannot be
//! reached, is tried again for about an election; then it is refused with where the leader is. One
//! that may have been applied is never tried again here.

mod attempts;
pub(crate) mod consume;
mod failed;
pub(crate) mod lanes;
mod link;
mod origin;
mod pool;
pub(crate) mod publish;

pub(crate) use attempts::{Attempts, Place, Remote};
pub(crate) use failed::refusal as refusal_of;
pub(crate) use origin::Origin;

use std::sync::Arc;

use millrace_node::Broker;
use millrace_types::ShardId;

use pool::Pool;

/// How often a call is passed on: once to the leader, and once more when it has just changed.
pub(crate) const HOPS_MAX: u8 = 2;

/// The way to other nodes. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Forward {
    broker: Broker,
    pool: Arc<Pool>,
}

impl Forward {
    /// Not connected to anybody yet.
    pub(crate) fn new(broker: &Broker) -> Self {
        Self {
            broker: broker.clone(),
            pool: Arc::default(),
        }
    }

    /// A call about a shard.
    pub(crate) fn call<'a>(&'a self, origin: &'a Origin, shard: ShardId) -> Attempts<'a> {
        Attempts::new(self, origin, shard)
    }
}
