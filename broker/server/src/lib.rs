//! The broker: shard threads, services, metrics, lifecycle.
