//! A shard's state on its way to another node: its last checkpoint and the bodies that lists, as
//! one sequence of bytes.
//!
//! ```text
//! snapshot = the checkpoint's file | frames of every listed run, by segment and place in it
//! ```
//! `Export` gives any stretch of it, checksums checked, while the shard goes on. `Import` takes it
//! in order, checks every frame, and lays the bodies out anew in segments of its own: no name,
//! number or place of the other side's is used on this disk, and what is dead in its segments does
//! not travel. Indexes do not either; they are made here.
//!
//! On disk, beside the state that is in force (`layout` has the names): the sender's file as it
//! arrived, segments, and the checkpoint that lists them, each durable before the next. `promote`
//! renames that into force. What it replaces goes when nobody reads it any more.

mod export;
mod import;
mod layout;
mod sink;
mod staged;
#[cfg(test)]
mod tests;

pub use export::Export;
pub use import::{Import, ImportError};
pub use staged::{Staged, complete_install};

pub(crate) use layout::{clean, era_of, is_importing, staged_from};
