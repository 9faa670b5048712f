//! Builders of inputs, and the comparison with golden files.

use std::path::PathBuf;

use millrace_crds::BrokerCluster;
use millrace_operator::cluster::build;
use millrace_operator::cluster::desired::{ClusterId, Desired};
use millrace_operator::cluster::facts::{Claim, Observed, Pod, References, TokenState};
use millrace_operator::cluster::object::Kind;
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

pub(crate) fn claim(id: Option<&str>) -> Claim {
    Claim {
        name: "data-orders-0".to_owned(),
        cluster_id: id.map(str::to_owned),
        leaving: false,
    }
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
    let status = millrace_crds::BrokerClusterStatus {
        cluster_id: Some(desired.cluster_id.as_str().to_owned()),
        image: Some(desired.image.name.clone()),
        ..Default::default()
    };
    Observed {
        objects: objects.collect(),
        token: TokenState::Present,
        pods: vec![pod(&build::template_hash(desired))],
        claims: vec![claim(Some(desired.cluster_id.as_str()))],
        status: Some(status),
    }
}

/// A pod that serves.
pub(crate) fn pod(template_hash: &str) -> Pod {
    Pod {
        name: "orders-0".to_owned(),
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
