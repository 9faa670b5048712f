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
