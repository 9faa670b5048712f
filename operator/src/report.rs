//! Errors as people read them: the chain of causes in one line.

use std::error::Error;

use kube::runtime::watcher;

/// The error and its causes. The API server's own words stand for an error of the Kubernetes
/// client, which repeats them in several forms.
#[must_use]
pub fn report(error: &(dyn Error + 'static)) -> String {
    let mut text = String::new();
    let mut next: Option<&(dyn Error + 'static)> = Some(error);
    while let Some(error) = next {
        if !text.is_empty() {
            text.push_str(": ");
        }
        if let Some(error) = error.downcast_ref::<watcher::Error>() {
            text.push_str(&watch(error));
            return text;
        }
        if let Some(kube::Error::Api(status)) = error.downcast_ref::<kube::Error>() {
            text.push_str(&status.message);
            return text;
        }
        text.push_str(&error.to_string());
        next = error.source();
    }
    text
}

/// An error of a watch repeats its cause; here it is said once.
fn watch(error: &watcher::Error) -> String {
    match error {
        watcher::Error::InitialListFailed(cause) => format!("cannot list: {}", report(cause)),
        watcher::Error::WatchStartFailed(cause) => format!("cannot watch: {}", report(cause)),
        watcher::Error::WatchError(status) => format!("watch ended: {}", status.message),
        watcher::Error::WatchFailed(cause) => format!("watch broke: {}", report(cause)),
        other => other.to_string(),
    }
}
