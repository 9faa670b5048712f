//! A cluster of replicas in one thread, on virtual time: everything depends on a seed.

#![allow(clippy::unwrap_used, reason = "helpers of tests, too, are tests")]

mod chance;
mod disk;
mod judge;
mod machine;
mod node;
mod simulation;
mod world;
