//! That each fault does what it says, and that a short write alone is none.

use super::*;
use crate::disk::{Crash, MemoryDisk};

fn disk_with(bytes: &[u8]) -> (FaultyDisk, Arc<dyn DiskFile>) {
    let memory = MemoryDisk::new();
    let disk = FaultyDisk::new(Arc::new(memory));
    disk.create_dir_all(Path::new("/d")).unwrap();
    let file = disk.open(Path::new("/d/a"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    (disk, file)
}

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

#[test]
fn a_short_write_goes_on_and_the_rest_decides() {
    let slices = [
        IoSlice::new(b"one "),
        IoSlice::new(b"two"),
        IoSlice::new(b" three"),
    ];
    // Nothing keeps the rest from being written: it is whole.
    let (disk, file) = disk_with(b"");
    disk.fail(Operation::Write, Fault::Short, 0, "a");
    file.write_all_at(&slices, 0).unwrap();
    assert_eq!(content(&file), b"one two three");
    // The rest is refused: the reason is told, not that the write was short.
    let refusals = [
        (Fault::Full, io::ErrorKind::StorageFull),
        (Fault::Broken, io::ErrorKind::Other),
        (Fault::Nothing, io::ErrorKind::WriteZero),
    ];
    for (refusal, kind) in refusals {
        let (disk, file) = disk_with(b"");
        disk.fail(Operation::Write, Fault::Short, 0, "a");
        disk.fail(Operation::Write, refusal, 0, "a");
        let failed = file.write_all_at(&slices, 0).unwrap_err();
        assert_eq!(failed.kind(), kind);
        assert_eq!(content(&file), b"one two", "the first half is there");
    }
}

#[test]
fn room_runs_out_and_comes_back() {
    let (disk, file) = disk_with(b"12345");
    disk.set_room(Some(3));
    file.write_all_at(&[IoSlice::new(b"54321")], 0).unwrap();
    let failed = file
        .write_all_at(&[IoSlice::new(b"678901")], 5)
        .unwrap_err();
    assert_eq!(failed.kind(), io::ErrorKind::StorageFull);
    assert_eq!(content(&file), b"54321678", "what fitted is there");
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 0);
    assert_eq!(
        file.set_bytes(9).unwrap_err().kind(),
        io::ErrorKind::StorageFull
    );

    file.set_bytes(6).unwrap();
    let other = disk.open(Path::new("/d/b"), OpenMode::CreateNew).unwrap();
    other.write_all_at(&[IoSlice::new(b"xy")], 0).unwrap();
    assert!(other.set_bytes(3).is_err());
    disk.rename(Path::new("/d/b"), Path::new("/d/a")).unwrap();
    disk.remove(Path::new("/d/a")).unwrap();
    assert_eq!(disk.free_bytes(Path::new("/d")).unwrap(), 8);
    disk.set_room(None);
    other.set_bytes(1000).unwrap();
}

#[test]
fn a_lying_disk_says_nothing() {
    let (disk, file) = disk_with(&[7; 2048]);
    disk.fail(Operation::Read, Fault::Flipped, 0, "a");
    assert_ne!(content(&file), [7; 2048]);
    assert_eq!(content(&file), [7; 2048]);

    disk.fail(Operation::Write, Fault::Misdirected, 0, "a");
    file.write_all_at(&[IoSlice::new(&[1; 512])], 1024).unwrap();
    assert_eq!(content(&file)[512..1024], [1; 512]);
    disk.fail(Operation::Read, Fault::Misdirected, 0, "a");
    let mut found = [0; 512];
    file.read_exact_at(&mut found, 1024).unwrap();
    assert_eq!(found, [1; 512]);

    disk.fail(Operation::Write, Fault::Flipped, 0, "a");
    file.write_all_at(&[IoSlice::new(&[2; 2048])], 0).unwrap();
    assert_eq!(content(&file).iter().filter(|byte| **byte != 2).count(), 1);
    disk.fail(Operation::Write, Fault::Lost, 0, "a");
    file.write_all_at(&[IoSlice::new(&[3; 2048])], 0).unwrap();
    assert!(!content(&file).contains(&3));
    assert_eq!(disk.faults(), 5);
}

#[test]
fn lost_syncs_are_lost_until_the_disk_is_healed() {
    let memory = MemoryDisk::new();
    let disk = FaultyDisk::new(Arc::new(memory.clone()));
    let path = Path::new("/d/a");
    disk.create_dir_all(Path::new("/d")).unwrap();
    disk.fail_always(Operation::Sync, Fault::Lost, "");
    disk.fail_always(Operation::SyncDir, Fault::Lost, "");
    let write = |disk: &FaultyDisk| {
        let file = disk.open(path, OpenMode::CreateNew)?;
        file.write_all_at(&[IoSlice::new(b"bytes")], 0)?;
        file.sync_data()?;
        disk.sync_dir(Path::new("/d"))
    };
    write(&disk).unwrap();
    memory.crash(Crash::DropAll);
    assert!(memory.content(path).is_err(), "it was never synced");

    let disk = FaultyDisk::new(Arc::new(memory.clone()));
    disk.fail_always(Operation::Sync, Fault::Lost, "");
    disk.heal();
    write(&disk).unwrap();
    memory.crash(Crash::DropAll);
    assert_eq!(memory.content(path).unwrap(), b"bytes");
}
