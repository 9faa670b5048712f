//! After a failed write or sync nothing is acknowledged any more.

use std::sync::Arc;

use crate::journal::Journal;
use crate::testing::{PATIENCE, entry, indexes, open_dir, small, start};
use crate::{
    Action, AppendError, Crash, Fault, FaultyDisk, MemoryDisk, NextFile, OpenError, Operation,
};

#[test]
fn a_failed_write_or_sync_poisons_the_journal() {
    for (operation, fault, action) in [
        (Operation::Write, Fault::Broken, Action::Write),
        (Operation::Write, Fault::Full, Action::Write),
        (Operation::Write, Fault::Short, Action::Write),
        (Operation::Sync, Fault::Broken, Action::Sync),
    ] {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let (running, _) = start(&open_dir(&disk), small());
        running.append_durably(vec![entry(1, 1, 500)]);
        let number = number_in_use(&memory);
        disk.fail(operation, fault, 0, &number);

        let failed = running.append(vec![entry(1, 2, 900)]);

        assert!(
            failed.recv_timeout(PATIENCE).is_err(),
            "nobody is told it is durable"
        );
        let later = running.append(vec![entry(1, 3, 10)]);
        assert!(later.recv_timeout(PATIENCE).is_err());
        running.journal.shutdown();
        let refused = running.journal.append(Vec::new(), Box::new(|| {}));
        assert_eq!(refused, Err(AppendError::Stopped));
        let failures = running.failures.lock().unwrap();
        let [failure] = &failures[..] else {
            panic!("{failures:?}")
        };
        assert_eq!(failure.action, action);
        assert!(failure.path.ends_with(format!("{number}.journal")));

        memory.crash(Crash::DropAll);
        let (_, recovery) = Journal::open(&open_dir(&memory), small()).unwrap();
        assert_eq!(indexes(&recovery, 1), [1]);
    }
}

/// Of the file that is written to: the oldest one. It was opened under another extension.
fn number_in_use(disk: &MemoryDisk) -> String {
    use crate::Disk;
    let names = disk
        .list(&crate::testing::data_path().join("journal"))
        .unwrap();
    names[0].split_once('.').unwrap().0.into()
}

#[test]
fn a_full_disk_shows_before_a_record_depends_on_it() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let (running, _) = start(&dir, small());
    let until = |wanted: NextFile| {
        let started = std::time::Instant::now();
        while running.journal.room().unwrap().next_file != wanted {
            assert!(
                started.elapsed() < PATIENCE,
                "the next file is never {wanted:?}"
            );
            std::thread::yield_now();
        }
    };
    until(NextFile::Ready);
    disk.set_capacity(Some(0));
    assert_eq!(running.journal.room().unwrap().free_bytes, 0);
    let mut index = 0;
    let mut fill_a_file = || {
        for _ in 0..12 {
            index += 1;
            running.append_durably(vec![entry(1, index, 900)]);
        }
    };

    // The file that was ready is used; the one after it is refused.
    fill_a_file();
    until(NextFile::Refused);
    running.append_durably(vec![entry(2, 1, 10)]);
    disk.set_capacity(None);
    until(NextFile::Ready);

    fill_a_file();
    assert!(running.failures.lock().unwrap().is_empty());
    running.journal.shutdown();
}

#[test]
fn without_room_for_another_file_the_journal_fails() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    running.append_durably(vec![entry(1, 1, 900)]);
    disk.set_capacity(Some(0));
    let mut index = 1;
    loop {
        index += 1;
        if running
            .append(vec![entry(1, index, 900)])
            .recv_timeout(PATIENCE)
            .is_err()
        {
            break;
        }
    }
    running.journal.shutdown();
    let failures = running.failures.lock().unwrap();
    assert!(failures.len() == 1 && failures[0].is_full(), "{failures:?}");
    drop(failures);
    disk.set_capacity(None);
    disk.crash(Crash::DropAll);
    let (_, recovery) = Journal::open(&open_dir(&disk), small()).unwrap();
    assert_eq!(indexes(&recovery, 1), (1..index).collect::<Vec<_>>());
}

#[test]
fn a_disk_without_room_for_the_first_file_is_an_error_that_names_it() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    disk.set_capacity(Some(100));
    let refused = Journal::open(&dir, small()).err().unwrap();
    let OpenError::Io {
        path,
        action: Action::Write,
        ..
    } = refused
    else {
        panic!("{refused:?}")
    };
    assert!(path.starts_with(dir.path()));
    let left = crate::Disk::list(&disk, path.parent().unwrap()).unwrap();
    assert!(left.is_empty(), "{left:?}");
}
