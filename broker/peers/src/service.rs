//! The gRPC service that peers call: looks at the token, gives the stream a place and a task.

use std::sync::Arc;

use millrace_proto::peer::v1::peer_server::Peer;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};
use tracing::debug;

use crate::convert::Frame;
use crate::error::{Reason, Refusal};
use crate::limits::REPLIES_MAX;
use crate::session::Session;
use crate::shared::Shared;

const SCHEME: &[u8] = b"Bearer ";

/// What a listener of [`crate::Peers::router`] serves.
#[derive(Clone, Debug)]
pub struct Service(pub(crate) Arc<Shared>);

#[tonic::async_trait]
impl Peer for Service {
    type ExchangeStream = ReceiverStream<Result<Frame, Status>>;

    async fn exchange(
        &self,
        request: Request<Streaming<Frame>>,
    ) -> Result<Response<Self::ExchangeStream>, Status> {
        let from = request.remote_addr();
        if !self.0.credential.accepts(token(request.metadata())) {
            debug!(?from, "a caller has not shown the cluster's token");
            let text = "the cluster's token is missing or another one";
            return Err(Status::unauthenticated(text));
        }
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
}

fn token(metadata: &MetadataMap) -> Option<&[u8]> {
    let value = metadata.get("authorization")?;
    value.as_encoded_bytes().strip_prefix(SCHEME)
}
