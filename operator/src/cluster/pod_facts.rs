//! What the pipeline needs to know of a pod, read off the API server's object. Pure.

use k8s_openapi::api::core::v1::Pod as KubePod;

use super::facts::{Pod, Trouble};
use crate::reasons;
use crate::{labels, names};

/// Reads off a pod what the pipeline needs to know.
#[must_use]
pub(super) fn pod_facts(pod: &KubePod) -> Pod {
    let meta = &pod.metadata;
    let annotations = meta.annotations.as_ref();
    let conditions = pod.status.as_ref().and_then(|s| s.conditions.as_ref());
    let ready = conditions
        .into_iter()
        .flatten()
        .any(|c| c.type_ == "Ready" && c.status == "True");
    Pod {
        name: meta.name.clone().unwrap_or_default(),
        uid: meta.uid.clone().unwrap_or_default(),
        template_hash: annotations.and_then(|a| a.get(labels::TEMPLATE_HASH).cloned()),
        image: broker_image(pod).unwrap_or_default(),
        leaving: meta.deletion_timestamp.is_some(),
        ready,
        address: pod
            .status
            .as_ref()
            .and_then(|s| s.pod_ip.as_ref()?.parse().ok()),
        trouble: trouble(pod),
    }
}

fn broker_image(pod: &KubePod) -> Option<String> {
    let containers = &pod.spec.as_ref()?.containers;
    let broker = containers
        .iter()
        .find(|c| c.name == names::BROKER_CONTAINER)?;
    broker.image.clone()
}

fn trouble(pod: &KubePod) -> Option<Trouble> {
    /// Fewer may be the race of a start with what it needs.
    const RESTARTS_MIN: i32 = 2;
    let status = pod.status.as_ref()?;
    let name = pod.metadata.name.as_deref().unwrap_or_default();
    let unscheduled = status.conditions.as_ref().and_then(|conditions| {
        let scheduled = conditions.iter().find(|c| c.type_ == "PodScheduled")?;
        (scheduled.status == "False").then(|| scheduled.message.clone().unwrap_or_default())
    });
    if let Some(message) = unscheduled {
        return Some(Trouble {
            reason: reasons::POD_UNSCHEDULABLE,
            message: format!("no node takes pod {name}: {message}"),
        });
    }
    let containers = status.container_statuses.as_ref()?;
    let broker = containers
        .iter()
        .find(|c| c.name == names::BROKER_CONTAINER)?;
    let waiting = broker
        .state
        .as_ref()
        .and_then(|state| state.waiting.as_ref());
    let reason = waiting
        .and_then(|waiting| waiting.reason.as_deref())
        .unwrap_or_default();
    let said = waiting
        .and_then(|waiting| waiting.message.as_deref())
        .unwrap_or_default();
    match reason {
        "ErrImagePull" | "ImagePullBackOff" | "InvalidImageName" | "ErrImageNeverPull" => {
            Some(Trouble {
                reason: reasons::IMAGE_UNAVAILABLE,
                message: format!("{}: {reason}: {said}", broker.image),
            })
        }
        "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
            Some(Trouble {
                reason: reasons::STARTING,
                message: format!("pod {name}: {reason}: {said}"),
            })
        }
        _ if broker.restart_count >= RESTARTS_MIN && !broker.ready => {
            let last = broker
                .last_state
                .as_ref()
                .and_then(|s| s.terminated.as_ref());
            let code = last.map_or(0, |terminated| terminated.exit_code);
            let said = last.and_then(|terminated| terminated.message.as_deref());
            let said = said
                .and_then(|said| said.trim_end().lines().next_back())
                .unwrap_or_default();
            let restarts = broker.restart_count;
            let message =
                format!("pod {name} exited {restarts} times, last with code {code}: {said}");
            Some(Trouble {
                reason: reasons::POD_CRASHING,
                message,
            })
        }
        _ => None,
    }
}
