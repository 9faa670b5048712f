//! What a resource's status says before anybody has looked at it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;

/// Type of the one condition every resource has.
const READY: &str = "Ready";
/// Reason of that condition until the operator has come by.
const NOT_RECONCILED: &str = "NotReconciled";

/// The conditions of a resource the operator has not seen: no column of `kubectl get` is empty.
pub(crate) fn not_reconciled() -> Vec<Condition> {
    vec![Condition {
        type_: READY.to_owned(),
        status: "Unknown".to_owned(),
        reason: NOT_RECONCILED.to_owned(),
        message: "waiting for the operator".to_owned(),
        last_transition_time: Time(Timestamp::UNIX_EPOCH),
        observed_generation: None,
    }]
}

/// Stands where nothing is known yet.
pub(crate) fn unknown() -> String {
    "unknown".to_owned()
}
