//! A bidirectional call: frames up, replies down.

use std::time::Duration;

use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Response, Status, Streaming};

use crate::error::{Applied, Error};

/// Frames on their way to the transport: few, so that what waits behind them grows into batches.
const FRAMES_WAITING_MAX: usize = 4;
/// A server that takes the connection but does not open the stream within this is not serving.
const OPEN_TIMEOUT: Duration = Duration::from_secs(10);

/// An open call.
pub(crate) struct Duplex<F, R> {
    /// Up.
    pub(crate) frames: mpsc::Sender<F>,
    /// Down.
    pub(crate) replies: Streaming<R>,
}

impl<F: Send + 'static, R> Duplex<F, R> {
    /// Opens the call; `first` goes ahead of all other frames.
    pub(crate) async fn open<A>(
        first: Option<F>,
        call: impl FnOnce(ReceiverStream<F>) -> A,
    ) -> Result<Self, Error>
    where
        A: Future<Output = Result<Response<Streaming<R>>, Status>>,
    {
        let (frames, outgoing) = mpsc::channel(FRAMES_WAITING_MAX);
        if let Some(first) = first {
            // Cannot fail: the channel is empty and `outgoing` lives.
            drop(frames.try_send(first));
        }
        match tokio::time::timeout(OPEN_TIMEOUT, call(ReceiverStream::new(outgoing))).await {
            Ok(answer) => Ok(Self {
                frames,
                replies: answer?.into_inner(),
            }),
            Err(_) => Err(Error::local(
                Error::UNREACHABLE,
                Code::DeadlineExceeded,
                Applied::No,
                format!("the server did not open the stream within {OPEN_TIMEOUT:?}"),
            )),
        }
    }
}

/// Whether trying again would only fail again: the server understood, and does not want this.
pub(crate) fn is_final(error: &Error) -> bool {
    match error.code {
        Code::InvalidArgument
        | Code::NotFound
        | Code::PermissionDenied
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Unauthenticated => true,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::DeadlineExceeded
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::Internal
        | Code::Unavailable
        | Code::DataLoss => false,
    }
}
