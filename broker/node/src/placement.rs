//! Where replicas belong and how they get there: `plan` decides for the whole cluster on the
//! metadata shard's leader, `steer` for one shard on its leader. Both are pure.

pub(super) mod plan;
pub(super) mod steer;
#[cfg(test)]
mod tests;
