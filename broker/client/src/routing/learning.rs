//! The task that learns who leads what, as long as a client lives: watches what the server that was
//! given says, and what one other node does, so that it hears of a new leader when one of the two
//! stands still.

use std::sync::Weak;

use millrace_proto::v1::{RoutingRequest, RoutingState};
use tokio::sync::watch;
use tokio::time::{Duration, sleep, timeout};
use tonic::{Code, Status, Streaming};

use super::knowledge::Source;
use super::{LEARN_WITHIN, Routing, Way};
use crate::backoff::Backoff;
use crate::error::Error;

/// A server of before there was routing is asked again after this long: it may be replaced.
const UNKNOWN_AGAIN: Duration = Duration::from_secs(300);
/// Another node to watch is looked for again after this long, when there was none.
const OTHER_AGAIN: Duration = Duration::from_secs(2);
/// A node that cannot be reached from here, as behind one forwarded port, is tried this seldom.
const OTHER_AGAIN_MAX: Duration = Duration::from_secs(60);

/// Runs until the client is gone: `alive` says when.
pub(super) async fn run(routing: Weak<Routing>, mut alive: watch::Receiver<u64>) {
    let news = alive.clone();
    let gone = async move { while alive.changed().await.is_ok() {} };
    tokio::select! {
        biased;
        () = gone => {}
        () = learn(routing.clone()) => {}
        () = learn_elsewhere(routing, news) => {}
    }
}

/// From the server that was given.
async fn learn(routing: Weak<Routing>) {
    let mut backoff = Backoff::new();
    loop {
        let Some(way) = routing.upgrade().map(|routing| routing.given()) else {
            return;
        };
        let source = Source::Given(way.server());
        let watched = way.routing().watch_metadata(RoutingRequest {}).await;
        let ended = match watched {
            Ok(states) => follow(&routing, source, states.into_inner(), &mut backoff).await,
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

/// From another node, as soon as one is known.
async fn learn_elsewhere(routing: Weak<Routing>, mut news: watch::Receiver<u64>) {
    let mut pause = OTHER_AGAIN;
    loop {
        let Some(other) = routing.upgrade().map(|routing| routing.other()) else {
            return;
        };
        if let Some(way) = other {
            let mut rpc = way.routing();
            let watched = timeout(LEARN_WITHIN, rpc.watch_metadata(RoutingRequest {})).await;
            let ended = match watched {
                Ok(Ok(states)) => {
                    pause = OTHER_AGAIN;
                    let mut backoff = Backoff::new();
                    let states = states.into_inner();
                    tokio::select! {
                        biased;
                        () = becomes_own(&routing, &way, &mut news) => None,
                        ended = follow(&routing, Source::Other, states, &mut backoff) => ended,
                    }
                }
                Ok(Err(status)) => Some(status),
                Err(_) => Some(Status::unavailable("it does not answer")),
            };
            let Some(routing) = routing.upgrade() else {
                return;
            };
            if let Some(status) = ended {
                routing.failed(&way, &Error::from(status));
                pause = (pause * 2).min(OTHER_AGAIN_MAX);
            }
        } else {
            // Until there is one.
            let changed = timeout(pause, news.changed()).await;
            if changed.is_ok_and(|alive| alive.is_err()) {
                return;
            }
            continue;
        }
        sleep(pause).await;
    }
}

/// Resolves when a node that is watched is the one behind the server in use.
async fn becomes_own(routing: &Weak<Routing>, way: &Way, news: &mut watch::Receiver<u64>) {
    loop {
        let Some(routing) = routing.upgrade() else {
            return;
        };
        if way.node().is_some_and(|node| routing.known().is_own(node)) {
            return;
        }
        drop(routing);
        if news.changed().await.is_err() {
            return;
        }
    }
}

/// Takes over what a server says, until it says no more.
async fn follow(
    routing: &Weak<Routing>,
    source: Source,
    mut states: Streaming<RoutingState>,
    backoff: &mut Backoff,
) -> Option<Status> {
    loop {
        match states.message().await {
            Ok(Some(state)) => {
                backoff.reset();
                let routing = routing.upgrade()?;
                routing.known().update(source, state);
                routing.learned.send_modify(|times| *times += 1);
            }
            Ok(None) => return None,
            Err(status) => return Some(status),
        }
    }
}
