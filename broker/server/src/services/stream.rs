//! `StreamReader`: replays topics. Reading takes nothing away and keeps nothing: a subscription's
//! place is the client's to remember.

mod reading;
mod subscription;

use millrace_proto::v1;
use millrace_proto::v1::stream_reader_server::StreamReader;
use millrace_types::Refusal;
use tonic::{Request, Response, Status, Streaming};

use super::Context;
use super::consumer::answer_bytes;
use super::outbox::{Replies, outbox};
use crate::convert;
use crate::forward::Origin;
use crate::status::status;
use crate::tasks::Kind;
use crate::validate::{self, Bounded};
use millrace_node::Read;

/// Messages of one `Read`: as many as of one batch.
const READ_MESSAGES_MAX: u32 = millrace_types::BATCH_MESSAGES_MAX;
/// Messages of one `Read` when the caller does not say.
const READ_MESSAGES_DEFAULT: u32 = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl StreamReader for Service {
    type SubscribeStream = Replies<v1::SubscribeReply>;

    async fn read(
        &self,
        request: Request<v1::ReadRequest>,
    ) -> Result<Response<v1::ReadResponse>, Status> {
        self.0.admit()?;
        let origin = Origin::of(request.metadata());
        let wanted = read(request.into_inner()).map_err(status)?;
        let answer = reading::read(&self.0, &origin, wanted).await;
        answer.map(Response::new).map_err(status)
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<v1::SubscribeFrame>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        self.0.admit()?;
        let (outbox, replies) = outbox();
        let origin = Origin::of(request.metadata());
        let (context, frames) = (self.0.clone(), request.into_inner());
        self.0
            .tasks
            .spawn(Kind::Stream, "subscription", async move {
                subscription::serve(context, origin, frames, outbox).await;
                Ok::<(), Refusal>(())
            });
        Ok(Response::new(replies))
    }
}

fn read(request: v1::ReadRequest) -> Result<Read, Refusal> {
    let messages_max = Bounded {
        field: "messages_max",
        default: READ_MESSAGES_DEFAULT,
        max: READ_MESSAGES_MAX,
    };
    Ok(Read {
        address: validate::address(&request.address)?,
        partition: request.partition,
        from: convert::position("from", request.from)?,
        messages_max: messages_max.check(request.messages_max)?,
        bytes_max: answer_bytes(request.bytes_max)?,
    })
}
