//! The gRPC service that peers call: looks at the token, gives a stream a place and a task, and a
//! question a place.

use std::net::SocketAddr;
use std::sync::Arc;

use millrace_proto::peer::v1::peer_server::{Peer, PeerServer};
use millrace_replica::Lane;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::caller::judge_question;
use crate::convert::Frame;
use crate::error::{Reason, Refusal};
use crate::limits::{FRAME_BYTES_MAX, REPLIES_MAX};
use crate::session::Session;
use crate::shared::Shared;

const SCHEME: &[u8] = b"Bearer ";

/// What a peer listener serves.
#[derive(Clone, Debug)]
pub struct Service(pub(crate) Arc<Shared>);

/// A service of peers with our limits of size.
pub fn limited<T: Peer>(service: T) -> PeerServer<T> {
    // Answers to streams are small; those to questions need not be.
    PeerServer::new(service)
        .max_decoding_message_size(FRAME_BYTES_MAX)
        .max_encoding_message_size(FRAME_BYTES_MAX)
}

#[tonic::async_trait]
impl Peer for Service {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let from = request.remote_addr();
        self.check(request.metadata(), from)?;
        let (replies, stream) = mpsc::channel(REPLIES_MAX);
        match Arc::clone(&self.0.places).try_acquire_owned() {
            Ok(place) => {
                let session =
                    Session::new(Arc::clone(&self.0), from, request.into_inner(), replies);
                self.0.tasks.spawn(async move {
                    session.run().await;
                    drop(place);
                });
            }
            Err(_) => {
                let us = self.0.identity.node;
                let text = format!("node {us} has no room for another stream");
                let refusal = Refusal::new(Reason::Busy, text);
                // There is room: the channel is new.
                let _sent = replies.try_send(Ok(Frame::from(&refusal)));
            }
        }
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn call(&self, request: Request<Frame>) -> Result<Response<Frame>, Status> {
        let from = request.remote_addr();
        self.check(request.metadata(), from)?;
        let us = self.0.identity.node;
        let answer = async {
            let (node, question) = judge_question(&self.0, request.into_inner())?;
            let Ok(_place) = Arc::clone(&self.0.questions).try_acquire_owned() else {
                let text = format!("node {us} has no room for another question");
                return Err(Refusal::new(Reason::Busy, text));
            };
            let answer = self.0.inbound.asked(node, question).await;
            Ok(Frame {
                answer,
                ..self.0.identity.hello(node, Lane::Appends).into()
            })
        };
        tokio::select! {
            biased;
            frame = answer => Ok(Response::new(
                frame.unwrap_or_else(|refusal| Frame::from(&refusal)),
            )),
            () = self.0.stop.cancelled() => {
                let text = format!("node {us} goes down before it has an answer");
                Err(Status::unavailable(text))
            }
        }
    }
}

impl Service {
    fn check(&self, metadata: &MetadataMap, from: Option<SocketAddr>) -> Result<(), Status> {
        if self.0.credential.accepts(token(metadata)) {
            return Ok(());
        }
        debug!(?from, "a caller has not shown the cluster's token");
        let text = "the cluster's token is missing or another one";
        Err(Status::unauthenticated(text))
    }
}

fn token(metadata: &MetadataMap) -> Option<&[u8]> {
    let value = metadata.get("authorization")?;
    value.as_encoded_bytes().strip_prefix(SCHEME)
}
