//! What the nodes of a cluster say to each other, package `millrace.peer.v1`.

mod codec;

pub use codec::{FRAME_ENTRIES_MAX, FRAME_MESSAGES_MAX, FrameCodec, decode_frame};

/// Version 1 of the protocol's messages; which of them are used is agreed on by each pair.
#[allow(clippy::all, missing_docs, unreachable_pub)]
#[rustfmt::skip]
pub mod v1 {
    include!("generated/millrace.peer.v1.rs");
}

/// The encoded `FileDescriptorSet` of this protocol, for tests.
pub const DESCRIPTOR_SET: &[u8] = include_bytes!("generated/peer-descriptor.bin");
