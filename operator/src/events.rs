//! Events of resources, as `kubectl describe` shows them. Only for what changed: repeating one is
//! what makes events useless.

use k8s_openapi::api::core::v1::ObjectReference;
use kube::core::Status;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};

/// Longest note the API server takes.
const NOTE_BYTES_MAX: usize = 1024;

/// Publishes events.
#[derive(Clone)]
pub(crate) struct Events {
    recorder: Recorder,
}

/// Something that happened to a resource.
pub(crate) struct Note<'a> {
    /// One of `reasons`.
    pub(crate) reason: &'a str,
    /// What the operator did or saw: `Reconcile`, `Restart`.
    pub(crate) action: &'static str,
    /// For people.
    pub(crate) message: String,
    /// Another object it is about.
    pub(crate) related: Option<ObjectReference>,
}

impl Events {
    pub(crate) fn new(client: Client, identity: &str) -> Self {
        let reporter = Reporter {
            controller: crate::names::FIELD_MANAGER.to_owned(),
            instance: Some(identity.to_owned()),
        };
        Self {
            recorder: Recorder::new(client, reporter),
        }
    }

    /// Something worth knowing.
    pub(crate) async fn normal<K: Resource<DynamicType = ()>>(&self, object: &K, note: Note<'_>) {
        self.publish(EventType::Normal, object, note).await;
    }

    /// Something worth a look.
    pub(crate) async fn warn<K: Resource<DynamicType = ()>>(&self, object: &K, note: Note<'_>) {
        self.publish(EventType::Warning, object, note).await;
    }

    /// An event that cannot be written is not worth failing for.
    async fn publish<K: Resource<DynamicType = ()>>(
        &self,
        type_: EventType,
        object: &K,
        mut note: Note<'_>,
    ) {
        if note.message.len() > NOTE_BYTES_MAX {
            let end = note.message.floor_char_boundary(NOTE_BYTES_MAX);
            note.message.truncate(end);
        }
        let event = Event {
            type_,
            reason: note.reason.to_owned(),
            note: Some(note.message),
            action: note.action.to_owned(),
            secondary: note.related,
        };
        match self.recorder.publish(&event, &object.object_ref(&())).await {
            // Nothing is written any more where everything goes.
            Err(kube::Error::Api(status)) if is_namespace_leaving(&status) => {}
            Err(error) => {
                let error = crate::report(&error);
                tracing::warn!(reason = event.reason, error, "event is not written");
            }
            Ok(()) => {}
        }
    }
}

fn is_namespace_leaving(status: &Status) -> bool {
    let causes = status
        .details
        .as_ref()
        .map(|details| details.causes.as_slice());
    let mut causes = causes.unwrap_or_default().iter();
    causes.any(|cause| cause.reason == "NamespaceTerminating")
}
