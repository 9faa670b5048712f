//! Which broker is restarted now, and how far it is. Pure.
//!
//! Promises: one pod at a time is taken away by our hand, the record of it comes first, and the
//! next one waits until the former serves again and has everything it missed. A broker of several
//! goes only after the others have said that they can do without it, and without leading anything.
//! A pod that does not come back ends the roll until it does.

use super::{Plan, RESTART_POD, Record, Step, Waiting, is_seen_by_its_controller, shrink};
use crate::cluster::build;
use crate::cluster::desired::Desired;
use crate::cluster::facts::{Act, Answer, Blocker, Observed, Pod, Question, Said};
use crate::reasons;

/// From this many nodes on the others are a majority without one. With fewer a restart is an
/// interruption, whoever is asked; the cluster was made for that.
const NODES_ASKED_MIN: usize = 3;

/// Whose turn it is.
enum Turn<'a> {
    /// Nobody's: every pod is as wanted.
    Nobody,
    /// Something else has to come first.
    Wait(Waiting),
    /// This one could begin.
    Begin(&'a Pod),
    /// This one was recorded and still runs what it ran.
    Stop(&'a Pod),
    /// This one was restarted.
    Return(&'a Pod),
    /// This one takes no part in anything: nobody misses it.
    Replace(&'a Pod),
    /// What was recorded means nothing any more.
    Forget,
}

/// What has to be asked before [`roll`] can decide.
pub(super) fn question(desired: &Desired, observed: &Observed) -> Option<Question> {
    match turn(desired, observed) {
        Turn::Begin(pod) | Turn::Stop(pod) => can_stop(observed, pod),
        Turn::Return(pod) if pod.ready => caught_up(observed, pod),
        _ => None,
    }
}

/// The next step of a rolling restart.
pub(super) fn roll(desired: &Desired, observed: &Observed) -> Plan {
    match turn(desired, observed) {
        Turn::Nobody => Plan::default(),
        Turn::Wait(waiting) => Plan::waiting(waiting),
        Turn::Begin(pod) => begin(desired, observed, pod),
        Turn::Stop(pod) => stop(desired, observed, pod),
        Turn::Return(pod) => come_back(observed, pod),
        Turn::Replace(pod) => Plan::of(vec![delete(desired, pod)]),
        Turn::Forget => Plan::of(vec![Step::Record(Record::Finished)]),
    }
}

fn turn<'a>(desired: &Desired, observed: &'a Observed) -> Turn<'a> {
    let wanted = build::template_hash(desired);
    let is_old = |pod: &&Pod| pod.template_hash.as_deref() != Some(wanted.as_str());
    let is_seen = is_seen_by_its_controller(observed, &desired.key.stateful_set());
    let idle = |pod: &&Pod| is_old(pod) && !pod.leaving && is_idle(observed, pod);
    if let Some(pod) = observed.pods.iter().find(idle)
        && is_seen
    {
        return Turn::Replace(pod);
    }
    let operation = observed.status.as_ref().and_then(|s| s.operation.as_ref());
    if let Some(operation) = operation {
        let name = operation.pod.as_deref().unwrap_or_default();
        if shrink::is_ours(operation) {
            return Turn::Nobody;
        }
        let is_ours = desired
            .key
            .ordinal(name)
            .is_some_and(|n| n < desired.replicas);
        if operation.type_ != RESTART_POD || !is_ours {
            return Turn::Forget;
        }
        let pod = observed.pods.iter().find(|pod| pod.name == name);
        return match pod {
            Some(pod) if !pod.leaving && is_old(&pod) => Turn::Stop(pod),
            Some(pod) if !pod.leaving => Turn::Return(pod),
            _ => Turn::Wait(restarting(format!("pod {name} is being made anew"))),
        };
    }
    if observed.pods.iter().any(|pod| pod.leaving) {
        return Turn::Nobody;
    }
    let mut old = observed.pods.iter().filter(is_old).peekable();
    let Some(first) = old.peek().copied() else {
        return Turn::Nobody;
    };
    if !is_seen {
        return Turn::Wait(Waiting {
            reason: reasons::APPLYING,
            message: "the StatefulSet controller has not seen the change yet".to_owned(),
        });
    }
    // The change may be its cure.
    if let Some(down) = old.find(|pod| !pod.ready) {
        return Turn::Begin(down);
    }
    let down = observed.pods.iter().find(|pod| !pod.ready);
    let missing = (observed.pods.len() as u64) < u64::from(desired.replicas);
    match down {
        Some(down) => Turn::Wait(blocked(first, &format!("pod {} is not ready", down.name))),
        None if missing => Turn::Wait(blocked(first, "a pod is missing")),
        None => Turn::Begin(first),
    }
}

/// Whether a broker neither serves nor votes, for certain: what it waits for may be the change.
fn is_idle(observed: &Observed, pod: &Pod) -> bool {
    let is_empty = matches!(observed.brokers.get(&pod.name), Some(Said::Empty { .. }));
    !pod.ready && (is_empty || pod.trouble.is_some())
}

fn begin(desired: &Desired, observed: &Observed, pod: &Pod) -> Plan {
    // What it leads it will have handed over by then.
    if let Some(waiting) = objection(observed, pod, Led::Fine) {
        return Plan::waiting(waiting);
    }
    let node_id = member(observed, pod);
    let record = Step::Record(Record::Restart {
        pod: pod.name.clone(),
        node_id: node_id.map(str::to_owned),
        message: why(desired, pod),
    });
    let next = match can_stop(observed, pod) {
        // Its leaders move first; whether it may stop is asked again when they have.
        Some(Question::CanStop(node_id)) => steer(Act::Drain, node_id),
        _ => delete(desired, pod),
    };
    Plan::of(vec![record, next])
}

fn stop(desired: &Desired, observed: &Observed, pod: &Pod) -> Plan {
    let question = can_stop(observed, pod);
    let Some(Question::CanStop(node_id)) = question else {
        return Plan::of(vec![delete(desired, pod)]);
    };
    let node = observed.view.as_ref().and_then(|v| v.nodes.get(&node_id));
    if node.is_some_and(|node| !node.is_drained) {
        return Plan::of(vec![steer(Act::Drain, node_id)]);
    }
    match objection(observed, pod, Led::Blocks) {
        Some(waiting) => Plan::waiting(waiting),
        None => Plan::of(vec![delete(desired, pod)]),
    }
}

/// Whether it matters that a pod leads shards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Led {
    /// It is about to be drained.
    Fine,
    /// It is to be deleted.
    Blocks,
}

fn come_back(observed: &Observed, pod: &Pod) -> Plan {
    let finished = Step::Record(Record::Finished);
    let is_empty = matches!(observed.brokers.get(&pod.name), Some(Said::Empty { .. }));
    if is_empty {
        // It serves once the cluster is founded or lets it in; that is not for the roll to see.
        return Plan::of(vec![finished]);
    }
    if !pod.ready {
        let Some(trouble) = &pod.trouble else {
            return Plan::waiting(restarting(format!("pod {} is starting", pod.name)));
        };
        return Plan::waiting(Waiting {
            reason: reasons::RESTART_STALLED,
            message: format!(
                "pod {} was restarted and does not come back, so no other one is: {}",
                pod.name, trouble.message
            ),
        });
    }
    let Some(question) = caught_up(observed, pod) else {
        return Plan::of(vec![finished]);
    };
    match answer(observed, &question) {
        Some(Answer::Yes) => {}
        Some(Answer::No(missing)) => {
            let message = format!("pod {} catches up: {}", pod.name, listed(missing));
            return Plan::waiting(restarting(message));
        }
        None => {
            let message = format!("nobody says whether pod {} has caught up", pod.name);
            return Plan::waiting(restarting(message));
        }
    }
    let mut steps = Vec::new();
    if let Question::CaughtUp(node_id) = question {
        steps.push(steer(Act::Undrain, node_id));
    }
    steps.push(finished);
    Plan::of(steps)
}

/// Why a pod may not be stopped now; `None` also where nobody is asked.
fn objection(observed: &Observed, pod: &Pod, led: Led) -> Option<Waiting> {
    let question = can_stop(observed, pod)?;
    let blockers = match answer(observed, &question) {
        Some(Answer::Yes) => return None,
        Some(Answer::No(blockers)) => blockers,
        None => return Some(blocked(pod, "no broker answers")),
    };
    let is_led = |blocker: &Blocker| matches!(blocker, Blocker::Leads(_));
    if !blockers.iter().all(is_led) {
        return Some(blocked(pod, &listed(blockers)));
    }
    (led == Led::Blocks).then(|| {
        let message = format!("pod {} hands over what it leads", pod.name);
        restarting(message)
    })
}

/// The first of them, and how many there are.
pub(super) fn listed(blockers: &[Blocker]) -> String {
    /// Every shard may have one; people need to see where to begin.
    const LISTED_MAX: usize = 3;
    let first = blockers.iter().take(LISTED_MAX).map(Blocker::words);
    let first: Vec<&str> = first.collect();
    match blockers.len().saturating_sub(LISTED_MAX) {
        0 => first.join("; "),
        more => format!("{}; and {more} more", first.join("; ")),
    }
}

fn can_stop(observed: &Observed, pod: &Pod) -> Option<Question> {
    asked_of(observed, pod).map(Question::CanStop)
}

fn caught_up(observed: &Observed, pod: &Pod) -> Option<Question> {
    asked_of(observed, pod).map(Question::CaughtUp)
}

fn asked_of(observed: &Observed, pod: &Pod) -> Option<String> {
    let node_id = member(observed, pod)?;
    let known = observed.view.as_ref().map_or(0, |view| view.nodes.len());
    let named = observed.claims.iter();
    let named = named.filter(|claim| claim.node_id.is_some()).count();
    (known.max(named) >= NODES_ASKED_MIN).then(|| node_id.to_owned())
}

/// The node in a pod, once it belongs to the cluster; from its claim while it says nothing.
fn member<'a>(observed: &'a Observed, pod: &Pod) -> Option<&'a str> {
    match observed.brokers.get(&pod.name) {
        Some(Said::Member { node_id, .. }) => Some(node_id),
        Some(Said::Empty { .. }) => None,
        Some(Said::Nothing(_)) | None => {
            let mut claims = observed.claims.iter();
            let own = claims.find(|claim| claim.name.ends_with(&format!("-{}", pod.name)))?;
            own.node_id.as_deref()
        }
    }
}

fn answer<'a>(observed: &'a Observed, question: &Question) -> Option<&'a Answer> {
    let (asked, answer) = observed.answer.as_ref()?;
    (asked == question).then_some(answer)
}

fn delete(desired: &Desired, pod: &Pod) -> Step {
    Step::RestartPod {
        name: pod.name.clone(),
        uid: pod.uid.clone(),
        message: why(desired, pod),
    }
}

fn why(desired: &Desired, pod: &Pod) -> String {
    let wanted = &desired.image.name;
    if pod.image == *wanted {
        "its settings or its pod template changed".to_owned()
    } else {
        format!("its image changes from {} to {wanted}", pod.image)
    }
}

const fn steer(act: Act, node_id: String) -> Step {
    Step::Steer { act, node_id }
}

fn restarting(message: String) -> Waiting {
    Waiting {
        reason: reasons::RESTARTING,
        message,
    }
}

fn blocked(pod: &Pod, why: &str) -> Waiting {
    Waiting {
        reason: reasons::RESTART_BLOCKED,
        message: format!(
            "pod {} is to be restarted and may not stop yet: {why}",
            pod.name
        ),
    }
}
