//! Takes one snapshot as it comes: writes it beside the state in force, answers how far it is, and
//! keeps it, when it is whole, for the replica to install.
//!
//! Of a shard one arrives at a time. Another takes its place when it is the sender's next one, or
//! when the one under way has not moved for long; whom the members allow to send was looked at
//! before. Nothing of a shard's files is touched by two at a time.

use std::sync::{Arc, MutexGuard};
use std::time::{Duration, Instant};

use bytes::Bytes;
use millrace_replica::{
    Body, CHUNK_BYTES_MAX, Lane, Message, Next, Payload, ShardMessage, SnapshotAck, SnapshotChunk,
};
use millrace_storage::{DiskFailure, Import, ImportError, Store};
use millrace_types::{NodeId, ReplicaId, ShardId};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::prepared::Unfit;
use super::{Prepared, Snapshots, Transfers};
use crate::host;
use crate::node::Node;

/// Chunks that wait to be written: what a sender has under way. More are lost, and come again.
const CHUNKS_MAX: usize = 16;
/// Silence after which a transfer is given up and its room given back, and time that one which is
/// whole waits for its replica.
const SILENCE_MAX: Duration = Duration::from_secs(120);
/// Another sender may take the place of one that has been silent for this long.
const QUIET_MIN: Duration = Duration::from_secs(10);

/// A snapshot that arrives or has arrived.
pub(super) struct Incoming {
    peer: Peer,
    chunks: mpsc::Sender<Chunk>,
    stop: CancellationToken,
    /// When something of it came last.
    heard: Instant,
    total: u64,
    stage: Stage,
}

/// Whose it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Peer {
    node: NodeId,
    sender: ReplicaId,
    own: ReplicaId,
    id: u64,
}

enum Stage {
    /// Not whole.
    Arriving,
    /// For the replica.
    Staged(Box<Prepared>),
    /// The replica has it.
    Installing,
}

impl Stage {
    /// Whether it is the state that a message speaks of.
    fn fits(&self, message: &Message) -> bool {
        match (self, &message.payload) {
            (Self::Staged(prepared), Payload::Snapshot { point }) => prepared.point == *point,
            _ => false,
        }
    }
}

/// A stretch.
struct Chunk {
    offset: u64,
    data: Bytes,
}

/// Takes a stretch of a snapshot for a replica of this node, from a node that may send it.
pub(crate) fn receive(node: &Arc<Node>, from: NodeId, shard: ShardId, chunk: SnapshotChunk) {
    let bytes = chunk.data.len() as u64;
    let end = chunk.offset.checked_add(bytes);
    let is_sound = bytes > 0
        && chunk.data.len() <= CHUNK_BYTES_MAX
        && end.is_some_and(|end| end <= chunk.total);
    let peer = Peer {
        node: from,
        sender: chunk.from,
        own: chunk.to,
        id: chunk.id,
    };
    if node.snapshots.stop.is_cancelled() {
        return;
    }
    if !is_sound {
        tracing::warn!(%shard, node = %from, "a stretch of a snapshot that cannot be");
        return answer(node, shard, peer, Next::Refused);
    }
    let now = node.host.now();
    let mut transfers = node.snapshots.lock();
    if let Some(incoming) = transfers.incoming.get_mut(&shard) {
        if incoming.peer == peer && incoming.total == chunk.total {
            incoming.heard = now;
            let Stage::Arriving = incoming.stage else {
                let total = incoming.total;
                drop(transfers);
                return answer(node, shard, peer, Next::From(total));
            };
            let (offset, data) = (chunk.offset, chunk.data);
            // What finds no room comes again.
            incoming.chunks.try_send(Chunk { offset, data }).ok();
            return;
        }
        let quiet = now.saturating_duration_since(incoming.heard) >= QUIET_MIN;
        let succeeds = incoming.peer.sender == peer.sender && incoming.peer.node == from;
        if matches!(incoming.stage, Stage::Installing) || !(quiet || succeeds) {
            drop(transfers);
            return answer(node, shard, peer, Next::Refused);
        }
    }
    if chunk.offset > 0 {
        drop(transfers);
        // This node does not have what was before it, perhaps since it was started again.
        return answer(node, shard, peer, Next::From(0));
    }
    begin(node, transfers, (shard, peer), chunk);
}

/// Begins with the first stretch of a snapshot, in the place of what came before.
fn begin(
    node: &Arc<Node>,
    mut transfers: MutexGuard<'_, Transfers>,
    (shard, peer): (ShardId, Peer),
    chunk: SnapshotChunk,
) {
    let (chunks, arrived) = mpsc::channel(CHUNKS_MAX);
    let (offset, data) = (chunk.offset, chunk.data);
    chunks.try_send(Chunk { offset, data }).ok();
    let stop = node.snapshots.stop.child_token();
    let incoming = Incoming {
        peer,
        chunks,
        stop: stop.clone(),
        heard: node.host.now(),
        total: chunk.total,
        stage: Stage::Arriving,
    };
    let before = transfers.incoming.insert(shard, incoming);
    let files = Arc::clone(transfers.files.entry(shard).or_default());
    drop(transfers);
    if let Some(before) = before {
        before.stop.cancel();
        let_go(node, before);
    }
    let receiver = Receiver {
        node: Arc::clone(node),
        shard,
        peer,
        total: chunk.total,
        arrived,
    };
    let run = node.snapshots.tracker.track_future(async move {
        // Whoever had the files before has to be done with them.
        let _files = files.lock().await;
        receiver.run(&stop).await;
    });
    node.host.spawn(Box::pin(run));
}

/// Drops what may be large where nobody waits for it.
fn let_go(node: &Node, what: impl Send + 'static) {
    node.host.blocking(Box::new(move || drop(what)));
}

fn answer(node: &Node, shard: ShardId, peer: Peer, next: Next) {
    let body = Body::Ack(SnapshotAck {
        from: peer.own,
        to: peer.sender,
        id: peer.id,
        next,
    });
    let message = ShardMessage { shard, body };
    node.network.send(peer.node, Lane::Snapshots, vec![message]);
}

impl Snapshots {
    /// Whether the state that Raft's message speaks of is here to be installed.
    pub(crate) fn is_staged(&self, shard: ShardId, message: &Message) -> bool {
        let transfers = self.lock();
        let incoming = transfers.incoming.get(&shard);
        incoming.is_some_and(|incoming| incoming.stage.fits(message))
    }

    /// Takes that state, to be installed; `installed` or `give_back` comes after.
    pub(crate) fn take_staged(&self, shard: ShardId, message: &Message) -> Option<Box<Prepared>> {
        let mut transfers = self.lock();
        let incoming = transfers.incoming.get_mut(&shard)?;
        if !incoming.stage.fits(message) {
            return None;
        }
        match std::mem::replace(&mut incoming.stage, Stage::Installing) {
            Stage::Staged(prepared) => Some(prepared),
            Stage::Arriving | Stage::Installing => None,
        }
    }

    /// The replica does not want what it took.
    pub(crate) fn give_back(&self, shard: ShardId, prepared: Box<Prepared>) {
        let mut transfers = self.lock();
        if let Some(incoming) = transfers.incoming.get_mut(&shard) {
            incoming.stage = Stage::Staged(prepared);
            // Whoever has the files removes them.
            incoming.stop.cancel();
        }
    }

    /// The replica has what it took: another one may come.
    pub(crate) fn installed(&self, shard: ShardId) {
        if let Some(incoming) = self.lock().incoming.remove(&shard) {
            incoming.stop.cancel();
        }
    }

    /// Nobody wants what comes or has come.
    pub(crate) fn decline(&self, shard: ShardId) {
        let transfers = self.lock();
        let incoming = transfers.incoming.get(&shard);
        // What is being put in force comes to an end by itself.
        let is_free = |incoming: &&Incoming| !matches!(incoming.stage, Stage::Installing);
        if let Some(incoming) = incoming.filter(is_free) {
            // Whoever has the files removes them.
            incoming.stop.cancel();
        }
    }

    /// Whether somebody is at work on the files of a shard's next state.
    pub(crate) fn has_files(&self, shard: ShardId) -> bool {
        let transfers = self.lock();
        let files = transfers.files.get(&shard);
        transfers.incoming.contains_key(&shard)
            || files.is_some_and(|files| files.try_lock().is_err())
    }

    /// Says that what was sent has reached the replica.
    pub(crate) fn confirm(&self, node: &Node, shard: ShardId) {
        let peer = {
            let transfers = self.lock();
            let incoming = transfers.incoming.get(&shard);
            incoming.map(|incoming| (incoming.peer, incoming.total))
        };
        if let Some((peer, total)) = peer {
            answer(node, shard, peer, Next::From(total));
        }
    }
}

struct Receiver {
    node: Arc<Node>,
    shard: ShardId,
    peer: Peer,
    total: u64,
    arrived: mpsc::Receiver<Chunk>,
}

/// Why a snapshot is not taken.
enum Ended {
    /// Somebody called it off, or its sender is silent: nothing is written any more.
    CalledOff,
    /// This disk or this version cannot take it.
    Import(ImportError),
    /// It is sound, but no state of this shard.
    Unusable(String),
    /// The host has ended.
    Host,
}

impl From<ImportError> for Ended {
    fn from(error: ImportError) -> Self {
        Self::Import(error)
    }
}

impl From<DiskFailure> for Ended {
    fn from(failure: DiskFailure) -> Self {
        Self::Import(ImportError::Disk(failure))
    }
}

impl Receiver {
    async fn run(mut self, stop: &CancellationToken) {
        let (shard, node) = (self.shard, Arc::clone(&self.node));
        let taken = match self.take_all(stop).await {
            Ok(prepared) => self.wait_for_replica(prepared, stop).await,
            Err(ended) => Err(ended),
        };
        let Err(ended) = taken else {
            return;
        };
        let is_ours = self.remove();
        let why = match ended {
            Ended::CalledOff | Ended::Host => return,
            Ended::Import(ImportError::Disk(failure)) => {
                node.fail(format!("{failure}: {}", failure.source));
                return;
            }
            Ended::Import(error) => error.to_string(),
            Ended::Unusable(why) => why,
        };
        node.figures.snapshots_failed.add(1);
        tracing::warn!(%shard, node = %self.peer.node, why, "a snapshot is not taken");
        if is_ours {
            answer(&node, shard, self.peer, Next::Refused);
        }
    }

    /// Takes this transfer out of the table, if it is still there.
    fn remove(&self) -> bool {
        let mut transfers = self.node.snapshots.lock();
        let found = transfers.incoming.get(&self.shard);
        let is_ours = found.is_some_and(|incoming| incoming.peer == self.peer);
        let removed = is_ours.then(|| transfers.incoming.remove(&self.shard));
        drop(transfers);
        if let Some(removed) = removed {
            let_go(&self.node, removed);
        }
        is_ours
    }

    async fn take_all(&mut self, stop: &CancellationToken) -> Result<Box<Prepared>, Ended> {
        let store = self.store().ok_or(Ended::CalledOff)?;
        let (total, reserve) = (self.total, self.node.options.disk_reserve_bytes);
        let begun = self.on_pool(move || Import::begin(&store, total, reserve));
        let mut import = begun.await?.map_err(Ended::Import)?;
        while !import.is_complete() {
            let chunks = self.next_chunks(stop).await;
            if chunks.is_empty() {
                self.on_pool(move || import.discard()).await??;
                return Err(Ended::CalledOff);
            }
            let written = self.on_pool(move || {
                let written = write(&mut import, chunks);
                (import, written)
            });
            let (back, written) = written.await?;
            written?;
            import = back;
            if !import.is_complete() {
                self.answer(Next::From(import.received()));
            }
        }
        let (shard, finish) = (self.shard, move || import.finish());
        let prepared = self.on_pool(move || {
            let prepared = Prepared::new(shard, finish()?);
            prepared.map_err(|unfit| match unfit {
                Unfit::State(why) => Ended::Unusable(why),
                Unfit::Disk(failure) => failure.into(),
            })
        });
        Ok(Box::new(prepared.await??))
    }

    /// Some that have come; none when no more are to be taken.
    async fn next_chunks(&mut self, stop: &CancellationToken) -> Vec<Chunk> {
        let mut chunks = Vec::new();
        let silence = self.node.host.sleep(SILENCE_MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            _ = self.arrived.recv_many(&mut chunks, CHUNKS_MAX) => {}
            () = silence => {}
        }
        chunks
    }

    /// All of it is here: waits until the replica has it, and removes it when that does not come.
    async fn wait_for_replica(
        &self,
        prepared: Box<Prepared>,
        stop: &CancellationToken,
    ) -> Result<(), Ended> {
        let (shard, index) = (self.shard, prepared.point.mark.index);
        {
            let mut transfers = self.node.snapshots.lock();
            let found = transfers.incoming.get_mut(&shard);
            let Some(incoming) = found.filter(|incoming| incoming.peer == self.peer) else {
                drop(transfers);
                // Whoever has taken its place begins with its files.
                let_go(&self.node, prepared);
                return Ok(());
            };
            incoming.stage = Stage::Staged(prepared);
        }
        self.node.figures.snapshot_received_bytes.add(self.total);
        tracing::info!(%shard, %index, bytes = self.total, "a snapshot has arrived");
        self.answer(Next::From(self.total));
        let silence = self.node.host.sleep(SILENCE_MAX);
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = silence => {}
        }
        let left = {
            let mut transfers = self.node.snapshots.lock();
            let found = transfers.incoming.get(&shard);
            let is_left = found.is_some_and(|incoming| {
                incoming.peer == self.peer && matches!(incoming.stage, Stage::Staged(_))
            });
            is_left.then(|| transfers.incoming.remove(&shard)).flatten()
        };
        if let Some(Stage::Staged(prepared)) = left.map(|incoming| incoming.stage) {
            self.on_pool(move || prepared.staged.discard()).await??;
        }
        Ok(())
    }

    fn store(&self) -> Option<Arc<Store>> {
        self.node.slot_at_all(self.shard).store()
    }

    fn answer(&self, next: Next) {
        answer(&self.node, self.shard, self.peer, next);
    }

    async fn on_pool<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Ended> {
        let done = host::blocking(&self.node.host, work).await;
        done.ok_or(Ended::Host)
    }
}

/// Writes those that follow; the others come again.
fn write(import: &mut Import, chunks: Vec<Chunk>) -> Result<(), ImportError> {
    for chunk in chunks {
        if chunk.offset == import.received() {
            import.write(chunk.data)?;
        }
    }
    Ok(())
}
