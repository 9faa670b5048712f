//! Whether somebody else has come to lead what a stream is about, and the one that is asked says
//! nothing: a node that stands still, or cannot be reached any more, keeps its connections.

use std::future::pending;
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures::FutureExt as _;
use futures::future::BoxFuture;
use tokio::time::{Instant, sleep_until};

use super::Routing;
use super::way::{About, Way};

/// A node that hears that it leads no more has ended its streams by then.
const GRACE: Duration = Duration::from_millis(250);

/// Watches over one stream.
pub(crate) struct Heed {
    moved: BoxFuture<'static, ()>,
    /// Nothing is expected any more after this.
    until: Option<Instant>,
}

impl Heed {
    /// Of a stream on this way.
    pub(crate) fn new(routing: &Arc<Routing>, way: &Way) -> Self {
        let moved = match way.purpose() {
            Some(about) => moved(Arc::downgrade(routing), about.clone()).boxed(),
            None => pending().boxed(),
        };
        let until = None;
        Self { moved, until }
    }

    /// The stream has said something.
    pub(crate) fn heard(&mut self) {
        if let Some(until) = &mut self.until {
            *until = Instant::now() + GRACE;
        }
    }

    /// Resolves when somebody else leads, and the stream has said nothing for a while.
    /// Cancel-safe.
    pub(crate) async fn silent(&mut self) {
        let until = match self.until {
            Some(until) => until,
            None => {
                (&mut self.moved).await;
                *self.until.insert(Instant::now() + GRACE)
            }
        };
        sleep_until(until).await;
    }
}

/// Resolves when it is known that somebody else leads what a way was chosen for than did then: it
/// is worth another attempt.
pub(crate) async fn news(routing: &Arc<Routing>, way: &Way) {
    let Some(About { shard, leader }) = way.purpose().cloned() else {
        return pending().await;
    };
    let mut learned = routing.learned.subscribe();
    loop {
        let now = routing.known().led_by(shard).cloned();
        if now.is_some() && now != leader {
            return;
        }
        if learned.changed().await.is_err() {
            return pending().await;
        }
    }
}

/// Resolves when another node leads than the one that did at first.
async fn moved(routing: Weak<Routing>, about: About) {
    let About { shard, mut leader } = about;
    let Some(mut learned) = routing.upgrade().map(|it| it.learned.subscribe()) else {
        return pending().await;
    };
    loop {
        let Some(routing) = routing.upgrade() else {
            return pending().await;
        };
        let now = routing.known().led_by(shard).cloned();
        drop(routing);
        match (&leader, now) {
            (Some(was), Some(now)) if *was != now => return,
            (None, now) => leader = now,
            (Some(_), _) => {}
        }
        if learned.changed().await.is_err() {
            return pending().await;
        }
    }
}
