//! Where calls go: to the node that leads what they are about, when that is known and can be
//! reached, and otherwise to the server that was given, which forwards them. Of several servers
//! that were given, to the next when one cannot be reached.
//!
//! Promises: routing never makes a call fail that the server given would take; a node that cannot
//! be reached is left alone for a while. Decides nothing about what is tried again.

mod heed;
mod knowledge;
mod learning;
mod way;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use millrace_proto::v1::LocateRequest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};
use tonic::transport::Channel;

pub(crate) use self::heed::{Heed, news};
pub(crate) use self::way::Way;

use self::knowledge::Knowledge;
use self::way::About;
use crate::client::{self, ClientOptions};
use crate::error::Error;
use crate::task;

/// How long the first call waits to learn who leads; then it goes to the server that was given.
const LEARN_WITHIN: Duration = Duration::from_secs(1);
/// How long making a connection to a leader may take: the server that was given forwards.
const DIRECT_CONNECT_WITHIN: Duration = Duration::from_secs(1);

/// Shared by all clones of a client.
#[derive(Debug)]
pub(crate) struct Routing {
    options: ClientOptions,
    /// Those that were given, and their URLs.
    servers: Vec<(String, Channel)>,
    /// The one in use.
    current: AtomicUsize,
    known: Mutex<Knowledge>,
    /// Counts what was learned; ends the task that learns, with its sender.
    learned: watch::Sender<u64>,
    learning: OnceLock<()>,
}

impl Routing {
    /// Prepares connections to the servers that were given.
    ///
    /// # Errors
    /// A URL is malformed.
    pub(crate) fn new(options: &ClientOptions) -> Result<Self, Error> {
        let urls = options.url.split(',').map(str::trim);
        let server = |url: &str| {
            let endpoint = client::endpoint(url, options.connect_timeout)?;
            Ok((url.to_owned(), endpoint.connect_lazy()))
        };
        Ok(Self {
            options: options.clone(),
            servers: urls.map(server).collect::<Result<_, Error>>()?,
            current: AtomicUsize::new(0),
            known: Mutex::default(),
            learned: watch::Sender::new(0),
            learning: OnceLock::new(),
        })
    }

    /// How many servers were given.
    pub(crate) fn servers(&self) -> usize {
        self.servers.len()
    }

    /// The server that was given, or the one of several that is in use.
    pub(crate) fn given(&self) -> Way {
        let at = self.server();
        match self.servers.get(at) {
            Some((_, channel)) => Way::given(at, channel.clone()),
            // Splitting a text gives one part at least.
            None => unreachable!("there is a server"),
        }
    }

    fn server(&self) -> usize {
        self.current.load(Ordering::Relaxed) % self.servers.len().max(1)
    }

    /// The way to whoever leads a queue, or a partition of a topic.
    pub(crate) async fn way_to(self: &Arc<Self>, address: &str, partition: u32) -> Way {
        if !self.options.direct {
            return self.given();
        }
        self.learn().await;
        if !self.known().has_several_nodes() {
            return self.given();
        }
        let known = self.known().place(address, partition);
        let shard = match known {
            Some(shard) => Some(shard),
            None => self.locate(address, partition).await,
        };
        let Some(shard) = shard else {
            return self.given();
        };
        let (leader, place) = {
            let (known, server) = (self.known(), self.server());
            let leader = known.led_by(shard).cloned();
            (leader, known.leader(shard, server, Instant::now()))
        };
        let direct = place.and_then(|(node, client)| self.direct(node, &client));
        let way = direct.unwrap_or_else(|| self.given());
        way.about(Some(About { shard, leader }))
    }

    /// The way to a node that the cluster has named.
    fn direct(&self, node: String, client: &str) -> Option<Way> {
        let url = format!("http://{client}");
        let connect = || client::endpoint(&url, DIRECT_CONNECT_WITHIN).map(|it| it.connect_lazy());
        let channel = self.known().channel(&node, client, connect)?;
        Some(Way::direct(node, channel))
    }

    /// Another node than the one behind the server that was given, to be watched.
    fn other(&self) -> Option<Way> {
        // Which one does not matter, if only not all clients choose the same.
        let nth = getrandom::u32().unwrap_or(0);
        let nth = usize::try_from(nth).unwrap_or(0);
        let (node, client) = self.known().other(nth, Instant::now())?;
        self.direct(node, &client)
    }

    /// A call or stream went well.
    pub(crate) fn succeeded(&self, way: &Way) {
        if let Some(node) = way.node() {
            self.known().reached(node);
        }
    }

    /// A call or stream failed: if nobody answered, others are asked next.
    pub(crate) fn failed(&self, way: &Way, error: &Error) {
        if error.is_not_found() {
            self.known().forget_places();
        }
        if !error.is_unreachable() {
            return;
        }
        match way.node() {
            Some(node) => self.known().shun(node, Instant::now()),
            None => self.next_server(way.server()),
        }
    }

    /// Another of several servers takes the place of one that cannot be reached.
    fn next_server(&self, from: usize) {
        let to = (from + 1) % self.servers.len().max(1);
        // Only once for all who found out.
        let ordering = (Ordering::Relaxed, Ordering::Relaxed);
        self.current
            .compare_exchange(from, to, ordering.0, ordering.1)
            .ok();
    }

    /// Begins to learn who leads, the first time, and gives that a moment.
    async fn learn(self: &Arc<Self>) {
        let mut learned = self.learned.subscribe();
        if self.learning.set(()).is_ok() {
            let (routing, alive) = (Arc::downgrade(self), self.learned.subscribe());
            task::spawn(learning::run(routing, alive));
        }
        if *learned.borrow() == 0 {
            // Late or not, there is a way.
            drop(timeout(LEARN_WITHIN, learned.wait_for(|times| *times > 0)).await);
        }
    }

    /// Asks which shards something lives in.
    async fn locate(&self, address: &str, partition: u32) -> Option<u32> {
        let request = LocateRequest {
            addresses: vec![address.to_owned()],
        };
        let mut rpc = self.given().routing();
        let answer = timeout(LEARN_WITHIN, rpc.locate(request))
            .await
            .ok()?
            .ok()?;
        let located = answer.into_inner().located.into_iter().next()?;
        let mut known = self.known();
        known.set_places(address, located.shards);
        known.place(address, partition)
    }

    fn known(&self) -> MutexGuard<'_, Knowledge> {
        // Nothing panics while holding it.
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
