//! The stream that the transport reads when it has room: a hello, then what waits in a queue. There
//! is no buffer in between, so a frame is made as late as can be and of all that waits by then.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use futures::Stream;

use crate::convert::{Frame, sealed};
use crate::line::Line;
use crate::queue::Epoch;
use crate::repeats::Said;

/// The frames of one connection.
#[derive(Debug)]
pub(crate) struct Frames {
    hello: Option<Frame>,
    line: Arc<Line>,
    epoch: Epoch,
    said: Said,
}

impl Frames {
    pub(crate) fn new(hello: Frame, line: Arc<Line>, epoch: Epoch) -> Self {
        Self {
            said: Said::new(line.lane),
            hello: Some(hello),
            line,
            epoch,
        }
    }
}

impl Stream for Frames {
    type Item = Frame;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Frame>> {
        if let Some(hello) = self.hello.take() {
            return Poll::Ready(Some(hello));
        }
        let batch = self.line.queue.take(self.epoch, context.waker());
        batch.map(|batch| {
            let frame = batch.map(|batch| sealed(batch.ping, batch.messages));
            frame.map(|frame| self.said.shorten(frame))
        })
    }
}
