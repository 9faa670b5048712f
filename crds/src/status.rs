//! What a resource's status says before anybody has looked at it.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};
use k8s_openapi::jiff::Timestamp;
use schemars::{Schema, SchemaGenerator, json_schema};

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

/// As `metav1.Condition` bounds itself; the generated schema of that type has no bounds.
pub(crate) fn conditions(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array",
        "maxItems": 16,
        "x-kubernetes-list-type": "map",
        "x-kubernetes-list-map-keys": ["type"],
        "items": {
            "type": "object",
            "required": ["lastTransitionTime", "message", "reason", "status", "type"],
            "properties": {
                "type": {
                    "description": "What it is about, in CamelCase.",
                    "type": "string",
                    "maxLength": 316,
                },
                "status": {
                    "description": "Whether it holds.",
                    "type": "string",
                    "enum": ["True", "False", "Unknown"],
                },
                "reason": {
                    "description": "Why, in one CamelCase word; stable, for programs.",
                    "type": "string",
                    "minLength": 1,
                    "maxLength": 1024,
                    "pattern": "^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$",
                },
                "message": {
                    "description": "Why, for people.",
                    "type": "string",
                    "maxLength": 32768,
                },
                "lastTransitionTime": {
                    "description": "When `status` last changed.",
                    "type": "string",
                    "format": "date-time",
                },
                "observedGeneration": {
                    "description": "`metadata.generation` that it is about.",
                    "type": "integer",
                    "format": "int64",
                    "minimum": 0,
                },
            },
        },
    })
}
