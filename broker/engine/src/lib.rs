//! The meaning of committed commands. Pure and deterministic: no clock, file, socket, thread or
//! random number can be reached from here, time and chance arrive inside the command.
//!
//! `Shard` is the state of a data shard, `Catalogue` that of the metadata shard; `command` and
//! `catalogue` say what can be proposed, `outcome` what applying it answers.
#![no_std]

extern crate alloc;

pub mod catalogue;
mod chunks;
mod codec;
pub mod command;
mod dedup;
mod limits;
pub mod outcome;
mod partition;
mod pool;
mod queue;
mod refusal;
pub mod routing;
mod session;
mod shard;
mod spans;
pub mod spec;

pub use catalogue::{Catalogue, CatalogueApplied, CatalogueCommand, CatalogueEntry};
pub use codec::DecodeError;
pub use limits::{
    ACQUIRE_MESSAGES_MAX, CONFIGURE_BYTES_MAX, DEDUP_IDS_MAX, DEDUP_IDS_OF_SHARD_MAX,
    DELIVERIES_MAX, DETACHED_MAX, PRODUCER_BATCHES_MAX, SESSION_TTL_MS_MAX, SESSIONS_MAX,
    SETTLEMENTS_MAX, SOURCES_MAX,
};
pub use partition::Partition;
pub use queue::Queue;
pub use shard::{Frozen, Shard};
