//! What queues and topics may ask of the shards they live on. Shards of the ordinary class are
//! those the cluster was founded with; of any other class there are none until somebody asks for
//! it, and they are numbered after those.

use serde::{Deserialize, Serialize};

/// Data shards of a class at most, but for the ordinary one: as many as a broker founds a cluster
/// with, so that several workers and leaders share what is in them.
pub const CLASS_SHARDS_MAX: usize = 4;

/// What shards have in common that a queue or topic may be put on.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct ShardClass {
    /// Voters of each when there are nodes enough; `None`: as many as the cluster has of others,
    /// also when that changes.
    pub replication: Option<u32>,
}

impl ShardClass {
    /// Whether it is that of the shards the cluster was founded with.
    #[must_use]
    pub fn is_ordinary(&self) -> bool {
        *self == Self::default()
    }
}
