//! How nodes become a cluster, package `millrace.membership.v1`.

/// Version 1 of the protocol.
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/millrace.membership.v1.rs");
}

/// The encoded `FileDescriptorSet` of this protocol, for tests.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/membership-descriptor.bin");
