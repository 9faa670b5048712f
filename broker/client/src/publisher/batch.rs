//! Makes frames of waiting messages: everything that waits becomes as few batches as possible.
//!
//! A batch of a topic has messages of one key only, because the key chooses the partition. A large
//! message, one with a dedup id of its own, and one that may have got its batch refused, go alone.
//! A batch that is sent again is what it was: the server knows it by its number.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use millrace_proto::v1::{PublishFrame, RecordBatch, record_batch::Codec};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Ack;
use super::producer::Producer;
use crate::error::Error;

/// Messages of one frame: as many as one batch may have.
pub(super) const FRAME_MESSAGES_MAX: usize = 10_000;
/// Bytes of one frame, its first message excepted: large enough to amortise a sync, small enough
/// that several are on their way at once.
pub(super) const FRAME_BYTES_MAX: usize = 1 << 20;
/// Batches of one frame: topics with many keys get many small batches.
const FRAME_BATCHES_MAX: usize = 256;
/// From this size on, sharing a batch saves nothing, and a refusal would hit the others too.
const ALONE_BYTES: usize = 64 << 10;

/// One message on its way.
#[derive(Debug)]
pub(super) struct Item {
    /// In order of being handed over.
    pub(super) number: u64,
    /// Encoded, with its length.
    pub(super) record: Bytes,
    /// Messages of a batch share it.
    pub(super) key: String,
    /// Taken from the publisher's room until it is decided.
    pub(super) cost: u32,
    /// When it was handed over.
    pub(super) since: Instant,
    /// Shares no batch.
    pub(super) alone: bool,
    /// Has a dedup id of its own.
    pub(super) named: bool,
    /// Where the outcome goes.
    pub(super) answer: oneshot::Sender<Result<Ack, Error>>,
}

/// Messages that are stored together, or not at all.
#[derive(Debug)]
pub(super) struct Batch {
    /// In their order; not empty.
    pub(super) items: Vec<Item>,
    /// The producer's number for it.
    pub(super) number: u64,
    /// When it was first sent.
    pub(super) since: Instant,
    /// It was sent before, and nobody knows what became of it.
    pub(super) attempted: bool,
}

impl Batch {
    fn bytes(&self) -> usize {
        self.items.iter().map(|item| item.record.len()).sum()
    }

    /// When its oldest message was handed over.
    pub(super) fn waits_since(&self) -> Option<Instant> {
        self.items.iter().map(|item| item.since).min()
    }
}

/// A frame that was sent, in its batches.
#[derive(Debug)]
pub(super) struct Sent {
    /// Of the frame.
    pub(super) sequence: u64,
    /// Same order as in the frame.
    pub(super) batches: Vec<Batch>,
}

/// What is to be sent.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    /// Batches that were sent before, in order of their numbers; they go first.
    pub(super) again: VecDeque<Batch>,
    /// Messages in order of their numbers.
    pub(super) items: VecDeque<Item>,
}

impl Waiting {
    pub(super) fn is_empty(&self) -> bool {
        self.again.is_empty() && self.items.is_empty()
    }

    /// Messages and bytes that go next, at least.
    pub(super) fn next(&self) -> Option<(u64, usize)> {
        let again = self.again.front();
        let again = again.map(|batch| (batch.items.len() as u64, batch.bytes()));
        again.or_else(|| Some((1, self.items.front()?.record.len())))
    }
}

/// What may still be sent. The server ends a stream that sends more.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Credit {
    /// Messages.
    pub(super) messages: u64,
    /// Bytes of records.
    pub(super) bytes: u64,
}

impl Credit {
    /// Whether so many more messages and bytes may go.
    pub(super) const fn covers(self, (messages, bytes): (u64, usize)) -> bool {
        self.messages >= messages && self.bytes >= bytes as u64
    }

    const fn pay(&mut self, (messages, bytes): (u64, usize)) {
        self.messages -= messages;
        self.bytes -= bytes as u64;
    }
}

/// Takes from `waiting` what one frame may carry, in order, and pays for it. `None` when nothing
/// may go.
pub(super) fn next_frame(
    waiting: &mut Waiting,
    credit: &mut Credit,
    producer: &mut Producer,
    sequence: u64,
    address: &str,
) -> Option<(PublishFrame, Sent)> {
    let batches = if waiting.again.is_empty() {
        new_batches(&mut waiting.items, credit, producer)
    } else {
        old_batches(&mut waiting.again, credit)
    };
    if batches.is_empty() {
        return None;
    }
    let frame = PublishFrame {
        sequence,
        address: address.to_owned(),
        batches: batches
            .iter()
            .map(|batch| encode(batch, producer))
            .collect(),
        ..PublishFrame::default()
    };
    Some((frame, Sent { sequence, batches }))
}

/// Batches that go again, as they are.
fn old_batches(again: &mut VecDeque<Batch>, credit: &mut Credit) -> Vec<Batch> {
    let mut batches: Vec<Batch> = Vec::new();
    let mut bytes = 0;
    while let Some(batch) = again.front() {
        let cost = (batch.items.len() as u64, batch.bytes());
        let fits = batches.is_empty() || bytes + cost.1 <= FRAME_BYTES_MAX;
        if !credit.covers(cost) || !fits || batches.len() == FRAME_BATCHES_MAX {
            break;
        }
        credit.pay(cost);
        bytes += cost.1;
        batches.extend(again.pop_front());
    }
    batches
}

fn new_batches(
    waiting: &mut VecDeque<Item>,
    credit: &mut Credit,
    producer: &mut Producer,
) -> Vec<Batch> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(item) = waiting.front() {
        let length = item.record.len();
        let fits = messages == 0 || bytes + length <= FRAME_BYTES_MAX;
        if !credit.covers((1, length)) || !fits || messages == FRAME_MESSAGES_MAX {
            break;
        }
        let alone = item.alone || item.named || length >= ALONE_BYTES;
        let place = if alone {
            None
        } else {
            open.get(&item.key).copied()
        };
        if place.is_none() && batches.len() == FRAME_BATCHES_MAX {
            break;
        }
        let Some(item) = waiting.pop_front() else {
            break;
        };
        if alone {
            // What follows under this key must not overtake it.
            open.remove(&item.key);
        } else if place.is_none() {
            open.insert(item.key.clone(), batches.len());
        }
        match place.and_then(|at| batches.get_mut(at)) {
            Some(batch) => batch.push(item),
            None => batches.push(vec![item]),
        }
        credit.pay((1, length));
        messages += 1;
        bytes += length;
    }
    let since = Instant::now();
    let batch = |items| Batch {
        items,
        number: producer.number(),
        since,
        attempted: false,
    };
    batches.into_iter().map(batch).collect()
}

fn encode(batch: &Batch, producer: &Producer) -> RecordBatch {
    let records = match batch.items.as_slice() {
        [only] => only.record.clone(),
        items => {
            let mut records = BytesMut::with_capacity(batch.bytes());
            for item in items {
                records.extend_from_slice(&item.record);
            }
            records.freeze()
        }
    };
    let is_named = batch.items.iter().any(|item| item.named);
    let age = batch.since.elapsed().as_millis();
    RecordBatch {
        count: u32::try_from(batch.items.len()).unwrap_or(u32::MAX),
        crc32c: crc32c::crc32c(&records),
        records,
        codec: Codec::None.into(),
        producer: if is_named {
            None
        } else {
            producer.of(batch.number)
        },
        age_ms: u64::try_from(age).unwrap_or(u64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::record;
    use millrace_proto::v1::Message;

    fn item(number: u64, key: &str, payload_bytes: usize) -> Item {
        let message = Message {
            payload: vec![b'x'; payload_bytes].into(),
            ..Message::default()
        };
        Item {
            number,
            record: record(&message),
            key: key.to_owned(),
            cost: 0,
            since: Instant::now(),
            alone: false,
            named: false,
            answer: oneshot::channel().0,
        }
    }

    fn items(items: impl IntoIterator<Item = Item>) -> Waiting {
        Waiting {
            items: items.into_iter().collect(),
            ..Waiting::default()
        }
    }

    fn make(
        waiting: &mut Waiting,
        credit: &mut Credit,
        sequence: u64,
        address: &str,
    ) -> Option<(PublishFrame, Sent)> {
        next_frame(waiting, credit, &mut Producer::known(), sequence, address)
    }

    fn plenty() -> Credit {
        Credit {
            messages: 1 << 30,
            bytes: 1 << 40,
        }
    }

    fn numbers(sent: &Sent) -> Vec<Vec<u64>> {
        let of = |batch: &Batch| batch.items.iter().map(|item| item.number).collect();
        sent.batches.iter().map(of).collect()
    }

    #[test]
    fn everything_that_waits_for_a_queue_becomes_one_batch() {
        let mut waiting = items((0..100).map(|n| item(n, "", 10)));

        let (frame, sent) = make(&mut waiting, &mut plenty(), 7, "queue/a/b").unwrap();

        assert!(waiting.is_empty());
        assert_eq!(frame.sequence, 7);
        assert_eq!(frame.batches.len(), 1);
        assert_eq!(frame.batches[0].count, 100);
        assert_eq!(
            frame.batches[0].crc32c,
            crc32c::crc32c(&frame.batches[0].records)
        );
        assert_eq!(sent.batches[0].items.len(), 100);
    }

    #[test]
    fn a_batch_has_one_key_and_keeps_its_order() {
        let keys = ["a", "b", "a", "b", "c"];
        let mut waiting = items(keys.iter().zip(0..).map(|(key, n)| item(n, key, 1)));

        let (_, sent) = make(&mut waiting, &mut plenty(), 1, "topic/a/b").unwrap();

        assert_eq!(numbers(&sent), [vec![0, 2], vec![1, 3], vec![4]]);
    }

    #[test]
    fn a_large_message_goes_alone_and_is_not_overtaken_by_its_key() {
        let sizes = [1, ALONE_BYTES, 1];
        let mut waiting = items(
            sizes
                .into_iter()
                .zip(0..)
                .map(|(size, n)| item(n, "k", size)),
        );

        let (_, sent) = make(&mut waiting, &mut plenty(), 1, "topic/a/b").unwrap();

        assert_eq!(numbers(&sent), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn credit_is_never_overdrawn() {
        let mut waiting = items((0..10).map(|n| item(n, "", 1000)));
        let mut credit = Credit {
            messages: 3,
            bytes: 1 << 20,
        };
        let (frame, _) = make(&mut waiting, &mut credit, 1, "queue/a/b").unwrap();
        assert_eq!(frame.batches[0].count, 3);
        assert!(make(&mut waiting, &mut credit, 2, "queue/a/b").is_none());

        let mut credit = Credit {
            messages: 100,
            bytes: 2500,
        };
        let (frame, _) = make(&mut waiting, &mut credit, 2, "queue/a/b").unwrap();
        assert_eq!(frame.batches[0].count, 2);
        assert!(make(&mut waiting, &mut credit, 3, "queue/a/b").is_none());
        assert_eq!(waiting.items.len(), 5);
    }

    #[test]
    fn what_goes_again_is_what_it_was_and_goes_first() {
        let mut producer = Producer::known();
        let mut waiting = items((0..3).map(|n| item(n, "", 10)));
        let send = |waiting: &mut Waiting, producer: &mut Producer| {
            next_frame(waiting, &mut plenty(), producer, 1, "queue/a/b").unwrap()
        };
        let (first, sent) = send(&mut waiting, &mut producer);
        waiting.again.extend(sent.batches);
        waiting.items.push_back(item(3, "", 10));

        let (second, sent) = send(&mut waiting, &mut producer);
        assert_eq!(numbers(&sent), [vec![0, 1, 2]]);
        assert_eq!(second.batches[0].records, first.batches[0].records);
        assert_eq!(second.batches[0].producer, first.batches[0].producer);
        let (third, sent) = send(&mut waiting, &mut producer);
        assert_eq!(numbers(&sent), [vec![3]]);
        let known = third.batches[0].producer.as_ref().unwrap();
        assert_eq!((known.sequence, known.floor), (1, 0));
    }

    #[test]
    fn a_message_with_an_id_of_its_own_goes_alone_and_without_the_producer() {
        let named = Item {
            named: true,
            ..item(1, "", 1)
        };
        let mut waiting = items([item(0, "", 1), named, item(2, "", 1)]);
        let (frame, sent) = make(&mut waiting, &mut plenty(), 1, "queue/a/b").unwrap();
        assert_eq!(numbers(&sent), [vec![0], vec![1], vec![2]]);
        let known = frame.batches.iter().map(|batch| batch.producer.is_some());
        assert_eq!(known.collect::<Vec<_>>(), [true, false, true]);
    }
}
