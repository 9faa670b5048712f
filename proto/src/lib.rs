//! The wire protocol of Millrace, package `millrace.v1`: generated from `proto/millrace/v1/*.proto`
//! by `cargo xtask generate` and committed, so that building needs no compiler for it.

/// Version 1 of the protocol.
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/millrace.v1.rs");
}

/// The encoded `FileDescriptorSet` of the protocol, for reflection and for tests.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/descriptor.bin");
