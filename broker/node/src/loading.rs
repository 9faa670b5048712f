//! Entries that followers lack and that are in memory no more are read from the journal, beside
//! everything else: a few reads at a time, each of a bounded size.

use std::sync::Arc;

use millrace_replica::Entry;
use millrace_storage::{JournalRecord, Wanted};

use super::host;
use super::inbox::Inbox;
use super::input::Input;
use super::node::Node;
use super::records::{self, Record};

/// Reads of all shards at a time: one waits for the disk while what another one brought is sent.
pub(super) const LOADS_MAX: usize = 2;

/// Reads entries; the inbox gets them, or nothing when they are gone.
pub(super) fn start(node: &Arc<Node>, inbox: &Arc<Inbox<Input>>, wanted: Wanted) {
    let (reader, inbox) = (Arc::clone(node), Arc::clone(inbox));
    node.host.spawn(Box::pin(async move {
        // Nobody closes it.
        let _place = reader.loads.acquire().await.ok();
        let (shard, from) = (wanted.shard, wanted.indexes.start);
        let journal = reader.journal.clone();
        let read = host::blocking(&reader.host, move || journal.entries(&wanted)).await;
        let entries = match read {
            Some(Ok(records)) => records.into_iter().map_while(entry).collect(),
            Some(Err(error)) => {
                tracing::warn!(%shard, %error, "entries for a follower cannot be read");
                Vec::new()
            }
            None => Vec::new(),
        };
        inbox.send(Input::Loaded(shard, from, entries));
    }));
}

fn entry(record: JournalRecord) -> Option<Entry> {
    match records::read(record)? {
        Record::Entry(entry) => Some(entry),
        Record::HardState(_) | Record::Install(_) => None,
    }
}
