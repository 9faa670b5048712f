//! The way back to whoever proposed a command. Every reply is given exactly once: one that is
//! dropped unanswered (the thread ended, the journal failed) says that the outcome is unknown.

use millrace_types::{ErrorCode, Refusal};
use tokio::sync::oneshot;

type Answer<T> = Box<dyn FnOnce(Result<T, Refusal>) + Send>;

/// Answers one proposal.
pub(super) struct Reply<T: 'static>(Option<Answer<T>>);

impl<T: Send + 'static> Reply<T> {
    /// Calls `answer` on the worker's thread: it must not block.
    pub(super) fn to(answer: impl FnOnce(Result<T, Refusal>) + Send + 'static) -> Self {
        Self(Some(Box::new(answer)))
    }

    /// Nobody waits.
    pub(super) const fn none() -> Self {
        Self(None)
    }

    /// Answers a future.
    pub(super) fn channel() -> (Self, Pending<T>) {
        let (sender, receiver) = oneshot::channel();
        let reply = Self::to(move |answer| {
            // A caller that has gone away does not want to know.
            sender.send(answer).ok();
        });
        (reply, Pending(receiver))
    }

    /// Gives the answer.
    pub(super) fn answer(mut self, answer: Result<T, Refusal>) {
        if let Some(give) = self.0.take() {
            give(answer);
        }
    }
}

impl<T> Drop for Reply<T> {
    fn drop(&mut self) {
        if let Some(give) = self.0.take() {
            give(Err(stopped()));
        }
    }
}

/// An answer to come.
pub(super) struct Pending<T>(oneshot::Receiver<Result<T, Refusal>>);

impl<T> Pending<T> {
    /// Waits for the answer.
    pub(super) async fn answer(self) -> Result<T, Refusal> {
        self.0.await.unwrap_or_else(|_| Err(stopped()))
    }
}

fn stopped() -> Refusal {
    Refusal::new(
        ErrorCode::ShardUnavailable,
        "the node stopped before it could answer",
    )
    .unknown()
}

#[cfg(test)]
mod tests {
    use millrace_types::Applied;

    use super::*;

    #[tokio::test]
    async fn a_reply_that_is_dropped_says_that_the_outcome_is_unknown() {
        let (reply, pending) = Reply::<()>::channel();
        drop(reply);
        let refusal = pending.answer().await.unwrap_err();
        assert_eq!(refusal.applied, Applied::Unknown);
        assert_eq!(refusal.code, ErrorCode::ShardUnavailable);
    }

    #[tokio::test]
    async fn a_reply_is_given_once() {
        let (reply, pending) = Reply::channel();
        reply.answer(Ok(7));
        assert_eq!(pending.answer().await, Ok(7));
    }
}
