//! The gRPC services: they decode, check, call the broker and encode. They keep nothing that would
//! be missed after a crash.

pub(crate) mod admin;
pub(crate) mod cluster;

pub(crate) mod consumer;
pub(crate) mod credit;
pub(crate) mod deadline;
pub(crate) mod outbox;
pub(crate) mod plan;
pub(crate) mod publisher;
pub(crate) mod routing;
pub(crate) mod stream;

use millrace_types::{ErrorCode, Refusal};
use tonic::{Code, Status};

use crate::forward::Forward;
use crate::status::status;
use crate::tasks::Tasks;
use millrace_node::Broker;

/// What every service works with. Cheap to clone.
#[derive(Clone, Debug)]
pub(crate) struct Context {
    pub(crate) broker: Broker,
    /// The way to where other nodes lead.
    pub(crate) forward: Forward,
    pub(crate) tasks: Tasks,
}

impl Context {
    /// Refuses new work once the drain has begun.
    fn admit(&self) -> Result<(), Status> {
        if self.tasks.stop().is_draining() {
            return Err(status(draining()));
        }
        Ok(())
    }
}

/// The node is going down and what was asked has not been done.
pub(crate) fn draining() -> Refusal {
    Refusal::new(ErrorCode::Draining, "the node is going down; connect again")
        .retry_after_millis(RECONNECT_AFTER_MS)
}

/// A node that restarts is back after about this long.
const RECONNECT_AFTER_MS: u64 = 1_000;

/// What came from the client cannot be read; nothing of it was done.
pub(crate) fn unreadable(status: &Status) -> Refusal {
    let code = match status.code() {
        // How the transport says that a frame is over its limit.
        Code::OutOfRange | Code::ResourceExhausted => ErrorCode::MessageTooLarge,
        _ => ErrorCode::InvalidArgument,
    };
    Refusal::new(
        code,
        format!("the frame cannot be read: {}", status.message()),
    )
}
