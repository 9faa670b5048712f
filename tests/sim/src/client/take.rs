//! Taking messages in single calls, looking at them, and ending leases.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{BoxFuture, Either, select};
use millrace_engine::command::Settle;
use millrace_node::{Delivered, Peek, Receive, SettleTag};
use millrace_types::{Address, LogId, Offset, Refusal};

use super::{Client, answer};
use crate::event::{self, Body, Event, Tag};
use crate::plan::{End, LEASE_MS_MIN};
use crate::random::mix;

/// Bytes of one call: sometimes less than its messages have.
const RECEIVE_BYTES_MAX: u64 = 8 << 10;
/// What a released message is sometimes delayed by.
const RELEASE_DELAY_MS: u64 = 400;

/// What a call asks for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Wish {
    /// At most this many.
    pub messages_max: u32,
    /// Waits for the first.
    pub wait_ms: u64,
    /// Length of the lease.
    pub lease_ms: Option<u64>,
    /// The caller gives up after this time.
    pub give_up_ms: Option<u64>,
}

/// Leases to be ended.
struct Asked {
    leases: Vec<usize>,
    /// One for each.
    tags: Vec<SettleTag>,
    end: End,
    /// When, and after how many events.
    asked: (u64, u64),
    /// Nodes asked before.
    tries: u32,
}

impl Asked {
    /// One of them, to be asked for elsewhere.
    fn again(&self, place: usize) -> Self {
        Self {
            leases: vec![self.leases[place]],
            tags: vec![self.tags[place].clone()],
            end: self.end,
            asked: self.asked,
            tries: self.tries + 1,
        }
    }
}

impl Client {
    /// A queue's address, or that of its dead letters.
    pub(crate) fn queue(&self, object: usize, dead: bool) -> Address {
        let address = self.address(object);
        match address.dead_letter() {
            Some(dead_letters) if dead => dead_letters,
            _ => address,
        }
    }

    /// Takes messages.
    pub(crate) fn receive(&self, from: usize, dead: bool, wish: Wish) {
        self.receive_here(from, dead, wish, 0);
    }

    fn receive_here(&self, from: usize, dead: bool, wish: Wish, tries: u32) {
        let client = self.clone();
        let address = self.queue(from, dead);
        let Some(log) = self.log(&address, 0) else {
            return;
        };
        self.note_logs();
        self.run(async move {
            if let Err(refusal) = client.take(address, log, wish).await {
                client.elsewhere(&refusal, tries, move |client| {
                    client.receive_here(from, dead, wish, tries + 1);
                });
            }
        });
    }

    /// Takes messages; their leases.
    ///
    /// # Errors
    /// The refusal.
    pub(crate) async fn take(
        &self,
        address: Address,
        log: LogId,
        wish: Wish,
    ) -> Result<Vec<usize>, Refusal> {
        let since_ms = self.now_ms();
        let receive = Receive {
            address,
            messages_max: wish.messages_max,
            bytes_max: RECEIVE_BYTES_MAX,
            wait: Duration::from_millis(wish.wait_ms),
            lease: wish.lease_ms.map(Duration::from_millis),
        };
        self.lasting.watch.with(|state| {
            *state.facts.unanswered.entry(log).or_default() += 1;
        });
        let taking = Box::pin(self.broker.receive(receive));
        let taken = match wish.give_up_ms {
            None => taking.await,
            Some(millis) => match select(taking, Box::pin(self.sleep(millis))).await {
                Either::Left((taken, _)) => taken,
                Either::Right(_) => return Ok(Vec::new()),
            },
        };
        let call = self.lasting.call();
        // What could not be carried goes back; on a full disk that may come after the lease's end,
        // and when the node has just failed never, which then counts although nobody saw it.
        let over = self.now_ms() - since_ms >= wish.lease_ms.unwrap_or(LEASE_MS_MIN);
        let failed = self.broker.failed().now_or_never().is_some();
        // Who loses the lead meanwhile cannot give anything back.
        let certain = self.place.alone && !failed && !over;
        if taken.is_ok() && certain {
            self.lasting.watch.with(|state| {
                *state.facts.unanswered.entry(log).or_default() -= 1;
            });
        }
        let taken = taken?;
        for one in &taken {
            self.delivered(log, None, (call, since_ms), one);
        }
        let tags = taken.iter().map(|one| Tag(one.tag.clone()));
        Ok(self.lasting.watch.with(|state| {
            tags.filter_map(|tag| state.facts.tags.get(&tag).copied())
                .collect()
        }))
    }

    pub(crate) fn delivered(
        &self,
        log: LogId,
        session: Option<u64>,
        (call, since_ms): (u64, u64),
        one: &Delivered,
    ) {
        let lease_ms = u64::try_from(one.lease.as_millis()).unwrap_or(u64::MAX);
        self.tell(&Event::Delivered(event::Delivered {
            log,
            offset: one.offset.get(),
            tag: Tag(one.tag.clone()),
            session,
            call,
            acquired: one.acquired,
            attempts: one.attempts,
            lease_ms,
            since_ms,
            message: Body(one.message.clone()),
        }));
    }

    /// Looks at a queue.
    pub(crate) fn peek(&self, queue: usize, messages_max: u32) {
        self.peek_here(queue, messages_max, 0);
    }

    fn peek_here(&self, queue: usize, messages_max: u32, tries: u32) {
        let address = self.queue(queue, false);
        let Some(log) = self.log(&address, 0) else {
            return;
        };
        self.note_logs();
        let (client, asked_ms) = (self.clone(), self.now_ms());
        let peek = Peek {
            address,
            from: Offset::new(0),
            messages_max,
        };
        self.run(async move {
            let seen = match client.broker.peek(peek).await {
                Ok(seen) => seen,
                Err(refusal) => {
                    client.elsewhere(&refusal, tries, move |client| {
                        client.peek_here(queue, messages_max, tries + 1);
                    });
                    return;
                }
            };
            let messages = seen.messages.into_iter();
            client.tell(&Event::Peeked {
                log,
                asked_ms,
                messages: messages
                    .map(|m| (m.offset.get(), Body(m.message)))
                    .collect(),
            });
        });
    }

    /// Ends leases that nobody has tried to end, beginning at some place among them.
    pub(crate) fn settle(&self, count: usize, end: End, at: u64) {
        let open: Vec<usize> = self.lasting.watch.with(|state| {
            let leases = state.facts.leases.iter().enumerate();
            leases
                .filter(|(_, lease)| {
                    let ended = lease.asked.iter().any(|end| *end != End::Extend);
                    !lease.lost && !ended
                })
                .map(|(place, _)| place)
                .collect()
        });
        if open.is_empty() {
            return;
        }
        let first = usize::try_from(at % open.len() as u64).unwrap_or(0);
        let chosen = open.iter().cycle().skip(first).take(count.min(open.len()));
        self.end(chosen.copied().collect(), end);
    }

    /// Names leases that are over, as a client does that did not hear the answer.
    pub(crate) fn settle_stale(&self, count: usize) {
        let over: Vec<usize> = self.lasting.watch.with(|state| {
            let leases = state.facts.leases.iter().enumerate().rev();
            leases
                .filter(|(_, lease)| lease.done.is_some())
                .map(|(place, _)| place)
                .take(count)
                .collect()
        });
        self.end(over, End::Accept);
    }

    /// Ends leases.
    pub(crate) fn end(&self, leases: Vec<usize>, end: End) {
        let client = self.clone();
        self.run(async move {
            client.end_now(&leases, end).await;
        });
    }

    pub(crate) async fn end_now(&self, leases: &[usize], end: End) {
        let asked = (self.now_ms(), self.events());
        let tags = self.tags(leases, end);
        let asked = Asked {
            leases: leases.to_vec(),
            tags,
            end,
            asked,
            tries: 0,
        };
        self.end_here(asked).await;
    }

    fn end_here(&self, all: Asked) -> BoxFuture<'static, ()> {
        let client = self.clone();
        async move {
            let results = client.broker.settle(None, all.tags.clone()).await;
            for ((place, lease), result) in all.leases.iter().enumerate().zip(results) {
                let again = |refusal| {
                    let again = all.again(place);
                    client.elsewhere(refusal, all.tries, move |client| {
                        client.run(client.end_here(again));
                    })
                };
                if result.as_ref().err().is_some_and(again) {
                    continue;
                }
                client.tell(&Event::Settled {
                    lease: *lease,
                    end: all.end,
                    answer: answer(result),
                    asked_ms: all.asked.0,
                    asked: all.asked.1,
                });
            }
        }
        .boxed()
    }

    /// Says what is about to be asked.
    pub(crate) fn tags(&self, leases: &[usize], end: End) -> Vec<SettleTag> {
        for lease in leases {
            self.tell(&Event::Settling { lease: *lease, end });
        }
        self.lasting.watch.with(|state| {
            let tag = |lease: &usize| SettleTag {
                tag: state.facts.leases[*lease].tag.0.clone(),
                settle: settle(end, *lease),
            };
            leases.iter().map(tag).collect()
        })
    }
}

/// How it is said; details vary with the lease.
fn settle(end: End, lease: usize) -> Settle {
    let odd = mix(lease as u64).is_multiple_of(2);
    match end {
        End::Accept => Settle::Accept,
        End::Release => Settle::Release {
            delay_ms: if odd { RELEASE_DELAY_MS } else { 0 },
        },
        End::Retry => Settle::Retry {
            delay_ms: odd.then_some(0),
            note: "not now".into(),
        },
        End::Reject => Settle::Reject {
            note: format!("rejected {lease}"),
        },
        End::Extend => Settle::Extend,
    }
}
