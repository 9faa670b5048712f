//! Ids, positions, names, time, limits and error codes shared by every broker crate.
#![no_std]

extern crate alloc;

mod address;
mod error;
mod founding;
mod id;
mod limits;
pub mod mutant;
mod time;

pub use address::{Address, AddressError};
pub use error::{Applied, ErrorCode, Refusal};
pub use founding::{Founder, Founding, FoundingDraft, FoundingError};
pub use id::{
    Count, DedupKey, LogId, LogIndex, NodeId, Offset, ReplicaId, SessionId, ShardId, Term,
};
pub use limits::*;
pub use time::{Elapsed, Stamp, Wall};
