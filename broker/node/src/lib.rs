//! The heart of the broker: the threads that own the shards, and the [`Broker`] handle through
//! which services reach them.
//!
//! Promises: nothing is acknowledged before the `fdatasync` that covers it returned; commands of a
//! shard are applied in the order of their indexes; every wait has an end or a limit. Does not
//! speak any protocol: that is `services`.

mod api;
mod bodies;
mod broker;
mod calls;
mod checkpoint_plan;
mod clock;
mod configuring;
mod connection;
mod consumer;
mod data_shard;
mod facts;
mod figures;
#[cfg(feature = "test-util")]
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod host;
mod inbox;
mod inlet;
mod input;
mod leaders;
mod loading;
mod log_facts;
mod logs;
mod message;
mod metadata_shard;
mod neighbours;
mod network;
mod node;
mod options;
mod outbound;
mod partition;
mod placement;
mod pumps;
mod reading;
mod records;
mod recovery;
mod reply;
mod retention;
mod settle;
mod shard_log;
mod shard_state;
mod shortages;
mod slot;
mod snapshots;
mod start;
mod tag;
mod turn;
mod view;
mod waiters;
mod worker;

#[cfg(test)]
mod tests;

pub use api::{
    Acknowledge, Acknowledged, Batch, Credit, Delivered, OpenConsumer, Peek, PeekAnswer, Peeked,
    PeekedState, Position, PublishOptions, Read, ReadAnswer, Receive, Record, Resume, SettleTag,
    Taken,
};
pub use broker::{
    Broker, Failure, Map, MapChanges, NodeFacts, NodeState, Peer, PublishFuture, Registered,
    Registration, Route, TopologyDelta,
};
pub use consumer::{Consumer, ConsumerEvent, ConsumerEvents, SettleResults};
pub use facts::{
    Admission, BindingFacts, ConsumerFacts, Description, JournalFacts, List, Listed, Metadata,
    ObjectState, PartitionFacts, Problem, QueueFacts, QueueStats, ShardFacts, Stats, Summary,
    SummaryKind, TopicFacts,
};
pub use host::{Host, Join, SystemHost};
/// How nodes and shards are.
pub use millrace_engine::catalogue::{Hosting, Leading};
/// What nodes tell each other.
pub use millrace_replica::{Lane, Role, ShardMessage};
/// What figures are made of.
pub use millrace_storage::{Area, Cluster, Times, TimesSeen};
pub use network::{Alone, Network, Unreachable};
pub use options::{
    ANSWER_WAIT_MAX, Advertised, MESSAGES_MAX, NodeOptions, PUBLISH_WAIT_MAX, StartError, WAIT_MAX,
};
pub use partition::partition_for;
pub use placement::standing::{Blocker, BlockerReason, MemberStanding, ShardStanding};
pub use view::{CatalogueView, Object, ObjectKind};
