//! What a node asks of whatever runs it: time, chance, threads and futures. A broker gets them from
//! the system ([`SystemHost`]), a simulation from a virtual clock and a seed.
//!
//! Everything in this crate that depends on more than its inputs comes through here, so that a host
//! that is deterministic makes the whole node so. One thing is left to it: tokio's `watch` wakes
//! those who wait for it in any order, so what a host runs next must not depend on the order in
//! which futures were woken.

mod system;

use std::io;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use millrace_storage::Routine;
use tokio::sync::oneshot;

pub use system::SystemHost;

/// Runs a node.
pub trait Host: Send + Sync + 'static {
    /// Time that never goes back.
    fn now(&self) -> Instant;

    /// The time of day, as far as this machine knows it.
    fn wall(&self) -> SystemTime;

    /// Bits that nobody can foresee: session ids, nonces.
    ///
    /// # Errors
    /// When the system has none to give.
    fn random(&self) -> io::Result<u64>;

    /// Runs a future to its end. Dropping the host drops it.
    fn spawn(&self, task: BoxFuture<'static, ()>);

    /// Resolves when this much time has passed.
    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()>;

    /// Runs something that may wait for the disk.
    fn blocking(&self, job: Box<dyn FnOnce() + Send>);

    /// Runs a routine to its end.
    ///
    /// # Errors
    /// When the system gives no thread.
    fn routine(&self, name: &str, routine: Box<dyn Routine>) -> io::Result<Box<dyn Join>>;

    /// Whether the next effect is not carried out: no effect may be needed, and a simulation loses
    /// some to see to it.
    fn loses_effect(&self) -> bool {
        false
    }
}

/// A routine that runs somewhere.
pub trait Join: Send {
    /// Waits until it has ended; whether it did so without a panic. A host that runs everything on
    /// one thread cannot wait: there it returns at once.
    fn join(self: Box<Self>) -> bool;
}

/// Runs something that may wait for the disk and gives what it returns; `None` when it panicked or
/// the host has ended.
pub(crate) async fn blocking<T: Send + 'static>(
    host: &Arc<dyn Host>,
    job: impl FnOnce() -> T + Send + 'static,
) -> Option<T> {
    let (sender, receiver) = oneshot::channel();
    host.blocking(Box::new(move || {
        // A caller that has gone away does not want to know.
        sender.send(job()).ok();
    }));
    receiver.await.ok()
}
