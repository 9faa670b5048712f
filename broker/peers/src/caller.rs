//! Questions to one peer: each has one answer, or none. On a connection of its own, made when it is
//! needed, so that no question waits behind a lane's messages.
//!
//! Promises: who gets no answer learns whether the question can have arrived.

use std::error::Error as _;

use bytes::Bytes;
use millrace_proto::peer::v1::peer_client::PeerClient;
use millrace_replica::Lane;
use millrace_types::NodeId;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tonic::transport::Channel;
use tonic::{Code, ConnectError, Request, Status};

use crate::convert::{self, Frame, Hello};
use crate::dialer::{authorization, chain};
use crate::error::{CallError, LinkError, Reason, Refusal};
use crate::limits::FRAME_BYTES_MAX;
use crate::shared::Shared;
use crate::transport;

/// The connection for questions to one peer, if there is one.
#[derive(Debug, Default)]
pub(crate) struct Caller(Mutex<Option<Open>>);

#[derive(Clone, Debug)]
struct Open {
    address: String,
    channel: Channel,
}

impl Caller {
    /// Asks, and waits for the answer.
    ///
    /// # Errors
    /// Why there is none.
    pub(crate) async fn ask(
        &self,
        shared: &Shared,
        to: NodeId,
        address: &str,
        question: Bytes,
    ) -> Result<Bytes, CallError> {
        let within = shared.timing.dial_within;
        let dialled = timeout(within, self.channel(shared, address)).await;
        let silent = || LinkError::Silent {
            address: address.to_owned(),
            within,
        };
        let dialled = dialled.unwrap_or_else(|_| Err(silent()));
        let channel = dialled.map_err(CallError::not_sent)?;
        let mut request = Request::new(Frame {
            question,
            ..shared.identity.hello(to, Lane::Appends).into()
        });
        if let Some(value) = authorization(shared).map_err(CallError::not_sent)? {
            request.metadata_mut().insert("authorization", value);
        }
        let mut client = PeerClient::new(channel)
            .max_encoding_message_size(FRAME_BYTES_MAX)
            .max_decoding_message_size(FRAME_BYTES_MAX);
        let within = shared.timing.call_within;
        match timeout(within, client.call(request)).await {
            Ok(Ok(response)) => judge(shared, to, response.into_inner()),
            Ok(Err(status)) => {
                // A connection that is no more may look well until it is used.
                self.forget(address).await;
                let text = convert::shortened(status.message());
                if status.code() == Code::Unauthenticated || is_unconnected(&status) {
                    return Err(CallError::NotSent { text });
                }
                Err(CallError::NoAnswer { text })
            }
            Err(_) => {
                self.forget(address).await;
                let text = format!("no answer within {within:?}");
                Err(CallError::NoAnswer { text })
            }
        }
    }

    async fn channel(&self, shared: &Shared, address: &str) -> Result<Channel, LinkError> {
        // Held while dialling: all who ask meanwhile want the same connection.
        let mut open = self.0.lock().await;
        if let Some(open) = open.as_ref().filter(|open| open.address == address) {
            return Ok(open.channel.clone());
        }
        let endpoint = transport::call_endpoint(address, &shared.timing)?;
        let channel = endpoint.connect().await;
        let channel = channel.map_err(|error| LinkError::Connect {
            address: address.to_owned(),
            text: chain(&error),
        })?;
        let address = address.to_owned();
        let new = open.insert(Open { address, channel });
        Ok(new.channel.clone())
    }

    async fn forget(&self, address: &str) {
        self.0.lock().await.take_if(|open| open.address == address);
    }
}

/// Whether the connection had ended before, and could not be made again.
fn is_unconnected(status: &Status) -> bool {
    let mut source = status.source();
    while let Some(error) = source {
        if error.is::<ConnectError>() {
            return true;
        }
        source = error.source();
    }
    false
}

/// The answer, if the right node gave it.
fn judge(shared: &Shared, to: NodeId, mut frame: Frame) -> Result<Bytes, CallError> {
    if let Some(refusal) = convert::refusal(&mut frame) {
        return Err(CallError::NotSent { text: refusal.text });
    }
    let answer = std::mem::take(&mut frame.answer);
    let judge = |hello| shared.identity.judge_answer(hello, to, Lane::Appends);
    // It was looked at, by whoever that is.
    match Hello::try_from(frame).and_then(judge) {
        Ok(_) => Ok(answer),
        Err(Refusal { text, .. }) => Err(CallError::NoAnswer { text }),
    }
}

/// Judges a question that came in.
///
/// # Errors
/// A refusal for the caller.
pub(crate) fn judge_question(
    shared: &Shared,
    mut frame: Frame,
) -> Result<(NodeId, Bytes), Refusal> {
    if shared.stop.is_cancelled() {
        let text = format!("node {} is going down", shared.identity.node);
        return Err(Refusal::new(Reason::Closing, text));
    }
    let question = std::mem::take(&mut frame.question);
    let agreed = shared.identity.judge_caller(Hello::try_from(frame)?)?;
    Ok((agreed.node, question))
}
