//! A server whose streams the test holds in its hands.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_client::Client;
use millrace_proto::v1::consumer_server::{Consumer, ConsumerServer};
use millrace_proto::v1::publisher_server::{Publisher, PublisherServer};
use millrace_proto::v1::stream_reader_server::{StreamReader, StreamReaderServer};
use millrace_proto::v1::{
    ConsumeFrame, ConsumeReply, PeekRequest, PeekResponse, PublishFrame, PublishReply,
    PublishRequest, PublishResponse, ReadRequest, ReadResponse, ReceiveRequest, ReceiveResponse,
    SettleRequest, SettleResponse, SubscribeFrame, SubscribeReply,
};
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_stream::wrappers::{ReceiverStream, TcpListenerStream};
use tonic::{Request, Response, Status, Streaming};

/// Nothing here takes long.
const SOON: Duration = Duration::from_secs(10);

/// One open call: dropping it ends the client's connection to it.
pub(crate) struct Call<F, R> {
    frames: Streaming<F>,
    replies: mpsc::Sender<Result<R, Status>>,
}

impl<F, R> Call<F, R> {
    /// The client's next frame.
    pub(crate) async fn frame(&mut self) -> F {
        let frame = timeout(SOON, self.frames.message()).await;
        frame
            .expect("a frame in time")
            .expect("no error")
            .expect("no end")
    }

    /// Whether the client has ended its frames.
    pub(crate) async fn is_ended(&mut self) -> bool {
        let frame = timeout(SOON, self.frames.message())
            .await
            .expect("an end in time");
        matches!(frame, Ok(None))
    }

    /// Says something to the client.
    pub(crate) async fn say(&self, reply: R) {
        self.replies
            .send(Ok(reply))
            .await
            .expect("the client listens");
    }

    /// Ends the call.
    pub(crate) async fn fail(self, status: Status) {
        // The client may be gone.
        drop(self.replies.send(Err(status)).await);
    }
}

type Calls<F, R> = mpsc::UnboundedReceiver<Call<F, R>>;
type Sink<F, R> = mpsc::UnboundedSender<Call<F, R>>;

/// The server, seen from the test.
pub(crate) struct Server {
    address: SocketAddr,
    publishes: Calls<PublishFrame, PublishReply>,
    consumes: Calls<ConsumeFrame, ConsumeReply>,
    subscribes: Calls<SubscribeFrame, SubscribeReply>,
}

impl Server {
    /// Serves on a free port until the test's runtime ends.
    pub(crate) async fn start() -> Self {
        let (publish, publishes) = mpsc::unbounded_channel();
        let (consume, consumes) = mpsc::unbounded_channel();
        let (subscribe, subscribes) = mpsc::unbounded_channel();
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let services = Services {
            publish,
            consume,
            subscribe,
        };
        let server = tonic::transport::Server::builder()
            .add_service(PublisherServer::new(services.clone()))
            .add_service(ConsumerServer::new(services.clone()))
            .add_service(StreamReaderServer::new(services))
            .serve_with_incoming(TcpListenerStream::new(listener));
        tokio::spawn(server);
        Self {
            address,
            publishes,
            consumes,
            subscribes,
        }
    }

    pub(crate) fn client(&self) -> Client {
        Client::connect(format!("http://{}", self.address)).expect("a URL")
    }

    pub(crate) async fn publish_stream(&mut self) -> Call<PublishFrame, PublishReply> {
        next(&mut self.publishes).await
    }

    pub(crate) async fn consume(&mut self) -> Call<ConsumeFrame, ConsumeReply> {
        next(&mut self.consumes).await
    }

    pub(crate) async fn subscribe(&mut self) -> Call<SubscribeFrame, SubscribeReply> {
        next(&mut self.subscribes).await
    }
}

async fn next<F, R>(calls: &mut Calls<F, R>) -> Call<F, R> {
    let call = timeout(SOON, calls.recv()).await;
    call.expect("a call in time").expect("the server runs")
}

#[derive(Clone)]
struct Services {
    publish: Sink<PublishFrame, PublishReply>,
    consume: Sink<ConsumeFrame, ConsumeReply>,
    subscribe: Sink<SubscribeFrame, SubscribeReply>,
}

type Replies<R> = ReceiverStream<Result<R, Status>>;

fn open<F, R>(calls: &Sink<F, R>, frames: Streaming<F>) -> Response<Replies<R>> {
    let (replies, outgoing) = mpsc::channel(64);
    drop(calls.send(Call { frames, replies }));
    Response::new(ReceiverStream::new(outgoing))
}

fn unused<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("no test needs it"))
}

#[tonic::async_trait]
impl Publisher for Services {
    type PublishStreamStream = Replies<PublishReply>;

    async fn publish(
        &self,
        _: Request<PublishRequest>,
    ) -> Result<Response<PublishResponse>, Status> {
        unused()
    }

    async fn publish_stream(
        &self,
        request: Request<Streaming<PublishFrame>>,
    ) -> Result<Response<Self::PublishStreamStream>, Status> {
        Ok(open(&self.publish, request.into_inner()))
    }
}

#[tonic::async_trait]
impl Consumer for Services {
    type ConsumeStream = Replies<ConsumeReply>;

    async fn consume(
        &self,
        request: Request<Streaming<ConsumeFrame>>,
    ) -> Result<Response<Self::ConsumeStream>, Status> {
        Ok(open(&self.consume, request.into_inner()))
    }

    async fn receive(
        &self,
        _: Request<ReceiveRequest>,
    ) -> Result<Response<ReceiveResponse>, Status> {
        unused()
    }

    async fn settle(&self, _: Request<SettleRequest>) -> Result<Response<SettleResponse>, Status> {
        unused()
    }

    async fn peek(&self, _: Request<PeekRequest>) -> Result<Response<PeekResponse>, Status> {
        unused()
    }
}

#[tonic::async_trait]
impl StreamReader for Services {
    type SubscribeStream = Replies<SubscribeReply>;

    async fn read(&self, _: Request<ReadRequest>) -> Result<Response<ReadResponse>, Status> {
        unused()
    }

    async fn subscribe(
        &self,
        request: Request<Streaming<SubscribeFrame>>,
    ) -> Result<Response<Self::SubscribeStream>, Status> {
        Ok(open(&self.subscribe, request.into_inner()))
    }
}
