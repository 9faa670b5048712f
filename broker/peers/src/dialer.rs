//! Keeps one lane to one peer connected. Dials, shakes hands, lets the queue flow, and begins
//! again when it ends: soon after a failure, slowly after a refusal that lasts, at once for a new
//! address.
//!
//! Tells the owner of every failure and, at a bounded rate, of a full queue. It never waits for
//! what the peer reads: the transport takes frames from the queue by itself.

use std::sync::Arc;
use std::time::Duration;

use millrace_proto::peer::v1::peer_client::PeerClient;
use millrace_replica::Lane;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, IntoStreamingRequest as _, Status, Streaming};
use tracing::{info, warn};

use crate::backoff::{Backoff, jittered};
use crate::convert::{self, Frame, Hello};
use crate::error::{LinkError, Reason, Refusal, Side};
use crate::frames::Frames;
use crate::handshake::Agreed;
use crate::limits::{FRAME_BYTES_MAX, REPLY_BYTES_MAX};
use crate::line::Line;
use crate::queue::Epoch;
use crate::shared::Shared;
use crate::transport;

/// A full queue is told at most this often: every shard with a replica there looks at it.
const OVERFLOW_TOLD_EVERY: Duration = Duration::from_millis(100);

/// The task of one lane to one peer.
#[derive(Debug)]
pub(crate) struct Dialer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) line: Arc<Line>,
    pub(crate) address: watch::Receiver<String>,
    pub(crate) stop: CancellationToken,
}

/// A connection, when both have said hello.
struct Open {
    agreed: Agreed,
    replies: Streaming<Frame>,
}

impl Dialer {
    /// Runs until it is stopped, or nobody can give it another address.
    pub(crate) async fn run(mut self) {
        let timing = self.shared.timing;
        let mut backoff = Backoff::new(timing.backoff_first, timing.backoff_longest);
        let stop = self.stop.clone();
        loop {
            let address = self.address.borrow_and_update().clone();
            let error = tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.address.changed() => {
                    if changed.is_err() {
                        break;
                    }
                    backoff.reset();
                    self.line.down();
                    self.tell();
                    continue;
                }
                error = connection(&self.shared, &self.line, &address, &mut backoff) => error,
            };
            let delay = if error.lasts() {
                jittered(timing.refused_retry)
            } else {
                backoff.delay()
            };
            self.failed(error);
            tokio::select! {
                biased;
                () = stop.cancelled() => break,
                changed = self.address.changed() => match changed {
                    Ok(()) => backoff.reset(),
                    Err(_) => break,
                },
                () = sleep(delay) => {}
            }
        }
        self.line.down();
    }

    fn failed(&self, error: LinkError) {
        let (node, lane) = (self.line.node, self.line.lane);
        let text = error.to_string();
        if self.line.failed(error) {
            warn!(%node, %lane, error = text, "no connection to peer");
        }
        self.tell();
    }

    fn tell(&self) {
        self.shared
            .inbound
            .unreachable(self.line.node, self.line.lane);
    }
}

/// One connection, from dialling to its end.
async fn connection(
    shared: &Shared,
    line: &Arc<Line>,
    address: &str,
    backoff: &mut Backoff,
) -> LinkError {
    let within = shared.timing.dial_within;
    line.dialling();
    let epoch = line.queue.dialling();
    let open = match timeout(within, dial(shared, line, address, epoch)).await {
        Ok(Ok(open)) => open,
        Ok(Err(error)) => return error,
        Err(_) => {
            return LinkError::Silent {
                address: address.to_owned(),
                within,
            };
        }
    };
    backoff.reset();
    let (node, lane) = (line.node, line.lane);
    info!(%node, %lane, address, version = open.agreed.version, "connected to peer");
    line.up(open.agreed);
    attend(shared, line, address, open.replies).await
}

async fn dial(
    shared: &Shared,
    line: &Arc<Line>,
    address: &str,
    epoch: Epoch,
) -> Result<Open, LinkError> {
    let endpoint = transport::endpoint(address, &shared.timing)?;
    // A channel connects again by itself, but only for another call: each gets a single one.
    let channel = endpoint
        .connect()
        .await
        .map_err(|error| LinkError::Connect {
            address: address.to_owned(),
            text: chain(&error),
        })?;
    let hello = shared.identity.hello(line.node, line.lane);
    let frames = Frames::new(hello.into(), Arc::clone(line), epoch);
    let mut request = frames.into_streaming_request();
    if let Some(value) = authorization(shared)? {
        request.metadata_mut().insert("authorization", value);
    }
    let mut client = PeerClient::new(channel)
        .max_encoding_message_size(FRAME_BYTES_MAX)
        .max_decoding_message_size(REPLY_BYTES_MAX);
    let ended = |status| ended(line, address, &status);
    let mut replies = client.exchange(request).await.map_err(ended)?.into_inner();
    let first = replies.message().await.map_err(ended)?;
    let first = first.ok_or_else(|| lost(address, "it ended without a hello"))?;
    let agreed = judge(shared, line, first)?;
    Ok(Open { agreed, replies })
}

fn judge(shared: &Shared, line: &Line, mut first: Frame) -> Result<Agreed, LinkError> {
    if let Some(refusal) = convert::refusal(&mut first) {
        return Err(refused(Side::Them, refusal));
    }
    Hello::try_from(first)
        .and_then(|hello| shared.identity.judge_answer(hello, line.node, line.lane))
        .map_err(|refusal| refused(Side::Us, refusal))
}

/// Reads replies until the connection ends, measures the round trip, tells of a full queue.
async fn attend(
    shared: &Shared,
    line: &Line,
    address: &str,
    mut replies: Streaming<Frame>,
) -> LinkError {
    let mut pings = interval(shared.timing.ping_every);
    pings.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut quiet_until = Instant::now();
    loop {
        let overflowed = async {
            sleep_until(quiet_until).await;
            line.queue.overflowed().await;
        };
        tokio::select! {
            biased;
            reply = replies.message() => {
                let mut reply = match reply {
                    Ok(Some(reply)) => reply,
                    Ok(None) => return lost(address, "the peer ended it"),
                    Err(status) => return ended(line, address, &status),
                };
                if let Some(refusal) = convert::refusal(&mut reply) {
                    return refused(Side::Them, refusal);
                }
                if let Some(pong) = reply.pong {
                    line.pong(pong.id);
                }
            }
            _ = pings.tick(), if line.lane == Lane::Votes => line.ping(),
            () = overflowed => {
                shared.inbound.unreachable(line.node, line.lane);
                quiet_until = Instant::now() + OVERFLOW_TOLD_EVERY;
            }
        }
    }
}

/// What to show to the peer, if the cluster has a secret.
pub(crate) fn authorization(shared: &Shared) -> Result<Option<MetadataValue<Ascii>>, LinkError> {
    let Some(token) = shared.credential.token() else {
        return Ok(None);
    };
    let value = [b"Bearer ".as_slice(), &token].concat();
    match MetadataValue::try_from(value) {
        Ok(mut value) => {
            value.set_sensitive(true);
            Ok(Some(value))
        }
        Err(_) => {
            let text = "our token has characters that a header cannot carry";
            Err(refused(Side::Us, Refusal::new(Reason::Token, text)))
        }
    }
}

/// How the end of a call is told.
fn ended(line: &Line, address: &str, status: &Status) -> LinkError {
    let text = convert::shortened(status.message());
    if status.code() == Code::Unauthenticated {
        let text = format!("node {} at {address}: {text}", line.node);
        return refused(Side::Them, Refusal::new(Reason::Token, text));
    }
    lost(address, &format!("{:?}: {text}", status.code()))
}

const fn refused(side: Side, refusal: Refusal) -> LinkError {
    LinkError::Refused { side, refusal }
}

fn lost(address: &str, text: &str) -> LinkError {
    LinkError::Lost {
        address: address.to_owned(),
        text: text.to_owned(),
    }
}

/// An error with what it came from: the transport's own text says next to nothing.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(next) = source {
        text = format!("{text}: {next}");
        source = next.source();
    }
    text
}
