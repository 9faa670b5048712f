//! One client's `Consume` stream whose queue is led elsewhere: its frames go to the leader, what
//! that says comes back, each at the pace of who reads it. When the leader goes away, or another
//! one has its place, the stream ends with that; the client attaches to its session again.

use std::pin::pin;

use millrace_proto::v1;
use millrace_types::{Applied, Refusal};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

use super::{Origin, Remote};
use crate::services::draining;
use crate::services::outbox::{Gone, Outbox};
use crate::tasks::Stop;

/// Frames of the client on their way: they wait in its connection's window beyond.
const FRAMES_MAX: usize = 4;

/// How a stream that was passed on ended.
pub(crate) enum Ended {
    /// It could not be opened there.
    NotOpened(Refusal),
    /// With this, or quietly.
    Closed(Result<(), Refusal>),
    /// The client is gone.
    Gone,
}

/// A client's side of the stream.
pub(crate) struct Client<'a> {
    /// The first frame, which has been read.
    pub(crate) open: v1::ConsumeOpen,
    /// The others.
    pub(crate) frames: &'a mut Streaming<v1::ConsumeFrame>,
    /// What it is told.
    pub(crate) outbox: &'a Outbox<v1::ConsumeReply>,
}

/// What a client has said.
enum Heard {
    Frame(v1::ConsumeFrame),
    /// It ended its frames.
    End,
    Broken(Status),
}

/// Serves a stream to its end, through the leader of its queue.
pub(crate) async fn serve(
    remote: &Remote,
    origin: &Origin,
    client: Client<'_>,
    stop: &Stop,
) -> Ended {
    let Client {
        open,
        frames,
        outbox,
    } = client;
    let (sender, receiver) = mpsc::channel(FRAMES_MAX);
    let first = v1::ConsumeFrame {
        frame: Some(v1::consume_frame::Frame::Open(open)),
    };
    // There is room: nothing else has been sent.
    sender.try_send(first).ok();
    let mut consumer = remote.consumer();
    let opening = consumer.consume(origin.request(ReceiverStream::new(receiver)));
    let replies = tokio::select! {
        biased;
        () = stop.ended() => return Ended::Closed(Err(draining())),
        () = outbox.closed() => return Ended::Gone,
        opened = opening => opened,
        () = remote.replaced() => return Ended::NotOpened(not_opened(remote)),
    };
    let replies = match replies {
        Ok(replies) => replies.into_inner(),
        Err(status) => return Ended::NotOpened(remote.failed(&status)),
    };
    match relay(remote, (sender, replies), (frames, outbox), stop).await {
        Ok(ended) => ended,
        Err(Gone) => Ended::Gone,
    }
}

async fn relay(
    remote: &Remote,
    (sender, mut replies): (mpsc::Sender<v1::ConsumeFrame>, Streaming<v1::ConsumeReply>),
    (frames, outbox): (&mut Streaming<v1::ConsumeFrame>, &Outbox<v1::ConsumeReply>),
    stop: &Stop,
) -> Result<Ended, Gone> {
    // Dropped when the client has ended its frames: the leader is told by that.
    let mut sender = Some(sender);
    let mut has_replied = false;
    let mut replaced = pin!(remote.replaced());
    loop {
        // Not before it is open: until then it may be opened somewhere else.
        let listening = sender.as_ref().filter(|_| has_replied);
        tokio::select! {
            biased;
            () = stop.draining() => {
                let reason = "the node is going down".to_owned();
                let reply = v1::consume_reply::Reply::Drain(v1::Drain { reason });
                outbox.send(v1::ConsumeReply { reply: Some(reply) }).await?;
                return Ok(Ended::Closed(Err(draining().unknown())));
            }
            () = outbox.closed() => return Err(Gone),
            reply = replies.message() => match reply {
                Ok(Some(reply)) => {
                    has_replied = true;
                    outbox.send(reply).await?;
                }
                Ok(None) => return Ok(Ended::Closed(Ok(()))),
                Err(status) => {
                    let refusal = remote.failed(&status);
                    return Ok(if has_replied {
                        Ended::Closed(Err(refusal))
                    } else {
                        Ended::NotOpened(refusal)
                    });
                }
            },
            () = &mut replaced => {
                return Ok(if has_replied {
                    Ended::Closed(Err(remote.silent()))
                } else {
                    Ended::NotOpened(not_opened(remote))
                });
            }
            heard = hear(listening, frames), if listening.is_some() => match heard {
                Some((slot, Heard::Frame(frame))) => drop(slot.send(frame)),
                Some((_, Heard::End)) => sender = None,
                Some((_, Heard::Broken(status))) => {
                    return Ok(Ended::Closed(Err(crate::services::unreadable(&status))));
                }
                // The leader reads no more; its replies tell why.
                None => sender = None,
            },
        }
    }
}

/// Opening a session that nobody hears of does nothing: it may be opened somewhere else.
fn not_opened(remote: &Remote) -> Refusal {
    Refusal {
        applied: Applied::No,
        ..remote.silent()
    }
}

/// The client's next frame, once there is room for it. Cancel-safe: a frame is taken only then, and
/// nothing is waited for afterwards.
async fn hear(
    sender: Option<&mpsc::Sender<v1::ConsumeFrame>>,
    frames: &mut Streaming<v1::ConsumeFrame>,
) -> Option<(mpsc::OwnedPermit<v1::ConsumeFrame>, Heard)> {
    let slot = sender?.clone().reserve_owned().await.ok()?;
    let heard = match frames.message().await {
        Ok(Some(frame)) => Heard::Frame(frame),
        Ok(None) => Heard::End,
        Err(status) => Heard::Broken(status),
    };
    Some((slot, heard))
}
