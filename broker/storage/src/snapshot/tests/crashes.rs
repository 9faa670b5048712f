//! A receiver that crashes at any operation of its disk has the old state or the new one, never a
//! mixture, and nothing else is left.

use millrace_types::{LogIndex, ReplicaId, Term};

use super::*;
use crate::{Crash, Installed, OpenError};

/// What the journal knows after a crash.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Journal {
    /// Of no snapshot.
    Nothing,
    /// That it was installed.
    Installed,
}

/// One life of a receiver that crashes after so many operations; what its journal knows, or nothing
/// when it lived to the end.
fn receive(disk: &MemoryDisk, bytes: &Bytes, operations: u64, seed: u64) -> Option<Journal> {
    let to = Shard::on(disk.clone());
    disk.crash_after(operations, Crash::Random(seed));
    let staged = match send_all(bytes, &to) {
        Ok(staged) => staged,
        Err(error) => {
            assert!(matches!(error, ImportError::Disk(_)), "{error}");
            return Some(Journal::Nothing);
        }
    };
    // Here the journal's record is synced.
    if staged.promote().is_err() {
        return Some(Journal::Installed);
    }
    to.store.retire();
    if to.store.remove().is_err() {
        return Some(Journal::Installed);
    }
    assert_eq!(content(staged.store()).len(), 7);
    None
}

fn send_all(bytes: &Bytes, to: &Shard) -> Result<Staged, ImportError> {
    let mut import = Import::begin(&to.store, bytes.len() as u64, 0)?;
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        import.write(rest.split_to(STRIDE.min(rest.len())))?;
    }
    import.finish()
}

/// A start, as a node does it.
fn start(disk: &MemoryDisk, journal: Journal) -> Result<Shard, OpenError> {
    if journal == Journal::Installed {
        let dir = open_dir(disk);
        complete_install(&dir, SHARD, installed(1))?;
    }
    Ok(Shard::on(disk.clone()))
}

/// As the journal says it, of this term.
fn installed(term: u64) -> Installed {
    Installed {
        replica: ReplicaId::new(5),
        index: LogIndex::new(20),
        term: Term::new(term),
    }
}

fn check(shard: &Shard, expected: &Content) {
    assert_eq!(&shard.content(), expected);
    let checkpoint = Checkpoint::load(&shard.dir, SHARD).unwrap();
    let listed = checkpoint.map(|found| found.manifest.segments);
    let listed = listed.into_iter().flatten().map(|segment| segment.number);
    assert_eq!(shard.segments(), listed.collect::<Vec<_>>());
    let files = shard.files();
    let others = files.iter().filter(|name| !name.starts_with("checkpoint-"));
    assert_eq!(others.count(), 0, "{files:?}");
    assert!(shard.disk.list(&data_path().join("aside")).is_err());
}

/// A crash at each operation, of a receiver that begins as `prepare` leaves it.
fn at_each_operation(prepare: impl Fn(&Shard)) {
    let from = Shard::new();
    from.fill();
    let new = from.content();
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    let mut installed = 0;
    for operations in 0.. {
        let disk = MemoryDisk::new();
        let to = Shard::on(disk.clone());
        prepare(&to);
        let old = to.content();
        drop(to);
        let Some(journal) = receive(&disk, &bytes, operations, operations * 37 + 5) else {
            assert!(operations > 20 && installed > 2);
            return;
        };
        installed += u64::from(journal == Journal::Installed);
        // And at the start after it, once.
        disk.crash_after(operations % 7, Crash::Random(operations));
        let dir = std::panic::catch_unwind(|| start(&disk, journal).map(drop));
        drop(dir);
        disk.crash(Crash::Random(operations + 1));
        let started = start(&disk, journal).unwrap();
        let expected = match journal {
            Journal::Nothing => &old,
            Journal::Installed => &new,
        };
        check(&started, expected);
    }
}

#[test]
fn a_blank_receiver() {
    at_each_operation(|_| ());
}

#[test]
fn one_that_has_a_state() {
    at_each_operation(|shard| {
        shard.append(7, 0..5, 10);
        shard.append(12, 0..30, 50_000);
        shard.checkpoint(3);
    });
}

#[test]
fn a_snapshot_that_was_installed_and_is_not_there_is_damage() {
    let shard = Shard::new();
    let mark = installed(1);
    let missing = complete_install(&shard.dir, SHARD, mark).unwrap_err();
    let OpenError::Corrupt { kind, path, .. } = missing else {
        panic!("{missing}");
    };
    assert_eq!(kind, Corruption::Missing);
    assert!(path.ends_with("incoming-00000000000000000020"));
    // One of another term is not it.
    let from = Shard::new();
    from.fill();
    let mut export = from.store.export().unwrap().unwrap();
    let staged = send(&read_all(&mut export), &shard).unwrap();
    let other = installed(2);
    assert!(complete_install(&shard.dir, SHARD, other).is_err());
    drop(staged);
    complete_install(&shard.dir, SHARD, mark).unwrap();
    complete_install(&shard.dir, SHARD, mark).unwrap();
}
