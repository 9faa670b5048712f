//! BrokerCluster: the brokers that hold queues and topics.
#![expect(
    unreachable_pub,
    clippy::duplicated_attributes,
    reason = "the derive repeats the types inside functions; columns are not duplicates"
)]

use std::collections::BTreeMap;

use kube::core::Rule;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use crate::rules::{at_least, between, bytes_from, same, unchangeable};
use crate::{Cpu, Size, Span};

mod status;

pub use status::{
    BrokerClusterStatus, FounderStatus, FoundingStatus, NodeStatus, OperationStatus, TopologyStatus,
};

/// With tag or digest: an image without is `latest`, which changes behind one's back.
const IMAGE_RULE: &str = "self.matches('^[a-z0-9][a-zA-Z0-9._:/-]*\
     (:[a-zA-Z0-9_][a-zA-Z0-9_.-]{0,127}|@sha256:[a-f0-9]{64})$')";
/// Name of a Secret, StorageClass or PriorityClass.
const SUBDOMAIN_PATTERN: &str =
    r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$";
/// Key of a taint.
const QUALIFIED_PATTERN: &str =
    r"^([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$";
/// As Kubernetes has it.
const LABEL_VALUE_BYTES_MAX: u32 = 63;
/// Annotations of ours are notes, not documents; Kubernetes takes 256 KiB for all of them.
const ANNOTATION_BYTES_MAX: u32 = 4096;
/// Value of a label or taint.
const LABEL_VALUE_PATTERN: &str = "^([A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?)?$";

/// What is asked for.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Serialize, Deserialize)]
#[kube(
    group = "millrace.dev",
    version = "v1alpha1",
    kind = "BrokerCluster",
    plural = "brokerclusters",
    namespaced,
    doc = "A cluster of brokers with their disks.",
    status = "BrokerClusterStatus",
    derive = "PartialEq",
    shortname = "brc",
    category = "millrace",
    scale(
        spec_replicas_path = ".spec.replicas",
        status_replicas_path = ".status.replicas",
        label_selector_path = ".status.selector"
    ),
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
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.readyReplicas"),
    printcolumn(name = "Of", type_ = "integer", json_path = ".spec.replicas"),
    printcolumn(name = "Version", type_ = "string", json_path = ".status.version"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct BrokerClusterSpec {
    /// Broker pods, 1 to 9, default 1. Three survive the loss of one, five of two; an even number
    /// survives no more than the odd one below it. Can be raised and lowered at any time.
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 9))]
    pub replicas: i32,
    /// Image of the brokers, with tag or digest. Default: the operator's own, pinned in
    /// `status.image` when the cluster is created.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 512))]
    #[x_kube(
        validation = Rule::new(IMAGE_RULE)
            .message("must be REPOSITORY:TAG or REPOSITORY@sha256:DIGEST")
    )]
    pub image: Option<String>,
    /// When the image is pulled. Default: IfNotPresent.
    #[serde(default)]
    pub image_pull_policy: ImagePullPolicy,
    /// Secrets for the image's registry, in the cluster's namespace. At most 8.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), extend(
        "x-kubernetes-list-type" = "map",
        "x-kubernetes-list-map-keys" = ["name"]
    ))]
    pub image_pull_secrets: Vec<SecretRef>,
    /// The disk of each broker.
    #[serde(default)]
    pub storage: Storage,
    /// Processor and memory of each broker. Default: nothing requested, nothing limited.
    #[serde(default)]
    pub resources: Resources,
    /// The broker's own settings.
    #[serde(default)]
    pub config: BrokerConfig,
    /// Where the pods may run.
    #[serde(default)]
    pub scheduling: Scheduling,
    /// Added to the pods.
    #[serde(default)]
    pub pod: Pod,
    /// How a broker stops.
    #[serde(default)]
    pub shutdown: Shutdown,
}

/// When an image is pulled.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ImagePullPolicy {
    /// When the node does not have it.
    #[default]
    IfNotPresent,
    /// At every start.
    Always,
    /// Not at all: the node must have it.
    Never,
}

/// A Secret in the cluster's namespace.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretRef {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub name: String,
}

/// The disk of a broker.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = unchangeable("storageClassName"))]
pub struct Storage {
    /// Size of the volume, as a quantity. At least 1Gi, default 10Gi. Cannot be changed yet.
    #[serde(default = "storage_size")]
    #[x_kube(
        validation = bytes_from("1Gi"),
        validation = Rule::new(
            "quantity(string(self)).compareTo(quantity(string(oldSelf))) == 0"
        )
        .message("the size of the disks cannot be changed yet")
    )]
    pub size: Size,
    /// StorageClass of the volume. Default: the Kubernetes cluster's. Cannot be changed, added or
    /// removed later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub storage_class_name: Option<String>,
}

/// Processor and memory of a broker.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(validation = covered("cpu"), validation = covered("memory"))]
pub struct Resources {
    /// What is set aside for it.
    #[serde(default)]
    pub requests: Amounts,
    /// What it cannot exceed.
    #[serde(default)]
    pub limits: Amounts,
}

/// Amounts of processor and memory.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Amounts {
    /// Processors, as a quantity (`500m`, `2`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = at_least("0"))]
    pub cpu: Option<Cpu>,
    /// Memory, as a quantity (`512Mi`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[x_kube(validation = bytes_from("0"))]
    pub memory: Option<Size>,
}

/// Settings of the broker.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BrokerConfig {
    /// Data shards, over which queues and partitions are spread. 2 to 256, default 4. Cannot be
    /// changed.
    #[serde(default = "shards")]
    #[schemars(range(min = 2, max = 256))]
    #[x_kube(validation = same("shards"))]
    pub shards: u32,
    /// Copies of each shard, on as many brokers, as far as there are brokers. 1 to 5, default 3.
    /// Cannot be changed.
    #[serde(default = "replication")]
    #[schemars(range(min = 1, max = 5))]
    #[x_kube(validation = same("replication"))]
    pub replication: u32,
}

/// Where pods may run.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduling {
    /// Labels that a node must have. At most 16.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "selector")]
    pub node_selector: BTreeMap<String, String>,
    /// Taints that the pods tolerate. At most 16.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub tolerations: Vec<Toleration>,
    /// PriorityClass of the pods. Default: the Kubernetes cluster's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253), regex(pattern = SUBDOMAIN_PATTERN))]
    pub priority_class_name: Option<String>,
    /// Whether the pods keep apart. Default: Preferred.
    #[serde(default)]
    pub spread: Spread,
}

/// Whether the pods of a cluster keep apart.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Spread {
    /// On different nodes and in different zones, as far as there are any.
    #[default]
    Preferred,
    /// On different nodes, or a pod waits for one; in different zones as far as there are any.
    Required,
    /// Wherever there is room.
    None,
}

/// A taint that a pod tolerates, as in Kubernetes' Pod.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[x_kube(
    validation = Rule::new("has(self.key) || self.operator == 'Exists'")
        .message("must be Exists when there is no key")
        .field_path(".operator"),
    validation = Rule::new("!has(self.value) || self.operator == 'Equal'")
        .message("must be Equal when there is a value")
        .field_path(".operator"),
    validation = Rule::new(
        "!has(self.tolerationSeconds) || (has(self.effect) && self.effect == 'NoExecute')"
    )
    .message("must be NoExecute when there are tolerationSeconds")
    .field_path(".effect")
)]
pub struct Toleration {
    /// Of the taint. Default: any, with operator Exists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 316), regex(pattern = QUALIFIED_PATTERN))]
    pub key: Option<String>,
    /// How `value` is compared. Default: Equal.
    #[serde(default)]
    pub operator: TolerationOperator,
    /// Of the taint, with operator Equal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63), regex(pattern = LABEL_VALUE_PATTERN))]
    pub value: Option<String>,
    /// Of the taint. Default: any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub effect: Option<TolerationEffect>,
    /// How long a pod stays after the taint appears, with effect NoExecute. Default: for ever.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub toleration_seconds: Option<i64>,
}

/// How a toleration's value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationOperator {
    /// The taint has this value.
    #[default]
    Equal,
    /// Any value will do.
    Exists,
}

/// What a taint does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum TolerationEffect {
    /// Keeps new pods away.
    NoSchedule,
    /// Keeps new pods away where there is another place.
    PreferNoSchedule,
    /// Also removes those that run.
    NoExecute,
}

/// What is added to pods.
#[derive(KubeSchema, Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Pod {
    /// Labels, except those of the operator. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "labels")]
    pub labels: BTreeMap<String, String>,
    /// Annotations, except those of the operator. At most 32.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "annotations")]
    pub annotations: BTreeMap<String, String>,
}

/// How a broker stops.
#[derive(KubeSchema, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Shutdown {
    /// How long it may take to finish what it has begun before it is killed, as a duration. 1s to
    /// 1h, default 120s.
    #[serde(default = "drain_timeout")]
    #[x_kube(validation = between("1s", "1h"))]
    pub drain_timeout: Span,
}

/// A request that does not exceed its limit; otherwise no pod would ever be created.
fn covered(resource: &str) -> Rule {
    let limits = format!("self.limits.{resource}");
    let requests = format!("self.requests.{resource}");
    Rule::new(format!(
        "!has({limits}) || !has({requests}) || \
         quantity(string({requests})).compareTo(quantity(string({limits}))) <= 0"
    ))
    .message(format!("must not exceed limits.{resource}").as_str())
    .field_path(format!(".requests.{resource}"))
}

fn selector(_: &mut SchemaGenerator) -> Schema {
    map(16, LABEL_VALUE_BYTES_MAX, Some(LABEL_VALUE_PATTERN))
}

fn labels(_: &mut SchemaGenerator) -> Schema {
    map(32, LABEL_VALUE_BYTES_MAX, Some(LABEL_VALUE_PATTERN))
}

fn annotations(_: &mut SchemaGenerator) -> Schema {
    map(32, ANNOTATION_BYTES_MAX, None)
}

/// A map from text to text. Keys are checked by the API server when the pods are made: a schema
/// cannot bound them.
fn map(entries_max: u32, value_bytes_max: u32, pattern: Option<&str>) -> Schema {
    let mut value = json_schema!({ "type": "string", "maxLength": value_bytes_max });
    if let Some(pattern) = pattern {
        value.insert("pattern".to_owned(), pattern.into());
    }
    json_schema!({
        "type": "object",
        "additionalProperties": value,
        "maxProperties": entries_max,
    })
}

fn one() -> i32 {
    1
}

fn storage_size() -> Size {
    Size::new("10Gi")
}

fn shards() -> u32 {
    4
}

fn replication() -> u32 {
    3
}

fn drain_timeout() -> Span {
    Span::new("120s")
}

impl Default for BrokerClusterSpec {
    fn default() -> Self {
        Self {
            replicas: one(),
            image: None,
            image_pull_policy: ImagePullPolicy::default(),
            image_pull_secrets: Vec::new(),
            storage: Storage::default(),
            resources: Resources::default(),
            config: BrokerConfig::default(),
            scheduling: Scheduling::default(),
            pod: Pod::default(),
            shutdown: Shutdown::default(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            size: storage_size(),
            storage_class_name: None,
        }
    }
}

impl Default for BrokerConfig {
    fn default() -> Self {
        Self {
            shards: shards(),
            replication: replication(),
        }
    }
}

impl Default for Shutdown {
    fn default() -> Self {
        Self {
            drain_timeout: drain_timeout(),
        }
    }
}
