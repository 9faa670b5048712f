//! Sends one snapshot: reads it on the host's pool for whatever waits for the disk, a window ahead
//! of what the receiver has, and says how it ended.
//!
//! A receiver that says nothing is sent the same again, and given up when it has said nothing for
//! long. Who failed waits before its replica hears of it, longer each time: the replica would ask
//! for the next one at once, and a full disk does not empty in a second.

use std::ops::Range;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use millrace_replica::{
    Body, Lane, Mark, Members, Message, Next, Payload, Point, ShardMessage, SnapshotChunk,
};
use millrace_storage::{Export, OpenError, ReadError};
use millrace_types::{NodeId, ShardId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::window::{Heard, Window};
use super::{EVENTS_MAX, Event, Outgoing};
use crate::host;
use crate::input::Input;
use crate::node::Node;

/// Silence after which what was not answered is sent again: longer than a busy disk takes for what
/// is under way.
const SILENCE_MAX: Duration = Duration::from_secs(5);
/// Time without progress after which a receiver is given up: it may be checking what it has.
const STALL_MAX: Duration = Duration::from_secs(60);
/// Raft's message is sent again when nothing is heard of it for this long,
const CONFIRM_AFTER: Duration = Duration::from_secs(1);
/// so many times at most: if none arrives, the replica finds out.
const CONFIRMS_MAX: u32 = 5;
/// After a failure, at first,
const BACKOFF_MIN: Duration = Duration::from_millis(500);
/// and at last.
const BACKOFF_MAX: Duration = Duration::from_secs(30);

/// A follower that needs a snapshot.
pub(crate) struct Order {
    /// Of this shard.
    pub(crate) shard: ShardId,
    /// Where the follower is.
    pub(crate) node: NodeId,
    /// What its replica is to be told when it has the state.
    pub(crate) message: Message,
}

/// How it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fate {
    /// The follower has everything.
    Sent,
    /// It has not, for now.
    Failed,
    /// There is no checkpoint to send.
    NoCheckpoint,
}

/// Why a snapshot did not arrive.
enum Failed {
    /// The receiver does not want it.
    Refused,
    /// It says nothing.
    Silent,
    /// There is none.
    NoCheckpoint,
    /// It cannot be read.
    Unreadable(String),
    /// The host has ended.
    Ended,
}

/// Sends a snapshot; the shard's inbox hears of the end, unless it is called off.
pub(crate) fn send(node: &Arc<Node>, order: Order) {
    let (shard, to) = (order.shard, order.message.to);
    if node.snapshots.stop.is_cancelled() {
        return;
    }
    let inbox = Arc::clone(&node.slot_at_all(shard).inbox);
    let Ok(id) = node.host.random() else {
        inbox.send(Input::SnapshotEnded(shard, to, Fate::Failed));
        return;
    };
    let (events, heard) = mpsc::channel(EVENTS_MAX);
    let stop = node.snapshots.stop.child_token();
    {
        let mut transfers = node.snapshots.lock();
        let before = transfers.outgoing.remove(&(shard, to));
        let failures = before.as_ref().map_or(0, |before| before.failures);
        before.inspect(|before| before.stop.cancel());
        let outgoing = Outgoing {
            id,
            node: order.node,
            own: order.message.from,
            events,
            stop: stop.clone(),
            failures,
        };
        transfers.outgoing.insert((shard, to), outgoing);
    }
    let sender = Sender {
        node: Arc::clone(node),
        order,
        id,
        heard,
    };
    let run = node.snapshots.tracker.track_future(sender.run(stop));
    node.host.spawn(Box::pin(run));
}

struct Sender {
    node: Arc<Node>,
    order: Order,
    id: u64,
    heard: mpsc::Receiver<Event>,
}

impl Sender {
    async fn run(mut self, stop: CancellationToken) {
        let fate = tokio::select! {
            biased;
            () = stop.cancelled() => return,
            fate = self.fate() => fate,
        };
        let (shard, to) = (self.order.shard, self.order.message.to);
        if let Some(failures) = self.outgoing(|_| ()) {
            tracing::debug!(%shard, replica = %to, ?fate, failures, "a snapshot has ended");
            let inbox = &self.node.slot_at_all(shard).inbox;
            inbox.send(Input::SnapshotEnded(shard, to, fate));
        }
    }

    async fn fate(&mut self) -> Fate {
        let (shard, to) = (self.order.shard, self.order.message.to);
        let failed = match self.transfer().await {
            Ok(()) => {
                self.outgoing(|outgoing| outgoing.failures = 0);
                self.node.figures.snapshots_sent.add(1);
                return Fate::Sent;
            }
            Err(failed) => failed,
        };
        let (why, fate) = match failed {
            Failed::Refused => ("its receiver does not take it".into(), Fate::Failed),
            Failed::Silent => ("its receiver says nothing".into(), Fate::Failed),
            Failed::NoCheckpoint => ("there is no checkpoint".into(), Fate::NoCheckpoint),
            Failed::Unreadable(why) => (why, Fate::Failed),
            Failed::Ended => return Fate::Failed,
        };
        let failures = self.outgoing(|outgoing| {
            outgoing.failures = outgoing.failures.saturating_add(1);
        });
        self.node.figures.snapshots_failed.add(1);
        tracing::warn!(%shard, replica = %to, why, "a snapshot did not arrive; it is tried again");
        self.node.host.sleep(backoff(failures.unwrap_or(1))).await;
        fate
    }

    /// Changes what others know of this transfer; how often it failed, or nothing when it was
    /// replaced by another one.
    fn outgoing(&self, change: impl FnOnce(&mut Outgoing)) -> Option<u32> {
        let mut transfers = self.node.snapshots.lock();
        let key = (self.order.shard, self.order.message.to);
        let outgoing = transfers.outgoing.get_mut(&key);
        let outgoing = outgoing.filter(|outgoing| outgoing.id == self.id)?;
        change(outgoing);
        Some(outgoing.failures)
    }

    async fn transfer(&mut self) -> Result<(), Failed> {
        let node = Arc::clone(&self.node);
        let Ok(_place) = node.snapshots.places.acquire().await else {
            return Err(Failed::Ended);
        };
        let mut export = self.export().await?;
        let covered = export.covered();
        let members = Members::decode(&covered.members).map_err(|_| Failed::NoCheckpoint)?;
        let mark = Mark {
            index: covered.index,
            term: covered.term,
        };
        let mut window = Window::new(export.total_bytes());
        let mut progress = node.host.now();
        while !window.is_done() {
            if let Some(stretch) = window.next() {
                self.send_chunk(&mut export, &window, stretch).await?;
                // Without waiting: the window is not full.
                while let Ok(event) = self.heard.try_recv() {
                    self.note(event, &mut window, &mut progress).await?;
                }
                continue;
            }
            match self.next_event(SILENCE_MAX).await {
                Some(event) => self.note(event, &mut window, &mut progress).await?,
                None => window.rewind(),
            }
            let silent = node.host.now().saturating_duration_since(progress);
            if silent >= STALL_MAX {
                return Err(Failed::Silent);
            }
        }
        drop(export);
        self.confirm(Point { mark, members }, window.total()).await
    }

    /// The shard's last checkpoint.
    async fn export(&self) -> Result<OnPool, Failed> {
        let shard = self.order.shard;
        let Some(store) = self.node.slot_at_all(shard).store() else {
            return Err(Failed::NoCheckpoint);
        };
        let host = &self.node.host;
        let of = Arc::clone(&store);
        let opened = host::blocking(host, move || of.export()).await;
        match opened.ok_or(Failed::Ended)? {
            Ok(Some(export)) => Ok(OnPool {
                host: Arc::clone(host),
                export: Some(export),
            }),
            Ok(None) => Err(Failed::NoCheckpoint),
            Err(error) => {
                if let OpenError::Corrupt { .. } = &error {
                    self.damaged(&store, error.to_string());
                }
                Err(Failed::Unreadable(error.to_string()))
            }
        }
    }

    fn damaged(&self, store: &Arc<millrace_storage::Store>, why: String) {
        let shard = self.order.shard;
        crate::start::quarantine(shard, &why);
        self.node.slot_at_all(shard).damaged(store, why);
    }

    async fn send_chunk(
        &self,
        export: &mut OnPool,
        window: &Window,
        stretch: Range<u64>,
    ) -> Result<(), Failed> {
        let node = &self.node;
        let bytes = stretch.end - stretch.start;
        let wait = {
            let pace = node.snapshots.pace.lock();
            let mut pace = pace.unwrap_or_else(PoisonError::into_inner);
            pace.take(bytes, node.host.now())
        };
        if !wait.is_zero() {
            node.host.sleep(wait).await;
        }
        let data = match export.read(stretch.clone()).await.ok_or(Failed::Ended)? {
            Ok(data) => data,
            Err(error) => {
                if let (ReadError::Corrupt { .. }, Some(store)) =
                    (&error, node.slot_at_all(self.order.shard).store())
                {
                    self.damaged(&store, error.to_string());
                }
                return Err(Failed::Unreadable(error.to_string()));
            }
        };
        node.figures.snapshot_sent_bytes.add(bytes);
        self.say(Body::Chunk(SnapshotChunk {
            from: self.order.message.from,
            to: self.order.message.to,
            id: self.id,
            offset: stretch.start,
            total: window.total(),
            data,
        }));
        Ok(())
    }

    async fn note(
        &mut self,
        event: Event,
        window: &mut Window,
        progress: &mut std::time::Instant,
    ) -> Result<(), Failed> {
        match event {
            Event::Ack(Next::Refused) => return Err(Failed::Refused),
            Event::Ack(Next::From(from)) => {
                if window.heard(from) == Heard::Progress {
                    *progress = self.node.host.now();
                }
            }
            Event::Lost => {
                // Until there is a connection again, the rest would be lost, too.
                self.node.host.sleep(CONFIRM_AFTER).await;
                window.rewind();
            }
        }
        Ok(())
    }

    /// Tells the follower's replica that its node has the state, until that has heard it.
    async fn confirm(&mut self, point: Point, total: u64) -> Result<(), Failed> {
        let Message { from, to, term, .. } = self.order.message;
        let message = Message {
            from,
            to,
            term,
            payload: Payload::Snapshot { point },
        };
        for _ in 0..CONFIRMS_MAX {
            self.say(Body::Raft(message.clone()));
            match self.next_event(CONFIRM_AFTER).await {
                Some(Event::Ack(Next::From(from))) if from == total => return Ok(()),
                Some(Event::Ack(Next::Refused)) => return Err(Failed::Refused),
                // An answer that came late, or none.
                Some(_) | None => {}
            }
        }
        Ok(())
    }

    async fn next_event(&mut self, wait: Duration) -> Option<Event> {
        let silence = self.node.host.sleep(wait);
        tokio::select! {
            biased;
            event = self.heard.recv() => event,
            () = silence => None,
        }
    }

    fn say(&self, body: Body) {
        let shard = self.order.shard;
        let message = ShardMessage { shard, body };
        let node = &self.node;
        node.network
            .send(self.order.node, Lane::Snapshots, vec![message]);
    }
}

/// After so many failures.
fn backoff(failures: u32) -> Duration {
    let doubled = BACKOFF_MIN.saturating_mul(1 << failures.min(16).saturating_sub(1));
    doubled.min(BACKOFF_MAX)
}

/// An export that is read, and let go, where the disk may be waited for.
struct OnPool {
    host: Arc<dyn host::Host>,
    /// `None` while it is read.
    export: Option<Export>,
}

impl OnPool {
    /// A stretch; `None` when the host has ended.
    async fn read(&mut self, stretch: Range<u64>) -> Option<Result<Bytes, ReadError>> {
        let mut export = self.export.take()?;
        let bytes = usize::try_from(stretch.end - stretch.start).ok()?;
        let reading = host::blocking(&self.host, move || {
            let read = export.read(stretch.start, bytes);
            (export, read)
        });
        let (export, read) = reading.await?;
        self.export = Some(export);
        Some(read)
    }

    fn covered(&self) -> millrace_storage::Covered {
        let export = self.export.as_ref();
        export.map_or_else(Default::default, |export| export.covered().clone())
    }

    fn total_bytes(&self) -> u64 {
        self.export.as_ref().map_or(0, Export::total_bytes)
    }
}

impl Drop for OnPool {
    fn drop(&mut self) {
        if let Some(export) = self.export.take() {
            self.host.blocking(Box::new(move || drop(export)));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_fails_again_waits_longer() {
        assert_eq!(backoff(1), BACKOFF_MIN);
        assert_eq!(backoff(3), 4 * BACKOFF_MIN);
        assert_eq!(backoff(u32::MAX), BACKOFF_MAX);
    }
}
