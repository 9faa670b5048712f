//! One stream that a peer opened: hello, then messages until it ends. Hands each frame on before it
//! reads the next, so that what is not taken stays with the sender.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use millrace_replica::{Lane, ShardMessage};
use millrace_types::NodeId;
use prost::Message as _;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tonic::{Status, Streaming};
use tracing::{debug, warn};

use crate::convert::{self, BadMessage, Frame, Hello};
use crate::error::{Reason, Refusal};
use crate::handshake::Agreed;
use crate::incoming::Claim;
use crate::repeats::{Heard, Numbers};
use crate::shared::Shared;

/// How long the caller has to read why its stream ends: one round trip, generously.
const GOODBYE_WITHIN: Duration = Duration::from_secs(1);

/// A stream, and where its replies go.
#[derive(Debug)]
pub(crate) struct Session {
    shared: Arc<Shared>,
    from: Option<SocketAddr>,
    frames: Streaming<Frame>,
    replies: mpsc::Sender<Result<Frame, Status>>,
}

/// How a stream ends.
enum End {
    /// The caller is gone.
    Gone,
    /// We do not want it.
    Refused(Refusal),
}

impl Session {
    pub(crate) const fn new(
        shared: Arc<Shared>,
        from: Option<SocketAddr>,
        frames: Streaming<Frame>,
        replies: mpsc::Sender<Result<Frame, Status>>,
    ) -> Self {
        Self {
            shared,
            from,
            frames,
            replies,
        }
    }

    /// Runs the stream to its end.
    pub(crate) async fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let end = tokio::select! {
            biased;
            () = shared.stop.cancelled() => End::Refused(closing(shared.identity.node)),
            end = self.serve() => end,
        };
        if let End::Refused(refusal) = end {
            self.say_goodbye(&refusal).await;
        }
    }

    async fn serve(&mut self) -> End {
        let hello = match timeout(self.shared.timing.hello_within, self.hello()).await {
            Ok(Ok(hello)) => hello,
            Ok(Err(end)) => return end,
            Err(_) => return refused(Reason::Protocol, "no hello came in time"),
        };
        let (node, lane) = (hello.identity.node, hello.lane);
        let shared = Arc::clone(&self.shared);
        let end = match shared.identity.judge_caller(hello) {
            Ok(agreed) => self.exchange(agreed).await,
            Err(refusal) => End::Refused(refusal),
        };
        if let End::Refused(refusal) = &end
            && node != shared.identity.node
        {
            warn!(%node, %lane, from = ?self.from, %refusal, "stream of a peer refused");
            shared.incoming.refused(node, lane, refusal);
        }
        end
    }

    async fn hello(&mut self) -> Result<Hello, End> {
        let frame = next(&mut self.frames).await?;
        Hello::try_from(frame).map_err(End::Refused)
    }

    async fn exchange(&mut self, agreed: Agreed) -> End {
        let (node, lane) = (agreed.node, agreed.lane);
        let shared = Arc::clone(&self.shared);
        let claim = shared.incoming.claim(agreed, self.from).await;
        let hello = shared.identity.hello(node, lane);
        if self.replies.send(Ok(hello.into())).await.is_err() {
            return End::Gone;
        }
        debug!(%node, %lane, from = ?self.from, "a peer has opened a stream");
        tokio::select! {
            biased;
            refusal = claim.ended() => End::Refused(refusal),
            end = self.receive(&claim, node, lane) => end,
        }
    }

    async fn receive(&mut self, claim: &Claim<'_>, node: NodeId, lane: Lane) -> End {
        let mut heard = Heard::default();
        loop {
            let frame = match next(&mut self.frames).await {
                Ok(frame) => frame,
                Err(end) => return end,
            };
            let (count, bytes) = (frame.messages.len(), frame.encoded_len());
            let numbers = Numbers::of(&frame);
            if let Some(ping) = frame.ping {
                // A caller that does not read its pongs gets none: they are only for its status.
                let _sent = self.replies.try_send(Ok(convert::pong(ping)));
            }
            let messages = match taken(frame) {
                Ok(messages) => messages,
                Err(refusal) => return End::Refused(refusal),
            };
            claim.arrived.skipped(count - messages.len());
            let messages = match heard.resolve(numbers, bytes, messages) {
                Ok(messages) => messages,
                Err(refusal) => return End::Refused(refusal),
            };
            claim.arrived.frame(messages.len().max(count), bytes);
            if !messages.is_empty() {
                self.shared.inbound.received(node, lane, messages).await;
            }
        }
    }

    /// Says why, and waits for the caller to go: a stream that is reset too soon takes what was
    /// said with it.
    async fn say_goodbye(self, refusal: &Refusal) {
        let _gone = timeout(GOODBYE_WITHIN, async {
            if self.replies.send(Ok(Frame::from(refusal))).await.is_ok() {
                self.replies.closed().await;
            }
        })
        .await;
    }
}

/// The next frame of a stream.
async fn next(frames: &mut Streaming<Frame>) -> Result<Frame, End> {
    match frames.message().await {
        Ok(Some(frame)) => Ok(frame),
        Ok(None) => Err(End::Gone),
        Err(status) => match status.code() {
            // How the transport says that a frame is too large or cannot be decoded; a connection
            // that is lost is told in other words, and nobody is there to be told.
            tonic::Code::OutOfRange | tonic::Code::Internal => {
                let text = convert::shortened(status.message());
                let text = format!("the frame cannot be read: {text}");
                Err(End::Refused(Refusal::new(Reason::Protocol, text)))
            }
            _ => Err(End::Gone),
        },
    }
}

/// The messages of a frame, without those that only a newer version knows.
fn taken(frame: Frame) -> Result<Vec<ShardMessage>, Refusal> {
    let mut messages = Vec::with_capacity(frame.messages.len());
    for message in frame.messages {
        match convert::unpacked(message) {
            Ok(message) => messages.push(message),
            Err(BadMessage::Unknown) => {}
            Err(bad @ (BadMessage::Damaged | BadMessage::Malformed)) => {
                return Err(Refusal::new(
                    Reason::Protocol,
                    format!("a message is {bad}"),
                ));
            }
        }
    }
    Ok(messages)
}

fn closing(us: NodeId) -> Refusal {
    Refusal::new(Reason::Closing, format!("node {us} is going down"))
}

fn refused(reason: Reason, text: &str) -> End {
    End::Refused(Refusal::new(reason, text))
}
