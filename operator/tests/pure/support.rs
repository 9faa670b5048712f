//! Builders of inputs, and the comparison with golden files.

use std::path::PathBuf;

use millrace_crds::BrokerCluster;
use millrace_operator::cluster::build;
use millrace_operator::cluster::desired::{ClusterId, Desired};
use millrace_operator::cluster::facts::{
    Claim, Leader, Node, Observed, Pod, References, Said, Shard, TokenState, View,
};
use millrace_operator::cluster::object::Kind;
use millrace_operator::cluster::plan::{Plan, Record, Step};
use millrace_operator::cluster::validate::{Invalid, validate};
use serde_json::{Value, json};

pub(crate) const UID: &str = "11111111-2222-3333-4444-555555555555";
pub(crate) const FRESH_ID: &str = "fresh0fresh0";
pub(crate) const DEFAULT_IMAGE: &str = "docker.io/millrace/millrace:0.1.0";

/// A BrokerCluster `shop/orders` with nothing in its spec.
pub(crate) fn cluster() -> BrokerCluster {
    with_spec(json!({}))
}

/// A BrokerCluster `shop/orders` with this spec.
pub(crate) fn with_spec(spec: Value) -> BrokerCluster {
    let object = json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "BrokerCluster",
        "metadata": { "namespace": "shop", "name": "orders", "uid": UID, "generation": 1 },
        "spec": spec,
    });
    serde_json::from_value(object).unwrap()
}

/// Nothing is there yet.
pub(crate) fn claimless() -> References {
    References {
        claims: Vec::new(),
        stateful_set_id: None,
        fresh_id: ClusterId::parse(FRESH_ID).unwrap(),
        default_image: DEFAULT_IMAGE.to_owned(),
    }
}

/// The claim of the first pod, of no node yet.
pub(crate) fn claim(id: Option<&str>) -> Claim {
    Claim {
        name: "data-orders-0".to_owned(),
        ordinal: 0,
        cluster_id: id.map(str::to_owned),
        node_id: None,
        leaving: false,
    }
}

/// The claim of a pod whose node belongs to a cluster.
pub(crate) fn claim_of(ordinal: u32, cluster_id: &str) -> Claim {
    Claim {
        name: format!("data-orders-{ordinal}"),
        ordinal,
        cluster_id: Some(cluster_id.to_owned()),
        node_id: Some(node(ordinal)),
        leaving: false,
    }
}

/// The node whose disk a pod has.
pub(crate) fn node(ordinal: u32) -> String {
    format!("node-{ordinal}")
}

pub(crate) fn validated(cluster: &BrokerCluster, references: References) -> Desired {
    try_validated(cluster, references).unwrap()
}

pub(crate) fn try_validated(
    cluster: &BrokerCluster,
    references: References,
) -> Result<Desired, Invalid> {
    validate(cluster, references)
}

/// What is there when all of `desired` is.
pub(crate) fn converged(desired: &Desired) -> Observed {
    let objects = build::objects(desired).into_iter().map(|object| {
        let mut body = object.body;
        if object.kind == Kind::StatefulSet {
            body["metadata"]["generation"] = json!(3);
            body["status"] = json!({ "observedGeneration": 3 });
        }
        ((object.kind, object.name), body)
    });
    let id = desired.cluster_id.as_str();
    let status = millrace_crds::BrokerClusterStatus {
        cluster_id: Some(id.to_owned()),
        image: Some(desired.image.name.clone()),
        ..Default::default()
    };
    let hash = build::template_hash(desired);
    let ordinals = 0..desired.replicas;
    let brokers = ordinals
        .clone()
        .map(|ordinal| (desired.key.pod(ordinal), member(ordinal, id)));
    // As the brokers' own planner has it.
    let metadata = [1, 1, 3, 3, 5, 5, 5, 5, 5][desired.replicas as usize - 1];
    let shard = |number: u32| {
        let voters = match number {
            0 => metadata,
            _ => desired.replicas.min(desired.replication),
        };
        Shard {
            leader: Leader::Node(node(0)),
            voters,
            copies: voters,
            is_changing: false,
        }
    };
    let nodes = ordinals.clone().map(|ordinal| {
        let seen = Node {
            version: "0.1.0".to_owned(),
            votes: 5,
            leads: u32::from(ordinal == 0) * 5,
            ..Node::default()
        };
        (node(ordinal), seen)
    });
    Observed {
        objects: objects.collect(),
        token: TokenState::Present,
        pods: ordinals
            .clone()
            .map(|ordinal| pod_of(ordinal, &hash))
            .collect(),
        claims: ordinals.map(|ordinal| claim_of(ordinal, id)).collect(),
        brokers: brokers.collect(),
        view: Some(View {
            nodes: nodes.collect(),
            shards: (0..5).map(|number| (number, shard(number))).collect(),
        }),
        answer: None,
        asked: None,
        status: Some(status),
    }
}

/// A broker that belongs to a cluster.
pub(crate) fn member(ordinal: u32, cluster_id: &str) -> Said {
    Said::Member {
        node_id: node(ordinal),
        cluster_id: cluster_id.to_owned(),
    }
}

/// A broker whose disk is empty.
pub(crate) fn empty(ordinal: u32) -> Said {
    Said::Empty {
        node_id: node(ordinal),
    }
}

/// The first pod; it serves.
pub(crate) fn pod(template_hash: &str) -> Pod {
    pod_of(0, template_hash)
}

/// A pod that serves.
pub(crate) fn pod_of(ordinal: u32, template_hash: &str) -> Pod {
    Pod {
        name: format!("orders-{ordinal}"),
        uid: "pod-uid".to_owned(),
        template_hash: Some(template_hash.to_owned()),
        image: DEFAULT_IMAGE.to_owned(),
        leaving: false,
        ready: true,
        address: None,
        trouble: None,
    }
}

pub(crate) fn yaml(value: &Value) -> String {
    serde_saphyr::to_string(value).unwrap()
}

/// Compares with the golden file, or writes it when `MILLRACE_WRITE_GOLDEN` is set.
pub(crate) fn golden(name: &str, actual: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name);
    if std::env::var_os("MILLRACE_WRITE_GOLDEN").is_some() {
        std::fs::write(&path, actual).unwrap();
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        actual == expected,
        "{name} differs; if meant, run with MILLRACE_WRITE_GOLDEN=1 and look at the diff:\n{actual}"
    );
}

/// The steps as short words, in order.
pub(crate) fn words(plan: &Plan) -> Vec<String> {
    let word = |step: &Step| match step {
        Step::Record(Record::Pin { .. }) => "pin".to_owned(),
        Step::Record(Record::Founding(_)) => "record founding".to_owned(),
        Step::Record(Record::Founded) => "record founded".to_owned(),
        Step::Record(Record::Restart { .. }) => "record restart".to_owned(),
        Step::Record(Record::Emptying { pod, .. }) => format!("record emptying {pod}"),
        Step::Record(Record::Removing { pod, .. }) => format!("record removing {pod}"),
        Step::Record(Record::Finished) => "record finished".to_owned(),
        Step::CreateToken => "token".to_owned(),
        Step::Apply(object) => format!("{} {}", object.kind.name(), object.name),
        Step::Release { claim, .. } => format!("release {claim}"),
        Step::Adopt { claim, .. } => format!("adopt {claim}"),
        Step::Bootstrap { pod, .. } => format!("bootstrap {pod}"),
        Step::Steer { act, node_id } => format!("{} {node_id}", act.verb()),
        Step::RestartPod { name, uid, .. } => format!("delete {name} {uid}"),
    };
    plan.steps.iter().map(word).collect()
}

/// What a plan without steps waits for.
pub(crate) fn waits_for(plan: &Plan) -> &'static str {
    assert_eq!(plan.steps, []);
    plan.waiting.as_ref().expect("it waits").reason
}
