//! How many brokers there are to be when fewer are asked for than there are.

use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::Said;
use millrace_operator::cluster::plan::plan;
use millrace_operator::cluster::size::size;
use serde_json::json;

use crate::support::{claim_of, claimless, cluster, converged, empty, validated, with_spec, words};

fn of(replicas: u32) -> Desired {
    validated(&with_spec(json!({ "replicas": replicas })), claimless())
}

#[test]
fn brokers_that_hold_data_are_not_taken_away() {
    let observed = converged(&of(3));

    assert_eq!(size(&of(1), &observed), 3);
}

#[test]
fn a_smaller_number_waits_until_all_else_is_done() {
    let changed = with_spec(json!({ "replicas": 1, "image": "millrace:new" }));
    let changed = validated(&changed, claimless());

    let plan = plan(&changed, &converged(&of(3)));

    assert_eq!(words(&plan), ["pin", "StatefulSet orders"]);
}

#[test]
fn brokers_that_were_never_let_in_can_be_taken_away() {
    let mut observed = converged(&of(3));
    for ordinal in 1..3_u32 {
        observed.claims[ordinal as usize].node_id = None;
        let pod = of(3).key.pod(ordinal);
        observed.brokers.insert(pod, empty(ordinal));
    }

    assert_eq!(size(&of(1), &observed), 1);
    assert_eq!(
        words(&plan(&of(1), &observed)),
        ["PodDisruptionBudget orders", "StatefulSet orders"]
    );

    let silent = Said::Nothing("busy".to_owned());
    observed.brokers.insert(of(3).key.pod(1), silent);
    assert_eq!(size(&of(1), &observed), 2);
}

#[test]
fn a_cluster_created_again_with_fewer_brokers_gets_those_whose_claims_are_there() {
    let desired = validated(&cluster(), claimless());
    let mut observed = converged(&desired);
    let id = desired.cluster_id.as_str().to_owned();
    observed.claims = (0..3).map(|ordinal| claim_of(ordinal, &id)).collect();
    assert_eq!(size(&desired, &observed), 3);

    let theirs = (0..3).map(|ordinal| claim_of(ordinal, "theirs"));
    observed.claims = theirs.collect();
    assert_eq!(size(&desired, &observed), 1);
}
