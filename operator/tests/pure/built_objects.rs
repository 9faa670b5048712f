//! Golden files of every object the operator builds for a cluster. A difference in a StatefulSet's
//! pod template restarts every broker when the operator is upgraded, so it has to be meant.
//!
//! `MILLRACE_WRITE_GOLDEN=1 cargo test -p millrace-operator` writes the files anew.

use millrace_operator::cluster::build::{self, Token};
use millrace_operator::cluster::desired::Desired;

use crate::support::{claimless, cluster, golden, validated, with_spec, yaml};

fn manifests(desired: &Desired) -> String {
    let token = Token::from_random([7; Token::BYTES]);
    let secret = build::control_secret(desired, &token);
    let objects = build::objects(desired)
        .into_iter()
        .map(|object| object.body);
    let secret = serde_json::to_value(secret).unwrap();
    std::iter::once(secret)
        .chain(objects)
        .map(|body| yaml(&body))
        .collect::<Vec<_>>()
        .join("---\n")
}

#[test]
fn a_cluster_of_defaults_is_built_as_in_its_golden_file() {
    let desired = validated(&cluster(), claimless());

    golden("cluster-defaults.yaml", &manifests(&desired));
}

#[test]
fn a_cluster_with_every_field_set_is_built_as_in_its_golden_file() {
    let cluster = with_spec(serde_json::json!({
        "replicas": 3,
        "image": "registry.example/millrace@sha256:abc",
        "imagePullPolicy": "Always",
        "imagePullSecrets": [{ "name": "registry" }],
        "storage": { "size": "1.5Gi", "storageClassName": "fast" },
        "resources": {
            "requests": { "cpu": "500m", "memory": "256Mi" },
            "limits": { "cpu": 2, "memory": "1Gi" },
        },
        "config": { "shards": 8 },
        "scheduling": {
            "nodeSelector": { "disk": "nvme" },
            "tolerations": [
                { "key": "brokers", "value": "only", "effect": "NoSchedule" },
                { "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 30 },
            ],
            "priorityClassName": "important",
            "spread": "Required",
        },
        "pod": {
            "labels": { "team": "shop", "millrace.dev/cluster": "forged" },
            "annotations": { "note": "kept" },
        },
        "shutdown": { "drainTimeout": "30s" },
    }));
    let desired = validated(&cluster, claimless());

    golden("cluster-every-field.yaml", &manifests(&desired));
}
