//! Ctrl-C, and the end of a pod, so that a verb can finish what it began.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Hears every Ctrl-C and every SIGTERM from its creation on, also those that come while nobody
/// waits. As the first process of a container it would not be ended by a SIGTERM it does not hear.
#[derive(Debug)]
pub(crate) struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    /// Begins to listen: from here on neither ends the process by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let listen = |kind| {
            let signal = signal(kind);
            signal.map_err(|error| Failure::local("cannot listen for Ctrl-C", &error))
        };
        Ok(Self {
            interrupt: listen(SignalKind::interrupt())?,
            terminate: listen(SignalKind::terminate())?,
        })
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}
