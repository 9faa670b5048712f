//! What one connection has been leased: what waits to be sent, in order, and what was sent. Each
//! question and change costs what it names, however much is held.

use std::collections::BTreeMap;
use std::time::Instant;

use millrace_engine::command::Held;
use millrace_engine::outcome::Delivery;
use millrace_types::Offset;

/// Leases that a connection knows of.
#[derive(Debug, Default)]
pub(super) struct Leases {
    /// Those that wait, in the order they came.
    waiting: BTreeMap<u64, Waiting>,
    /// Place of the next one.
    next: u64,
    all: BTreeMap<Offset, Lease>,
    sent: usize,
}

/// A delivery that waits to be sent.
#[derive(Clone, Copy, Debug)]
pub(super) struct Waiting {
    pub(super) delivery: Delivery,
    pub(super) since: Instant,
}

#[derive(Clone, Copy, Debug)]
struct Lease {
    acquired: u32,
    stage: Stage,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    /// At this place.
    Waits(u64),
    /// It will not be sent: it is on its way back.
    Returned,
    /// The client has it.
    Sent,
}

impl Leases {
    /// How many there are.
    pub(super) fn len(&self) -> usize {
        self.all.len()
    }

    /// How many were sent and are not over.
    pub(super) const fn sent_len(&self) -> usize {
        self.sent
    }

    /// Whether any waits.
    pub(super) fn is_waiting(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// The client has these already.
    pub(super) fn claim(&mut self, held: &[Held]) {
        for held in held {
            self.put(held, Stage::Sent);
        }
    }

    /// These are to be sent.
    pub(super) fn add(&mut self, deliveries: &[Delivery], since: Instant) {
        for delivery in deliveries {
            let place = self.next;
            self.next += 1;
            self.put(&held(delivery), Stage::Waits(place));
            let delivery = *delivery;
            self.waiting.insert(place, Waiting { delivery, since });
        }
    }

    /// Up to `max` that wait, in order.
    pub(super) fn first(&self, max: usize) -> Vec<Delivery> {
        let first = self.waiting.values().take(max);
        first.map(|waiting| waiting.delivery).collect()
    }

    /// Whether this is the first that waits.
    pub(super) fn is_first(&self, delivery: &Delivery) -> bool {
        let first = self.waiting.first_key_value();
        first.is_some_and(|(_, first)| first.delivery == *delivery)
    }

    /// The first one goes out.
    pub(super) fn send_first(&mut self) -> Option<Waiting> {
        let (_, waiting) = self.waiting.pop_first()?;
        self.put(&held(&waiting.delivery), Stage::Sent);
        Some(waiting)
    }

    /// The first one is not sent.
    pub(super) fn return_first(&mut self) {
        if let Some((_, waiting)) = self.waiting.pop_first() {
            self.put(&held(&waiting.delivery), Stage::Returned);
        }
    }

    /// Nothing of what waits is sent.
    pub(super) fn return_all(&mut self) -> Vec<Delivery> {
        let returned = std::mem::take(&mut self.waiting);
        let returned: Vec<Delivery> = returned.into_values().map(|w| w.delivery).collect();
        for delivery in &returned {
            self.put(&held(delivery), Stage::Returned);
        }
        returned
    }

    /// Those that were sent; the others are not sent any more.
    pub(super) fn split_sent(&mut self, due: &[Held]) -> Vec<Held> {
        let mut sent = Vec::new();
        for held in due {
            match self.get(held) {
                Some(Stage::Sent) => sent.push(*held),
                Some(Stage::Waits(_)) => self.put(held, Stage::Returned),
                Some(Stage::Returned) | None => {}
            }
        }
        sent
    }

    /// Everything that was sent.
    pub(super) fn sent(&self) -> Vec<Held> {
        let sent = self.all.iter();
        let sent = sent.filter(|(_, lease)| lease.stage == Stage::Sent);
        sent.map(|(offset, lease)| Held {
            offset: *offset,
            acquired: lease.acquired,
        })
        .collect()
    }

    /// These are over; those of them that were sent.
    pub(super) fn end(&mut self, held: impl IntoIterator<Item = Held>) -> Vec<Held> {
        let mut sent = Vec::new();
        for held in held {
            let Some(stage) = self.get(&held) else {
                continue;
            };
            self.all.remove(&held.offset);
            self.leave(stage);
            if stage == Stage::Sent {
                sent.push(held);
            }
        }
        sent
    }

    /// What of these, which are all there are, it does not know of, and what it knows of that is
    /// not among them.
    pub(super) fn compare(&self, leases: &[Delivery]) -> (Vec<Delivery>, Vec<Held>) {
        let unheard = |delivery: &&Delivery| self.get(&held(delivery)).is_none();
        let missed = leases.iter().filter(unheard).copied().collect();
        let live: BTreeMap<Offset, u32> = leases.iter().map(|d| (d.offset, d.acquired)).collect();
        let known = self.all.iter().map(|(offset, lease)| Held {
            offset: *offset,
            acquired: lease.acquired,
        });
        let over = known.filter(|held| live.get(&held.offset) != Some(&held.acquired));
        (missed, over.collect())
    }

    fn get(&self, held: &Held) -> Option<Stage> {
        let lease = self.all.get(&held.offset)?;
        (lease.acquired == held.acquired).then_some(lease.stage)
    }

    /// Replaces what was known of the message: an earlier lease is over when another one begins.
    fn put(&mut self, held: &Held, stage: Stage) {
        let acquired = held.acquired;
        let old = self.all.insert(held.offset, Lease { acquired, stage });
        if let Some(old) = old {
            self.leave(old.stage);
        }
        self.sent += usize::from(stage == Stage::Sent);
    }

    fn leave(&mut self, stage: Stage) {
        match stage {
            Stage::Waits(place) => {
                self.waiting.remove(&place);
            }
            Stage::Sent => self.sent -= 1,
            Stage::Returned => {}
        }
    }
}

const fn held(delivery: &Delivery) -> Held {
    Held {
        offset: delivery.offset,
        acquired: delivery.acquired,
    }
}
