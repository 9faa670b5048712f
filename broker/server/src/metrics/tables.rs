//! Every metric that is one number or one histogram: names, help texts, and where the values come
//! from.

use millrace_engine::outcome::QueueStats;
use millrace_node::{Role, ShardFacts, Stats, TimesSeen, TopicFacts};
use millrace_peers::{LaneStatus, PeerStatus};

use super::peers::is_up;

/// One metric: its name without prefix, its help text, and where its value comes from. `None`
/// leaves the series out.
pub(super) struct Metric<T> {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) kind: Kind,
    pub(super) value: fn(&T) -> Option<f64>,
}

/// How a metric moves.
#[derive(Clone, Copy)]
pub(super) enum Kind {
    /// Up; its name gets `_total`.
    Counter,
    /// Up and down.
    Gauge,
}

const fn counter<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        help,
        kind: Kind::Counter,
        value,
    }
}

const fn gauge<T>(
    name: &'static str,
    help: &'static str,
    value: fn(&T) -> Option<f64>,
) -> Metric<T> {
    Metric {
        name,
        help,
        kind: Kind::Gauge,
        value,
    }
}

/// Of the node as a whole; a counter's name gets `_total`.
pub(super) const NODE: [Metric<Stats>; 17] = [
    counter(
        "published_messages",
        "Messages in acknowledged batches",
        |s| count(s.published_messages),
    ),
    counter("published_bytes", "Their bytes", |s| {
        count(s.published_bytes)
    }),
    counter("delivered_messages", "Messages handed to consumers", |s| {
        count(s.delivered_messages)
    }),
    counter("settled_messages", "Leases ended by a settlement", |s| {
        count(s.settled_messages)
    }),
    counter(
        "transferred_messages",
        "Messages bindings moved from topics to queues",
        |s| count(s.transferred_messages),
    ),
    counter(
        "dead_lettered_messages",
        "Messages that reached a dead-letter queue",
        |s| count(s.dead_lettered_messages),
    ),
    counter(
        "missed_messages",
        "Messages trimmed before a binding looked at them",
        |s| count(s.missed_messages),
    ),
    gauge(
        "waiting_receives",
        "Receive calls that wait for a message",
        |s| count(s.waiting_receives),
    ),
    counter("journal_fsyncs", "Synced batches of the journal", |s| {
        count(s.journal.fsyncs)
    }),
    counter("journal_records", "Records in them", |s| {
        count(s.journal.records)
    }),
    counter("journal_bytes", "Bytes in them", |s| count(s.journal.bytes)),
    gauge(
        "journal_live_bytes",
        "Journal bytes no checkpoint covers yet",
        |s| count(s.journal.live_bytes),
    ),
    gauge(
        "journal_last_sync_seconds",
        "How long the last sync took",
        |s| Some(s.journal.last_sync.as_secs_f64()),
    ),
    gauge(
        "journal_longest_sync_seconds",
        "How long the longest sync took",
        |s| Some(s.journal.syncs.longest.as_secs_f64()),
    ),
    gauge(
        "worker_longest_turn_seconds",
        "Longest time a worker's shards did nothing else: what a client of them may have waited",
        |s| Some(s.worker_turns.longest.as_secs_f64()),
    ),
    gauge(
        "disk_free_bytes",
        "Free space of the data directory's file system",
        |s| count(s.disk_free_bytes),
    ),
    gauge(
        "disk_reserve_bytes",
        "Publishes are refused when less is free",
        |s| count(s.disk_reserve_bytes),
    ),
];

/// Of each shard, labelled `shard`.
pub(super) const SHARD: [Metric<ShardFacts>; 12] = [
    gauge(
        "shard_serving",
        "1 while the shard serves, 0 otherwise",
        |s| Some(if s.unavailable.is_none() { 1.0 } else { 0.0 }),
    ),
    gauge(
        "shard_leads",
        "1 while this node leads the shard, 0 otherwise",
        |s| s.role.map(|role| f64::from(u8::from(role == Role::Leader))),
    ),
    gauge("shard_term", "Term of its consensus", |s| {
        count(s.term.get())
    }),
    gauge("shard_last_index", "Last entry of this node's log", |s| {
        count(s.last.get())
    }),
    gauge(
        "shard_committed_index",
        "Last entry that is known to be committed",
        |s| count(s.committed.get()),
    ),
    gauge("shard_applied_index", "Last entry applied", |s| {
        count(s.applied.get())
    }),
    gauge(
        "shard_checkpoint_index",
        "Last entry a checkpoint covers",
        |s| count(s.checkpoint.get()),
    ),
    gauge(
        "shard_in_flight_entries",
        "Entries on their way to the disk",
        |s| count(s.in_flight_entries),
    ),
    gauge("shard_in_flight_bytes", "Their bytes", |s| {
        count(s.in_flight_bytes)
    }),
    gauge("shard_resident_bytes", "Message bodies in memory", |s| {
        count(s.resident_bytes)
    }),
    gauge(
        "shard_segment_bytes",
        "Message bodies in segments on disk",
        |s| count(s.segment_bytes),
    ),
    gauge("shard_sessions", "Attached consumers", |s| {
        count(s.sessions)
    }),
];

/// Of each other node, labelled `node`.
pub(super) const PEER: [Metric<PeerStatus>; 1] = [gauge(
    "peer_round_trip_seconds",
    "What the last ping took, or has taken by now",
    |p| p.round_trip.map(|took| took.as_secs_f64()),
)];

/// Of each lane to another node, labelled `node` and `lane`: votes, appends or snapshots.
pub(super) const LANE: [Metric<LaneStatus>; 8] = [
    gauge(
        "peer_connected",
        "1 while the lane to the node is connected, 0 otherwise",
        is_up,
    ),
    gauge("peer_queued_messages", "Messages that wait for it", |l| {
        count(l.queued_messages as u64)
    }),
    gauge("peer_queued_bytes", "Their bytes", |l| {
        count(l.queued_bytes as u64)
    }),
    counter(
        "peer_sent_messages",
        "Messages handed to the network",
        |l| count(l.sent_messages),
    ),
    counter("peer_sent_bytes", "Their bytes", |l| count(l.sent_bytes)),
    counter(
        "peer_dropped_messages",
        "Messages dropped: no connection, a full queue, too large",
        |l| count(l.dropped_messages),
    ),
    counter(
        "peer_received_messages",
        "Messages that the node sent here",
        |l| count(l.incoming.received_messages),
    ),
    counter("peer_received_bytes", "Their bytes", |l| {
        count(l.incoming.received_bytes)
    }),
];

/// Of each queue, labelled `namespace`, `name` and `part` (`queue`, or `dead` for its implicit
/// dead-letter queue).
pub(super) const QUEUE: [Metric<QueueStats>; 7] = [
    gauge(
        "queue_ready_messages",
        "Messages that may be delivered now",
        |q| count(q.ready),
    ),
    gauge(
        "queue_in_flight_messages",
        "Messages leased to consumers",
        |q| count(q.in_flight),
    ),
    gauge(
        "queue_delayed_messages",
        "Messages that wait for their backoff",
        |q| count(q.delayed),
    ),
    gauge(
        "queue_dying_messages",
        "Messages on their way to a dead-letter queue",
        |q| count(q.dying),
    ),
    gauge("queue_bytes", "Bytes of all messages not settled", |q| {
        count(q.bytes)
    }),
    gauge(
        "queue_oldest_timestamp_seconds",
        "When the oldest unsettled message came",
        |q| {
            q.oldest
                .and_then(|wall| count(wall.as_millis()))
                .map(|millis| millis / 1e3)
        },
    ),
    gauge("queue_consumers", "Open sessions", |q| {
        count(q.consumers.into())
    }),
];

/// Of each topic, labelled `namespace` and `name`.
pub(super) const TOPIC: [Metric<TopicFacts>; 3] = [
    gauge("topic_partitions", "Partitions", |t| {
        count(t.partitions.into())
    }),
    gauge("topic_messages", "Messages kept", |t| count(t.messages)),
    gauge("topic_bytes", "Their bytes", |t| count(t.bytes)),
];

/// A number as metrics have it: exact up to 2^53, which nothing here reaches.
#[expect(
    clippy::unnecessary_wraps,
    reason = "the shape that tables of values want"
)]
#[expect(clippy::cast_precision_loss, reason = "see above")]
pub(super) const fn count(number: u64) -> Option<f64> {
    Some(number as f64)
}

/// Of the node, each a histogram.
pub(super) const TIMES: [Times; 3] = [
    Times {
        name: "journal_sync_seconds",
        help: "How long syncs of the journal took",
        value: |s| &s.journal.syncs,
    },
    Times {
        name: "worker_turn_seconds",
        help: "What workers did without looking at their inbox",
        value: |s| &s.worker_turns,
    },
    Times {
        name: "checkpoint_seconds",
        help: "Checkpoints made, from the snapshot to the release of the journal",
        value: |s| &s.checkpoints,
    },
];

/// One histogram of durations.
pub(super) struct Times {
    pub(super) name: &'static str,
    pub(super) help: &'static str,
    pub(super) value: fn(&Stats) -> &TimesSeen,
}
