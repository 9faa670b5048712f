//! A BrokerCluster: dereference, validate, observe, plan, apply, write status.
//!
//! Promises: status is written also when a step fails; a cluster that is as declared causes no
//! write.

mod apply;
pub mod build;
mod dereference;
pub mod desired;
pub mod facts;
pub mod object;
pub mod observe;
pub mod plan;
mod pod_facts;
mod reconcile;
pub mod size;
pub mod status;
pub mod validate;

pub(crate) use reconcile::reconcile;
use reconcile::write_status;
