//! Founding: recorded first, the same for all, and never twice.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::jiff::Timestamp;
use millrace_operator::cluster::desired::Desired;
use millrace_operator::cluster::facts::{Observed, Said};
use millrace_operator::cluster::plan::{Plan, Step, plan};
use millrace_operator::cluster::status::recorded;
use millrace_operator::reasons;
use serde_json::json;

use crate::support::{
    claimless, converged, empty, member, node, validated, waits_for, with_spec, words,
};

fn three() -> Desired {
    validated(&with_spec(json!({ "replicas": 3 })), claimless())
}

/// Three pods with empty disks; nobody was told anything.
fn unfounded(desired: &Desired) -> Observed {
    let mut observed = converged(desired);
    for (ordinal, pod) in observed.pods.iter_mut().enumerate() {
        let ordinal = u32::try_from(ordinal).unwrap();
        observed.brokers.insert(pod.name.clone(), empty(ordinal));
        pod.ready = false;
    }
    for claim in &mut observed.claims {
        claim.node_id = None;
    }
    observed.view = None;
    observed
}

/// Carries out the first steps of a plan as `apply` does.
fn carry_out(observed: &mut Observed, plan: &Plan, steps: usize) {
    for step in plan.steps.iter().take(steps) {
        match step {
            Step::Record(record) => {
                let before = observed.status.clone().unwrap_or_default();
                observed.status = Some(recorded(&before, record, Timestamp::UNIX_EPOCH));
            }
            Step::Bootstrap { pod, .. } => {
                let said = observed.brokers.get(pod).unwrap();
                let joined = Said::Member {
                    node_id: said.node_id().unwrap().to_owned(),
                    cluster_id: three().cluster_id.as_str().to_owned(),
                };
                observed.brokers.insert(pod.clone(), joined);
            }
            Step::Adopt { claim, node_id, .. } => {
                let mut claims = observed.claims.iter_mut();
                let claim = claims.find(|there| there.name == *claim).unwrap();
                claim.node_id.clone_from(node_id);
            }
            other => panic!("unexpected: {other:?}"),
        }
    }
}

#[test]
fn all_who_are_wanted_found_the_cluster_and_the_record_comes_first() {
    let desired = three();
    let plan = plan(&desired, &unfounded(&desired));

    let expected = [
        "record founding",
        "bootstrap orders-0",
        "bootstrap orders-1",
        "bootstrap orders-2",
    ];
    assert_eq!(words(&plan), expected);
    let told = plan.steps.iter().filter_map(|step| match step {
        Step::Bootstrap { founding, .. } => Some(founding),
        _ => None,
    });
    let told: Vec<_> = told.collect();
    assert!(told.windows(2).all(|two| two[0] == two[1]));
    let first = &told[0].founders[0];
    assert_eq!(first.node_id, node(0));
    assert_eq!(first.address, "orders-0.orders-nodes.shop.svc:7073");
    assert_eq!((told[0].shards, told[0].replication), (4, 3));
}

#[test]
fn nobody_is_told_before_everybody_has_answered() {
    let desired = three();
    for silent in [None, Some(Said::Nothing("connection refused".to_owned()))] {
        let mut observed = unfounded(&desired);
        observed.brokers.remove("orders-1");
        observed
            .brokers
            .extend(silent.map(|said| ("orders-1".to_owned(), said)));

        let plan = plan(&desired, &observed);

        assert_eq!(waits_for(&plan), reasons::FOUNDING);
        let message = plan.waiting.unwrap().message;
        assert!(message.ends_with("answer: orders-1"), "{message}");
    }
}

#[test]
fn an_operator_killed_anywhere_repeats_what_status_says() {
    let desired = three();
    let full = plan(&desired, &unfounded(&desired));
    let Step::Bootstrap { founding, .. } = &full.steps[1] else {
        panic!("{full:?}");
    };
    for taken in 1..=full.steps.len() {
        let mut observed = unfounded(&desired);
        carry_out(&mut observed, &full, taken);

        // Another operator comes, and goes on until nothing is left.
        let mut told = BTreeSet::new();
        for _ in 0..10 {
            let next = plan(&desired, &observed);
            for step in &next.steps {
                if let Step::Bootstrap { pod, founding: now } = step {
                    assert_eq!(now, founding, "after {taken} steps");
                    told.insert(pod.clone());
                }
            }
            let steps = next.steps.len();
            carry_out(&mut observed, &next, steps);
        }

        assert_eq!(told.len(), full.steps.len() - taken, "after {taken} steps");
        assert_eq!(plan(&desired, &observed), Plan::default());
        assert!(observed.status.unwrap().founding.unwrap().done);
    }
}

#[test]
fn a_cluster_with_a_member_is_never_founded_again() {
    let desired = three();
    let id = desired.cluster_id.as_str();

    // One pod of before, scaled to three.
    let mut grown = unfounded(&desired);
    grown.brokers.insert("orders-0".to_owned(), member(0, id));
    assert_eq!(words(&plan(&desired, &grown)), ["adopt data-orders-0"]);
    grown.claims[0].node_id = Some(node(0));
    assert_eq!(words(&plan(&desired, &grown)), [""; 0]);

    // Its only member does not answer, or has lost its disk.
    for said in [Said::Nothing("gone".to_owned()), empty(7)] {
        grown.brokers.insert("orders-0".to_owned(), said);
        assert_eq!(words(&plan(&desired, &grown)), [""; 0]);
    }
}

#[test]
fn a_founder_that_lost_its_disk_is_made_up_for_by_the_majority_of_the_others() {
    let desired = three();
    let mut observed = unfounded(&desired);
    let first = plan(&desired, &observed);
    carry_out(&mut observed, &first, 3);
    observed.brokers.insert("orders-2".to_owned(), empty(8));
    for claim in &mut observed.claims[..2] {
        claim.node_id = Some(node(claim.ordinal));
    }

    assert_eq!(words(&plan(&desired, &observed)), ["record founded"]);
}

#[test]
fn founders_that_lost_their_majority_before_they_were_told_are_not_replaced() {
    let desired = three();
    let mut observed = unfounded(&desired);
    let first = plan(&desired, &observed);
    carry_out(&mut observed, &first, 2);
    observed.claims[0].node_id = Some(node(0));
    observed.brokers.insert("orders-1".to_owned(), empty(8));
    observed.brokers.insert("orders-2".to_owned(), empty(9));

    assert_eq!(waits_for(&plan(&desired, &observed)), reasons::FOUNDER_LOST);
}

#[test]
fn disks_of_another_cluster_and_copies_of_a_disk_stop_the_founding() {
    let desired = three();
    let said: BTreeMap<&str, Said> = [
        (reasons::WRONG_CLUSTER, member(1, "theirs")),
        (reasons::IDENTITY_CONFLICT, empty(0)),
    ]
    .into();
    for (reason, said) in said {
        let mut observed = unfounded(&desired);
        observed.brokers.insert("orders-1".to_owned(), said);

        assert_eq!(waits_for(&plan(&desired, &observed)), reason);
    }
}
