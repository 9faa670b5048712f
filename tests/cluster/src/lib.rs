//! Real broker processes, killed under load, with a ledger of what was acknowledged: the harness
//! that the crash run and the integration tests share.
//!
//! A killed process loses nothing that the kernel has: only `SmallDisk::cut_power` tells what was
//! synced from what was not.

pub mod broker;
pub mod chance;
pub mod fault;
pub mod gaps;
pub mod history;
pub mod ledger;
pub mod load;
pub mod node_rounds;
pub mod nodes;
pub mod numbered;
pub mod program;
pub mod rounds;
pub mod small_disk;
pub mod suite;
pub mod volume;
pub mod wait;
pub mod wires;
mod work;
