//! What does not belong in a bug report: values that may be secret, and what only makes it long.

use serde_json::Value;

/// Stands for what was there.
const REDACTED: &str = "<redacted>";
/// `kubectl apply` keeps a copy of everything here.
const LAST_APPLIED: &str = "kubectl.kubernetes.io/last-applied-configuration";

/// Of a resource, and everything in it.
pub(crate) fn resource(value: &mut Value) {
    match value {
        Value::Object(object) => {
            object.remove("managedFields");
            object.remove(LAST_APPLIED);
            if let Some(Value::Array(variables)) = object.get_mut("env") {
                variables.iter_mut().for_each(variable);
            }
            object.values_mut().for_each(resource);
        }
        Value::Array(items) => items.iter_mut().for_each(resource),
        _ => {}
    }
}

/// A reference to a Secret says nothing of it and stays.
fn variable(variable: &mut Value) {
    if let Some(value) = variable.get_mut("value") {
        *value = REDACTED.into();
    }
}

/// Of a text, wherever a secret occurs.
pub(crate) fn text(text: &str, secret: Option<&str>) -> String {
    match secret.map(str::trim).filter(|secret| !secret.is_empty()) {
        Some(secret) => text.replace(secret, REDACTED),
        None => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn values_of_variables_go_and_references_stay() {
        let mut pod = json!({
            "metadata": {
                "name": "main-0",
                "managedFields": [{"manager": "kubelet"}],
                "annotations": {LAST_APPLIED: "{\"password\": 1}", "team": "a"},
            },
            "spec": {"containers": [{"env": [
                {"name": "PASSWORD", "value": "hunter2"},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
            ]}]},
        });
        resource(&mut pod);
        assert_eq!(
            pod,
            json!({
                "metadata": {"name": "main-0", "annotations": {"team": "a"}},
                "spec": {"containers": [{"env": [
                    {"name": "PASSWORD", "value": REDACTED},
                    {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
                ]}]},
            })
        );
    }

    #[test]
    fn a_secret_in_a_log_goes() {
        assert_eq!(
            text("token abc refused", Some("abc\n")),
            "token <redacted> refused"
        );
        assert_eq!(text("token abc refused", Some("")), "token abc refused");
        assert_eq!(text("token abc refused", None), "token abc refused");
    }
}
