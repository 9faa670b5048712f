//! Simulates nodes: the production code of journal, store, engine and node in one thread, on a
//! virtual clock and a disk that forgets, tears, fills up and breaks, with clients that know what
//! they were promised. Everything follows from a seed.
//!
//! A plan (`plan`) is made from the seed, run (`world`) with everything observable told to a
//! `watch`, and judged by `invariants`. What fails is cut down (`shrink`) and reported
//! (`campaign`).

pub mod campaign;
mod client;
mod clock;
mod damage;
mod declared;
mod disk;
mod event;
mod facts;
mod guard;
mod host;
mod invariants;
mod message;
#[cfg(feature = "mutants")]
pub mod mutants;
mod network;
pub mod plan;
mod random;
mod shrink;
mod watch;
mod world;

pub use world::{Report, run};
