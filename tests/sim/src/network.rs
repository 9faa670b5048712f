//! The network between the nodes of a world: it delays, reorders, repeats, loses and cuts, one way
//! or both, all from a seed. What is under way when a node dies still arrives, at its next life.
//!
//! Looks at all that passes (`tap`): what Raft promises shows in what its replicas say.

mod tap;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use futures::FutureExt as _;
use futures::channel::oneshot;
use futures::future::BoxFuture;
use millrace_node::{Network, Unreachable};
use millrace_replica::{Body, Lane, ShardMessage};
use millrace_types::NodeId;

use crate::clock::Time;
use crate::plan::{Cut, Plan, Weather};
use crate::random::{Random, mix};
use crate::watch::Watch;
use tap::Tap;

/// Who asks and hears nothing gives up after this time.
const ANSWER_MS_MAX: u64 = 5_000;
/// Of those that cannot be reached, a hundred times, so many are told of at once.
const TOLD_PERCENT: u64 = 50;

/// All of it.
pub(crate) struct Net {
    time: Arc<Time>,
    watch: Watch,
    state: Mutex<State>,
}

struct State {
    random: Random,
    weather: Weather,
    /// By place in the world.
    nodes: Vec<NodeId>,
    cuts: Vec<(Link, Duration)>,
    /// In the order of their arrival.
    flying: BTreeMap<(Duration, u64), Packet>,
    number: u64,
    /// When the last one arrives that was sent over a link and lane.
    last: BTreeMap<(Link, Option<Lane>), Duration>,
    tap: Tap,
}

/// From one node to another, by their places.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Link {
    /// Who sends.
    pub from: usize,
    /// Who receives.
    pub to: usize,
}

/// The way of an answer.
type Answer = oneshot::Sender<Result<Bytes, Unreachable>>;

/// What arrives.
pub(crate) enum Packet {
    /// What replicas say.
    Messages(Link, Lane, Vec<ShardMessage>),
    /// A question, and the way back.
    Question(Link, Bytes, Back),
    /// An answer.
    Answer(Answer, Result<Bytes, Unreachable>),
    /// A node hears that another one cannot be reached.
    Unreachable(Link, Lane),
}

impl Packet {
    /// Whether it comes from a node or goes there. Of an answer, nobody knows.
    const fn concerns(&self, node: usize) -> bool {
        match self {
            Self::Messages(link, ..) | Self::Question(link, ..) | Self::Unreachable(link, _) => {
                link.from == node || link.to == node
            }
            Self::Answer(..) => false,
        }
    }
}

/// The way back to who asked.
pub(crate) struct Back {
    link: Link,
    net: Arc<Net>,
    answer: Option<Answer>,
}

impl Back {
    /// Sends the answer on its way.
    pub(crate) fn send(mut self, answer: Bytes) {
        if let Some(to) = self.answer.take() {
            self.net.answer(self.link, to, answer);
        }
    }
}

impl Drop for Back {
    /// Who was asked has died.
    fn drop(&mut self) {
        if let Some(to) = self.answer.take() {
            self.net.lose(self.link, to);
        }
    }
}

impl Net {
    /// Nothing is under way.
    #[must_use]
    pub(crate) fn new(time: &Arc<Time>, watch: &Watch, plan: &Plan) -> Arc<Self> {
        let state = State {
            random: Random::new(mix(plan.schedule)),
            weather: Weather::CALM,
            nodes: Vec::new(),
            cuts: Vec::new(),
            flying: BTreeMap::new(),
            number: 0,
            last: BTreeMap::new(),
            tap: Tap::default(),
        };
        Arc::new(Self {
            time: Arc::clone(time),
            watch: watch.clone(),
            state: Mutex::new(state),
        })
    }

    /// Says who is where.
    pub(crate) fn know(&self, nodes: Vec<NodeId>) {
        self.state().nodes = nodes;
    }

    /// Another node is at a place from now on. What was on its way to the former one, or from it,
    /// belongs to connections that are gone.
    pub(crate) fn replace(&self, place: usize, id: NodeId) {
        let gone: Vec<Packet> = {
            let mut state = self.state();
            if let Some(node) = state.nodes.get_mut(place) {
                *node = id;
            }
            let flying = state.flying.iter();
            let gone = flying.filter(|(_, packet)| packet.concerns(place));
            let gone: Vec<(Duration, u64)> = gone.map(|(key, _)| *key).collect();
            let packets = gone.iter().filter_map(|key| state.flying.remove(key));
            packets.collect()
        };
        // A question that is dropped tells who asked, for which the state is needed.
        drop(gone);
    }

    /// The id of the node at a place.
    pub(crate) fn id(&self, node: usize) -> Option<NodeId> {
        self.state().nodes.get(node).copied()
    }

    /// The place of a node.
    pub(crate) fn place(&self, id: NodeId) -> Option<usize> {
        self.state().nodes.iter().position(|node| *node == id)
    }

    /// The node that led a shard last.
    pub(crate) fn leader(&self, shard: u32) -> Option<usize> {
        self.state().tap.leader(shard)
    }

    /// The node that led it before that one.
    pub(crate) fn former_leader(&self, shard: u32) -> Option<usize> {
        self.state().tap.former_leader(shard)
    }

    /// Lets nothing through over some links for a while.
    pub(crate) fn cut(&self, cut: &Cut) {
        let mut state = self.state();
        let until = self.time.now() + Duration::from_millis(cut.millis);
        let nodes = state.nodes.len();
        let links = (0..nodes).flat_map(|from| (0..nodes).map(move |to| Link { from, to }));
        let links: Vec<Link> = links
            .filter(|link| cut.concerns(link.from, link.to))
            .collect();
        state
            .cuts
            .extend(links.into_iter().map(|link| (link, until)));
    }

    /// The weather changes.
    pub(crate) fn expose(&self, weather: Weather) {
        self.state().weather = weather;
    }

    /// Faults are over: everything arrives, once, soon and in order.
    pub(crate) fn calm(&self) {
        let mut state = self.state();
        state.cuts.clear();
        state.weather = Weather::CALM;
    }

    /// When the next one arrives.
    pub(crate) fn next_time(&self) -> Option<Duration> {
        self.state().flying.keys().next().map(|(at, _)| *at)
    }

    /// What has arrived by now and was not taken.
    pub(crate) fn arrived(&self, now: Duration) -> Option<Packet> {
        let mut state = self.state();
        let first = state.flying.first_entry()?;
        (first.key().0 <= now).then(|| first.remove())
    }

    /// Nothing arrives any more.
    pub(crate) fn end(&self) {
        let flying = std::mem::take(&mut self.state().flying);
        drop(flying);
    }

    /// Nobody is there who could take it.
    pub(crate) fn nobody(self: &Arc<Self>, packet: Packet) {
        match packet {
            Packet::Messages(link, lane, _) => self.state().tell(self.time.now(), link, lane),
            // Dropping a question loses it.
            Packet::Question(..) | Packet::Answer(..) | Packet::Unreachable(..) => {}
        }
    }

    fn send(&self, link: Link, lane: Lane, mut messages: Vec<ShardMessage>) {
        let now = self.time.now();
        let mut state = self.state();
        for message in &messages {
            if let Err((invariant, what)) = state.tap.look(link, message) {
                drop(state);
                self.watch.violated(invariant, what);
                return;
            }
        }
        let fate = state.fate(now, link, Some(lane));
        state.shows(&self.watch, link, lane, &messages, &fate);
        messages.iter_mut().for_each(|message| state.flip(message));
        match fate.as_slice() {
            [] => state.tell(now, link, lane),
            [once] => state.fly(*once, Packet::Messages(link, lane, messages)),
            times => {
                for at in times {
                    state.fly(*at, Packet::Messages(link, lane, messages.clone()));
                }
            }
        }
    }

    fn ask(
        self: &Arc<Self>,
        link: Link,
        request: Bytes,
    ) -> oneshot::Receiver<Result<Bytes, Unreachable>> {
        let (answer, receiver) = oneshot::channel();
        let back = Back {
            link,
            net: Arc::clone(self),
            answer: Some(answer),
        };
        let now = self.time.now();
        let mut state = self.state();
        let at = state.fate(now, link, None).first().copied();
        match at {
            Some(at) => state.fly(at, Packet::Question(link, request, back)),
            None => {
                drop(state);
                // Loses it.
                drop(back);
            }
        }
        receiver
    }

    fn answer(&self, asked: Link, to: Answer, answer: Bytes) {
        let link = Link {
            from: asked.to,
            to: asked.from,
        };
        let mut state = self.state();
        let at = state.fate(self.time.now(), link, None).first().copied();
        match at {
            Some(at) => state.fly(at, Packet::Answer(to, Ok(answer))),
            None => {
                drop(state);
                self.lose(asked, to);
            }
        }
    }

    /// Who asks is told after a while that there is no answer.
    fn lose(&self, asked: Link, to: Answer) {
        let mut state = self.state();
        let Some(node) = state.nodes.get(asked.to).copied() else {
            return;
        };
        let millis = state.random.within(1, ANSWER_MS_MAX);
        let at = self.time.now() + Duration::from_millis(millis);
        let why = "lost".to_owned();
        let nothing = Err(Unreachable::NoAnswer { node, why });
        state.fly(at, Packet::Answer(to, nothing));
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// When a packet arrives, which may be never or twice.
    fn fate(&mut self, now: Duration, link: Link, lane: Option<Lane>) -> Vec<Duration> {
        self.cuts.retain(|(_, until)| now < *until);
        let is_cut = self.cuts.iter().any(|(cut, _)| *cut == link);
        let weather = self.weather;
        if is_cut || self.random.percent(weather.lost_percent) {
            return Vec::new();
        }
        let copies = 1 + u32::from(self.random.percent(weather.twice_percent));
        let mut times = Vec::new();
        for _ in 0..copies {
            let mut at = now + Duration::from_micros(self.random.within(50, weather.micros_max));
            if self.random.percent(weather.late_percent) {
                at += Duration::from_millis(self.random.within(1, weather.late_ms_max));
            }
            if weather.in_order {
                let last = self.last.entry((link, lane)).or_default();
                at = at.max(*last);
                *last = at;
            }
            times.push(at);
        }
        times
    }

    /// A bit of a snapshot may arrive as another one: it was read so, or written.
    fn flip(&mut self, message: &mut ShardMessage) {
        let Body::Chunk(chunk) = &mut message.body else {
            return;
        };
        if chunk.data.is_empty() || !self.random.percent(self.weather.flipped_percent) {
            return;
        }
        let mut data = chunk.data.to_vec();
        let at = self.random.below(data.len());
        data[at] ^= 1 << self.random.below(8);
        chunk.data = data.into();
    }

    fn fly(&mut self, at: Duration, packet: Packet) {
        self.number += 1;
        self.flying.insert((at, self.number), packet);
    }

    /// A sender may hear that nobody hears it.
    fn tell(&mut self, now: Duration, link: Link, lane: Lane) {
        if self.random.percent(TOLD_PERCENT) {
            let at = now + Duration::from_millis(self.random.within(1, 50));
            self.fly(at, Packet::Unreachable(link, lane));
        }
    }

    fn shows(
        &self,
        watch: &Watch,
        link: Link,
        lane: Lane,
        messages: &[ShardMessage],
        fate: &[Duration],
    ) {
        for message in messages {
            let arrives = fate.len() as u64;
            watch.passes(link, lane.index() as u64, message, arrives);
        }
    }
}

/// What one node has of it, over all its lives.
pub(crate) struct SimNetwork {
    /// All of it.
    pub net: Arc<Net>,
    /// The place of the node.
    pub own: usize,
}

impl Network for SimNetwork {
    fn send(&self, to: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        if let Some(to) = self.net.place(to) {
            let from = self.own;
            self.net.send(Link { from, to }, lane, messages);
        }
    }

    fn call(&self, to: NodeId, request: Bytes) -> BoxFuture<'static, Result<Bytes, Unreachable>> {
        let Some(place) = self.net.place(to) else {
            let why = "nobody has this id".to_owned();
            return async move { Err(Unreachable::NotSent { node: to, why }) }.boxed();
        };
        let (from, to_place) = (self.own, place);
        let receiver = self.net.ask(Link { from, to: to_place }, request);
        async move {
            let why = "the world has ended".to_owned();
            let ended = Unreachable::NoAnswer { node: to, why };
            receiver.await.unwrap_or(Err(ended))
        }
        .boxed()
    }
}
