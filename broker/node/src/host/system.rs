//! The host of a broker: threads and clocks of the system, and a tokio runtime for futures.

use std::io;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime};

use futures::future::BoxFuture;
use millrace_storage::{Routine, drive};
use tokio::runtime::Handle;

use super::{Host, Join};

/// The system, and the runtime that was current when it was made.
#[derive(Debug)]
pub struct SystemHost {
    runtime: Handle,
}

impl SystemHost {
    /// On the current runtime.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    #[must_use]
    pub fn current() -> Self {
        Self {
            runtime: Handle::current(),
        }
    }
}

impl Host for SystemHost {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }

    fn random(&self) -> io::Result<u64> {
        getrandom::u64().map_err(io::Error::from)
    }

    fn spawn(&self, task: BoxFuture<'static, ()>) {
        self.runtime.spawn(task);
    }

    fn sleep(&self, duration: Duration) -> BoxFuture<'static, ()> {
        // Whoever asks need not be on the runtime.
        let _entered = self.runtime.enter();
        Box::pin(tokio::time::sleep(duration))
    }

    fn blocking(&self, job: Box<dyn FnOnce() + Send>) {
        self.runtime.spawn_blocking(job);
    }

    fn routine(&self, name: &str, routine: Box<dyn Routine>) -> io::Result<Box<dyn Join>> {
        let thread = thread::Builder::new().name(name.into());
        let thread = thread.spawn(move || drive(routine))?;
        Ok(Box::new(Thread(thread)))
    }
}

/// A thread that drives a routine.
struct Thread(JoinHandle<()>);

impl Join for Thread {
    fn join(self: Box<Self>) -> bool {
        self.0.join().is_ok()
    }
}
