//! A network that goes silent, and comes back.

use std::net::SocketAddr;
use std::time::Duration;

use millrace_peers::{Lane, LinkError};
use millrace_types::NodeId;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::AbortHandle;

use crate::support::{Node, Secret, ack, options, until};

/// A wire to an address that can be cut: nothing passes then, and nobody is told.
struct Wire {
    address: SocketAddr,
    whole: watch::Sender<bool>,
    task: AbortHandle,
}

impl Wire {
    async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let whole = watch::Sender::new(true);
        let state = whole.subscribe();
        let task = tokio::spawn(async move {
            loop {
                let (near, _) = listener.accept().await.unwrap();
                let Ok(far) = TcpStream::connect(target).await else {
                    continue;
                };
                let ((from_near, to_near), (from_far, to_far)) =
                    (near.into_split(), far.into_split());
                tokio::spawn(pass(from_near, to_far, state.clone()));
                tokio::spawn(pass(from_far, to_near, state.clone()));
            }
        });
        Self {
            address,
            whole,
            task: task.abort_handle(),
        }
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    mut whole: watch::Receiver<bool>,
) {
    let mut buffer = vec![0; 64 << 10];
    while let Ok(bytes @ 1..) = from.read(&mut buffer).await {
        if whole.wait_for(|whole| *whole).await.is_err()
            || to.write_all(&buffer[..bytes]).await.is_err()
        {
            break;
        }
    }
}

#[tokio::test]
async fn a_connection_that_goes_silent_is_given_up_and_made_anew() {
    let hasty = |node| {
        let mut options = options(node);
        options.timing.keep_alive_every = Duration::from_millis(50);
        options.timing.keep_alive_within = Duration::from_millis(200);
        options.timing.dial_within = Duration::from_millis(500);
        Node::with(options, Secret::new("s3cret"))
    };
    let (one, two) = (hasty(1).await, hasty(2).await);
    let wire = Wire::to(two.address).await;
    let address = wire.address.to_string();
    one.peers.set_address(NodeId::new(2), address).unwrap();
    one.connected(2).await;

    wire.whole.send_replace(false);

    until("every lane has found out, though nothing was sent", || {
        let lost = |lane| one.inbox.unreachable(2, lane) > 0;
        Lane::ALL.into_iter().all(lost)
    })
    .await;
    let failure = one.lane(2, Lane::Appends).failure.unwrap();
    let is_told = matches!(
        failure.error,
        LinkError::Lost { .. } | LinkError::Silent { .. }
    );
    assert!(is_told, "{failure:?}");
    until("the other side has, too", || {
        let open = |lane| two.lane(1, lane).incoming.open.is_some();
        !Lane::ALL.into_iter().any(open)
    })
    .await;

    wire.whole.send_replace(true);

    one.connected(2).await;
    until("messages arrive", || {
        one.send(2, Lane::Votes, vec![ack(1, 1)]);
        two.inbox.count(Lane::Votes) > 0
    })
    .await;
    one.stop().await;
    two.stop().await;
}
