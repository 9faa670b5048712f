//! The one place that starts a task. A driver owns its state and ends by itself when all handles to
//! it are gone or told it to close, so nobody has to wait for it or stop it.

use std::future::Future;

/// Runs a driver beside its handles.
pub(crate) fn spawn(driver: impl Future<Output = ()> + Send + 'static) {
    drop(tokio::spawn(driver));
}
