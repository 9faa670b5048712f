//! That the disk in memory forgets what it may, and nothing else.

use std::collections::BTreeSet;

use super::*;

fn disk_with(name: &str, bytes: &[u8]) -> (MemoryDisk, PathBuf) {
    let disk = MemoryDisk::new();
    let directory = Path::new("/d");
    disk.create_dir_all(directory).unwrap();
    let path = directory.join(name);
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    file.sync_data().unwrap();
    disk.sync_dir(directory).unwrap();
    (disk, path)
}

#[test]
fn synced_bytes_and_names_survive_every_crash() {
    for seed in 0..50 {
        let (disk, path) = disk_with("a", &[1; 2000]);
        disk.crash(Crash::Random(seed));
        assert_eq!(disk.content(&path).unwrap(), [1; 2000]);
    }
}

#[test]
fn unsynced_writes_survive_by_sector_or_not() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let (disk, path) = disk_with("a", &[1; 1024]);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.write_all_at(&[IoSlice::new(&[2; 1024])], 0).unwrap();
        disk.crash(Crash::Random(seed));
        let content = disk.content(&path).unwrap();
        let sectors: Vec<u8> = content.chunks(512).map(|sector| sector[0]).collect();
        assert!(
            content
                .chunks(512)
                .all(|sector| sector.iter().all(|b| *b == sector[0]))
        );
        outcomes.insert(sectors);
        assert!(file.sync_data().is_err(), "its process is gone");
    }
    assert_eq!(outcomes.len(), 4);
}

#[test]
fn names_that_were_not_synced_may_be_lost() {
    for (crash, survives) in [(Crash::DropAll, false), (Crash::KeepAll, true)] {
        let (disk, path) = disk_with("a", b"x");
        let renamed = path.with_file_name("b");
        disk.rename(&path, &renamed).unwrap();
        disk.crash(crash);
        assert_eq!(disk.content(&renamed).is_ok(), survives);
        assert_eq!(disk.content(&path).is_ok(), !survives);
    }
}

#[test]
fn a_process_of_before_the_crash_can_change_nothing() {
    let disk = MemoryDisk::new();
    let process = disk.clone();
    process.create_dir_all(Path::new("/d")).unwrap();
    process
        .open(Path::new("/d/a"), OpenMode::CreateNew)
        .unwrap();
    process.sync_dir(Path::new("/d")).unwrap();
    disk.crash(Crash::KeepAll);

    assert!(process.remove(Path::new("/d/a")).is_err());
    assert!(process.sync_dir(Path::new("/d")).is_err());
    let renamed = process.rename(Path::new("/d/a"), Path::new("/d/b"));
    assert!(renamed.is_err());
    assert_eq!(disk.list(Path::new("/d")).unwrap(), ["a"]);
}

#[test]
fn a_crash_at_an_operation_fails_it_and_ends_the_process() {
    for operations in 0..6 {
        let disk = MemoryDisk::new();
        let process = disk.clone();
        process.create_dir_all(Path::new("/d")).unwrap();
        disk.crash_after(operations, Crash::Random(operations));
        let work = || {
            let file = process.open(Path::new("/d/a"), OpenMode::CreateNew)?;
            file.write_all_at(&[IoSlice::new(b"one")], 0)?;
            file.set_bytes(2)?;
            file.sync_data()?;
            process.sync_dir(Path::new("/d"))?;
            process.rename(Path::new("/d/a"), Path::new("/d/b"))?;
            process.remove(Path::new("/d/b"))
        };

        assert!(work().is_err());

        assert_eq!((disk.operations(), disk.crashes()), (operations + 1, 1));
        assert!(process.list(Path::new("/d")).is_err(), "it is gone");
        let names = disk.list(Path::new("/d")).unwrap();
        if operations == 5 {
            // Synced before; whether the rename took place is open.
            assert_eq!(names.len(), 1);
            let path = Path::new("/d").join(&names[0]);
            assert_eq!(disk.content(&path).unwrap(), b"on");
        }
        // The next process is not crashed again.
        let file = disk.open(Path::new("/d/c"), OpenMode::CreateNew).unwrap();
        file.sync_data().unwrap();
    }
}

#[test]
fn a_cut_that_was_not_synced_may_be_undone() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..200 {
        let (disk, path) = disk_with("a", &[1; 1024]);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        file.set_bytes(512).unwrap();
        file.write_all_at(&[IoSlice::new(&[2; 512])], 512).unwrap();
        disk.crash(Crash::Random(seed));
        let content = disk.content(&path).unwrap();
        outcomes.insert((content.len(), content.get(512).copied()));
    }
    // As before, cut, extended but empty, and all of it; never the new bytes without the cut.
    let expected = [
        (512, None),
        (1024, Some(0)),
        (1024, Some(1)),
        (1024, Some(2)),
    ];
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn what_a_crash_leaves_of_a_file_was_there_at_some_time() {
    for seed in 0..300 {
        let mut chance = Chance::new(seed);
        let (disk, path) = disk_with("a", &[0; 3000]);
        let file = disk.open(&path, OpenMode::Write).unwrap();
        let mut times = vec![disk.content(&path).unwrap()];
        for fill in 1..=chance.below(12) {
            if chance.below(6) == 0 {
                file.set_bytes(chance.below(4000) as u64).unwrap();
            } else {
                let bytes = vec![u8::try_from(fill).unwrap(); 1 + chance.below(1500)];
                let at = chance.below(3500) as u64;
                file.write_all_at(&[IoSlice::new(&bytes)], at).unwrap();
            }
            times.push(disk.content(&path).unwrap());
            if chance.below(5) == 0 {
                file.sync_data().unwrap();
                times = times.split_off(times.len() - 1);
            }
        }

        disk.crash(Crash::Random(seed));

        let found = disk.content(&path).unwrap();
        assert!(times.iter().any(|then| then.len() == found.len()));
        for (sector, bytes) in found.chunks(SECTOR_BYTES).enumerate() {
            // Zeros where a cut or an extension is there and the bytes are not.
            let is_then = |then: &Vec<u8>| {
                let mut then = then.clone();
                then.resize(then.len().max(found.len()), 0);
                then[sector * SECTOR_BYTES..].starts_with(bytes)
            };
            assert!(times.iter().any(is_then), "seed {seed} sector {sector}");
        }
        // It is durable now.
        disk.crash(Crash::DropAll);
        assert_eq!(disk.content(&path).unwrap(), found);
    }
}

#[test]
fn unsynced_changes_of_names_survive_in_any_order() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..300 {
        let disk = MemoryDisk::new();
        let path = Path::new("/d");
        disk.create_dir_all(path).unwrap();
        for name in ["a", "b"] {
            disk.open(&path.join(name), OpenMode::CreateNew).unwrap();
        }
        disk.sync_dir(path).unwrap();
        disk.remove(&path.join("a")).unwrap();
        disk.rename(&path.join("b"), &path.join("c")).unwrap();
        disk.rename(&path.join("c"), &path.join("d")).unwrap();
        disk.crash(Crash::Random(seed));
        outcomes.insert(disk.list(path).unwrap().join(""));
    }
    // The removal by itself; the second rename never without the first.
    assert_eq!(
        outcomes,
        ["ab", "ac", "ad", "b", "c", "d"].map(String::from).into()
    );
}

#[test]
fn a_removed_directory_may_come_back() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..20 {
        let disk = MemoryDisk::new();
        let path = Path::new("/d/below");
        disk.create_dir_all(path).unwrap();
        disk.remove_dir(path).unwrap();
        assert!(disk.list(path).is_err());
        if seed >= 10 {
            disk.sync_dir(Path::new("/d")).unwrap();
        }
        disk.crash(Crash::Random(seed));
        outcomes.insert((seed >= 10, disk.list(path).is_ok()));
    }
    let expected = [(false, false), (false, true), (true, false)];
    assert_eq!(outcomes, BTreeSet::from(expected));
}

#[test]
fn a_disk_without_room_takes_what_fits() {
    let (disk, path) = disk_with("a", b"12345");
    disk.set_capacity(Some(8));
    let file = disk.open(&path, OpenMode::Write).unwrap();
    let failed = file.write_all_at(&[IoSlice::new(b"678901")], 5);
    assert_eq!(failed.unwrap_err().kind(), io::ErrorKind::StorageFull);
    assert_eq!(disk.content(&path).unwrap(), b"12345678");
    assert_eq!(disk.free_bytes(&path).unwrap(), 0);
    file.write_all_at(&[IoSlice::new(b"54321")], 0).unwrap();
}
