//! Queue: shares work among consumers, with leases, retries and dead letters.
#![expect(
    unreachable_pub,
    reason = "the derive repeats the types inside functions"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::rules::{at_least, at_most, between, bytes_from, unchangeable};
use crate::status::{conditions, not_reconciled, unknown};
use crate::topic::one_mebibyte;
use crate::{ClusterRef, Dedup, DeletionPolicy, QueueRef, Size, Span, TopicRef};

/// Words between dots; a wildcard is a word of its own. At most 32 words bound the work of a match,
/// 255 bytes are what a subject may have.
const SUBJECT_RULE: &str = "self.matches('^([^.*#]+|[*]|#)([.]([^.*#]+|[*]|#)){0,31}$') && \
     size(bytes(self)) <= 255";
const SUBJECT_MESSAGE: &str = "must be at most 32 words separated by dots, 255 bytes in all, each \
     word being `*`, `#`, or free of both";

/// What is asked for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "Queue",
    plural = "queues",
    namespaced,
    doc = "A backlog of messages, each of which one consumer handles.",
    status = "QueueStatus",
    derive = "PartialEq",
    shortname = "brq",
    category = "millrace",
    printcolumn(name = "Cluster", type_ = "string", json_path = ".status.cluster"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].status"#
    ),
    printcolumn(
        name = "Status",
        type_ = "string",
        json_path = r#".status.conditions[?(@.type=="Ready")].reason"#
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    validation = Rule::new(
        "!has(self.spec.deadLetter.queueRef) || \
         self.spec.deadLetter.queueRef.name != self.metadata.name"
    )
    .message("a queue cannot be its own dead-letter queue")
    .field_path(".spec.deadLetter.queueRef.name")
)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = unchangeable("clusterRef"))]
#[x_kube(validation = unchangeable("replication"))]
pub struct QueueSpec {
    /// The BrokerCluster that holds the queue. Default: the only one in the namespace. Cannot be
    /// changed, added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_ref: Option<ClusterRef>,
    /// Topics whose messages are copied into the queue, from the earliest that a topic still keeps.
    /// At most 32. A message that matches several bindings to one topic arrives once.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 32))]
    pub bindings: Vec<Binding>,
    /// How messages are handed out and handed out again.
    #[serde(default)]
    pub delivery: Delivery,
    /// Where messages go that failed too often or were rejected.
    #[serde(default)]
    pub dead_letter: DeadLetter,
    /// What the queue accepts; beyond it, publishing is refused and bindings wait.
    #[serde(default)]
    pub limits: QueueLimits,
    /// How a publish that is tried again is told from another one.
    #[serde(default)]
    pub dedup: Dedup,
    /// How many brokers keep each message, as far as there are so many. 1 to 5. Default: as the
    /// cluster has it. Cannot be changed, added or removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 5))]
    pub replication: Option<u32>,
    /// What becomes of the messages when the Queue is deleted. Default: Orphan.
    #[serde(default)]
    pub deletion_policy: DeletionPolicy,
}

/// A claim on a topic's messages: those whose subject and headers match are copied.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Binding {
    /// Which topic. It may be created later.
    pub topic: TopicRef,
    /// Subject pattern: words separated by dots; `*` is any one word, `#` any number of words, also
    /// none. At most 255 characters, default `#`: every message.
    #[serde(default = "every_subject")]
    #[schemars(length(min = 1, max = 255))]
    #[x_kube(validation = Rule::new(SUBJECT_RULE).message(SUBJECT_MESSAGE))]
    pub subject: String,
    /// Conditions on the message's headers. At most 16. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub headers: Vec<HeaderMatch>,
    /// Whether all of `headers` must hold, or any one of them. Default: All.
    #[serde(default, rename = "match")]
    pub match_: Match,
}

/// A condition on a header.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct HeaderMatch {
    /// Name of the header, 1 to 128 characters.
    #[schemars(length(min = 1, max = 128))]
    #[x_kube(validation = Rule::new("size(bytes(self)) <= 128").message("at most 128 bytes"))]
    pub name: String,
    /// Its value as text, at most 255 characters. Default: the header only has to be there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub value: Option<String>,
}

/// How many header conditions must hold.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Match {
    /// Every one.
    #[default]
    All,
    /// At least one.
    Any,
}

/// How messages are handed out.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Delivery {
    /// How long a consumer has for a message before it is handed out again, as a duration. 1s to
    /// 12h, default 30s.
    #[serde(default = "ack_deadline")]
    #[x_kube(validation = between("1s", "12h"))]
    pub ack_deadline: Span,
    /// Messages handed out and not yet settled, over all consumers. 1 to 100000, default 1000.
    #[serde(default = "max_in_flight")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_in_flight: u32,
    /// Failed deliveries after which a message is a dead letter. 1 to 1000, default 20: with the
    /// default backoff a message survives an outage of its consumers of an hour.
    #[serde(default = "max_deliveries")]
    #[schemars(range(min = 1, max = 1000))]
    pub max_deliveries: u32,
    /// How long a failed message waits.
    #[serde(default)]
    pub backoff: Backoff,
}

/// How long a failed message waits before it is handed out again.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("duration(self.initial) <= duration(self.max)")
        .message("must not be below initial")
        .field_path(".max")
)]
pub struct Backoff {
    /// After the first failure, as a duration. 0s to 12h, default 1s.
    #[serde(default = "backoff_initial")]
    #[x_kube(validation = between("0s", "12h"))]
    pub initial: Span,
    /// At most, as a duration. Not below `initial`, up to 12h, default 5m.
    #[serde(default = "backoff_max")]
    #[x_kube(validation = between("0s", "12h"))]
    pub max: Span,
    /// What the wait is multiplied by after each further failure, in percent: 200 doubles it. 100
    /// to 1000, default 200.
    #[serde(default = "factor_percent")]
    #[schemars(range(min = 100, max = 1000))]
    pub factor_percent: u32,
}

/// Where dead letters go.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("!has(self.queueRef) || !has(self.limits)")
        .message("are those of the queue's own dead-letter queue; not with queueRef")
        .field_path(".limits")
)]
pub struct DeadLetter {
    /// Another queue of the same cluster; it may be created later. Default: the queue's own
    /// dead-letter queue, `queue/NAMESPACE/NAME/dead`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue_ref: Option<QueueRef>,
    /// Limits of the queue's own dead-letter queue; not with `queueRef`. While it is full, dead
    /// letters wait in the queue they died in.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limits: Option<DeadLetterLimits>,
}

/// Limits of an implicit dead-letter queue.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DeadLetterLimits {
    /// Messages kept. At least 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_messages: Option<i64>,
    /// Their bytes, as a quantity. At least 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = bytes_from("1"))]
    pub max_bytes: Option<Size>,
}

/// What a queue accepts.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueLimits {
    /// Messages not yet settled. At least 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub max_messages: Option<i64>,
    /// Their bytes, as a quantity. At least 1. Default: no limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = bytes_from("1"))]
    pub max_bytes: Option<Size>,
    /// Largest message, as a quantity. 1 to 16Mi, default 1Mi.
    #[serde(default = "one_mebibyte")]
    #[x_kube(validation = at_least("1"), validation = at_most("16Mi"))]
    pub max_message_bytes: Size,
}

/// What the operator last saw.
#[derive(KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct QueueStatus {
    /// `metadata.generation` that the rest of the status is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// `Ready`, with reason and message.
    #[serde(default = "not_reconciled")]
    #[schemars(schema_with = "conditions")]
    pub conditions: Vec<Condition>,
    /// `metadata.generation` that every broker works by.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub applied_generation: Option<i64>,
    /// What clients call it: `queue/NAMESPACE/NAME`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub address: Option<String>,
    /// The BrokerCluster that holds it.
    #[serde(default = "unknown")]
    #[schemars(length(max = 63))]
    pub cluster: String,
}

fn every_subject() -> String {
    "#".to_owned()
}

fn ack_deadline() -> Span {
    Span::new("30s")
}

fn max_in_flight() -> u32 {
    1000
}

fn max_deliveries() -> u32 {
    20
}

fn backoff_initial() -> Span {
    Span::new("1s")
}

fn backoff_max() -> Span {
    Span::new("5m")
}

fn factor_percent() -> u32 {
    200
}

impl Default for Delivery {
    fn default() -> Self {
        Self {
            ack_deadline: ack_deadline(),
            max_in_flight: max_in_flight(),
            max_deliveries: max_deliveries(),
            backoff: Backoff::default(),
        }
    }
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            initial: backoff_initial(),
            max: backoff_max(),
            factor_percent: factor_percent(),
        }
    }
}

impl Default for QueueLimits {
    fn default() -> Self {
        Self {
            max_messages: None,
            max_bytes: None,
            max_message_bytes: one_mebibyte(),
        }
    }
}

impl Default for QueueStatus {
    fn default() -> Self {
        Self {
            observed_generation: None,
            conditions: not_reconciled(),
            applied_generation: None,
            address: None,
            cluster: unknown(),
        }
    }
}
