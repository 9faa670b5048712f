//! The task that learns who leads what, as long as a client lives: watches what the server that was
//! given says.

use std::sync::Weak;

use millrace_proto::v1::{RoutingRequest, RoutingState};
use tokio::sync::watch;
use tokio::time::{Duration, sleep};
use tonic::{Code, Status, Streaming};

use super::Routing;
use crate::backoff::Backoff;
use crate::error::Error;

/// A server of before there was routing is asked again after this long: it may be replaced.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(300);

/// Runs until the client is gone: `alive` says when.
pub(super) async fn run(routing: Weak<Routing>, mut alive: watch::Receiver<u64>) {
    let gone = async move { while alive.changed().await.is_ok() {} };
    tokio::select! {
        biased;
        () = gone => {}
        () = learn(routing) => {}
    }
}

async fn learn(routing: Weak<Routing>) {
    let mut backoff = Backoff::new();
    loop {
        let Some(way) = routing.upgrade().map(|routing| routing.given()) else {
            return;
        };
        let watched = way.routing().watch_metadata(RoutingRequest {}).await;
        let ended = match watched {
            Ok(states) => follow(&routing, states.into_inner(), &mut backoff).await,
            Err(status) => Some(status),
        };
        let Some(routing) = routing.upgrade() else {
            return;
        };
        // Whoever waits goes to the server that was given.
        routing.learned.send_modify(|times| *times += 1);
        let is_old = ended
            .as_ref()
            .is_some_and(|s| s.code() == Code::Unimplemented);
        if let Some(status) = ended {
            routing.failed(&way, &Error::from(status));
        }
        drop(routing);
        sleep(if is_old {
            UNKNOWN_AGAIN
        } else {
            backoff.delay()
        })
        .await;
    }
}

/// Takes over what a server says, until it says no more.
async fn follow(
    routing: &Weak<Routing>,
    mut states: Streaming<RoutingState>,
    backoff: &mut Backoff,
) -> Option<Status> {
    loop {
        match states.message().await {
            Ok(Some(state)) => {
                backoff.reset();
                let routing = routing.upgrade()?;
                routing.known().update(state);
                routing.learned.send_modify(|times| *times += 1);
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}
