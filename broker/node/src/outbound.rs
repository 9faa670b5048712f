//! What a worker has gathered in one wake-up, all its shards together: journal records, one append
//! and one place in the next sync; messages to other nodes, one bundle for each and lane; and
//! states that other nodes need.
//!
//! Messages leave beside the records, not behind them: a replica holds back by itself what must not
//! leave before something is synced.

use std::collections::BTreeMap;
use std::sync::Arc;

use millrace_replica::{Lane, ReadyNumber, ShardMessage};
use millrace_storage::{AppendError, JournalRecord, Wanted};
use millrace_types::{NodeId, ReplicaId, ShardId};

use super::inbox::Inbox;
use super::input::Input;
use super::loading;
use super::node::Node;
use super::snapshots::{self, Order};

/// A write of a replica, and all before it.
#[derive(Clone, Copy, Debug)]
pub(super) struct SyncMark {
    /// Whose log it is.
    pub(super) shard: ShardId,
    /// Which copy: another one may take its place while this is on its way.
    pub(super) replica: ReplicaId,
    /// The write.
    pub(super) number: ReadyNumber,
}

/// What is to be written and sent.
#[derive(Default)]
pub(super) struct Outbound {
    records: Vec<JournalRecord>,
    /// Of each shard the last of its writes.
    marks: Vec<SyncMark>,
    messages: BTreeMap<(NodeId, Lane), Vec<ShardMessage>>,
    /// To be read.
    loads: Vec<Wanted>,
    snapshots: Vec<Order>,
}

impl Outbound {
    /// Adds a write of a shard; those of one shard in the order of their numbers.
    pub(super) fn push(&mut self, mark: SyncMark, records: impl Iterator<Item = JournalRecord>) {
        let same =
            |other: &&mut SyncMark| other.shard == mark.shard && other.replica == mark.replica;
        match self.marks.iter_mut().find(same) {
            Some(last) => *last = mark,
            None => self.marks.push(mark),
        }
        self.records.extend(records);
    }

    /// Adds a message to another node; those of one lane leave in this order.
    pub(super) fn send(&mut self, to: NodeId, message: ShardMessage) {
        let bundle = self.messages.entry((to, message.lane()));
        bundle.or_default().push(message);
    }

    /// Adds what is to be read for followers.
    pub(super) fn load(&mut self, wanted: impl Iterator<Item = Wanted>) {
        self.loads.extend(wanted);
    }

    /// Adds a snapshot that another node needs.
    pub(super) fn snapshot(&mut self, order: Order) {
        self.snapshots.push(order);
    }

    /// Takes what waits to be written.
    pub(super) fn take(&mut self) -> (Vec<JournalRecord>, Vec<SyncMark>) {
        let records = std::mem::take(&mut self.records);
        (records, std::mem::take(&mut self.marks))
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Hands the records to the journal if that has room, `inbox` hears when they are synced; then
    /// the messages to the network.
    ///
    /// # Errors
    /// When the journal has stopped: nothing that is under way will ever be answered.
    pub(super) fn submit(
        &mut self,
        node: &Arc<Node>,
        inbox: &Arc<Inbox<Input>>,
    ) -> Result<(), AppendError> {
        let written = self.write(node, inbox);
        for ((to, lane), messages) in std::mem::take(&mut self.messages) {
            node.network.send(to, lane, messages);
        }
        for wanted in self.loads.drain(..) {
            loading::start(node, inbox, wanted);
        }
        for order in std::mem::take(&mut self.snapshots) {
            snapshots::send(node, order);
        }
        written
    }

    fn write(&mut self, node: &Arc<Node>, inbox: &Arc<Inbox<Input>>) -> Result<(), AppendError> {
        // Beyond that the worker holds back, which slows down those who propose.
        if self.records.is_empty() || !node.journal.has_room() {
            return Ok(());
        }
        let (records, marks) = self.take();
        let inbox = Arc::clone(inbox);
        node.journal
            .append(records, Box::new(move || inbox.send(Input::Synced(marks))))
    }
}
