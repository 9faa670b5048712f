//! What waits for one lane to one peer. Bounded in messages and bytes; taking never waits.
//!
//! Decides what is dropped: what finds the queue full, what comes while there is no connection, and
//! what waited when a connection failed, since it is stale by the time of the next one. All of it
//! is counted. Promises the order of what is taken. Does not know connections: a [`Frames`] reads
//! it, and only the latest one may.
//!
//! [`Frames`]: crate::frames::Frames

use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};

use tokio::sync::Notify;

use crate::convert::Packed;
use crate::limits::{FRAME_BYTES_TARGET, FRAME_ENTRIES_MAX, FRAME_MESSAGES_MAX, MESSAGE_BYTES_MAX};
use crate::options::QueueLimits;

/// Messages that wait, and who reads them.
#[derive(Debug)]
pub(crate) struct Queue {
    limits: QueueLimits,
    state: Mutex<State>,
    overflow: Notify,
}

/// Which connection may read; a later one ends the earlier ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Epoch(u64);

/// What goes into one frame.
#[derive(Debug, Default)]
pub(crate) struct Batch {
    pub(crate) ping: Option<u64>,
    pub(crate) messages: Vec<Packed>,
}

/// What a queue has done so far, and what it holds.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) queued_messages: usize,
    pub(crate) queued_bytes: usize,
    pub(crate) sent_messages: u64,
    pub(crate) sent_bytes: u64,
    pub(crate) dropped_messages: u64,
}

/// What becomes of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Gate {
    /// There is no connection and none is being made: it is dropped.
    Down,
    /// A connection is being made: it waits.
    Dialling,
    /// It goes.
    Up,
}

#[derive(Debug)]
struct State {
    gate: Gate,
    epoch: Epoch,
    waiting: VecDeque<Packed>,
    ping: Option<u64>,
    reader: Option<Waker>,
    counts: Counts,
}

impl Queue {
    /// An empty one, without a connection.
    pub(crate) fn new(limits: QueueLimits) -> Self {
        Self {
            limits,
            state: Mutex::new(State {
                gate: Gate::Down,
                epoch: Epoch::default(),
                waiting: VecDeque::new(),
                ping: None,
                reader: None,
                counts: Counts::default(),
            }),
            overflow: Notify::new(),
        }
    }

    /// Takes what fits; returns how many messages were dropped.
    pub(crate) fn push(&self, messages: impl IntoIterator<Item = Packed>) -> usize {
        let mut state = self.lock();
        let mut dropped = 0;
        for packed in messages {
            if state.takes(&packed, self.limits) {
                state.counts.queued_messages += 1;
                state.counts.queued_bytes += packed.bytes;
                state.waiting.push_back(packed);
            } else {
                dropped += 1;
            }
        }
        state.counts.dropped_messages += dropped as u64;
        if dropped > 0 {
            // One permit is kept however often: the dialer tells once for all.
            self.overflow.notify_one();
        }
        state.wake();
        dropped
    }

    /// Asks for a ping to go before anything else.
    pub(crate) fn ping(&self, id: u64) {
        let mut state = self.lock();
        state.ping = Some(id);
        state.wake();
    }

    /// A connection is being made; from now on messages wait for it. Names who may read.
    pub(crate) fn dialling(&self) -> Epoch {
        let mut state = self.lock();
        state.drop_waiting();
        state.gate = Gate::Dialling;
        state.epoch
    }

    /// The connection is made: what waits may go.
    pub(crate) fn up(&self) {
        let mut state = self.lock();
        state.gate = Gate::Up;
        state.wake();
    }

    /// There is no connection any more: what waits is dropped, and what comes.
    pub(crate) fn down(&self) {
        let mut state = self.lock();
        state.gate = Gate::Down;
        state.drop_waiting();
    }

    /// Takes a batch for the next frame. `None` when this reader's time is over.
    pub(crate) fn take(&self, epoch: Epoch, waker: &Waker) -> Poll<Option<Batch>> {
        let mut state = self.lock();
        if state.epoch != epoch {
            return Poll::Ready(None);
        }
        if state.gate == Gate::Up {
            let batch = state.batch();
            if batch.ping.is_some() || !batch.messages.is_empty() {
                return Poll::Ready(Some(batch));
            }
        }
        state.reader = Some(waker.clone());
        Poll::Pending
    }

    /// Waits until a message was dropped since this last returned. Cancel-safe.
    pub(crate) async fn overflowed(&self) {
        self.overflow.notified().await;
    }

    /// What it has done and holds.
    pub(crate) fn counts(&self) -> Counts {
        self.lock().counts
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // Whole after each statement: counts may be off by one message at worst.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn takes(&self, packed: &Packed, limits: QueueLimits) -> bool {
        let is_too_large = packed.bytes > MESSAGE_BYTES_MAX || packed.entries > FRAME_ENTRIES_MAX;
        if self.gate == Gate::Down || is_too_large {
            return false;
        }
        let bytes = self.counts.queued_bytes.saturating_add(packed.bytes);
        self.waiting.is_empty()
            || (self.waiting.len() < limits.messages_max && bytes <= limits.bytes_max)
    }

    fn batch(&mut self) -> Batch {
        let mut batch = Batch {
            ping: self.ping.take(),
            messages: Vec::new(),
        };
        let (mut bytes, mut entries) = (0, 0);
        while let Some(next) = self.waiting.front() {
            let is_full = batch.messages.len() == FRAME_MESSAGES_MAX
                || bytes + next.bytes > FRAME_BYTES_TARGET
                || entries + next.entries > FRAME_ENTRIES_MAX;
            if is_full && !batch.messages.is_empty() {
                break;
            }
            bytes += next.bytes;
            entries += next.entries;
            batch.messages.extend(self.waiting.pop_front());
        }
        self.counts.queued_messages -= batch.messages.len();
        self.counts.queued_bytes -= bytes;
        self.counts.sent_messages += batch.messages.len() as u64;
        self.counts.sent_bytes += bytes as u64;
        batch
    }

    /// Ends the reader, too.
    fn drop_waiting(&mut self) {
        self.epoch.0 += 1;
        self.counts.dropped_messages += self.waiting.len() as u64;
        self.counts.queued_messages = 0;
        self.counts.queued_bytes = 0;
        // Not only emptied: a burst's memory is given back.
        self.waiting = VecDeque::new();
        self.ping = None;
        self.wake();
    }

    fn wake(&mut self) {
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use millrace_types::{ReplicaId, ShardId};

    use super::*;
    use millrace_replica::Lane;
    use millrace_replica::{Body, Next, ShardMessage, SnapshotAck, SnapshotChunk};

    const LIMITS: QueueLimits = QueueLimits {
        messages_max: 10_000,
        bytes_max: 64 << 20,
    };

    fn packed(body: Body) -> Packed {
        let shard = ShardId::new(1);
        ShardMessage { shard, body }.into()
    }

    fn small() -> Packed {
        packed(Body::Ack(SnapshotAck {
            from: ReplicaId::new(1),
            to: ReplicaId::new(2),
            id: 3,
            next: Next::From(4),
        }))
    }

    fn large(bytes: usize) -> Packed {
        packed(Body::Chunk(SnapshotChunk {
            from: ReplicaId::new(1),
            to: ReplicaId::new(2),
            id: 3,
            offset: 0,
            total: bytes as u64,
            data: vec![0; bytes].into(),
        }))
    }

    fn take(queue: &Queue, epoch: Epoch) -> Poll<Option<Batch>> {
        queue.take(epoch, Waker::noop())
    }

    fn sizes(queue: &Queue, epoch: Epoch) -> Vec<usize> {
        let mut sizes = Vec::new();
        while let Poll::Ready(Some(batch)) = take(queue, epoch) {
            sizes.push(batch.messages.len());
        }
        sizes
    }

    #[test]
    fn what_waits_goes_into_frames_of_a_bounded_size() {
        let queue = Queue::new(LIMITS);
        let epoch = queue.dialling();
        queue.up();
        let half = FRAME_BYTES_TARGET / 2;
        queue.push([
            large(half),
            large(half / 2),
            large(half),
            large(4 * half),
            small(),
        ]);
        assert_eq!(sizes(&queue, epoch), [2, 1, 1, 1]);
        queue.push((0..FRAME_MESSAGES_MAX + 1).map(|_| small()));
        assert_eq!(sizes(&queue, epoch), [FRAME_MESSAGES_MAX, 1]);
        let counts = queue.counts();
        assert_eq!((counts.queued_messages, counts.queued_bytes), (0, 0));
        assert_eq!(counts.sent_messages, 6 + FRAME_MESSAGES_MAX as u64);
    }

    #[test]
    fn messages_wait_while_a_connection_is_made_and_only_its_reader_gets_them() {
        let queue = Queue::new(LIMITS);
        assert_eq!(queue.push([small()]), 1);
        let former = queue.dialling();
        let epoch = queue.dialling();
        assert_eq!(queue.push([small(), small()]), 0);
        assert!(take(&queue, epoch).is_pending());
        queue.ping(1);
        assert!(take(&queue, epoch).is_pending());
        queue.up();
        assert!(matches!(take(&queue, former), Poll::Ready(None)));
        assert_eq!(sizes(&queue, epoch), [2]);
    }

    #[test]
    fn what_waited_for_a_lost_connection_is_dropped_and_counted() {
        let queue = Queue::new(LIMITS);
        let epoch = queue.dialling();
        queue.up();
        queue.push([small(), small()]);
        queue.down();
        assert!(matches!(take(&queue, epoch), Poll::Ready(None)));
        assert_eq!(queue.push([small()]), 1);
        let counts = queue.counts();
        assert_eq!((counts.dropped_messages, counts.queued_messages), (3, 0));
        let epoch = queue.dialling();
        queue.up();
        assert!(take(&queue, epoch).is_pending());
    }

    #[test]
    fn the_largest_record_fits_the_usual_queues() {
        let queue = Queue::new(QueueLimits::of(Lane::Appends));
        queue.dialling();
        let dropped = queue.push([small(), large(32 << 20), large(32 << 20), large(64 << 10)]);
        assert_eq!(dropped, 0);
        assert_eq!(queue.push([large(MESSAGE_BYTES_MAX)]), 1);
    }
}
