//! Consumers: sessions that outlive their connections, and the node.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use millrace_engine::command::Window;
use millrace_node::{
    Consumer, ConsumerEvent, ConsumerEvents, Credit, OpenConsumer, Resume, SettleResults,
};
use millrace_types::{ErrorCode, LogId, Refusal, SessionId};

use super::Client;
use crate::event::{Answer, Event, Tag};
use crate::plan::End;

/// Bytes a consumer lets be sent: sometimes less than its messages have.
const CREDIT_BYTES: u64 = 6 << 10;
/// Bytes in flight.
const WINDOW_BYTES: u64 = 16 << 10;

/// All consumers, over all lives of a node.
#[derive(Clone, Default)]
pub(crate) struct Consumers(Arc<Mutex<BTreeMap<usize, Place>>>);

/// What was asked: leases, their end, when, and after how many events.
type Asked = (Vec<usize>, End, u64, u64);

/// One consumer.
#[derive(Default)]
struct Place {
    /// The session to come back to, and its queue.
    session: Option<(u64, usize, LogId)>,
    /// The connection; `None` while there is none.
    connection: Option<Consumer>,
    /// The node it goes to.
    node: usize,
    /// Connections so far: what an old one says does not count.
    epoch: u64,
    /// The session cannot have handed out anything before.
    since_ms: u64,
    /// What was asked on this connection, by sequence.
    asked: BTreeMap<u64, Asked>,
    sequence: u64,
}

impl Consumers {
    /// A node is gone, and every connection to it.
    pub(crate) fn disconnect(&self, node: usize) {
        let all = self.all();
        let there = all.iter().filter(|(_, place)| place.node == node);
        let places: Vec<usize> = there.map(|(place, _)| *place).collect();
        drop(all);
        for place in places {
            self.drop_connection(place);
        }
    }

    fn drop_connection(&self, place: usize) {
        let dropped = self.all().get_mut(&place).and_then(|place| {
            place.asked.clear();
            place.connection.take()
        });
        // Without the lock: it talks to the node.
        drop(dropped);
    }

    /// Whether nobody has come to a place since.
    fn is_present(&self, place: usize, epoch: u64) -> bool {
        let all = self.all();
        let place = all.get(&place);
        place.is_some_and(|place| place.epoch == epoch)
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<usize, Place>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a consumer asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wants {
    /// In flight at most.
    pub window: u32,
    /// What may be sent at once.
    pub credit: u64,
}

impl Client {
    /// Opens a session, or comes back to the one in this place if it is of this queue.
    pub(crate) fn attach(&self, consumers: &Consumers, place: usize, queue: usize, wants: Wants) {
        self.attach_here(consumers, place, (queue, wants), 0);
    }

    fn attach_here(
        &self,
        consumers: &Consumers,
        place: usize,
        (queue, wants): (usize, Wants),
        tries: u32,
    ) {
        consumers.drop_connection(place);
        let address = self.address(queue);
        let Some(log) = self.log(&address, 0) else {
            return;
        };
        self.note_logs();
        let (epoch, session) = {
            let mut all = consumers.all();
            let place = all.entry(place).or_default();
            place.epoch += 1;
            place.node = self.place.node;
            let session = place
                .session
                .filter(|(_, of, at)| (*of, *at) == (queue, log));
            (place.epoch, session)
        };
        let resume = session.map(|(id, _, _)| Resume {
            session: SessionId::new(id),
            held: self.held(id),
        });
        let open = OpenConsumer {
            address,
            consumer: format!("consumer {place}"),
            resume,
            in_flight: Window {
                messages: wants.window,
                bytes: WINDOW_BYTES,
            },
            credit: Credit {
                messages: wants.credit,
                bytes: CREDIT_BYTES,
            },
        };
        let (client, consumers) = (self.clone(), consumers.clone());
        self.run(async move {
            let opened = client.open(&consumers, (place, epoch), (queue, log), open);
            let Err(refusal) = opened.await else {
                return;
            };
            let there = consumers.clone();
            client.elsewhere(&refusal, tries, move |client| {
                // Somebody may want something else of it meanwhile.
                if there.is_present(place, epoch) {
                    client.attach_here(&there, place, (queue, wants), tries + 1);
                }
            });
        });
    }

    /// Tags of a session that its client still holds.
    fn held(&self, session: u64) -> Vec<Bytes> {
        self.lasting.watch.with(|state| {
            let leases = state.facts.leases.iter();
            let held = leases.filter(|lease| {
                lease.session == Some(session) && lease.done.is_none() && !lease.lost
            });
            held.map(|lease| lease.tag.0.clone()).collect()
        })
    }

    async fn open(
        &self,
        consumers: &Consumers,
        // Of the attachment, not of the moment this runs: another may have been asked for since.
        (place, epoch): (usize, u64),
        (queue, log): (usize, LogId),
        open: OpenConsumer,
    ) -> Result<(), Refusal> {
        let (resumed, asked_ms) = (open.resume.is_some(), self.now_ms());
        let opened = self.broker.open_consumer(open).await;
        let (consumer, events) = match opened {
            Ok(halves) => halves,
            Err(refusal) => {
                let over = self.place.alone || refusal.code == ErrorCode::SessionExpired;
                if resumed
                    && over
                    && let Some(place) = consumers.all().get_mut(&place)
                    && place.epoch == epoch
                {
                    place.session = None;
                }
                return Err(refusal);
            }
        };
        let session = consumer.session().get();
        let ttl_ms = u64::try_from(consumer.session_ttl().as_millis()).unwrap_or(u64::MAX);
        self.lasting.watch.with(|state| {
            let ttl_ms = state.facts.shortest(ttl_ms);
            let facts = state.facts.sessions.entry(session).or_default();
            facts.heard_ms = facts.heard_ms.max(asked_ms);
            facts.ttl_ms = ttl_ms;
        });
        let since_ms = {
            let mut all = consumers.all();
            let place = all.entry(place).or_default();
            if place.epoch != epoch {
                // Somebody else has this place now.
                drop(all);
                drop((consumer, events));
                return Ok(());
            }
            if !resumed {
                place.since_ms = asked_ms;
            }
            place.session = Some((session, queue, log));
            place.connection = Some(consumer);
            place.since_ms
        };
        let listening = Listening {
            client: self.clone(),
            consumers: consumers.clone(),
            place,
            epoch,
            log,
            session,
            since_ms,
        };
        match listening.run(events).await {
            Some(refusal) => Err(refusal),
            None => Ok(()),
        }
    }

    /// Lets more be sent.
    pub(crate) fn credit(&self, consumers: &Consumers, place: usize, more: u64) {
        let all = consumers.all();
        let Some(place) = all.get(&place) else {
            return;
        };
        let Some(consumer) = &place.connection else {
            return;
        };
        consumer.credit(Credit {
            messages: more,
            bytes: CREDIT_BYTES,
        });
        self.heard(consumer.session().get());
    }

    /// Ends leases over the connection they came by.
    pub(crate) fn settle_here(&self, consumers: &Consumers, place: usize, count: usize, end: End) {
        let mut all = consumers.all();
        let Some(place) = all.get_mut(&place) else {
            return;
        };
        let Some(consumer) = &place.connection else {
            return;
        };
        let session = consumer.session().get();
        let leases: Vec<usize> = self.lasting.watch.with(|state| {
            let leases = state.facts.leases.iter().enumerate();
            leases
                .filter(|(_, lease)| {
                    let ended = lease.asked.iter().any(|end| *end != End::Extend);
                    lease.session == Some(session) && !lease.lost && !ended
                })
                .map(|(at, _)| at)
                .take(count)
                .collect()
        });
        if leases.is_empty() {
            return;
        }
        let tags = self.tags(&leases, end);
        place.sequence += 1;
        let asked = (leases, end, self.now_ms(), self.events());
        place.asked.insert(place.sequence, asked);
        consumer.settle(place.sequence, tags);
        self.heard(session);
    }

    /// The connection is lost.
    pub(crate) fn detach(&self, consumers: &Consumers, place: usize) {
        consumers.drop_connection(place);
    }

    /// The session is ended.
    pub(crate) fn close(&self, consumers: &Consumers, place: usize) {
        let Some(consumer) = ({
            let mut all = consumers.all();
            all.get_mut(&place).and_then(|place| {
                place.session = None;
                place.asked.clear();
                place.connection.take()
            })
        }) else {
            return;
        };
        let session = consumer.session().get();
        self.lasting.watch.with(|state| {
            state.facts.sessions.entry(session).or_default().closing = true;
        });
        self.run(async move {
            // Refused when the node drains; then the session ends by its time to live.
            consumer.close().await.ok();
        });
    }

    /// The broker hears of a client, which counts unless it may have given the session up.
    fn heard(&self, session: u64) {
        self.lasting.watch.with(|state| {
            if state.facts.is_cluster {
                // Another node may have the session by now, and hear nothing.
                return;
            }
            let now = state.facts.now_ms;
            let facts = state.facts.sessions.entry(session).or_default();
            if now < facts.heard_ms.saturating_add(facts.ttl_ms) {
                facts.heard_ms = now;
            }
        });
    }
}

/// One connection's listening side.
struct Listening {
    client: Client,
    consumers: Consumers,
    place: usize,
    epoch: u64,
    log: LogId,
    session: u64,
    since_ms: u64,
}

impl Listening {
    /// Listens until the connection ends; why, if somebody has said so.
    async fn run(self, mut events: ConsumerEvents) -> Option<Refusal> {
        let mut why = None;
        while let Some(event) = events.next().await {
            // Whoever has come back has said what it holds: what the old connection still brings
            // was not among it.
            if !self.is_present() {
                self.unheard(&event);
                break;
            }
            match event {
                ConsumerEvent::Deliveries(delivered) => {
                    let call = (self.client.lasting.call(), self.since_ms);
                    for one in &delivered {
                        self.client
                            .delivered(self.log, Some(self.session), call, one);
                    }
                }
                ConsumerEvent::Settled(results) => self.settled(&results),
                ConsumerEvent::LeasesLost(tags) => {
                    for tag in tags {
                        self.client.tell(&Event::Lost { tag: Tag(tag) });
                    }
                }
                ConsumerEvent::Drain => {}
                ConsumerEvent::Closed(refusal) => {
                    why = Some(refusal);
                    break;
                }
            }
        }
        if !self.is_present() {
            return None;
        }
        self.consumers.drop_connection(self.place);
        why
    }

    fn unheard(&self, event: &ConsumerEvent) {
        let ConsumerEvent::Deliveries(delivered) = event else {
            return;
        };
        self.client.lasting.watch.with(|state| {
            for one in delivered {
                let place = (self.log, one.offset.get());
                *state.facts.unheard.entry(place).or_default() += 1;
            }
        });
    }

    fn is_present(&self) -> bool {
        self.consumers.is_present(self.place, self.epoch)
    }

    fn settled(&self, results: &SettleResults) {
        let asked = {
            let mut all = self.consumers.all();
            let place = all.get_mut(&self.place);
            let place = place.filter(|place| place.epoch == self.epoch);
            place.and_then(|place| place.asked.remove(&results.sequence))
        };
        let Some((leases, end, asked_ms, asked)) = asked else {
            return;
        };
        for lease in leases {
            let tag = self
                .client
                .lasting
                .watch
                .with(|state| state.facts.leases[lease].tag.0.clone());
            let refused = results.refused.iter().find(|(refused, _)| *refused == tag);
            let answer = match refused {
                None => Answer::Done(()),
                Some((_, refusal)) => super::answer(Err(refusal.clone())),
            };
            self.client.tell(&Event::Settled {
                lease,
                end,
                answer,
                asked_ms,
                asked,
            });
        }
    }
}
