//! Plans: what is done, in which order, and what waits.

use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Observed, TokenState};
use millrace_operator::cluster::object::Kind;
use millrace_operator::cluster::plan::{Plan, RESTART_POD, Step, plan};
use millrace_operator::reasons;
use serde_json::json;

use crate::support::{
    DEFAULT_IMAGE, claim, claimless, cluster, converged, pod, pod_of, validated, waits_for,
    with_spec, words,
};

fn desired() -> Desired {
    validated(&cluster(), claimless())
}

#[test]
fn the_plan_of_a_converged_cluster_is_empty() {
    let desired = desired();

    assert_eq!(plan(&desired, &converged(&desired)), Plan::default());
}

#[test]
fn a_new_cluster_is_pinned_first_and_gets_its_stateful_set_last() {
    let plan = plan(&desired(), &Observed::default());

    assert_eq!(
        words(&plan),
        [
            "pin",
            "token",
            "ServiceAccount orders",
            "ConfigMap orders-config",
            "Service orders-nodes",
            "Service orders",
            "PodDisruptionBudget orders",
            "StatefulSet orders",
        ]
    );
}

#[test]
fn an_object_that_somebody_changed_or_deleted_is_applied_again() {
    let desired = desired();
    let mut observed = converged(&desired);
    let service = (Kind::Service, "orders".to_owned());
    let config = (Kind::ConfigMap, "orders-config".to_owned());
    observed.objects.get_mut(&service).unwrap()["spec"]["ports"][0]["port"] = json!(1);
    observed.objects.remove(&config);

    let plan = plan(&desired, &observed);

    assert_eq!(words(&plan), ["ConfigMap orders-config", "Service orders"]);
}

#[test]
fn a_token_is_never_made_twice() {
    let desired = desired();
    let mut observed = converged(&desired);

    observed.token = TokenState::Missing;
    assert_eq!(words(&plan(&desired, &observed)), ["token"]);

    observed.token = TokenState::Empty;
    assert_eq!(
        waits_for(&plan(&desired, &observed)),
        reasons::CONTROL_TOKEN_MISSING
    );
}

#[test]
fn a_claim_without_an_id_is_adopted_before_anything_uses_it() {
    let desired = desired();
    let observed = Observed {
        claims: vec![claim(None)],
        ..Observed::default()
    };

    assert_eq!(
        words(&plan(&desired, &observed))[..2],
        ["pin", "adopt data-orders-0"]
    );
}

#[test]
fn what_belongs_to_somebody_else_stops_everything() {
    let desired = desired();
    let theirs = json!({ "metadata": { "name": "orders" } });
    let observed = Observed {
        objects: [((Kind::Service, "orders".to_owned()), theirs)].into(),
        ..Observed::default()
    };

    let plan = plan(&desired, &observed);

    assert_eq!(waits_for(&plan), reasons::NAME_TAKEN);
    let message = plan.waiting.unwrap().message;
    assert!(message.contains("Service orders"), "{message}");
}

#[test]
fn what_a_deleted_cluster_of_the_same_name_left_is_waited_for() {
    let desired = desired();
    let of_the_deleted = json!({ "metadata": { "name": "orders", "ownerReferences": [
        { "controller": true, "kind": "BrokerCluster", "name": "orders", "uid": "older" },
    ] } });
    let objects = [((Kind::StatefulSet, "orders".to_owned()), of_the_deleted)].into();
    let leaving_claim = millrace_operator::cluster::facts::Claim {
        leaving: true,
        ..claim(Some("id"))
    };
    for observed in [
        Observed {
            objects,
            ..Observed::default()
        },
        Observed {
            token: TokenState::Leaving,
            ..Observed::default()
        },
        Observed {
            claims: vec![leaving_claim],
            ..Observed::default()
        },
    ] {
        assert_eq!(
            waits_for(&plan(&desired, &observed)),
            reasons::PREDECESSOR_LEAVING
        );
    }
}

#[test]
fn changed_settings_are_applied_first_and_restart_the_pod_afterwards() {
    let old = desired();
    let new = validated(&with_spec(json!({ "image": "millrace:new" })), claimless());
    let mut observed = converged(&old);

    let first = plan(&new, &observed);
    assert_eq!(words(&first), ["pin", "StatefulSet orders"]);

    observed.objects = converged(&new).objects;
    observed.status = converged(&new).status;
    let second = plan(&new, &observed);
    assert_eq!(
        words(&second),
        ["record restart", "delete orders-0 pod-uid"]
    );
    let Some(Step::RestartPod { message, .. }) = second.steps.last() else {
        panic!("{second:?}");
    };
    assert_eq!(
        message,
        &format!("its image changes from {DEFAULT_IMAGE} to millrace:new")
    );
}

#[test]
fn a_restart_waits_until_the_stateful_set_controller_has_seen_the_template() {
    let desired = desired();
    let mut observed = converged(&desired);
    observed.pods = vec![pod("older")];
    let set = (Kind::StatefulSet, "orders".to_owned());
    observed.objects.get_mut(&set).unwrap()["status"]["observedGeneration"] = json!(2);

    assert_eq!(waits_for(&plan(&desired, &observed)), reasons::APPLYING);
}

#[test]
fn a_recorded_restart_is_carried_on_and_a_stopping_pod_is_left_alone() {
    let desired = desired();
    let mut observed = converged(&desired);
    observed.pods = vec![pod("older")];
    let operation = json!({
        "type": RESTART_POD, "pod": "orders-0", "startedAt": "2026-01-01T00:00:00Z",
    });
    observed.status.as_mut().unwrap().operation = Some(serde_json::from_value(operation).unwrap());

    assert_eq!(
        words(&plan(&desired, &observed)),
        ["delete orders-0 pod-uid"]
    );

    observed.pods[0].leaving = true;
    assert_eq!(waits_for(&plan(&desired, &observed)), reasons::RESTARTING);
}

#[test]
fn no_plan_has_more_than_one_disruptive_step() {
    let desired = desired();
    let mut observed = converged(&desired);
    observed.pods = vec![pod("older"), pod_of(1, "oldest")];

    let plan = plan(&desired, &observed);

    let disruptive = plan
        .steps
        .iter()
        .filter(|step| matches!(step, Step::RestartPod { .. }));
    assert_eq!(disruptive.count(), 1);
}
