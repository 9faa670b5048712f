//! What a cluster's status says.

use k8s_openapi::jiff::Timestamp;
use millrace_crds::BrokerClusterStatus;
use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Observed, Trouble};
use millrace_operator::cluster::plan::{Plan, Record, Waiting};
use millrace_operator::cluster::status::{Inputs, Outcome, recorded, status};
use millrace_operator::condition;
use millrace_operator::reasons;
use millrace_operator::topology::report::{Answer, Broker, Held, Refused, Report};

use serde_json::json;

use crate::support::{claimless, cluster, converged, node, validated, with_spec};

fn now() -> Timestamp {
    Timestamp::from_second(1_000).unwrap()
}

fn desired() -> Desired {
    validated(&cluster(), claimless())
}

fn settled() -> Outcome {
    Outcome::done(&Plan::default())
}

/// Status and reason of a condition.
fn says<'a>(status: &'a BrokerClusterStatus, type_: &str) -> (&'a str, &'a str) {
    let condition = condition::find(&status.conditions, type_).expect("the condition is there");
    (&condition.status, &condition.reason)
}

fn of(desired: &Desired, observed: &Observed, report: Option<&Report>) -> BrokerClusterStatus {
    let previous = observed.status.clone().unwrap_or_default();
    let inputs = Inputs {
        previous: &previous,
        generation: 4,
        desired: Some(desired),
        observed: Some(observed),
        outcome: &settled(),
        report,
    };
    status(inputs, now())
}

#[test]
fn a_cluster_that_serves_is_ready_and_says_where() {
    let desired = desired();
    let report = Report {
        broker: Broker::Answered(Answer {
            version: "0.1.0".to_owned(),
            node_id: node(0),
            revision: 7,
            applied_revision: 7,
            objects: [].into(),
        }),
        serves: true,
        refused: [].into(),
        unsent: 0,
        resent_at: None,
        sent: 0,
        frozen: None,
    };

    let status = of(&desired, &converged(&desired), Some(&report));

    assert_eq!(says(&status, "Ready"), ("True", reasons::READY));
    assert_eq!(says(&status, "Progressing"), ("False", reasons::SETTLED));
    assert_eq!(says(&status, "Synced"), ("True", reasons::READY));
    assert_eq!(status.observed_generation, Some(4));
    assert_eq!(status.endpoint.as_deref(), Some("orders.shop.svc:7070"));
    assert_eq!((status.replicas, status.ready_replicas), (1, 1));
    assert_eq!(status.version, "0.1.0");
    assert_eq!(status.nodes[0].node_id, Some(node(0)));
    assert_eq!(status.topology.unwrap().applied_revision, 7);
}

#[test]
fn status_is_written_also_when_nothing_could_be_done() {
    let previous = BrokerClusterStatus::default();
    let outcome = Outcome::Failed {
        reason: reasons::INVALID,
        message: "spec.replicas: must be 1".to_owned(),
    };
    let inputs = Inputs {
        previous: &previous,
        generation: 2,
        desired: None,
        observed: None,
        outcome: &outcome,
        report: None,
    };

    let status = status(inputs, now());

    assert_eq!(says(&status, "Ready"), ("False", reasons::INVALID));
    assert_eq!(status.observed_generation, Some(2));
    assert_eq!(status.cluster_id, None);
}

#[test]
fn what_keeps_the_pod_from_serving_is_the_reason() {
    let desired = desired();
    let mut observed = converged(&desired);
    observed.pods[0].ready = false;
    assert_eq!(
        says(&of(&desired, &observed, None), "Ready"),
        ("False", reasons::STARTING)
    );

    observed.pods[0].trouble = Some(Trouble {
        reason: reasons::IMAGE_UNAVAILABLE,
        message: "no such image".to_owned(),
    });
    assert_eq!(
        says(&of(&desired, &observed, None), "Ready"),
        ("False", reasons::IMAGE_UNAVAILABLE)
    );

    observed.pods.clear();
    assert_eq!(
        says(&of(&desired, &observed, None), "Ready"),
        ("False", reasons::STARTING)
    );
}

#[test]
fn a_recorded_restart_stays_until_its_end_is_recorded() {
    let desired = desired();
    let record = Record::Restart {
        pod: "orders-0".to_owned(),
        node_id: Some(node(0)),
        message: "image changed".to_owned(),
    };
    let mut observed = converged(&desired);
    let before = recorded(observed.status.as_ref().unwrap(), &record, now());
    observed.status = Some(before.clone());

    let during = of(&desired, &observed, None);
    assert_eq!(during.operation.unwrap().node_id, Some(node(0)));

    observed.status = Some(recorded(&before, &Record::Finished, now()));
    assert_eq!(of(&desired, &observed, None).operation, None);
}

#[test]
fn a_cluster_serves_as_long_as_a_majority_does_and_says_who_is_missing() {
    let desired = validated(&with_spec(json!({ "replicas": 3 })), claimless());
    let mut observed = converged(&desired);
    let whole = of(&desired, &observed, None);
    assert_eq!(says(&whole, "Ready"), ("True", reasons::READY));
    assert_eq!(says(&whole, "Stable"), ("True", reasons::SETTLED));
    assert_eq!((whole.replicas, whole.nodes.len()), (3, 3));
    assert_eq!(whole.nodes[0].leads, Some(5));

    observed.pods[1].ready = false;
    let one_down = of(&desired, &observed, None);
    assert_eq!(says(&one_down, "Ready"), ("True", reasons::DEGRADED));
    assert_eq!(says(&one_down, "Stable"), ("False", reasons::DEGRADED));
    let ready = condition::find(&one_down.conditions, "Ready").unwrap();
    assert!(ready.message.contains("orders-1"), "{}", ready.message);

    observed.pods.remove(1);
    let gone = of(&desired, &observed, None);
    assert_eq!(says(&gone, "Ready"), ("True", reasons::DEGRADED));

    observed.pods[0].ready = false;
    let two_down = of(&desired, &observed, None);
    assert_eq!(says(&two_down, "Ready"), ("False", reasons::NO_QUORUM));
}

#[test]
fn a_node_whose_pod_is_gone_is_still_listed() {
    let desired = validated(&with_spec(json!({ "replicas": 3 })), claimless());
    let mut observed = converged(&desired);
    observed.status = Some(of(&desired, &observed, None));
    observed.pods.remove(1);
    observed.brokers.remove("orders-1");

    let status = of(&desired, &observed, None);

    let states: Vec<&str> = status
        .nodes
        .iter()
        .map(|node| node.state.as_str())
        .collect();
    assert_eq!(states, ["Serving", "Missing", "Serving"]);
    assert_eq!(status.nodes[1].node_id, Some(node(1)));
}

#[test]
fn a_cluster_that_grows_serves_and_is_not_stable_before_every_shard_has_its_copies() {
    let desired = validated(&with_spec(json!({ "replicas": 3 })), claimless());
    let mut observed = converged(&desired);
    let view = observed.view.as_mut().unwrap();
    for ordinal in 1..3 {
        view.nodes.get_mut(&node(ordinal)).unwrap().votes = 0;
    }
    view.shards.get_mut(&3).unwrap().copies = 1;
    let status = of(&desired, &observed, None);
    assert_eq!(says(&status, "Ready"), ("True", reasons::READY));
    assert_eq!(says(&status, "Stable"), ("False", reasons::REPLICATING));

    // The only one that votes is missed although two others are ready.
    observed.pods[0].ready = false;
    let status = of(&desired, &observed, None);
    assert_eq!(says(&status, "Ready").0, "False");
}

#[test]
fn a_cluster_of_any_size_is_stable_once_its_brokers_have_what_they_give_each_other() {
    for replicas in 1..=9 {
        let desired = validated(&with_spec(json!({ "replicas": replicas })), claimless());

        let status = of(&desired, &converged(&desired), None);

        let stable = says(&status, "Stable");
        assert_eq!(stable, ("True", reasons::SETTLED), "{replicas} brokers");
    }
}

#[test]
fn a_shard_whose_queues_ask_for_fewer_copies_is_whole_with_those() {
    let desired = validated(&with_spec(json!({ "replicas": 3 })), claimless());
    let mut observed = converged(&desired);
    let shards = &mut observed.view.as_mut().unwrap().shards;
    let mut own = shards[&desired.shards].clone();
    (own.voters, own.copies) = (2, 2);
    shards.insert(desired.shards + 1, own);
    let whole = of(&desired, &observed, None);
    assert_eq!(says(&whole, "Stable"), ("True", reasons::SETTLED));

    let shards = &mut observed.view.as_mut().unwrap().shards;
    shards.get_mut(&(desired.shards + 1)).unwrap().copies = 1;
    let thin = of(&desired, &observed, None);
    assert_eq!(says(&thin, "Stable"), ("False", reasons::REPLICATING));
}

#[test]
fn an_even_number_of_brokers_is_warned_of() {
    for (replicas, warned) in [(1, false), (2, true), (3, false), (4, true)] {
        let desired = validated(&with_spec(json!({ "replicas": replicas })), claimless());

        let status = of(&desired, &converged(&desired), None);

        let warning = condition::find(&status.conditions, "Warning");
        let reason = warned.then_some(reasons::EVEN_REPLICAS);
        assert_eq!(warning.map(|warning| warning.reason.as_str()), reason);
    }
}

#[test]
fn what_a_plan_waits_for_takes_nothing_away_from_brokers_that_serve() {
    let desired = desired();
    let observed = converged(&desired);
    for (reason, ready, progressing) in [
        (reasons::RESTART_BLOCKED, "True", "True"),
        (reasons::RESTART_STALLED, "True", "False"),
        (reasons::SCALING_DOWN, "True", "True"),
        (reasons::SCALE_DOWN_BLOCKED, "True", "True"),
        (reasons::FOUNDING, "False", "True"),
        (reasons::NAME_TAKEN, "False", "True"),
    ] {
        let message = "it waits".to_owned();
        let outcome = Outcome::done(&Plan {
            steps: Vec::new(),
            waiting: Some(Waiting { reason, message }),
        });
        let inputs = Inputs {
            previous: &BrokerClusterStatus::default(),
            generation: 4,
            desired: Some(&desired),
            observed: Some(&observed),
            outcome: &outcome,
            report: None,
        };

        let status = status(inputs, now());

        assert_eq!(says(&status, "Ready").0, ready, "{reason}");
        assert_eq!(says(&status, "Progressing"), (progressing, reason));
    }
}

#[test]
fn a_pin_is_kept_by_every_later_status() {
    let desired = desired();
    let record = Record::Pin {
        id: desired.cluster_id.clone(),
        image: desired.image.name.clone(),
    };

    let status = recorded(&BrokerClusterStatus::default(), &record, now());

    assert_eq!(
        status.cluster_id.as_deref(),
        Some(desired.cluster_id.as_str())
    );
    assert_eq!(status.image.as_deref(), Some(desired.image.name.as_str()));
}

#[test]
fn a_failing_api_server_takes_nothing_away_from_a_broker_that_serves() {
    let desired = desired();
    let observed = converged(&desired);
    let served = of(&desired, &observed, None);
    let outcome = Outcome::Failed {
        reason: reasons::API_FAILED,
        message: "cannot apply Service orders".to_owned(),
    };
    let mut down = observed.clone();
    down.pods[0].ready = false;
    for (previous, observed, ready) in [
        (&served, Some(&observed), ("True", reasons::READY)),
        (&served, None, ("True", reasons::READY)),
        (&served, Some(&down), ("False", reasons::API_FAILED)),
        (
            &BrokerClusterStatus::default(),
            None,
            ("False", reasons::API_FAILED),
        ),
    ] {
        let inputs = Inputs {
            previous,
            generation: 4,
            desired: Some(&desired),
            observed,
            outcome: &outcome,
            report: None,
        };

        let status = status(inputs, now());

        assert_eq!(says(&status, "Ready"), ready);
        assert_eq!(says(&status, "Progressing"), ("False", reasons::API_FAILED));
    }
}

#[test]
fn a_cluster_is_not_synced_while_its_broker_lacks_something_declared() {
    let held = |applied| Held {
        uid: "u".to_owned(),
        generation: 1,
        applied,
        orphaned: false,
        problems: Vec::new(),
    };
    let report = |applied| Report {
        broker: Broker::Answered(Answer {
            objects: [("queue/shop/a".to_owned(), held(applied))].into(),
            ..Answer::default()
        }),
        serves: true,
        refused: [].into(),
        unsent: 0,
        resent_at: None,
        sent: 0,
        frozen: None,
    };
    let no = Refused {
        generation: 1,
        message: "too many bindings".to_owned(),
    };
    let refused = Report {
        refused: [("queue/shop/b".to_owned(), no)].into(),
        ..report(true)
    };
    let unsent = Report {
        unsent: 1,
        ..report(true)
    };
    let desired = desired();
    for (report, expected) in [
        (report(true), ("True", reasons::READY)),
        (report(false), ("False", reasons::SYNCING)),
        (unsent, ("False", reasons::SYNCING)),
        (refused, ("False", reasons::REFUSED)),
    ] {
        let status = of(&desired, &converged(&desired), Some(&report));

        assert_eq!(says(&status, "Synced"), expected);
    }
}

#[test]
fn what_is_recorded_fits_the_definition_however_long_the_images_names_are() {
    /// As the definition bounds `status.operation.message`.
    const CHARACTERS_MAX: usize = 1024;
    let record = Record::Restart {
        pod: "orders-0".to_owned(),
        node_id: None,
        message: format!("its image changes from {0} to {0}", "i".repeat(512)),
    };

    let status = recorded(&BrokerClusterStatus::default(), &record, now());

    let message = status.operation.unwrap().message.unwrap();
    assert!(message.chars().count() <= CHARACTERS_MAX);
}
