//! Journal records that a worker has gathered in one wake-up, all its shards together: one append,
//! one place in the next sync.

use std::sync::Arc;

use millrace_replica::ReadyNumber;
use millrace_storage::{AppendError, JournalRecord};
use millrace_types::ShardId;

use super::inbox::Inbox;
use super::input::Input;
use super::node::Node;

/// What is to be written.
#[derive(Default)]
pub(super) struct Outbound {
    records: Vec<JournalRecord>,
    /// Of each shard the last of its writes.
    marks: Vec<(ShardId, ReadyNumber)>,
    /// To other replicas; only tests have any.
    #[cfg(test)]
    pub(super) messages: Vec<millrace_replica::Message>,
}

impl Outbound {
    /// Adds a write of a shard; those of one shard in the order of their numbers.
    pub(super) fn push(
        &mut self,
        shard: ShardId,
        number: ReadyNumber,
        records: impl Iterator<Item = JournalRecord>,
    ) {
        match self.marks.iter_mut().find(|(marked, _)| *marked == shard) {
            Some((_, last)) => *last = number,
            None => self.marks.push((shard, number)),
        }
        self.records.extend(records);
    }

    /// Takes what waits.
    pub(super) fn take(&mut self) -> (Vec<JournalRecord>, Vec<(ShardId, ReadyNumber)>) {
        let records = std::mem::take(&mut self.records);
        (records, std::mem::take(&mut self.marks))
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Hands everything to the journal if that has room; `inbox` hears when it is synced.
    ///
    /// # Errors
    /// When the journal has stopped: nothing that is under way will ever be answered.
    pub(super) fn submit(
        &mut self,
        node: &Node,
        inbox: &Arc<Inbox<Input>>,
    ) -> Result<(), AppendError> {
        #[cfg(test)]
        node.sent.lock().unwrap().append(&mut self.messages);
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
