//! The tasks of the node: who they are, what their failure does, and how they end. The only place
//! that spawns.

use std::any::Any;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt as _;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::error;

/// What the failure of a task does. Every task ends by itself after [`Stop::ended`], most of them
/// after [`Stop::draining`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// One client's stream: its failure is logged and its own.
    Stream,
    /// The node is nothing without it: its failure stops the node.
    Vital,
}

/// The two steps of a stop, as tasks see them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Stop {
    draining: CancellationToken,
    ended: CancellationToken,
}

/// A cheap handle to all tasks.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    tracker: TaskTracker,
    stop: Stop,
    failure: Arc<watch::Sender<Option<String>>>,
}

impl Stop {
    /// Take no new work and tell clients to go elsewhere.
    pub(crate) fn drain(&self) {
        self.draining.cancel();
    }

    /// Time is up: end now.
    pub(crate) fn end(&self) {
        self.draining.cancel();
        self.ended.cancel();
    }

    /// Whether the drain has begun.
    pub(crate) fn is_draining(&self) -> bool {
        self.draining.is_cancelled()
    }

    /// Waits for the drain to begin. Cancel-safe.
    pub(crate) async fn draining(&self) {
        self.draining.cancelled().await;
    }

    /// Waits for the time to be up. Cancel-safe.
    pub(crate) async fn ended(&self) {
        self.ended.cancelled().await;
    }
}

impl Tasks {
    pub(crate) fn new(stop: Stop) -> Self {
        Self {
            tracker: TaskTracker::new(),
            stop,
            failure: Arc::new(watch::Sender::new(None)),
        }
    }

    /// What tells tasks to stop.
    pub(crate) const fn stop(&self) -> &Stop {
        &self.stop
    }

    /// Runs a task to its end; a panic counts as its failure.
    pub(crate) fn spawn<E: std::fmt::Display>(
        &self,
        kind: Kind,
        name: &'static str,
        future: impl Future<Output = Result<(), E>> + Send + 'static,
    ) {
        let failure = Arc::clone(&self.failure);
        self.tracker.spawn(async move {
            let reason = match AssertUnwindSafe(future).catch_unwind().await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => error.to_string(),
                Err(panic) => format!("it panicked: {}", words(&*panic)),
            };
            error!(task = name, reason, "task failed");
            if kind == Kind::Vital {
                failure.send_replace(Some(format!("{name} failed: {reason}")));
            }
        });
    }

    /// Waits until a vital task has failed; never resolves otherwise. Cancel-safe.
    pub(crate) async fn failed(&self) -> String {
        let mut failure = self.failure.subscribe();
        let failed = failure.wait_for(Option::is_some).await;
        let reason = failed.ok().map(|reason| reason.clone());
        match reason {
            Some(reason) => reason.unwrap_or_default(),
            // We hold the sender, so it cannot be gone.
            None => std::future::pending().await,
        }
    }

    /// Waits until all tasks have ended; none may be spawned afterwards.
    pub(crate) async fn join(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }
}

fn words(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("no words")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_vital_task_that_fails_stops_the_node() {
        let tasks = Tasks::new(Stop::default());
        tasks.spawn(Kind::Stream, "stream", async { Err("no matter") });
        tasks.spawn(Kind::Vital, "listener", async { Err("gone") });
        assert_eq!(tasks.failed().await, "listener failed: gone");
        tasks.join().await;
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let tasks = Tasks::new(Stop::default());
        tasks.spawn(Kind::Vital, "listener", async {
            if true {
                panic!("oh");
            }
            Ok::<(), &str>(())
        });
        assert_eq!(tasks.failed().await, "listener failed: it panicked: oh");
    }
}
