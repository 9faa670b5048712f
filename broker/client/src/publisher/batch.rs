//! Makes frames of waiting messages: everything that waits becomes as few batches as possible.
//!
//! A batch of a topic has messages of one key only, because the key chooses the partition. A large
//! message, and one that may have got its batch refused, goes alone.

use std::collections::{HashMap, VecDeque};

use bytes::{Bytes, BytesMut};
use millrace_proto::v1::{PublishFrame, RecordBatch, record_batch::Codec};
use tokio::sync::oneshot;
use tokio::time::Instant;

use super::Ack;
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
    /// It was sent before, and nobody knows what became of it.
    pub(super) attempted: bool,
    /// Shares no batch.
    pub(super) alone: bool,
    /// Where the outcome goes.
    pub(super) answer: oneshot::Sender<Result<Ack, Error>>,
}

/// A frame that was sent, in its batches.
#[derive(Debug)]
pub(super) struct Sent {
    /// Of the frame.
    pub(super) sequence: u64,
    /// Same order as in the frame.
    pub(super) batches: Vec<Vec<Item>>,
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
    /// Whether one more message of this length may go.
    pub(super) const fn covers(self, length: usize) -> bool {
        self.messages > 0 && self.bytes >= length as u64
    }
}

/// Takes from `waiting` what one frame may carry, in order, and pays for it. `None` when nothing
/// may go.
pub(super) fn next_frame(
    waiting: &mut VecDeque<Item>,
    credit: &mut Credit,
    sequence: u64,
    address: &str,
) -> Option<(PublishFrame, Sent)> {
    let mut batches: Vec<Vec<Item>> = Vec::new();
    let mut open: HashMap<String, usize> = HashMap::new();
    let (mut messages, mut bytes) = (0, 0);
    while let Some(item) = waiting.front() {
        let length = item.record.len();
        let fits = messages == 0 || bytes + length <= FRAME_BYTES_MAX;
        if !credit.covers(length) || !fits || messages == FRAME_MESSAGES_MAX {
            break;
        }
        let alone = item.alone || length >= ALONE_BYTES;
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
        credit.messages -= 1;
        credit.bytes -= length as u64;
        messages += 1;
        bytes += length;
    }
    if batches.is_empty() {
        return None;
    }
    let frame = PublishFrame {
        sequence,
        address: address.to_owned(),
        messages: Vec::new(),
        batches: batches.iter().map(|items| encode(items)).collect(),
        ..PublishFrame::default()
    };
    Some((frame, Sent { sequence, batches }))
}

fn encode(items: &[Item]) -> RecordBatch {
    let records = match items {
        [only] => only.record.clone(),
        _ => {
            let bytes = items.iter().map(|item| item.record.len()).sum();
            let mut records = BytesMut::with_capacity(bytes);
            for item in items {
                records.extend_from_slice(&item.record);
            }
            records.freeze()
        }
    };
    RecordBatch {
        count: u32::try_from(items.len()).unwrap_or(u32::MAX),
        crc32c: crc32c::crc32c(&records),
        records,
        codec: Codec::None.into(),
        ..RecordBatch::default()
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
            attempted: false,
            alone: false,
            answer: oneshot::channel().0,
        }
    }

    fn plenty() -> Credit {
        Credit {
            messages: 1 << 30,
            bytes: 1 << 40,
        }
    }

    fn numbers(sent: &Sent) -> Vec<Vec<u64>> {
        let of = |batch: &Vec<Item>| batch.iter().map(|item| item.number).collect();
        sent.batches.iter().map(of).collect()
    }

    #[test]
    fn everything_that_waits_for_a_queue_becomes_one_batch() {
        let mut waiting: VecDeque<_> = (0..100).map(|n| item(n, "", 10)).collect();

        let (frame, sent) = next_frame(&mut waiting, &mut plenty(), 7, "queue/a/b").unwrap();

        assert!(waiting.is_empty());
        assert_eq!(frame.sequence, 7);
        assert_eq!(frame.batches.len(), 1);
        assert_eq!(frame.batches[0].count, 100);
        assert_eq!(
            frame.batches[0].crc32c,
            crc32c::crc32c(&frame.batches[0].records)
        );
        assert_eq!(sent.batches[0].len(), 100);
    }

    #[test]
    fn a_batch_has_one_key_and_keeps_its_order() {
        let keys = ["a", "b", "a", "b", "c"];
        let mut waiting: VecDeque<_> = keys
            .iter()
            .zip(0..)
            .map(|(key, n)| item(n, key, 1))
            .collect();

        let (_, sent) = next_frame(&mut waiting, &mut plenty(), 1, "topic/a/b").unwrap();

        assert_eq!(numbers(&sent), [vec![0, 2], vec![1, 3], vec![4]]);
    }

    #[test]
    fn a_large_message_goes_alone_and_is_not_overtaken_by_its_key() {
        let sizes = [1, ALONE_BYTES, 1];
        let mut waiting: VecDeque<_> = sizes
            .into_iter()
            .zip(0..)
            .map(|(size, n)| item(n, "k", size))
            .collect();

        let (_, sent) = next_frame(&mut waiting, &mut plenty(), 1, "topic/a/b").unwrap();

        assert_eq!(numbers(&sent), [vec![0], vec![1], vec![2]]);
    }

    #[test]
    fn credit_is_never_overdrawn() {
        let mut waiting: VecDeque<_> = (0..10).map(|n| item(n, "", 1000)).collect();
        let mut credit = Credit {
            messages: 3,
            bytes: 1 << 20,
        };
        let (frame, _) = next_frame(&mut waiting, &mut credit, 1, "queue/a/b").unwrap();
        assert_eq!(frame.batches[0].count, 3);
        assert!(next_frame(&mut waiting, &mut credit, 2, "queue/a/b").is_none());

        let mut credit = Credit {
            messages: 100,
            bytes: 2500,
        };
        let (frame, _) = next_frame(&mut waiting, &mut credit, 2, "queue/a/b").unwrap();
        assert_eq!(frame.batches[0].count, 2);
        assert!(next_frame(&mut waiting, &mut credit, 3, "queue/a/b").is_none());
        assert_eq!(waiting.len(), 5);
    }
}
