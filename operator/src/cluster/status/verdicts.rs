//! The conditions of a cluster. Pure.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use millrace_crds::OperationStatus;

use super::crew::{Crew, crew};
use super::{Inputs, Outcome};
use crate::cluster::facts::Trouble;
use crate::cluster::plan::{EMPTY_NODE, REMOVE_POD, RESTART_POD, Waiting};
use crate::condition::{Truth, Verdict, find};
use crate::reasons::{self, condition};
use crate::topology::report::{Broker, Report};

/// What a plan may wait for while the brokers serve all the same.
const HARMLESS: [&str; 7] = [
    reasons::APPLYING,
    reasons::FOUNDING,
    reasons::RESTARTING,
    reasons::RESTART_BLOCKED,
    reasons::RESTART_STALLED,
    reasons::SCALING_DOWN,
    reasons::SCALE_DOWN_BLOCKED,
];

/// What nobody goes on with until somebody changes something.
const AT_AN_END: [&str; 1] = [reasons::RESTART_STALLED];

/// All of them.
pub(super) fn verdicts(inputs: Inputs<'_>, operation: Option<&OperationStatus>) -> Vec<Verdict> {
    let progressing = progressing(inputs, operation);
    let mut verdicts = vec![
        ready(inputs, operation),
        stable(inputs, operation, &progressing),
        progressing,
        synced(inputs.report, &inputs.previous.conditions),
    ];
    verdicts.extend(warning(inputs));
    verdicts
}

fn ready(inputs: Inputs<'_>, operation: Option<&OperationStatus>) -> Verdict {
    let refuse =
        |reason: &str, message: &str| Verdict::new(condition::READY, Truth::False, reason, message);
    let waiting = match inputs.outcome {
        // A failing API server or broker takes nothing away from those that serve.
        Outcome::Failed { reason, message } if is_passing(reason) => {
            return serves_all_the_same(inputs).unwrap_or_else(|| refuse(reason, message));
        }
        Outcome::Failed { reason, message } => return refuse(reason, message),
        Outcome::Done { waiting, .. } => waiting.as_ref(),
    };
    if let Some(Waiting { reason, message }) = waiting
        && !HARMLESS.contains(reason)
    {
        return refuse(reason, message);
    }
    let founding = waiting.filter(|waiting| waiting.reason == reasons::FOUNDING);
    let crew = crew(inputs).unwrap_or_default();
    if crew.is_enough() && founding.is_none() {
        return serving(inputs, &crew);
    }
    let pods = inputs.observed.map(|observed| observed.pods.as_slice());
    let pods = pods.unwrap_or_default();
    if let Some(Trouble { reason, message }) = pods.iter().find_map(|pod| pod.trouble.as_ref()) {
        return refuse(reason, message);
    }
    if let Some(Waiting { reason, message }) = founding {
        return refuse(reason, message);
    }
    if let Some(operation) = operation.filter(|it| it.type_ == RESTART_POD) {
        let pod = operation.pod.as_deref().unwrap_or_default();
        let message = operation.message.as_deref().unwrap_or_default();
        return refuse(
            reasons::RESTARTING,
            &format!("pod {pod} restarts: {message}"),
        );
    }
    if crew.voters > 1 {
        let message = format!("too few for a majority: {}", crew.shortage());
        return refuse(reasons::NO_QUORUM, &message);
    }
    match pods.iter().find(|pod| pod.leaving) {
        Some(pod) => refuse(
            reasons::POD_STOPPING,
            &format!("pod {} is stopping", pod.name),
        ),
        None => refuse(reasons::STARTING, "the broker pod is starting"),
    }
}

fn is_passing(reason: &str) -> bool {
    reason == reasons::API_FAILED || reason == reasons::BROKER_UNAVAILABLE
}

/// They serve; whether all of them do, and all shards, the reason says.
fn serving(inputs: Inputs<'_>, crew: &Crew) -> Verdict {
    let verdict =
        |reason, message: String| Verdict::new(condition::READY, Truth::True, reason, message);
    if let Some(what) = degraded(inputs, crew) {
        return verdict(reasons::DEGRADED, what);
    }
    match crew.size {
        1 => verdict(reasons::READY, "the broker serves".to_owned()),
        size => verdict(reasons::READY, format!("{size} brokers serve")),
    }
}

/// What is missing although a majority serves.
fn degraded(inputs: Inputs<'_>, crew: &Crew) -> Option<String> {
    if !crew.down.is_empty() {
        return Some(crew.shortage());
    }
    let leaderless = inputs.observed?.view.as_ref()?.leaderless();
    (!leaderless.is_empty()).then(|| format!("shards without a leader: {}", leaderless.join(", ")))
}

/// While the API server or a broker fails: by the pods if they could be read, else as it was.
fn serves_all_the_same(inputs: Inputs<'_>) -> Option<Verdict> {
    let before = find(&inputs.previous.conditions, condition::READY)?;
    let served = before.status == Truth::True.as_str();
    match crew(inputs) {
        Some(crew) => crew.is_enough().then(|| serving(inputs, &crew)),
        None => served.then(|| Verdict::again(before)).flatten(),
    }
}

/// Whether there is nothing to wait for: every broker serves, every shard has all its copies, and
/// nobody changes anything.
fn stable(
    inputs: Inputs<'_>,
    operation: Option<&OperationStatus>,
    progressing: &Verdict,
) -> Verdict {
    let verdict = |truth, reason: &str, message: &str| {
        Verdict::new(condition::STABLE, truth, reason, message)
    };
    if operation.is_some() || progressing.reason != reasons::SETTLED {
        return verdict(Truth::False, &progressing.reason, &progressing.message);
    }
    let crew = crew(inputs).unwrap_or_default();
    if let Some(what) = degraded(inputs, &crew) {
        return verdict(Truth::False, reasons::DEGRADED, &what);
    }
    let Some(view) = inputs.observed.and_then(|observed| observed.view.as_ref()) else {
        let message = "no broker has told of its shards";
        return verdict(Truth::Unknown, reasons::BROKER_UNAVAILABLE, message);
    };
    let brokers = u32::try_from(crew.size).unwrap_or(u32::MAX);
    let sized = inputs.desired.map(|desired| desired.with_replicas(brokers));
    let thin = sized.map_or_else(Vec::new, |sized| view.thin(&sized));
    if thin.is_empty() {
        let message = "all brokers have all they should";
        return verdict(Truth::True, reasons::SETTLED, message);
    }
    let message = format!("shards that get their copies: {}", thin.join(", "));
    verdict(Truth::False, reasons::REPLICATING, &message)
}

fn progressing(inputs: Inputs<'_>, operation: Option<&OperationStatus>) -> Verdict {
    let verdict = |truth, reason: &str, message: &str| {
        Verdict::new(condition::PROGRESSING, truth, reason, message)
    };
    match (inputs.outcome, operation) {
        (Outcome::Failed { reason, message }, _) => verdict(Truth::False, reason, message),
        (
            Outcome::Done {
                waiting: Some(Waiting { reason, message }),
                changed,
            },
            _,
        ) => {
            let ended = AT_AN_END.contains(reason) && !changed;
            let truth = if ended { Truth::False } else { Truth::True };
            verdict(truth, reason, message)
        }
        (_, Some(operation)) => {
            let message = operation.message.as_deref().unwrap_or_default();
            let reason = match operation.type_.as_str() {
                EMPTY_NODE | REMOVE_POD => reasons::SCALING_DOWN,
                _ => reasons::RESTARTING,
            };
            verdict(Truth::True, reason, message)
        }
        (Outcome::Done { changed: true, .. }, None) => verdict(
            Truth::True,
            reasons::APPLYING,
            "objects were created or changed",
        ),
        (Outcome::Done { changed: false, .. }, None) => {
            verdict(Truth::False, reasons::SETTLED, "nothing is left to do")
        }
    }
}

/// Only there when there is something to warn of.
fn warning(inputs: Inputs<'_>) -> Option<Verdict> {
    let asked = inputs.desired?.replicas;
    let is_even = asked > 0 && asked.is_multiple_of(2);
    is_even.then(|| {
        let message = format!(
            "{asked} brokers survive the loss of no more than {} do, and are more to fail",
            asked - 1
        );
        Verdict::new(
            condition::WARNING,
            Truth::True,
            reasons::EVEN_REPLICAS,
            message,
        )
    })
}

fn synced(report: Option<&Report>, before: &[Condition]) -> Verdict {
    let verdict = |truth, reason: &str, message: &str| {
        Verdict::new(condition::SYNCED, truth, reason, message)
    };
    let Some(report) = report else {
        // An operator that has just started knows less than the one before it.
        let message = "the broker was not asked yet";
        return find(before, condition::SYNCED)
            .and_then(Verdict::again)
            .unwrap_or_else(|| verdict(Truth::Unknown, reasons::BROKER_UNAVAILABLE, message));
    };
    match &report.broker {
        Broker::Unavailable { reason, message } => verdict(Truth::False, reason, message),
        Broker::Answered(_) if !report.is_settled() => {
            let message = "not every shard works by all that is declared yet";
            verdict(Truth::False, reasons::SYNCING, message)
        }
        Broker::Answered(_) => synced_but(report).map_or_else(
            || {
                let message = "queues and topics are as declared";
                verdict(Truth::True, reasons::READY, message)
            },
            |(reason, message)| verdict(Truth::False, reason, &message),
        ),
    }
}

/// What keeps a broker that has done all it was told from having what is declared.
fn synced_but(report: &Report) -> Option<(&'static str, String)> {
    if let Some(why) = &report.frozen {
        return Some((reasons::REMOVAL_FROZEN, why.clone()));
    }
    let (address, first) = report.refused.first_key_value()?;
    let count = report.refused.len();
    let message = format!("{count} refused, the first is {address}: {}", first.message);
    Some((reasons::REFUSED, message))
}
