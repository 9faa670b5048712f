//! A cluster of replicas in one thread, on virtual time: everything depends on a seed.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too, are tests")]

mod alone;
mod chance;
mod disk;
mod hostile;
mod judge;
mod machine;
#[cfg(feature = "mutants")]
mod mutants;
mod node;
mod simulation;
mod talking;
mod world;
