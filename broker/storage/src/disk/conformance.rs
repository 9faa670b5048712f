//! What every disk must do, run against each of them.

use std::io::{self, IoSlice};
use std::path::Path;

use std::sync::Arc;

use super::{CountedDisk, Disk, DiskFile, FaultyDisk, MemoryDisk, OpenMode, RealDisk};

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().expect("it was to fail").kind()
}

fn bytes_are_read_back_where_they_were_written(disk: &dyn Disk, path: &Path) {
    let path = path.join("bytes");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    let many: Vec<Vec<u8>> = (0..3000_u32).map(|n| n.to_le_bytes().to_vec()).collect();
    let slices: Vec<IoSlice<'_>> = many.iter().map(|bytes| IoSlice::new(bytes)).collect();

    // More slices than one system call takes.
    file.write_all_at(&slices, 10).unwrap();
    file.sync_data().unwrap();

    assert_eq!(file.bytes().unwrap(), 10 + 12_000);
    let mut found = vec![0; 12_000];
    disk.open(&path, OpenMode::Read)
        .unwrap()
        .read_exact_at(&mut found, 10)
        .unwrap();
    assert_eq!(found, many.concat());
    assert_eq!(
        kind(file.read_exact_at(&mut found, 11)),
        io::ErrorKind::UnexpectedEof
    );
}

fn files_are_cut_and_extended_with_zeros(disk: &dyn Disk, path: &Path) {
    let file = disk.open(&path.join("cut"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(&[7; 100])], 0).unwrap();

    file.set_bytes(50).unwrap();
    file.set_bytes(80).unwrap();

    let mut found = [1; 80];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(found[..50], [7; 50]);
    assert_eq!(found[50..], [0; 30]);
    file.fill_zeros(3_000_001).unwrap();
    assert_eq!(file.bytes().unwrap(), 3_000_001);
}

fn what_was_never_written_is_zero(disk: &dyn Disk, path: &Path) {
    let path = path.join("sparse");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    assert_eq!(file.bytes().unwrap(), 0);
    file.write_all_at(&[], 5).unwrap();
    assert_eq!(file.bytes().unwrap(), 0, "nothing was written");

    file.write_all_at(&[IoSlice::new(b"far")], 100_000).unwrap();
    file.set_bytes(200_000).unwrap();

    let content = content(&file);
    assert_eq!(content.len(), 200_000);
    assert_eq!(&content[100_000..100_003], b"far");
    assert_eq!(content.iter().filter(|byte| **byte != 0).count(), 3);
    // What was cut does not come back.
    file.set_bytes(100_001).unwrap();
    file.set_bytes(100_003).unwrap();
    assert_eq!(self::content(&file)[100_000..], [b'f', 0, 0]);
}

fn a_read_past_the_end_fails(disk: &dyn Disk, path: &Path) {
    let file = disk.open(&path.join("end"), OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(b"12345")], 0).unwrap();
    for (bytes, offset) in [(1, 5), (2, 4), (6, 0), (1, 1 << 40)] {
        let mut found = vec![0; bytes];
        let failed = kind(file.read_exact_at(&mut found, offset));
        assert_eq!(failed, io::ErrorKind::UnexpectedEof);
    }
    file.read_exact_at(&mut [], 5).unwrap();
}

fn a_file_opened_for_reading_is_not_written(disk: &dyn Disk, path: &Path) {
    let path = path.join("read-only");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(b"kept")], 0).unwrap();
    let reader = disk.open(&path, OpenMode::Read).unwrap();
    assert!(reader.write_all_at(&[IoSlice::new(b"lost")], 0).is_err());
    assert!(reader.set_bytes(0).is_err());
    assert_eq!(content(&file), b"kept");
}

fn a_rename_replaces_its_target(disk: &dyn Disk, path: &Path) {
    let (from, to) = (path.join("from"), path.join("to"));
    for (path, bytes) in [(&from, b"new"), (&to, b"old")] {
        let file = disk.open(path, OpenMode::CreateNew).unwrap();
        file.write_all_at(&[IoSlice::new(bytes)], 0).unwrap();
    }
    let (before, replaced) = (
        disk.open(&from, OpenMode::Write).unwrap(),
        disk.open(&to, OpenMode::Read).unwrap(),
    );

    disk.rename(&from, &to).unwrap();

    assert_eq!(
        kind(disk.open(&from, OpenMode::Read)),
        io::ErrorKind::NotFound
    );
    assert_eq!(content(&disk.open(&to, OpenMode::Read).unwrap()), b"new");
    // A file that is open stays what it is, whatever its name.
    assert_eq!(content(&replaced), b"old");
    before.write_all_at(&[IoSlice::new(b"NEW")], 0).unwrap();
    assert_eq!(content(&disk.open(&to, OpenMode::Read).unwrap()), b"NEW");
    disk.rename(&to, &to).unwrap();
    assert_eq!(content(&disk.open(&to, OpenMode::Read).unwrap()), b"NEW");
    assert_eq!(kind(disk.rename(&from, &to)), io::ErrorKind::NotFound);
    let nowhere = path.join("nowhere/to");
    assert_eq!(kind(disk.rename(&to, &nowhere)), io::ErrorKind::NotFound);
    // To another directory.
    let other = path.join("other");
    disk.create_dir_all(&other).unwrap();
    disk.rename(&to, &other.join("to")).unwrap();
    assert_eq!(disk.list(&other).unwrap(), ["to"]);
    assert_eq!(
        kind(disk.open(&to, OpenMode::Read)),
        io::ErrorKind::NotFound
    );
}

fn a_removed_file_lives_until_it_is_closed(disk: &dyn Disk, path: &Path) {
    let path = path.join("removed");
    let file = disk.open(&path, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(b"first")], 0).unwrap();
    disk.remove(&path).unwrap();

    file.write_all_at(&[IoSlice::new(b"F")], 0).unwrap();
    file.sync_data().unwrap();
    let other = disk.open(&path, OpenMode::CreateNew).unwrap();

    assert_eq!(content(&file), b"First");
    assert_eq!(other.bytes().unwrap(), 0);
}

fn names_are_listed_in_order(disk: &dyn Disk, path: &Path) {
    let path = path.join("order");
    disk.create_dir_all(&path.join("c")).unwrap();
    for name in ["b", "a.x", "10", "9", "a"] {
        drop(disk.open(&path.join(name), OpenMode::CreateNew).unwrap());
    }
    assert_eq!(disk.list(&path).unwrap(), ["10", "9", "a", "a.x", "b", "c"]);
    let missing = path.join("missing");
    assert_eq!(kind(disk.sync_dir(&missing)), io::ErrorKind::NotFound);
    assert_eq!(kind(disk.remove_dir(&missing)), io::ErrorKind::NotFound);
    let below = missing.join("file");
    let created = disk.open(&below, OpenMode::CreateNew);
    assert_eq!(kind(created), io::ErrorKind::NotFound);
    assert_eq!(
        kind(disk.remove_dir(&path)),
        io::ErrorKind::DirectoryNotEmpty
    );
    disk.remove_dir(&path.join("c")).unwrap();
    assert_eq!(disk.list(&path).unwrap(), ["10", "9", "a", "a.x", "b"]);
}

fn content(file: &Arc<dyn DiskFile>) -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(file.bytes().unwrap()).unwrap()];
    file.read_exact_at(&mut bytes, 0).unwrap();
    bytes
}

fn names_come_and_go(disk: &dyn Disk, path: &Path) {
    let path = path.join("names/below");
    assert_eq!(kind(disk.list(&path)), io::ErrorKind::NotFound);
    disk.create_dir_all(&path).unwrap();
    disk.create_dir_all(&path).unwrap();
    let (a, b) = (path.join("a"), path.join("b"));
    assert_eq!(kind(disk.open(&a, OpenMode::Read)), io::ErrorKind::NotFound);
    assert_eq!(
        kind(disk.open(&a, OpenMode::Write)),
        io::ErrorKind::NotFound
    );

    let file = disk.open(&a, OpenMode::CreateNew).unwrap();
    file.write_all_at(&[IoSlice::new(b"first")], 0).unwrap();
    assert_eq!(
        kind(disk.open(&a, OpenMode::CreateNew)),
        io::ErrorKind::AlreadyExists
    );
    drop(disk.open(&b, OpenMode::CreateNew).unwrap());
    assert_eq!(disk.list(&path).unwrap(), ["a", "b"]);
    disk.rename(&a, &b).unwrap();
    disk.sync_dir(&path).unwrap();

    assert_eq!(disk.list(&path).unwrap(), ["b"]);
    assert_eq!(disk.open(&b, OpenMode::Read).unwrap().bytes().unwrap(), 5);
    assert_eq!(
        kind(disk.remove_dir(&path)),
        io::ErrorKind::DirectoryNotEmpty
    );
    disk.remove(&b).unwrap();
    assert_eq!(kind(disk.remove(&b)), io::ErrorKind::NotFound);
    disk.sync_dir(&path).unwrap();
    disk.remove_dir(&path).unwrap();
    assert_eq!(kind(disk.list(&path)), io::ErrorKind::NotFound);
    // An open file outlives its name.
    let mut found = [0; 5];
    file.read_exact_at(&mut found, 0).unwrap();
    assert_eq!(&found, b"first");
}

fn a_lock_is_held_by_one(disk: &dyn Disk, path: &Path) {
    let path = path.join("lock");
    let lock = disk.lock(&path).unwrap();
    assert_eq!(kind(disk.lock(&path)), io::ErrorKind::WouldBlock);
    drop(lock);
    disk.lock(&path).unwrap();
}

fn conformance(disk: &dyn Disk, path: &Path) {
    let stories = [
        bytes_are_read_back_where_they_were_written,
        files_are_cut_and_extended_with_zeros,
        what_was_never_written_is_zero,
        a_read_past_the_end_fails,
        a_file_opened_for_reading_is_not_written,
        names_come_and_go,
        names_are_listed_in_order,
        a_rename_replaces_its_target,
        a_removed_file_lives_until_it_is_closed,
        a_lock_is_held_by_one,
    ];
    for (number, story) in stories.into_iter().enumerate() {
        let path = path.join(number.to_string());
        disk.create_dir_all(&path).unwrap();
        story(disk, &path);
    }
    assert!(disk.free_bytes(path).unwrap() > 0);
}

#[test]
fn the_file_system_conforms() {
    let directory = tempfile::tempdir().unwrap();
    conformance(&RealDisk, directory.path());
}

#[test]
fn the_disk_in_memory_conforms() {
    conformance(&MemoryDisk::new(), Path::new("/disk"));
}

#[test]
fn a_disk_that_counts_conforms() {
    conformance(&CountedDisk::new(MemoryDisk::new()), Path::new("/disk"));
}

#[test]
fn a_faulty_disk_without_faults_conforms() {
    let memory = Arc::new(MemoryDisk::new());
    conformance(&FaultyDisk::new(memory), Path::new("/disk"));
    let directory = tempfile::tempdir().unwrap();
    let real = FaultyDisk::new(Arc::new(RealDisk));
    real.set_room(Some(1 << 30));
    conformance(&real, directory.path());
}
