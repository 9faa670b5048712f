//! Limits that hold everywhere. Those a cluster may set differently live in its configuration.

/// What this build's engine can do; a cluster uses what all of its nodes can.
pub const FEATURE_LEVEL: u32 = 1;
/// Data shards of a node unless configured: enough to keep several workers busy, few enough that
/// one fsync still gathers many commands.
pub const SHARDS_DEFAULT: u32 = 4;
/// Data shards of a node at most: every shard costs a checkpoint and a place in each journal batch.
pub const SHARDS_MAX: u32 = 256;
/// Longest cluster id: it is a label of a Kubernetes object.
pub const CLUSTER_ID_BYTES_MAX: usize = 63;
/// Nodes that found a cluster together: each has to reach each, and people list them by hand.
pub const FOUNDERS_MAX: usize = 15;
/// Voters of the metadata shard at most: more would only have to agree more often.
pub const METADATA_VOTERS_MAX: usize = 5;
/// Replicas of a data shard unless configured: one may be lost, and nothing is.
pub const REPLICATION_DEFAULT: u32 = 3;
/// Longest address of a node: a DNS name, a colon and a port.
pub const ADDRESS_BYTES_MAX: usize = 253 + 6;
/// A message, encoded. One must fit a journal batch and an HTTP/2 window several times over.
pub const MESSAGE_BYTES_MAX: u32 = 16 << 20;
/// What queues and topics accept unless they say otherwise.
pub const MESSAGE_BYTES_DEFAULT: u32 = 1 << 20;
/// Messages of one batch: bounds the work of one command.
pub const BATCH_MESSAGES_MAX: u32 = 10_000;
/// Bytes of one batch: one message of the largest size, and some room for its frame.
pub const BATCH_BYTES_MAX: u32 = MESSAGE_BYTES_MAX + 4096;
/// Message key, in bytes.
pub const KEY_BYTES_MAX: usize = 256;
/// Subject, in bytes (AMQP's routing key has the same bound).
pub const SUBJECT_BYTES_MAX: usize = 255;
/// Headers of a message.
pub const HEADERS_MAX: usize = 64;
/// Name of a header, in bytes.
pub const HEADER_NAME_BYTES_MAX: usize = 128;
/// Header conditions of one binding: each is looked for in every message of the topic.
pub const CONDITIONS_MAX: usize = 16;
/// Value of a header condition, in bytes: 255 characters of the longest kind.
pub const CONDITION_VALUE_BYTES_MAX: usize = 4 * 255;
/// Message id, correlation id, reply-to, content type, traceparent and consumer name, in bytes.
pub const TEXT_BYTES_MAX: usize = 128;
/// Note of a settlement, in bytes: a reason for people, not a stack trace.
pub const NOTE_BYTES_MAX: usize = 1024;
/// Longest delay of a settlement and longest lease.
pub const DELAY_MS_MAX: u64 = 12 * 3_600_000;
/// Shortest lease: below it a slow network alone loses leases.
pub const LEASE_MS_MIN: u64 = 1_000;
/// Deliveries in flight of one queue, over all consumers: each costs memory on every replica.
pub const IN_FLIGHT_MAX: u32 = 100_000;
/// Bindings of one queue.
pub const BINDINGS_MAX: usize = 32;
/// Partitions of one topic.
pub const PARTITIONS_MAX: u32 = 256;
/// A namespace: a DNS label, as Kubernetes has it.
pub const NAMESPACE_BYTES_MAX: usize = 63;
/// Name of a queue or topic: leaves room for names derived from it.
pub const NAME_BYTES_MAX: usize = 63;
/// How long dedup ids are known unless declared: longer than clients retry, as NATS has it.
pub const DEDUP_MS_DEFAULT: u64 = 120_000;
/// At least: a shorter time would be over before a client finds out that its call was lost.
pub const DEDUP_MS_MIN: u64 = 1_000;
/// At most: a week, as Azure Service Bus has it.
pub const DEDUP_MS_MAX: u64 = 7 * 24 * 3_600_000;
