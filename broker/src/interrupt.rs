//! Ctrl-C, so that a verb can finish what it began.

use tokio::signal::unix::{Signal, SignalKind, signal};

use crate::exit::Failure;

/// Hears every Ctrl-C from its creation on, also those pressed while nobody waits.
#[derive(Debug)]
pub(crate) struct Interrupts(Signal);

impl Interrupts {
    /// Begins to listen: from here on Ctrl-C does not end the process by itself.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let signal = signal(SignalKind::interrupt());
        let signal = signal.map_err(|error| Failure::local("cannot listen for Ctrl-C", &error))?;
        Ok(Self(signal))
    }

    /// Waits for the next one. Cancel-safe.
    pub(crate) async fn next(&mut self) {
        self.0.recv().await;
    }
}
