//! `Consumer`: takes messages from queues and ends their leases. The session of a stream lives in
//! the broker; here are its frames, its keep-alive and its end.
//!
//! How a stream can end: the client closes the session (what it holds is released); the client ends
//! its frames, or vanishes (the session stays for its time to live, to be resumed); the client is
//! silent for that long (the session is closed); the broker ends the session or goes down.

pub(crate) mod session;

use millrace_proto::v1;
use millrace_proto::v1::consumer_server::Consumer;
use millrace_types::{Address, Offset, Refusal};
use std::time::Duration;
use tonic::{Request, Response, Status, Streaming};

use super::Context;
use super::outbox::{Replies, outbox};
use crate::convert;
use crate::forward::{Origin, Place};
use crate::status::status;
use crate::tasks::Kind;
use crate::validate::{self, Bounded, invalid};
use millrace_node::{Delivered, MESSAGES_MAX, Peek, PeekAnswer, Receive, SettleTag, WAIT_MAX};

/// Bytes of one answer unless its first message alone is larger: what clients with gRPC's default
/// limit of 4 MiB can take, and no more than a moment's memory.
pub(crate) const ANSWER_BYTES_MAX: u64 = 4 << 20;
/// Tags of one call or frame: bounds the work of one command.
const TAGS_MAX: usize = 10_000;
/// Messages of one `Peek` when the caller does not say: a screenful.
const PEEK_MESSAGES_DEFAULT: u32 = 10;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl Consumer for Service {
    type ConsumeStream = Replies<v1::ConsumeReply>;

    async fn consume(
        &self,
        request: Request<Streaming<v1::ConsumeFrame>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        self.0.admit()?;
        let (outbox, replies) = outbox();
        let origin = Origin::of(request.metadata());
        let (context, frames) = (self.0.clone(), request.into_inner());
        self.0
            .tasks
            .spawn(Kind::Stream, "consume stream", async move {
                session::serve(context, origin, frames, outbox).await;
                Ok::<(), Refusal>(())
            });
        Ok(Response::new(replies))
    }

    async fn receive(
        &self,
        request: Request<v1::ReceiveRequest>,
    ) -> Result<Response<v1::ReceiveResponse>, Status> {
        self.0.admit()?;
        let origin = Origin::of(request.metadata());
        let request = request.into_inner();
        let answer = self.receive_routed(&origin, request).await;
        answer.map(Response::new).map_err(status)
    }

    async fn settle(
        &self,
        request: Request<v1::SettleRequest>,
    ) -> Result<Response<v1::SettleResponse>, Status> {
        let request = request.into_inner();
        let address = optional_address(&request.address).map_err(status)?;
        let (entries, mut refused) = split(request.settlements);
        let tags: Vec<_> = entries.iter().map(|entry| entry.tag.clone()).collect();
        let mut settled = 0;
        if !entries.is_empty() {
            let answers = self.0.broker.settle(address.as_ref(), entries).await;
            for (tag, answer) in tags.into_iter().zip(answers) {
                match answer {
                    Ok(()) => settled += 1,
                    Err(refusal) => refused.push(convert::settle_refusal(tag, refusal)),
                }
            }
        }
        Ok(Response::new(v1::SettleResponse { refused, settled }))
    }

    async fn peek(
        &self,
        request: Request<v1::PeekRequest>,
    ) -> Result<Response<v1::PeekResponse>, Status> {
        self.0.admit()?;
        let origin = Origin::of(request.metadata());
        let request = request.into_inner();
        let answer = self.peek_routed(&origin, request).await;
        answer.map(Response::new).map_err(status)
    }
}

impl Service {
    /// Takes messages where the queue is led.
    async fn receive_routed(
        &self,
        origin: &Origin,
        request: v1::ReceiveRequest,
    ) -> Result<v1::ReceiveResponse, Refusal> {
        let wanted = receive(&request)?;
        let (forward, broker) = (&self.0.forward, &self.0.broker);
        let mut call = forward.call(origin, broker.queue_shard(&wanted.address).await?);
        loop {
            let answer = match call.place().await? {
                Place::Here => broker.receive(wanted.clone()).await.and_then(received),
                Place::There(remote) => {
                    let mut consumer = remote.consumer();
                    let call = consumer.receive(origin.request(request.clone()));
                    remote.ask(call).await
                }
            };
            match answer {
                Err(refusal) if call.again(&refusal).await => {}
                answer => return answer.map_err(|refusal| call.hinted(refusal)),
            }
        }
    }

    /// Looks where the queue is led.
    async fn peek_routed(
        &self,
        origin: &Origin,
        request: v1::PeekRequest,
    ) -> Result<v1::PeekResponse, Refusal> {
        let wanted = peek(&request)?;
        let (forward, broker) = (&self.0.forward, &self.0.broker);
        let mut call = forward.call(origin, broker.queue_shard(&wanted.address).await?);
        loop {
            let answer = match call.place().await? {
                Place::Here => broker.peek(wanted.clone()).await.and_then(peeked),
                Place::There(remote) => {
                    let mut consumer = remote.consumer();
                    let call = consumer.peek(origin.request(request.clone()));
                    remote.look(call).await
                }
            };
            match answer {
                Err(refusal) if call.again(&refusal).await => {}
                answer => return answer.map_err(|refusal| call.hinted(refusal)),
            }
        }
    }
}

fn received(delivered: Vec<Delivered>) -> Result<v1::ReceiveResponse, Refusal> {
    let deliveries = delivered.into_iter().map(convert::delivery);
    let deliveries = deliveries.collect::<Result<_, _>>()?;
    Ok(v1::ReceiveResponse { deliveries })
}

fn peeked(answer: PeekAnswer) -> Result<v1::PeekResponse, Refusal> {
    let messages = answer.messages.into_iter().map(convert::peeked);
    Ok(v1::PeekResponse {
        messages: messages.collect::<Result<_, _>>()?,
        next: answer.next.map(Offset::get),
    })
}

fn receive(request: &v1::ReceiveRequest) -> Result<Receive, Refusal> {
    let messages_max = Bounded {
        field: "messages_max",
        default: 1,
        max: MESSAGES_MAX,
    };
    let wait = request.wait.as_ref();
    let wait_ms = wait.map(|wait| convert::millis("wait", wait, WAIT_MAX));
    Ok(Receive {
        address: validate::address(&request.address)?,
        messages_max: messages_max.check(request.messages_max)?,
        bytes_max: answer_bytes(request.bytes_max)?,
        wait: Duration::from_millis(wait_ms.transpose()?.unwrap_or(0)),
        lease: request.lease.as_ref().map(convert::lease).transpose()?,
    })
}

fn peek(request: &v1::PeekRequest) -> Result<Peek, Refusal> {
    let messages_max = Bounded {
        field: "messages_max",
        default: PEEK_MESSAGES_DEFAULT,
        max: MESSAGES_MAX,
    };
    Ok(Peek {
        address: validate::address(&request.address)?,
        from: Offset::new(request.from),
        messages_max: messages_max.check(request.messages_max)?,
    })
}

/// The bytes a caller lets an answer have; 0 means as many as there may be.
pub(crate) fn answer_bytes(bytes_max: u64) -> Result<u64, Refusal> {
    match bytes_max {
        0 => Ok(ANSWER_BYTES_MAX),
        bytes if bytes > ANSWER_BYTES_MAX => {
            let text = format!("is {bytes}; want at most {ANSWER_BYTES_MAX}");
            Err(invalid("bytes_max", text).with("limit", ANSWER_BYTES_MAX.to_string()))
        }
        bytes => Ok(bytes),
    }
}

/// Tags name their queue themselves: an address is a check, not a need.
fn optional_address(text: &str) -> Result<Option<Address>, Refusal> {
    if text.is_empty() {
        return Ok(None);
    }
    validate::address(text).map(Some)
}

/// Tags to settle, and those refused before the broker sees them.
fn split(settlements: Vec<v1::Settlement>) -> (Vec<SettleTag>, Vec<v1::SettleRefusal>) {
    let entries = convert::settlements(settlements);
    let too_many = entries.len() > TAGS_MAX;
    let mut good = Vec::with_capacity(entries.len());
    let mut refused = Vec::new();
    for entry in entries {
        match entry {
            Ok(entry) if too_many => {
                let text = format!("more than {TAGS_MAX} tags at once");
                let refusal = invalid("settlements", text);
                refused.push(convert::settle_refusal(entry.tag, refusal));
            }
            Ok(entry) => good.push(entry),
            Err((tag, refusal)) => refused.push(convert::settle_refusal(tag, refusal)),
        }
    }
    (good, refused)
}
