//! What the engine promises, as seen through its public interface: stories, models, formats.
//! One binary, because each costs a link.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod catalogue;
mod catalogue_scale;
mod classes;
mod dead_letters;
mod dedup;
mod formats;
mod freezing;
mod leases;
mod limits;
mod model_dedup;
mod model_partition;
mod model_queue;
mod naive;
mod orphans;
mod roster;
mod sessions;
mod support;
mod topics;
mod transfers;
