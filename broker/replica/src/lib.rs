//! One copy of one shard's log: consensus as a state machine.
//!
//! Decides who leads, which entries are committed, what is to be written, sent and applied, and in
//! which order. Promises: what is handed out depends on the inputs and the seed alone; nothing
//! that says "I have this" or "I vote for you" leaves before it is synced; no entry is handed out
//! for applying before this copy has synced it; no message, however wrong, panics. Does not write,
//! send, apply, read a clock or draw lots: the caller does, and tells.
//!
//! The work is done by raft-rs, which no signature names
//! (`docs/decisions/2026-11-21-replica-on-raft-rs.md`).
//!
//! How to drive one: give it inputs (`tick`, `step`, `propose`, …), then take `ready` until there
//! is none. Of each: write `write` as one append, in the order snapshot point, entries, hard state,
//! and call `synced` when it is durable; send `messages`; apply `committed` and call `applied`. All
//! three may run at the same time, and the next `ready` may be taken meanwhile.

mod change;
mod convert;
mod entry;
mod error;
mod guard;
mod lane;
mod log;
mod logging;
mod lots;
mod members;
mod message;
mod options;
mod output;
mod reads;
mod recovered;
mod replica;
mod shard_message;

pub use change::Change;
pub use entry::{Entry, EntryKind, Mark};
pub use error::{
    ChangeError, LoadError, MembersError, NotLeader, OpenError, ProposeError, StepError,
    TransferError,
};
pub use lane::Lane;
pub use members::{Member, Members, RETIRED_MAX, Seat};
pub use message::{Message, Payload, Round, Stage, Verdict};
pub use options::{HEARTBEAT_TICKS, MEMBERS_MAX, ReplicaOptions};
pub use output::{
    Flow, HardState, Load, Progress, Read, ReadToken, Ready, ReadyNumber, Role, Status, Write,
};
pub use recovered::{Passed, Point, Recovered};
pub use replica::Replica;
pub use shard_message::{Body, CHUNK_BYTES_MAX, Next, ShardMessage, SnapshotAck, SnapshotChunk};
