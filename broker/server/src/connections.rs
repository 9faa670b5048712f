//! Connections of a gRPC listener, counted: each costs a descriptor and memory for its windows, so
//! there is a most. One too many is closed at once; its client sees a lost connection and tries
//! again later.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use futures::Stream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tonic::transport::server::{Connected, TcpConnectInfo, TcpIncoming};
use tracing::warn;

/// Connections of one listener: a busy cluster's clients several times over, and a quarter of the
/// descriptors a container usually has.
const CONNECTIONS_MAX: usize = 4_096;

/// What comes in at a listener.
#[derive(Debug)]
pub(crate) struct Connections {
    incoming: TcpIncoming,
    places: Arc<Semaphore>,
}

/// One connection; its place is free again when it is dropped.
#[derive(Debug)]
pub(crate) struct Connection {
    socket: TcpStream,
    _place: OwnedSemaphorePermit,
}

impl Connections {
    pub(crate) fn new(listener: TcpListener) -> Self {
        Self::with_places(listener, CONNECTIONS_MAX)
    }

    /// With another limit.
    pub(crate) fn with_places(listener: TcpListener, places: usize) -> Self {
        Self {
            // Without Nagle's delay: replies are small and somebody waits for them.
            incoming: TcpIncoming::from(listener).with_nodelay(Some(true)),
            places: Arc::new(Semaphore::new(places)),
        }
    }
}

impl Stream for Connections {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            let socket = match ready!(Pin::new(&mut self.incoming).poll_next(context)) {
                Some(Ok(socket)) => socket,
                Some(Err(error)) => return Poll::Ready(Some(Err(error))),
                None => return Poll::Ready(None),
            };
            match Arc::clone(&self.places).try_acquire_owned() {
                Ok(place) => {
                    let connection = Connection {
                        socket,
                        _place: place,
                    };
                    return Poll::Ready(Some(Ok(connection)));
                }
                Err(_) => warn!("too many connections; one more was closed"),
            }
        }
    }
}

impl Connected for Connection {
    type ConnectInfo = TcpConnectInfo;

    fn connect_info(&self) -> TcpConnectInfo {
        self.socket.connect_info()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, StreamExt as _};
    use tokio::io::AsyncReadExt as _;

    use super::*;

    #[tokio::test]
    async fn one_connection_too_many_is_closed_and_its_place_comes_back() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut connections = Connections::with_places(listener, 1);
        let _client = TcpStream::connect(address).await.unwrap();
        let first = connections.next().await.unwrap().unwrap();

        let mut refused = TcpStream::connect(address).await.unwrap();
        let mut closed = async move { refused.read(&mut [0]).await }.boxed();
        tokio::select! {
            more = connections.next() => panic!("taken: {more:?}"),
            end = &mut closed => assert!(matches!(end, Ok(0) | Err(_))),
        }
        drop(first);
        let _client = TcpStream::connect(address).await.unwrap();
        connections.next().await.unwrap().unwrap();
    }
}
