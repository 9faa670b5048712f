//! How a replica's writes stand in the journal, and how they are read again.

use bytes::{Buf, Bytes};
use millrace_replica::{Entry, EntryKind, HardState, Mark, Write};
use millrace_storage::{JournalRecord, RecordKind};
use millrace_types::{ReplicaId, ShardId};

/// A journal record as a replica means it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Record {
    /// Its last hard state so far.
    HardState(HardState),
    /// A snapshot was installed.
    Install(Mark),
    /// An entry.
    Entry(Entry),
}

/// The records of a write, in the order in which they must be appended.
pub(super) fn of_write(
    shard: ShardId,
    replica: ReplicaId,
    write: Write,
) -> impl Iterator<Item = JournalRecord> {
    let record = move |kind, mark: Mark, header, body| JournalRecord {
        shard,
        replica,
        kind,
        term: mark.term,
        index: mark.index,
        header,
        body,
    };
    let hard_state = write.hard_state.map(|state| {
        let vote = state.vote.map_or(0, ReplicaId::get);
        let (index, term) = (state.commit, state.term);
        let header = Bytes::copy_from_slice(&vote.to_le_bytes());
        record(
            RecordKind::HardState,
            Mark { index, term },
            header,
            Bytes::new(),
        )
    });
    let install = write.install.map(|point| {
        let header = point.members.encode().into();
        record(RecordKind::Snapshot, point.mark, header, Bytes::new())
    });
    let entry = move |entry: Entry| {
        let kind = match entry.kind {
            EntryKind::Command => RecordKind::Entry,
            EntryKind::Lead => RecordKind::Lead,
            EntryKind::Members => RecordKind::Members,
        };
        record(kind, entry.mark(), entry.header, entry.body)
    };
    let entries = write.entries.into_iter().map(entry);
    // Last: a crash must not leave a commit without the entries it speaks of.
    install.into_iter().chain(entries).chain(hard_state)
}

/// What a record says; `None` when it cannot be read.
pub(super) fn read(record: JournalRecord) -> Option<Record> {
    let mark = Mark {
        index: record.index,
        term: record.term,
    };
    let kind = match record.kind {
        RecordKind::HardState => {
            let vote = record.header.clone().try_get_u64_le().ok()?;
            return Some(Record::HardState(HardState {
                term: record.term,
                vote: (vote != 0).then(|| ReplicaId::new(vote)),
                commit: record.index,
            }));
        }
        RecordKind::Snapshot => return Some(Record::Install(mark)),
        RecordKind::Entry => EntryKind::Command,
        RecordKind::Lead => EntryKind::Lead,
        RecordKind::Members => EntryKind::Members,
    };
    Some(Record::Entry(Entry {
        term: mark.term,
        index: mark.index,
        kind,
        header: record.header,
        body: record.body,
    }))
}

#[cfg(test)]
mod tests {
    use millrace_types::LogIndex;

    use super::*;

    #[test]
    fn what_was_written_is_read() {
        let (shard, replica) = (ShardId::new(3), ReplicaId::new(9));
        let entry = |index, kind, header: &'static str| Entry {
            term: millrace_types::Term::new(4),
            index: LogIndex::new(index),
            kind,
            header: header.into(),
            body: Bytes::new(),
        };
        let hard_state = HardState {
            term: millrace_types::Term::new(4),
            vote: Some(replica),
            commit: LogIndex::new(6),
        };
        let entries = vec![
            entry(7, EntryKind::Lead, ""),
            entry(8, EntryKind::Command, "command"),
            entry(9, EntryKind::Members, "members"),
        ];
        let mut replica_with_number = lone(shard, replica);
        let number = replica_with_number.ready().unwrap().write.unwrap().number;
        let write = Write {
            number,
            hard_state: Some(hard_state),
            install: None,
            entries: entries.clone(),
        };

        let records: Vec<JournalRecord> = of_write(shard, replica, write).collect();

        assert!(
            records
                .iter()
                .all(|r| (r.shard, r.replica) == (shard, replica))
        );
        assert_eq!(&records[3].header[..], replica.get().to_le_bytes());
        let read: Vec<Record> = records.into_iter().map(|r| read(r).unwrap()).collect();
        let entries = entries.into_iter().map(Record::Entry);
        let mut expected: Vec<Record> = entries.collect();
        expected.push(Record::HardState(hard_state));
        assert_eq!(read, expected);
    }

    fn lone(shard: ShardId, id: ReplicaId) -> millrace_replica::Replica {
        let founder = (id, millrace_types::NodeId::new(1));
        let members = millrace_replica::Members::founders([founder]).unwrap();
        let recovered = millrace_replica::Recovered {
            point: millrace_replica::Point {
                members,
                ..millrace_replica::Point::default()
            },
            ..millrace_replica::Recovered::default()
        };
        let options = millrace_replica::ReplicaOptions::new(shard, id);
        millrace_replica::Replica::open(options, recovered, 1).unwrap()
    }
}
