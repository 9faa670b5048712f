//! The wire protocols of Millrace: `millrace.v1` for clients and the operator, `millrace.peer.v1`
//! between the nodes of a cluster, `millrace.membership.v1` for how they become one. Generated from
//! `proto/millrace/**/*.proto` by `cargo xtask generate` and committed, so that building needs no
//! compiler for it.

/// Version 1 of the protocol.
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/millrace.v1.rs");
}

pub mod membership;
pub mod peer;

/// The encoded `FileDescriptorSet` of the public protocol, for reflection and for tests.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
