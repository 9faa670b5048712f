//! A shard's state goes from one disk in memory to another.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, mpsc};
use std::time::Instant;

use bytes::Bytes;
use millrace_types::{LogId, Offset, ShardId, Wall};

use super::{Export, Import, ImportError, Staged, complete_install};
use crate::records::push_record;
use crate::store::segment;
use crate::testing::{covered, data_path, open_dir};
use crate::{
    Checkpoint, Checkpointer, CheckpointerHandle, Corruption, DataDir, Disk, Limits, MemoryDisk,
    Next, ReadError, Routine, Store,
};

mod arriving;
mod crashes;
mod sending;

const SHARD: ShardId = ShardId::new(1);
const EVERYTHING: Limits = Limits {
    messages_max: usize::MAX,
    bytes_max: u64::MAX,
};
/// What arrives at a time: nothing in a segment is as long.
const STRIDE: usize = 70_001;

/// A shard on a disk.
struct Shard {
    disk: MemoryDisk,
    dir: DataDir,
    store: Arc<Store>,
    routine: RefCell<Checkpointer>,
    checkpointer: CheckpointerHandle,
}

/// What a shard has: the offsets of each log, and how long each message is.
type Content = BTreeMap<u64, BTreeMap<u64, usize>>;

fn message(log: u64, offset: u64, bytes: usize) -> Vec<u8> {
    let seed = log.wrapping_mul(31).wrapping_add(offset.wrapping_mul(7));
    (0..bytes as u64)
        .map(|at| (seed.wrapping_add(at) % 251).to_le_bytes()[0])
        .collect()
}

impl Shard {
    fn on(disk: MemoryDisk) -> Self {
        let dir = open_dir(&disk);
        let checkpoint = Checkpoint::load(&dir, SHARD).unwrap();
        let manifest = checkpoint.as_ref().map(|found| &found.manifest);
        let store = Store::open(&dir, SHARD, manifest).unwrap();
        let (routine, checkpointer) = Checkpointer::new(Box::new(|failure| panic!("{failure}")));
        Self {
            disk,
            dir,
            store,
            routine: RefCell::new(routine),
            checkpointer,
        }
    }

    fn new() -> Self {
        Self::on(MemoryDisk::new())
    }

    fn append(&self, log: u64, offsets: Range<u64>, bytes: usize) {
        let mut batch = Vec::new();
        for offset in offsets.clone() {
            push_record(&mut batch, &message(log, offset, bytes));
        }
        let count = u32::try_from(offsets.end - offsets.start).unwrap();
        let (log, first) = (LogId::new(log), Offset::new(offsets.start));
        let stored_at = Wall::from_millis(offsets.start);
        self.store
            .append(log, first, stored_at, count, batch.into());
    }

    fn discard(&self, log: u64, offsets: Range<u64>) {
        let offsets = Offset::new(offsets.start)..Offset::new(offsets.end);
        self.store.discard(LogId::new(log), offsets);
    }

    fn checkpoint(&self, index: u64) {
        let (sender, receiver) = mpsc::channel();
        let done = Box::new(move |result| drop(sender.send(result)));
        let snapshot = Box::new(move || Bytes::from(format!("state {index}").repeat(50)));
        self.checkpointer
            .checkpoint(&self.store, covered(index), snapshot, done);
        while self.routine.borrow_mut().step(Instant::now()) == Next::Now {}
        receiver.try_recv().unwrap().unwrap();
    }

    /// Logs of their own, shared ones, large messages, and some settled.
    fn fill(&self) {
        for log in 0..5 {
            self.append(log, 0..40, 100);
        }
        self.append(7, 0..30, 50_000);
        self.append(8, 0..3, 200_000);
        self.discard(2, 5..38);
        self.checkpoint(10);
        for log in 0..5 {
            self.append(log, 40..50, 1_000);
        }
        self.append(7, 30..60, 50_000);
        self.discard(0, 0..45);
        self.discard(7, 3..9);
        self.discard(3, 20..21);
        self.checkpoint(20);
    }

    fn content(&self) -> Content {
        content(&self.store)
    }

    /// Names of its segments, as numbers.
    fn segments(&self) -> Vec<u64> {
        let names = self.disk.list(&self.dir.shard_path(SHARD).join("segments"));
        let names = names.unwrap();
        names
            .iter()
            .map(|name| segment::parse_name(name).unwrap())
            .collect()
    }

    /// Files beside the segments.
    fn files(&self) -> Vec<String> {
        let names = self.disk.list(&self.dir.shard_path(SHARD)).unwrap();
        names
            .into_iter()
            .filter(|name| name != "segments")
            .collect()
    }
}

/// What is there, every message checked.
fn content(store: &Store) -> Content {
    let mut content = Content::new();
    for log in 0..20 {
        let found = store.read(LogId::new(log), Offset::new(0), EVERYTHING);
        for record in found.unwrap() {
            let (offset, bytes) = (record.offset.get(), record.message.len());
            assert_eq!(record.message, message(log, offset, bytes));
            content.entry(log).or_default().insert(offset, bytes);
        }
    }
    content
}

/// All of it.
fn read_all(export: &mut Export) -> Bytes {
    let bytes = usize::try_from(export.total_bytes()).unwrap();
    export.read(0, bytes).unwrap()
}

fn begin(to: &Shard, total: u64) -> Import {
    Import::begin(&to.store, total, 0).unwrap()
}

/// Sends it in strides.
fn send(bytes: &Bytes, to: &Shard) -> Result<Staged, ImportError> {
    let mut import = begin(to, bytes.len() as u64);
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        assert!(!import.is_complete());
        let at = usize::try_from(import.received()).unwrap();
        assert_eq!(at, bytes.len() - rest.len());
        import.write(rest.split_to(STRIDE.min(rest.len())))?;
    }
    assert!(import.is_complete());
    import.finish()
}

#[test]
fn a_blank_shard_gets_everything_and_goes_on_from_it() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    let expected = from.content();
    let mut export = from.store.export().unwrap().unwrap();
    assert_eq!(export.covered(), &covered(20));
    let bytes = read_all(&mut export);

    let staged = send(&bytes, &to).unwrap();

    assert_eq!(staged.covered(), &covered(20));
    assert_eq!(staged.snapshot(), &"state 20".repeat(50));
    assert_eq!(content(staged.store()), expected);
    staged.promote().unwrap();
    assert_eq!(to.files(), ["checkpoint-00000000000000000020"]);
    // As it runs on, and as the next start finds it.
    let mut running = to;
    running.store = Arc::clone(staged.store());
    running.append(7, 60..70, 10);
    running.discard(8, 0..3);
    running.checkpoint(21);
    let after = running.content();
    assert_eq!(after[&7].len(), expected[&7].len() + 10);
    let disk = running.disk.clone();
    drop((running, staged));
    let started = Shard::on(disk);
    assert_eq!(started.content(), after);
    let at = Wall::from_millis(30);
    let first = started.store.offset_at(LogId::new(7), at).unwrap();
    assert_eq!(first, Some(Offset::new(30)));
    assert!(started.disk.list(&data_path().join("aside")).is_err());
    // And it can be sent on.
    let third = Shard::new();
    let mut export = started.store.export().unwrap().unwrap();
    let staged = send(&read_all(&mut export), &third).unwrap();
    assert_eq!(content(staged.store()), after);
}

#[test]
fn what_is_replaced_can_be_read_until_nobody_does() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    to.append(7, 0..5, 10);
    to.append(12, 0..30, 50_000);
    to.checkpoint(3);
    let before = to.content();
    let old = to.segments();
    let mut export = from.store.export().unwrap().unwrap();
    let staged = send(&read_all(&mut export), &to).unwrap();
    // It goes on meanwhile, also on disk.
    to.append(12, 30..60, 50_000);
    to.checkpoint(4);
    staged.promote().unwrap();

    to.store.retire();
    assert_eq!(to.content()[&7], before[&7]);
    assert_eq!(to.content()[&12].len(), 60);
    to.store.remove().unwrap();

    assert!(to.segments().iter().all(|number| !old.contains(number)));
    assert_eq!(content(staged.store()), from.content());
    let disk = to.disk.clone();
    drop((to, staged));
    assert_eq!(Shard::on(disk).content(), from.content());
}

#[test]
fn a_start_removes_what_was_replaced_and_what_was_never_installed() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    // A blank one, which has no checkpoint that says what is its own.
    let mut import = begin(&to, bytes.len() as u64);
    import.write(bytes.slice(..bytes.len() / 2)).unwrap();
    drop(import);
    let disk = to.disk.clone();
    drop(to);
    let to = Shard::on(disk);
    assert_eq!((to.segments().len(), to.files().len()), (0, 0));
    assert!(to.disk.list(&data_path().join("aside")).is_err());

    to.append(12, 0..30, 50_000);
    to.checkpoint(3);
    let staged = send(&bytes, &to).unwrap();
    staged.promote().unwrap();
    let disk = to.disk.clone();
    drop((to, staged));
    let to = Shard::on(disk);
    let listed = Checkpoint::load(&to.dir, SHARD).unwrap().unwrap();
    let listed = listed.manifest.segments.iter();
    let listed: Vec<u64> = listed.map(|segment| segment.number).collect();
    assert_eq!(to.segments(), listed);
    assert_eq!(to.content(), from.content());
}

#[test]
fn an_import_that_is_given_up_leaves_nothing() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    to.append(7, 0..5, 10);
    to.checkpoint(3);
    let (segments, files) = (to.segments(), to.files());
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);

    send(&bytes, &to).unwrap().discard().unwrap();
    assert_eq!(
        (to.segments(), to.files()),
        (segments.clone(), files.clone())
    );
    let mut import = begin(&to, bytes.len() as u64);
    import.write(bytes.slice(..bytes.len() / 2)).unwrap();
    import.discard().unwrap();
    assert_eq!((to.segments(), to.files()), (segments, files));
    // The next one is not in its way.
    let staged = send(&bytes, &to).unwrap();
    assert_eq!(content(staged.store()), from.content());
}
