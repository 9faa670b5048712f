//! What the journal's records of one shard add up to, in the order they were written.
//!
//! Decides which records still count. An entry at an index that was there before, of the same term
//! or a later one, replaces that one and everything behind it: Raft cuts a suffix that conflicts by
//! writing over it. A snapshot that was installed replaces every entry before it, whatever its
//! index. What an earlier replica of the shard wrote does not count. Of the hard states all come
//! back, the last one is in force.
//!
//! A gap between entries, or a term that goes back, is damage. Keeps a few numbers for each cut.

use std::path::Path;

use millrace_types::{LogIndex, ReplicaId, Term};

use super::{Damage, Installed, JournalRecord, RecordKind};
use crate::error::Corruption;

/// The records of one shard so far.
#[derive(Debug, Default)]
pub(crate) struct Fold {
    pub(crate) damage: Option<Damage>,
    /// Counts them.
    records: u64,
    replica: ReplicaId,
    last: Option<(LogIndex, Term)>,
    /// The last snapshot that was installed.
    pub(crate) installed: Option<Installed>,
    /// Ascending by place and by index: an earlier cut that a later one includes is gone.
    cuts: Vec<Cut>,
}

/// From here on, entries before it with this index or a higher one do not count.
#[derive(Clone, Copy, Debug)]
struct Cut {
    /// How many records came before it.
    place: u64,
    from: LogIndex,
}

impl Fold {
    /// Takes the next record, from a batch at this place.
    pub(crate) fn add(&mut self, record: &JournalRecord, path: &Path, at: u64) {
        if record.replica != self.replica {
            self.replica = record.replica;
            self.last = None;
            self.installed = None;
            self.cut(LogIndex::default());
        }
        match record.kind {
            RecordKind::HardState => {}
            RecordKind::Snapshot => {
                self.cut(LogIndex::default());
                self.last = Some((record.index, record.term));
                self.installed = Some(Installed {
                    replica: record.replica,
                    index: record.index,
                    term: record.term,
                });
            }
            RecordKind::Entry | RecordKind::Lead | RecordKind::Members => {
                if let Some(kind) = self.misfit(record) {
                    let path = path.into();
                    self.damage.get_or_insert(Damage { path, at, kind });
                }
                if self.last.is_some_and(|(last, _)| record.index <= last) {
                    self.cut(record.index);
                }
                self.last = Some((record.index, record.term));
            }
        }
        self.records += 1;
    }

    /// Why an entry cannot follow.
    fn misfit(&self, record: &JournalRecord) -> Option<Corruption> {
        let (last, term) = self.last?;
        if record.index > last.next() {
            let (after, next) = (last.get(), record.index.get());
            return Some(Corruption::EntriesMissing { after, next });
        }
        (record.term < term).then_some(Corruption::Content)
    }

    fn cut(&mut self, from: LogIndex) {
        while self.cuts.last().is_some_and(|cut| cut.from >= from) {
            self.cuts.pop();
        }
        let place = self.records;
        self.cuts.push(Cut { place, from });
    }

    /// Forgets how far it has come, not what it knows: the same records come again. Returns how
    /// many there were.
    pub(crate) const fn rewind(&mut self) -> u64 {
        std::mem::replace(&mut self.records, 0)
    }

    /// Whether the next record, which has been seen before, counts.
    pub(crate) fn counts(&mut self, record: &JournalRecord) -> bool {
        let place = self.records;
        self.records += 1;
        // Of the cuts behind it, the first one has the lowest index.
        let behind = self.cuts.partition_point(|cut| cut.place <= place);
        let cut = self.cuts.get(behind);
        let is_cut =
            record.kind != RecordKind::HardState && cut.is_some_and(|cut| record.index >= cut.from);
        record.replica == self.replica && !is_cut
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::entry;

    fn record(kind: RecordKind, index: u64, term: u64) -> JournalRecord {
        JournalRecord {
            kind,
            term: Term::new(term),
            ..entry(1, index, 0)
        }
    }

    fn entries(records: &[(u64, u64)]) -> Vec<JournalRecord> {
        let entry = |(index, term): &(u64, u64)| record(RecordKind::Entry, *index, *term);
        records.iter().map(entry).collect()
    }

    /// Index and term of those that count, and the damage.
    fn fold(records: &[JournalRecord]) -> (Vec<(u64, u64)>, Option<Corruption>) {
        let mut fold = Fold::default();
        for record in records {
            fold.add(record, Path::new("/j"), 7);
        }
        fold.rewind();
        let counting = records.iter().filter(|record| fold.counts(record));
        let counting: Vec<_> = counting.map(|r| (r.index.get(), r.term.get())).collect();
        (counting, fold.damage.map(|damage| damage.kind))
    }

    #[test]
    fn an_entry_of_a_later_term_replaces_what_follows() {
        let records = entries(&[
            (5, 1),
            (6, 1),
            (7, 1),
            (8, 1),
            (6, 2),
            (7, 3),
            (7, 4),
            (8, 4),
        ]);
        assert_eq!(fold(&records), (vec![(5, 1), (6, 2), (7, 4), (8, 4)], None));
        // Back beyond an earlier cut, and to the very first.
        let records = entries(&[(5, 1), (6, 1), (7, 1), (7, 2), (6, 3), (5, 4)]);
        assert_eq!(fold(&records), (vec![(5, 4)], None));
    }

    #[test]
    fn an_entry_written_again_counts_once() {
        let records = entries(&[(1, 1), (2, 1), (3, 1), (2, 1), (3, 1), (4, 1)]);
        assert_eq!(fold(&records), (vec![(1, 1), (2, 1), (3, 1), (4, 1)], None));
    }

    #[test]
    fn a_gap_or_an_earlier_term_is_damage() {
        let (after, next) = (6, 8);
        let gap = Corruption::EntriesMissing { after, next };
        assert_eq!(fold(&entries(&[(5, 1), (6, 1), (8, 1)])).1, Some(gap));
        let back = entries(&[(5, 2), (6, 2), (6, 1)]);
        assert_eq!(fold(&back).1, Some(Corruption::Content));
    }

    #[test]
    fn a_snapshot_replaces_every_entry_before_it() {
        let mut records = entries(&[(5, 1), (6, 1), (7, 1)]);
        records.push(record(RecordKind::Snapshot, 40, 3));
        records.extend(entries(&[(41, 3), (42, 4), (42, 5)]));
        assert_eq!(fold(&records), (vec![(40, 3), (41, 3), (42, 5)], None));
        assert_eq!(installed(&records), Some((40, 3)));
        // One that goes back, too: what was behind it is gone.
        records.push(record(RecordKind::Snapshot, 41, 6));
        records.extend(entries(&[(42, 6)]));
        assert_eq!(fold(&records), (vec![(41, 6), (42, 6)], None));
        // The entry after it must be the next one.
        records.push(record(RecordKind::Snapshot, 50, 7));
        records.extend(entries(&[(52, 7)]));
        assert!(fold(&records).1.is_some());
    }

    #[test]
    fn another_replica_starts_anew() {
        let mut records = entries(&[(5, 3), (6, 3)]);
        records.push(JournalRecord {
            replica: ReplicaId::new(9),
            ..record(RecordKind::Entry, 2, 1)
        });
        assert_eq!(fold(&records), (vec![(2, 1)], None));
        records.insert(0, record(RecordKind::Snapshot, 4, 3));
        assert_eq!(installed(&records), None);
    }

    fn installed(records: &[JournalRecord]) -> Option<(u64, u64)> {
        let mut fold = Fold::default();
        for record in records {
            fold.add(record, Path::new("/j"), 7);
        }
        fold.installed
            .map(|installed| (installed.index.get(), installed.term.get()))
    }
}
