//! Rolling restarts: one pod after the other, with the brokers' consent.

use k8s_openapi::jiff::Timestamp;
use millrace_operator::cluster::build;
use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Act, Answer, Blocker, Observed, Question, Trouble};
use millrace_operator::cluster::plan::{Plan, Step, plan, question};
use millrace_operator::cluster::status::recorded;
use millrace_operator::reasons;
use serde_json::json;

use crate::support::{claimless, converged, empty, node, validated, waits_for, with_spec, words};

fn of(replicas: u32) -> Desired {
    validated(&with_spec(json!({ "replicas": replicas })), claimless())
}

/// A converged cluster whose pods all run something older.
fn outdated(desired: &Desired) -> Observed {
    let mut observed = converged(desired);
    for pod in &mut observed.pods {
        pod.template_hash = Some("older".to_owned());
    }
    observed
}

/// What the operator would ask, answered.
fn answered(desired: &Desired, mut observed: Observed, answer: Answer) -> Observed {
    observed.answer = question(desired, &observed).map(|question| (question, answer));
    observed
}

fn no(why: &str) -> Answer {
    Answer::No(vec![Blocker::Other(why.to_owned())])
}

fn next(desired: &Desired, observed: &Observed) -> Plan {
    plan(desired, &answered(desired, observed.clone(), Answer::Yes))
}

/// Carries out a plan; a deleted pod comes back as wanted, at first without serving.
fn carry_out(desired: &Desired, observed: &mut Observed, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::Record(record) => {
                let before = observed.status.clone().unwrap_or_default();
                observed.status = Some(recorded(&before, record, Timestamp::UNIX_EPOCH));
            }
            Step::Steer { act, node_id } => {
                let view = observed.view.as_mut().unwrap();
                let node = view.nodes.get_mut(node_id).unwrap();
                node.is_drained = *act == Act::Drain;
                node.leads = 0;
            }
            Step::RestartPod { name, .. } => {
                let mut pods = observed.pods.iter_mut();
                let pod = pods.find(|pod| pod.name == *name).unwrap();
                pod.ready = false;
                pod.template_hash = Some(build::template_hash(desired));
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn each_pod_is_drained_restarted_and_waited_for_before_the_next_one() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    let mut done = Vec::new();
    for _ in 0..30 {
        let down = observed.pods.iter().filter(|pod| !pod.ready).count();
        assert!(down <= 1, "{down} pods are down");
        let step = next(&desired, &observed);
        if step.steps.is_empty() {
            if down == 0 {
                break;
            }
            assert_eq!(waits_for(&step), reasons::RESTARTING);
            observed.pods.iter_mut().for_each(|pod| pod.ready = true);
        }
        done.extend(words(&step));
        carry_out(&desired, &mut observed, &step);
    }

    let one = |n: u32| {
        [
            "record restart".to_owned(),
            format!("drain node-{n}"),
            format!("delete orders-{n} pod-uid"),
            format!("undrain node-{n}"),
            "record finished".to_owned(),
        ]
    };
    assert_eq!(done, [one(0), one(1), one(2)].concat());
    assert_eq!(next(&desired, &observed), Plan::default());
}

#[test]
fn a_pod_the_others_cannot_do_without_is_left_alone_and_the_blockers_are_named() {
    let desired = of(3);
    let refused = no("queue/shop/a has no other copy");

    let plan = plan(&desired, &answered(&desired, outdated(&desired), refused));

    assert_eq!(waits_for(&plan), reasons::RESTART_BLOCKED);
    let message = plan.waiting.unwrap().message;
    assert!(message.contains("orders-0"), "{message}");
    assert!(
        message.contains("queue/shop/a has no other copy"),
        "{message}"
    );
}

#[test]
fn a_pod_is_not_stopped_when_nobody_says_that_it_may() {
    let desired = of(3);

    assert_eq!(
        waits_for(&plan(&desired, &outdated(&desired))),
        reasons::RESTART_BLOCKED
    );
}

#[test]
fn consent_is_asked_for_again_after_the_leaders_have_moved() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    let first = next(&desired, &observed);
    carry_out(&desired, &mut observed, &first);

    assert_eq!(
        question(&desired, &observed),
        Some(Question::CanStop(node(0)))
    );
    let refused = no("node-2 is down");
    let blocked = plan(&desired, &answered(&desired, observed, refused));
    assert_eq!(waits_for(&blocked), reasons::RESTART_BLOCKED);
}

#[test]
fn a_pod_that_leads_is_drained_and_not_stopped_before_it_has_handed_over() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    let leads = Answer::No(vec![Blocker::Leads("leads shard 1".to_owned())]);

    let first = plan(
        &desired,
        &answered(&desired, observed.clone(), leads.clone()),
    );
    assert_eq!(words(&first), ["record restart", "drain node-0"]);

    carry_out(&desired, &mut observed, &first);
    let second = plan(&desired, &answered(&desired, observed.clone(), leads));
    assert_eq!(waits_for(&second), reasons::RESTARTING);
    assert_eq!(
        words(&next(&desired, &observed)),
        ["delete orders-0 pod-uid"]
    );
}

#[test]
fn the_next_pod_waits_until_the_former_has_caught_up() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    for _ in 0..2 {
        let step = next(&desired, &observed);
        carry_out(&desired, &mut observed, &step);
    }
    observed.pods[0].ready = true;

    let behind = no("shard 3 is 40 entries behind");
    let plan = plan(&desired, &answered(&desired, observed, behind));

    assert_eq!(waits_for(&plan), reasons::RESTARTING);
    let message = plan.waiting.unwrap().message;
    assert!(message.contains("40 entries behind"), "{message}");
}

#[test]
fn a_pod_that_does_not_come_back_stops_the_roll_until_a_change_helps_it() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    for _ in 0..2 {
        let step = next(&desired, &observed);
        carry_out(&desired, &mut observed, &step);
    }
    observed.pods[0].trouble = Some(Trouble {
        reason: reasons::IMAGE_UNAVAILABLE,
        message: "no such image".to_owned(),
    });

    let stalled = next(&desired, &observed);
    assert_eq!(waits_for(&stalled), reasons::RESTART_STALLED);
    let message = stalled.waiting.unwrap().message;
    assert!(message.ends_with("no such image"), "{message}");

    observed.pods[0].template_hash = Some("the one without an image".to_owned());
    assert_eq!(
        words(&next(&desired, &observed)),
        ["delete orders-0 pod-uid"]
    );
}

#[test]
fn no_pod_is_restarted_while_another_one_is_down() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    observed.pods[2].template_hash = Some(build::template_hash(&desired));
    observed.pods[2].ready = false;

    assert_eq!(
        waits_for(&next(&desired, &observed)),
        reasons::RESTART_BLOCKED
    );
}

#[test]
fn with_fewer_than_three_brokers_nobody_is_asked() {
    for replicas in [1, 2] {
        let desired = of(replicas);

        let plan = plan(&desired, &outdated(&desired));

        let expected = ["record restart", "delete orders-0 pod-uid"];
        assert_eq!(words(&plan), expected);
    }
}

#[test]
fn brokers_that_belong_to_no_cluster_yet_are_replaced_at_once() {
    let desired = of(3);
    let mut observed = outdated(&desired);
    for ordinal in 0..3_u32 {
        let name = desired.key.pod(ordinal);
        observed.brokers.insert(name, empty(ordinal));
        observed.claims[ordinal as usize].node_id = None;
        observed.pods[ordinal as usize].ready = false;
    }
    observed.brokers.remove("orders-1");

    let plan = plan(&desired, &observed);

    assert_eq!(words(&plan), ["delete orders-0 pod-uid"]);
}

#[test]
fn an_operation_of_a_pod_that_there_is_no_more_is_forgotten() {
    let desired = of(1);
    let mut observed = converged(&desired);
    let operation = json!({
        "type": "RestartPod", "pod": "orders-4", "startedAt": "2026-01-01T00:00:00Z",
    });
    observed.status.as_mut().unwrap().operation = Some(serde_json::from_value(operation).unwrap());

    assert_eq!(words(&plan(&desired, &observed)), ["record finished"]);
}
