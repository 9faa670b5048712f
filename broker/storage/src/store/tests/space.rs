//! A full disk can be freed by settling, because room for a checkpoint was kept.

use super::*;

const RESERVE_BYTES: u64 = 300_000;

fn steps(dir: &DataDir) -> Steps {
    let (routine, handle) = Checkpointer::new(Box::new(|failure| panic!("{failure}")));
    let routine = routine.with_reserve(dir, RESERVE_BYTES);
    Steps(RefCell::new(routine), handle)
}

/// Lets a checkpointer do what it does by itself, on time of its own.
fn idle(steps: &Steps) {
    let mut now = Instant::now();
    // A look that may not be due yet, and one that is.
    for _ in 0..2 {
        now = loop {
            match steps.0.borrow_mut().step(now) {
                Next::Now => {}
                Next::Wait(at) => break at.unwrap_or(now),
                Next::Ended => panic!("it ended"),
            }
        };
    }
}

fn reserved(disk: &MemoryDisk, dir: &DataDir) -> u64 {
    let content = disk.content(&dir.reserve_path());
    content.map_or(0, |content| content.len() as u64)
}

/// Nothing more fits from now on.
fn fill(disk: &MemoryDisk, dir: &DataDir) {
    disk.set_capacity(Some((1 << 40) - dir.free_bytes().unwrap()));
    assert_eq!(dir.free_bytes().unwrap(), 0);
}

#[test]
fn a_full_disk_is_freed_by_settling() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = steps(&dir);
    idle(&checkpointer);
    assert_eq!(reserved(&disk, &dir), RESERVE_BYTES);
    append(&store, LOG, 0..1000);
    checkpoint(&checkpointer, &store, 1).unwrap();
    append(&store, LOG, 1000..1500);
    fill(&disk, &dir);

    // It fits into the reserve's room, and only there.
    discard(&store, LOG, 0..900);
    checkpoint(&checkpointer, &store, 2).unwrap();

    assert_eq!(reserved(&disk, &dir), 0);
    assert_eq!(present(&store, LOG), (900..1500).collect::<Vec<_>>());
    discard(&store, LOG, 900..1500);
    checkpoint(&checkpointer, &store, 3).unwrap();
    assert_eq!(store.disk_bytes(), 0);
    disk.set_capacity(None);
    idle(&checkpointer);
    assert_eq!(reserved(&disk, &dir), RESERVE_BYTES);
}

#[test]
fn without_room_for_even_that_a_checkpoint_fails_and_leaves_nothing() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let store = Store::open(&dir, SHARD, None).unwrap();
    let checkpointer = steps(&dir);
    idle(&checkpointer);
    append(&store, LOG, 0..5000);
    fill(&disk, &dir);

    let failed = checkpoint(&checkpointer, &store, 1);

    assert!(matches!(failed, Err(CheckpointError::Full { .. })));
    assert_eq!(
        dir.free_bytes().unwrap(),
        RESERVE_BYTES,
        "all of it is left"
    );
    // The next one finds that room and, with less to write, fits.
    discard(&store, LOG, 0..4000);
    checkpoint(&checkpointer, &store, 2).unwrap();
    assert_eq!(present(&store, LOG), (4000..5000).collect::<Vec<_>>());
}

#[test]
fn a_reserve_is_not_made_where_it_would_fill_the_disk() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let used = (1 << 40) - dir.free_bytes().unwrap();
    disk.set_capacity(Some(used + 2 * RESERVE_BYTES - 1));
    let checkpointer = steps(&dir);
    idle(&checkpointer);
    assert_eq!(reserved(&disk, &dir), 0);
    disk.set_capacity(Some(used + 2 * RESERVE_BYTES));
    idle(&checkpointer);
    assert_eq!(reserved(&disk, &dir), RESERVE_BYTES, "it looks again later");
}

#[test]
fn a_reserve_that_a_crash_left_unfinished_is_made_again() {
    let disk = MemoryDisk::new();
    let dir = open_dir(&disk);
    let file = disk.open(&dir.reserve_path(), OpenMode::CreateNew).unwrap();
    file.fill_zeros(RESERVE_BYTES / 2).unwrap();

    idle(&steps(&dir));

    assert_eq!(reserved(&disk, &dir), RESERVE_BYTES);
    let operations = disk.operations();
    idle(&steps(&dir));
    assert_eq!(disk.operations(), operations, "a finished one is kept");
}
