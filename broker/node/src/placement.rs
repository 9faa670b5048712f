//! Where replicas belong and how they get there: `plan` decides for the whole cluster on the
//! metadata shard's leader, `steer` for one shard on its leader; both are pure. `steering` carries
//! out the latter, `registering` tells the catalogue of this node, `learning` asks others for it
//! while there is none here, `standing` says how shards are.

pub(super) mod learning;
pub(super) mod plan;
pub(super) mod registering;
pub(super) mod standing;
pub(super) mod steer;
pub(super) mod steering;
#[cfg(test)]
mod tests;
