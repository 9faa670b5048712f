//! Fewer brokers: the last one first, empty before it goes.

use k8s_openapi::jiff::Timestamp;
use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Act, Answer, Asked, Blocker, Observed, Question};
use millrace_operator::cluster::object::Kind;
use millrace_operator::cluster::plan::{Plan, Record, Step, plan, question};
use millrace_operator::cluster::size::size;
use millrace_operator::cluster::status::recorded;
use millrace_operator::reasons;
use serde_json::json;

use crate::support::{claimless, converged, node, validated, waits_for, with_spec, words};

fn of(replicas: u32) -> Desired {
    validated(&with_spec(json!({ "replicas": replicas })), claimless())
}

/// The plan, with consent to whatever is asked.
fn next(desired: &Desired, observed: &Observed) -> Plan {
    let mut observed = observed.clone();
    observed.answer = question(desired, &observed).map(|question| (question, Answer::Yes));
    plan(desired, &observed)
}

/// Carries out a plan as brokers and controllers would, but for the copies of a cordoned node.
fn carry_out(observed: &mut Observed, plan: &Plan) {
    for step in &plan.steps {
        match step {
            Step::Record(record) => {
                let before = observed.status.clone().unwrap_or_default();
                observed.status = Some(recorded(&before, record, Timestamp::UNIX_EPOCH));
            }
            Step::Steer { act, node_id } => {
                let nodes = &mut observed.view.as_mut().unwrap().nodes;
                match act {
                    Act::Cordon => nodes.get_mut(node_id).unwrap().is_cordoned = true,
                    Act::Uncordon => nodes.get_mut(node_id).unwrap().is_cordoned = false,
                    Act::Forget => drop(nodes.remove(node_id)),
                    Act::Drain | Act::Undrain => panic!("unexpected: {act:?}"),
                }
            }
            Step::Apply(object) => {
                let mut body = object.body.clone();
                if object.kind == Kind::StatefulSet {
                    body["metadata"]["generation"] = json!(4);
                    body["status"] = json!({ "observedGeneration": 4 });
                }
                let key = (object.kind, object.name.clone());
                observed.objects.insert(key, body);
            }
            Step::Release { claim, .. } => {
                let mut claims = observed.claims.iter_mut();
                let there = claims.find(|it| it.name == *claim).unwrap();
                there.node_id = None;
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

/// Plans and carries it out.
fn step(desired: &Desired, observed: &mut Observed) -> Plan {
    let plan = next(desired, observed);
    carry_out(observed, &plan);
    plan
}

/// Every node that is cordoned has given its copies away.
fn empty_cordoned(observed: &mut Observed) {
    for node in observed.view.as_mut().unwrap().nodes.values_mut() {
        if node.is_cordoned {
            (node.votes, node.learns, node.leads) = (0, 0, 0);
        }
    }
}

/// Pods beyond the StatefulSet's number go.
fn shrink_pods(desired: &Desired, observed: &mut Observed) {
    let key = (Kind::StatefulSet, desired.key.stateful_set());
    let made = observed.objects[&key]["spec"]["replicas"].as_u64().unwrap();
    observed.pods.truncate(usize::try_from(made).unwrap());
    let pods = &observed.pods;
    let is_there = |name: &String| pods.iter().any(|pod| pod.name == *name);
    observed.brokers.retain(|name, _| is_there(name));
}

#[test]
fn brokers_go_one_by_one_from_the_last_and_each_is_empty_before_its_pod_is_told_to() {
    let mut observed = converged(&of(5));
    let wanted = of(3);
    let mut done = Vec::new();
    for _ in 0..30 {
        let plan = step(&wanted, &mut observed);
        if plan == Plan::default() {
            break;
        }
        if plan.steps.is_empty() {
            assert_eq!(waits_for(&plan), reasons::SCALING_DOWN);
            empty_cordoned(&mut observed);
            shrink_pods(&wanted, &mut observed);
        }
        done.extend(words(&plan));
    }

    let one = |n: u32| {
        [
            format!("record emptying orders-{n}"),
            format!("cordon node-{n}"),
            format!("record removing orders-{n}"),
            "StatefulSet orders".to_owned(),
            format!("forget node-{n}"),
            format!("release data-orders-{n}"),
            "record finished".to_owned(),
        ]
    };
    assert_eq!(done, [one(4), one(3)].concat());
    assert_eq!(size(&wanted, &observed), 3);
    assert_eq!(observed.claims.len(), 5);
}

#[test]
fn a_broker_that_is_still_needed_stays_and_the_plan_says_for_what() {
    let wanted = of(1);
    let mut observed = converged(&of(3));
    step(&wanted, &mut observed);

    let full = next(&wanted, &observed);
    assert_eq!(waits_for(&full), reasons::SCALING_DOWN);
    let message = full.waiting.unwrap().message;
    assert!(message.contains("5 of its copies"), "{message}");

    empty_cordoned(&mut observed);
    let asked = question(&wanted, &observed).unwrap();
    assert_eq!(asked, Question::CanStop(node(2)));
    let needed = Blocker::Other("shard 3: nobody leads it".to_owned());
    observed.answer = Some((asked, Answer::No(vec![needed])));
    let needed = plan(&wanted, &observed);
    assert_eq!(waits_for(&needed), reasons::SCALING_DOWN);
    let message = needed.waiting.unwrap().message;
    assert!(message.contains("nobody leads it"), "{message}");

    observed.answer = None;
    assert_eq!(waits_for(&plan(&wanted, &observed)), reasons::SCALING_DOWN);
}

#[test]
fn nobody_goes_while_another_broker_is_missed() {
    let wanted = of(1);
    let whole = converged(&of(3));
    let mut down = whole.clone();
    down.pods[0].ready = false;
    let mut leaderless = whole.clone();
    let shards = &mut leaderless.view.as_mut().unwrap().shards;
    shards.get_mut(&2).unwrap().leader = millrace_operator::cluster::facts::Leader::Nobody;
    let mut changing = whole.clone();
    let shards = &mut changing.view.as_mut().unwrap().shards;
    shards.get_mut(&2).unwrap().is_changing = true;
    let mut silent = whole.clone();
    silent.view = None;
    let mut asked = whole.clone();
    asked.asked = Some(Asked {
        by: "queue/shop/precious".to_owned(),
        copies: 3,
    });
    for (observed, why) in [
        (down, "pod orders-0 is not ready"),
        (leaderless, "without a leader: 2"),
        (changing, "shard 2"),
        (silent, "no broker tells"),
        (asked, "queue/shop/precious asks for 3 copies"),
    ] {
        let plan = next(&wanted, &observed);

        assert_eq!(waits_for(&plan), reasons::SCALE_DOWN_BLOCKED);
        let message = plan.waiting.unwrap().message;
        assert!(message.contains(why), "{message}");
    }

    // The one that goes may be down: that is a way to be rid of it.
    let mut last_down = whole;
    last_down.pods[2].ready = false;
    let begins = next(&wanted, &last_down);
    assert_eq!(
        words(&begins),
        ["record emptying orders-2", "cordon node-2"]
    );
}

#[test]
fn who_asks_for_more_again_gets_the_broker_back_unless_its_pod_was_told_to_go() {
    let mut observed = converged(&of(3));
    step(&of(2), &mut observed);

    let back = next(&of(3), &observed);
    assert_eq!(words(&back), ["uncordon node-2", "record finished"]);

    empty_cordoned(&mut observed);
    step(&of(2), &mut observed);
    assert_eq!(size(&of(3), &observed), 2);
    step(&of(3), &mut observed);
    let stops = next(&of(3), &observed);
    assert_eq!(waits_for(&stops), reasons::SCALING_DOWN);
    shrink_pods(&of(3), &mut observed);
    step(&of(3), &mut observed);

    assert_eq!(words(&next(&of(3), &observed)), ["StatefulSet orders"]);
}

#[test]
fn an_operation_on_a_pod_that_cannot_go_is_forgotten() {
    let desired = of(1);
    for pod in ["orders-0", "orders-4000000000", "other-1"] {
        for record in [
            Record::Emptying {
                pod: pod.to_owned(),
                node_id: node(0),
                message: String::new(),
            },
            Record::Removing {
                pod: pod.to_owned(),
                node_id: node(0),
                message: String::new(),
            },
        ] {
            let mut observed = converged(&desired);
            let before = observed.status.clone().unwrap();
            observed.status = Some(recorded(&before, &record, Timestamp::UNIX_EPOCH));

            assert_eq!(size(&desired, &observed), 1);
            let plan = next(&desired, &observed);
            assert_eq!(words(&plan), ["record finished"], "{record:?}");
        }
    }
}
