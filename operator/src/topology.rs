//! Queues and topics of a cluster, on their way to its brokers: what is declared, what the broker
//! has, and the delta between them.

pub mod convert;
pub mod declared;
pub mod delta;
pub mod exchange;
pub mod removal;
pub mod report;
pub mod resolve;
mod sync;

pub(crate) use sync::{Absences, declared, reconcile};
