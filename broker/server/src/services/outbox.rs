//! What a stream sends to its client. A client that does not read for a while is given up, so that
//! a stalled socket holds no memory for ever.

use std::time::Duration;

use millrace_types::Refusal;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::status::status;

/// Replies on their way to the transport: few, since each may hold megabytes, and enough to keep it
/// busy while the next one is made.
const REPLIES_MAX: usize = 8;
/// A client that reads nothing for this long has stalled or is gone: three missed keep-alives.
const STALL_MAX: Duration = Duration::from_secs(60);

/// The client is gone or has stalled; its stream is to end quietly.
#[derive(Debug)]
pub(crate) struct Gone;

/// The sending half of a stream's replies.
#[derive(Debug)]
pub(crate) struct Outbox<T>(mpsc::Sender<Result<T, Status>>);

/// The half the transport reads.
pub(crate) type Replies<T> = ReceiverStream<Result<T, Status>>;

pub(crate) fn outbox<T>() -> (Outbox<T>, Replies<T>) {
    let (sender, receiver) = mpsc::channel(REPLIES_MAX);
    (Outbox(sender), ReceiverStream::new(receiver))
}

impl<T> Outbox<T> {
    /// Hands one reply to the transport.
    pub(crate) async fn send(&self, reply: T) -> Result<(), Gone> {
        let sent = self.0.send_timeout(Ok(reply), STALL_MAX).await;
        sent.map_err(|_| Gone)
    }

    /// Ends the stream with an error.
    pub(crate) async fn fail(self, refusal: Refusal) {
        // Whoever cannot be told is gone, which is what the caller wants anyway.
        let _gone = self.0.send_timeout(Err(status(refusal)), STALL_MAX).await;
    }

    /// Resolves when the client has gone. Cancel-safe.
    pub(crate) async fn closed(&self) {
        self.0.closed().await;
    }
}
