//! After a failed write or sync nothing is acknowledged any more.

use std::sync::Arc;

use crate::testing::{PATIENCE, Turns, entry, indexes, open, open_dir, small, start, until};
use crate::{
    Action, AppendError, Crash, Fault, FaultyDisk, MemoryDisk, NextFile, OpenError, Operation,
};

#[test]
fn a_failed_write_or_sync_poisons_the_journal() {
    for (operation, fault, action) in [
        (Operation::Write, Fault::Broken, Action::Write),
        (Operation::Write, Fault::Full, Action::Write),
        (Operation::Write, Fault::Nothing, Action::Write),
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
        running.shutdown();
        let refused = running.journal.append(Vec::new(), Box::new(|| {}));
        assert_eq!(refused, Err(AppendError::Stopped));
        let failures = running.failures.lock().unwrap();
        let [failure] = &failures[..] else {
            panic!("{failures:?}")
        };
        assert_eq!(failure.action, action);
        assert!(failure.path.ends_with(format!("{number}.journal")));

        memory.crash(Crash::DropAll);
        let (_, recovery) = open(&open_dir(&memory), small()).unwrap();
        assert_eq!(indexes(&recovery, 1), [1]);
    }
}

#[test]
fn a_short_write_stops_the_journal_only_if_the_rest_is_refused() {
    for refusal in [None, Some(Fault::Broken), Some(Fault::Nothing)] {
        let memory = MemoryDisk::new();
        let disk = FaultyDisk::new(Arc::new(memory.clone()));
        let (running, _) = start(&open_dir(&disk), small());
        running.append_durably(vec![entry(1, 1, 500)]);
        let number = number_in_use(&memory);
        disk.fail(Operation::Write, Fault::Short, 0, &number);
        if let Some(fault) = refusal {
            disk.fail(Operation::Write, fault, 0, &number);
        }

        let answer = running.append(vec![entry(1, 2, 900)]);

        assert_eq!(answer.recv_timeout(PATIENCE).is_ok(), refusal.is_none());
        running.shutdown();
        assert_eq!(
            running.failures.lock().unwrap().is_empty(),
            refusal.is_none()
        );
        memory.crash(Crash::DropAll);
        let (_, recovery) = open(&open_dir(&memory), small()).unwrap();
        let expected = if refusal.is_none() {
            vec![1, 2]
        } else {
            vec![1]
        };
        assert_eq!(indexes(&recovery, 1), expected);
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
    let next_is = |wanted: NextFile| {
        until("the next file is so", || {
            running.journal.room().unwrap().next_file == wanted
        });
    };
    next_is(NextFile::Ready);
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
    next_is(NextFile::Refused);
    running.append_durably(vec![entry(2, 1, 10)]);
    disk.set_capacity(None);
    next_is(NextFile::Ready);

    fill_a_file();
    assert!(running.failures.lock().unwrap().is_empty());
    running.shutdown();
}

#[test]
fn without_room_for_another_file_the_journal_waits_for_it() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    disk.set_capacity(Some(0));
    // More than a file takes, so that whatever was ready is used up.
    let answers: Vec<_> = (1..=40)
        .map(|index| running.append(vec![entry(1, index, 900)]))
        .collect();
    answers[0].recv_timeout(PATIENCE).unwrap();
    until("the next file is refused", || {
        running.journal.room().unwrap().next_file == NextFile::Refused
    });
    assert!(answers[39].try_recv().is_err(), "there is no room for it");

    disk.set_capacity(None);

    for answer in &answers[1..] {
        answer.recv_timeout(PATIENCE).unwrap();
    }
    assert!(running.failures.lock().unwrap().is_empty());
    running.shutdown();
    drop(running);
    let (_, recovery) = open(&open_dir(&disk), small()).unwrap();
    assert_eq!(indexes(&recovery, 1), (1..=40).collect::<Vec<_>>());
}

#[test]
fn a_journal_that_waits_for_room_goes_on_with_a_file_that_is_released() {
    let disk = MemoryDisk::new();
    let (running, _) = start(&open_dir(&disk), small());
    running.append_durably((1..=30).map(|index| entry(1, index, 900)).collect());
    disk.set_capacity(Some(0));
    let answers: Vec<_> = (31..=70)
        .map(|index| running.append(vec![entry(1, index, 900)]))
        .collect();
    until("the next file is refused", || {
        running.journal.room().unwrap().next_file == NextFile::Refused
    });

    for index in 30..=70 {
        // As checkpoints would: each gives a file back, and with it a little more is written.
        let shard = millrace_types::ShardId::new(1);
        running
            .journal
            .release(shard, millrace_types::LogIndex::new(index));
        if index > 30 {
            let place = usize::try_from(index - 31).unwrap();
            answers[place].recv_timeout(PATIENCE).unwrap();
        }
    }

    assert!(running.failures.lock().unwrap().is_empty());
    running.shutdown();
}

#[test]
fn a_failed_sync_of_a_file_being_prepared_stops_the_journal() {
    let number_of_next = "0000000000000002";
    for (operation, fault, path_part, stops) in [
        (Operation::Sync, Fault::Broken, number_of_next, true),
        (Operation::SyncDir, Fault::Broken, "journal", true),
        (Operation::SyncDir, Fault::Full, "journal", true),
        // No room for it: tried again.
        (Operation::Sync, Fault::Full, number_of_next, false),
    ] {
        let disk = FaultyDisk::new(Arc::new(MemoryDisk::new()));
        let mut turns = Turns::start(&open_dir(&disk), small());
        disk.fail(operation, fault, 0, path_part);

        turns.run();

        assert_eq!(disk.faults(), 1);
        assert_eq!(turns.failures.lock().unwrap().len(), usize::from(stops));
        if !stops {
            assert_eq!(turns.journal.room().unwrap().next_file, NextFile::Refused);
            turns.pass(std::time::Duration::from_secs(1));
            turns.run();
            assert_eq!(turns.journal.room().unwrap().next_file, NextFile::Ready);
        }
    }
}

#[test]
fn a_preparer_that_panics_fails_the_journal() {
    let disk = MemoryDisk::new();
    let expect = crate::Expect {
        cluster_id: None,
        shards: 2,
    };
    let sane = crate::testing::random();
    let broken = std::sync::atomic::AtomicBool::new(false);
    let broken = Arc::new(broken);
    let seen = Arc::clone(&broken);
    let random: crate::Random = Arc::new(move || {
        assert!(!seen.load(std::sync::atomic::Ordering::Relaxed), "broken");
        sane()
    });
    let path = crate::testing::data_path();
    let dir = crate::DataDir::open_alone(Arc::new(disk), &path, expect, random).unwrap();
    let (running, _) = start(&dir, small());
    broken.store(true, std::sync::atomic::Ordering::Relaxed);

    let mut index = 0;
    until("the journal stops", || {
        index += 1;
        let answer = running.append(vec![entry(1, index, 900)]);
        answer.recv_timeout(PATIENCE).is_err()
    });

    running.shutdown();
    let failures = running.failures.lock().unwrap();
    assert_eq!(failures.len(), 1, "{failures:?}");
}

#[test]
fn a_disk_without_room_for_the_first_file_is_an_error_that_names_it() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    disk.set_capacity(Some(100));
    let refused = open(&dir, small()).err().unwrap();
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
