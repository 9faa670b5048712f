//! What every disk must do, run against each of them.

use std::io::{self, IoSlice};
use std::path::Path;

use super::{CountedDisk, Disk, MemoryDisk, OpenMode, RealDisk};

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
    disk.create_dir_all(path).unwrap();
    bytes_are_read_back_where_they_were_written(disk, path);
    files_are_cut_and_extended_with_zeros(disk, path);
    names_come_and_go(disk, path);
    a_lock_is_held_by_one(disk, path);
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
