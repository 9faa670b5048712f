//! `kubectl millrace status`: what the operator says of a cluster, and what the brokers hold.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use millrace::{Failure, Talk, table, tell};
use millrace_crds::{BrokerClusterStatus, NodeStatus};

use crate::place::Cluster;

/// Shows it. Without a broker that answers, queues and topics are left out with the reason.
pub(crate) async fn run(cluster: &Cluster) -> Result<(), Failure> {
    let title = format!("{}/{}", cluster.namespace, cluster.name());
    let status = cluster.object.status.clone().unwrap_or_default();
    print!("{}", text(&title, cluster.object.spec.replicas, &status));
    println!();
    if let Err(failure) = cluster.talk(Talk::list()).await {
        tell(format_args!("queues and topics are not shown: {failure}"));
    }
    Ok(())
}

fn text(title: &str, wanted: i32, status: &BrokerClusterStatus) -> String {
    let mut lines = vec![format!(
        "{title}: {} of {wanted} brokers ready, version {}",
        status.ready_replicas, status.version
    )];
    if let Some(operation) = &status.operation {
        let pod = operation.pod.as_deref().unwrap_or("<none>");
        let why = operation.message.as_deref().unwrap_or_default();
        let since = operation.started_at.0;
        let kind = &operation.type_;
        lines.push(format!("{kind} {pod} since {since}: {why}"));
    }
    if let Some(topology) = &status.topology {
        let (sent, applied) = (topology.revision, topology.applied_revision);
        lines.push(match applied >= sent {
            true => format!("topology: revision {sent}, applied"),
            false => format!("topology: revision {sent} is on its way, {applied} is applied"),
        });
    }
    let conditions = status.conditions.iter().map(condition_row);
    let nodes: Vec<_> = status.nodes.iter().map(node_row).collect();
    let mut text = lines.join("\n");
    text.push_str("\n\n");
    text.push_str(&table(
        &["CONDITION", "STATUS", "REASON", "MESSAGE"],
        &conditions.collect::<Vec<_>>(),
    ));
    if !nodes.is_empty() {
        const HEAD: [&str; 7] = [
            "POD", "NODE", "STATE", "LEADS", "VOTES", "LEARNS", "VERSION",
        ];
        text.push('\n');
        text.push_str(&table(&HEAD, &nodes));
    }
    text
}

fn condition_row(condition: &Condition) -> Vec<String> {
    let Condition {
        type_,
        status,
        reason,
        message,
        ..
    } = condition;
    [type_, status, reason, message].map(Clone::clone).to_vec()
}

fn node_row(node: &NodeStatus) -> Vec<String> {
    let unknown = || "<unknown>".to_owned();
    let count = |count: Option<i32>| count.map_or_else(unknown, |count| count.to_string());
    vec![
        node.pod.clone(),
        node.node_id.clone().unwrap_or_else(unknown),
        node.state.clone(),
        count(node.leads),
        count(node.votes),
        count(node.learns),
        node.version.clone().unwrap_or_else(unknown),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_says_who_is_missing_and_what_is_on_its_way() {
        let status: BrokerClusterStatus = serde_json::from_str(
            r#"{
                "readyReplicas": 2, "replicas": 3, "version": "0.1.0",
                "topology": {"revision": 7, "appliedRevision": 6},
                "operation": {
                    "type": "RestartPod", "pod": "main-1", "message": "the image has changed",
                    "startedAt": "2026-01-31T09:30:00Z"
                },
                "conditions": [{
                    "type": "Ready", "status": "True", "reason": "MajorityServes",
                    "message": "2 of 3", "lastTransitionTime": "2026-01-31T09:30:00Z"
                }],
                "nodes": [
                    {"pod": "main-0", "nodeID": "00aa", "ready": true, "state": "Serving",
                     "leads": 3, "votes": 5, "learns": 0, "version": "0.1.0"},
                    {"pod": "main-1", "ready": false, "state": "Missing"}
                ]
            }"#,
        )
        .unwrap();
        assert_eq!(
            text("shop/main", 3, &status),
            "\
shop/main: 2 of 3 brokers ready, version 0.1.0
RestartPod main-1 since 2026-01-31T09:30:00Z: the image has changed
topology: revision 7 is on its way, 6 is applied

CONDITION   STATUS   REASON           MESSAGE
Ready       True     MajorityServes   2 of 3

POD      NODE        STATE     LEADS       VOTES       LEARNS      VERSION
main-0   00aa        Serving   3           5           0           0.1.0
main-1   <unknown>   Missing   <unknown>   <unknown>   <unknown>   <unknown>
"
        );
    }
}
