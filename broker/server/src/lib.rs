//! The broker process: shard threads and everything around them.

pub mod core;
