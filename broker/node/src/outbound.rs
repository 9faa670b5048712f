//! Journal records that a worker has gathered in one wake-up, all its shards together: one append,
//! one place in the next sync.

use std::sync::Arc;

use millrace_storage::{AppendError, JournalRecord};
use millrace_types::{LogIndex, ShardId};

use super::inbox::Inbox;
use super::input::Input;
use super::node::Node;

/// What is to be written.
#[derive(Default)]
pub(super) struct Outbound {
    records: Vec<JournalRecord>,
    marks: Vec<(ShardId, LogIndex)>,
}

impl Outbound {
    /// Adds a record; those of one shard in the order of their indexes.
    pub(super) fn push(&mut self, record: JournalRecord) {
        match self
            .marks
            .iter_mut()
            .find(|(shard, _)| *shard == record.shard)
        {
            Some((_, last)) => *last = record.index,
            None => self.marks.push((record.shard, record.index)),
        }
        self.records.push(record);
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
        // Beyond that the worker holds back, which slows down those who propose.
        if self.records.is_empty() || !node.journal.has_room() {
            return Ok(());
        }
        let (records, marks) = (
            std::mem::take(&mut self.records),
            std::mem::take(&mut self.marks),
        );
        let inbox = Arc::clone(inbox);
        node.journal
            .append(records, Box::new(move || inbox.send(Input::Synced(marks))))
    }
}
