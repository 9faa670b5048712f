//! What a cluster's status says.

use k8s_openapi::jiff::Timestamp;
use millrace_crds::BrokerClusterStatus;
use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Observed, Trouble};
use millrace_operator::cluster::plan::{Plan, Record};
use millrace_operator::cluster::status::{Inputs, Outcome, recorded, status};
use millrace_operator::condition;
use millrace_operator::reasons;
use millrace_operator::topology::report::{Answer, Broker, Held, Refused, Report};

use crate::support::{claimless, cluster, converged, pod, validated};

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
            node_id: "n1".to_owned(),
            revision: 7,
            applied_revision: 7,
            objects: [].into(),
        }),
        serves: true,
        refused: [].into(),
        unsent: 0,
        resent_at: None,
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
    assert_eq!(status.nodes[0].node_id.as_deref(), Some("n1"));
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
fn a_recorded_restart_stays_until_the_new_pod_serves() {
    let desired = desired();
    let record = Record::Restart {
        pod: "orders-0".to_owned(),
        message: "image changed".to_owned(),
    };
    let mut observed = converged(&desired);
    let before = recorded(observed.status.as_ref().unwrap(), &record, now());
    observed.status = Some(before);
    let current = observed.pods[0].template_hash.clone().unwrap();

    for (template_hash, ready, restarting) in [
        ("older", true, true),
        (current.as_str(), false, true),
        (current.as_str(), true, false),
    ] {
        observed.pods = vec![pod(template_hash)];
        observed.pods[0].ready = ready;

        let status = of(&desired, &observed, None);

        assert_eq!(
            status.operation.is_some(),
            restarting,
            "{template_hash} {ready}"
        );
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
        message: format!("its image changes from {0} to {0}", "i".repeat(512)),
    };

    let status = recorded(&BrokerClusterStatus::default(), &record, now());

    let message = status.operation.unwrap().message.unwrap();
    assert!(message.chars().count() <= CHARACTERS_MAX);
}
