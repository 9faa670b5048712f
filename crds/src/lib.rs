//! Kubernetes resources of Millrace, their rules, and the topology they compile to.
//!
//! The types here are the only source of the published schema (`yaml/`, written by
//! `generate-crds`).

mod amount;
mod check;
mod cluster;
mod common;
mod documents;
mod path;
mod quantity;
mod queue;
mod rules;
mod schema;
mod span;
mod status;
mod topic;
pub mod topology;

pub use amount::{Cpu, ParseSizeError, Size};
pub use check::{DEFAULT_NAMESPACE, Problem, Report, check};
pub use cluster::{
    Amounts, BrokerCluster, BrokerClusterSpec, BrokerClusterStatus, BrokerConfig, FounderStatus,
    FoundingStatus, ImagePullPolicy, NodeStatus, OperationStatus, Pod, Resources, Scheduling,
    SecretRef, Shutdown, Spread, Storage, Toleration, TolerationEffect, TolerationOperator,
    TopologyStatus,
};
pub use common::{ClusterRef, Dedup, DeletionPolicy, QueueRef, TopicRef};
pub use documents::BYTES_MAX as FILE_BYTES_MAX;
pub use quantity::Quantity;
pub use queue::{
    Backoff, Binding, DeadLetter, DeadLetterLimits, Delivery, HeaderMatch, Match, Queue,
    QueueLimits, QueueSpec, QueueStatus,
};
pub use schema::{crds, to_yaml};
pub use span::{ParseSpanError, Span};
pub use topic::{Retention, Topic, TopicLimits, TopicSpec, TopicStatus};
pub use topology::load;

/// API group of every resource.
pub const GROUP: &str = "millrace.dev";
/// The only version published so far.
pub const VERSION: &str = "v1alpha1";
