//! The door through which other nodes' messages come to a worker: as much as it has room for, the
//! rest waits in its stream.
//!
//! Each lane has room of its own, so that a vote never waits behind entries. A message has left the
//! door when the worker has stepped it.

use std::sync::Arc;

use millrace_replica::{Body, Lane, Payload, ShardMessage};
use millrace_types::NodeId;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::inbox::Inbox;
use super::input::Input;

/// What may wait in each lane, in the order of `Lane::index`: a heartbeat of each of thousands of
/// shards; a few of the largest appends of each peer; a few chunks.
const BYTES_MAX: [u32; 3] = [4 << 20, 64 << 20, 16 << 20];
/// What a message takes besides its bytes, about.
const MESSAGE_BYTES: usize = 128;
/// The same of an entry.
const ENTRY_BYTES: usize = 96;

/// The door of one worker.
pub(super) struct Inlet {
    inbox: Arc<Inbox<Input>>,
    room: [Arc<Semaphore>; 3],
}

/// What came from one node and was not looked at.
pub(super) struct Arrived {
    /// Which node.
    pub(super) from: NodeId,
    /// In the order it sent them.
    pub(super) messages: Vec<ShardMessage>,
    /// Their room, given back when this is dropped.
    _room: Option<OwnedSemaphorePermit>,
}

impl Arrived {
    /// Leaves those in the place for which `later` holds; gives the others.
    pub(super) fn take_now(&mut self, later: impl Fn(&ShardMessage) -> bool) -> Vec<ShardMessage> {
        let all = std::mem::take(&mut self.messages);
        let (later, now) = all.into_iter().partition(later);
        self.messages = later;
        now
    }
}

impl Inlet {
    /// The door of the worker with this inbox.
    pub(super) fn new(inbox: &Arc<Inbox<Input>>) -> Self {
        Self {
            inbox: Arc::clone(inbox),
            room: BYTES_MAX.map(|bytes| Arc::new(Semaphore::new(bytes as usize))),
        }
    }

    /// Lets messages in when there is room; more than would ever fit come in alone.
    pub(super) async fn enter(&self, from: NodeId, lane: Lane, messages: Vec<ShardMessage>) {
        let bytes: usize = messages.iter().map(size).sum();
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let bytes = bytes.min(BYTES_MAX[lane.index()]);
        let room = Arc::clone(&self.room[lane.index()]);
        // Nobody closes it.
        let room = room.acquire_many_owned(bytes).await.ok();
        self.inbox.send(Input::Peer(Arrived {
            from,
            messages,
            _room: room,
        }));
    }
}

/// What a message costs in memory, about.
fn size(message: &ShardMessage) -> usize {
    let data = match &message.body {
        Body::Raft(message) => match &message.payload {
            Payload::Append { entries, .. } => entries
                .iter()
                .map(|entry| entry.header.len() + entry.body.len() + ENTRY_BYTES)
                .sum(),
            _ => 0,
        },
        Body::Chunk(chunk) => chunk.data.len(),
        Body::Ack(_) => 0,
    };
    data + MESSAGE_BYTES
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures::FutureExt as _;
    use millrace_replica::SnapshotChunk;
    use millrace_types::{ReplicaId, ShardId};

    use super::*;

    fn chunk(bytes: usize) -> Vec<ShardMessage> {
        vec![ShardMessage {
            shard: ShardId::new(1),
            body: Body::Chunk(SnapshotChunk {
                from: ReplicaId::new(1),
                to: ReplicaId::new(2),
                id: 1,
                offset: 0,
                total: bytes as u64,
                data: Bytes::from(vec![0; bytes]),
            }),
        }]
    }

    #[test]
    fn what_finds_no_room_waits_until_the_worker_has_looked_at_the_rest() {
        let inbox = Arc::new(Inbox::new());
        let inlet = Inlet::new(&inbox);
        let node = NodeId::new(7);
        let large = chunk(usize::try_from(BYTES_MAX[2]).unwrap());
        let first = inlet.enter(node, Lane::Snapshots, large);
        assert!(first.now_or_never().is_some(), "alone it always fits");
        let mut second = std::pin::pin!(inlet.enter(node, Lane::Snapshots, chunk(1)));
        assert!(second.as_mut().now_or_never().is_none());
        let vote = inlet.enter(node, Lane::Votes, chunk(1));
        assert!(
            vote.now_or_never().is_some(),
            "lanes do not wait for each other"
        );

        let taken = inbox.take();
        assert_eq!(taken.len(), 2);
        drop(taken);

        assert!(second.now_or_never().is_some());
    }
}
