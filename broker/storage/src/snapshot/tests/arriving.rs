//! What may come over a network, and how much a disk has room for.

use super::*;

#[test]
fn a_damaged_byte_anywhere_is_found_and_leaves_nothing_behind() {
    let (from, to) = (Shard::new(), Shard::new());
    for log in 0..5 {
        from.append(log, 0..20, 50);
    }
    from.append(7, 0..4, 30_000);
    from.checkpoint(10);
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    let every = (0..bytes.len()).step_by(53);
    for at in every.chain(0..300) {
        let mut damaged = bytes.to_vec();
        damaged[at] ^= 1 << (at % 8);

        let error = send_or_not(&damaged.into(), &to).err();

        assert!(error.is_some(), "byte {at} passed");
        assert_eq!((to.segments().len(), to.files().len()), (0, 0), "byte {at}");
    }
    send(&bytes, &to).unwrap();
}

/// As `send`, of bytes that may end anywhere.
fn send_or_not(bytes: &Bytes, to: &Shard) -> Result<Staged, ImportError> {
    let mut import = begin(to, bytes.len() as u64);
    let mut rest = bytes.clone();
    while !rest.is_empty() {
        import.write(rest.split_to(STRIDE.min(rest.len())))?;
    }
    import.finish()
}

#[test]
fn a_wrong_total_is_refused() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    for total in [0, 10, bytes.len() - 1, bytes.len() + 1, bytes.len() * 2] {
        let mut import = begin(&to, total as u64);
        let written = import.write(bytes.clone());
        let finished = written.and_then(|()| import.finish().map(drop));
        assert!(
            matches!(finished, Err(ImportError::Unsound { .. })),
            "{total}"
        );
        assert_eq!((to.segments().len(), to.files().len()), (0, 0));
    }
    // Of another shard.
    let other = Store::open(&to.dir, ShardId::new(2), None).unwrap();
    let mut import = Import::begin(&other, bytes.len() as u64, 0).unwrap();
    let error = import.write(bytes).unwrap_err();
    assert!(matches!(
        error,
        ImportError::Unsound {
            kind: Corruption::Content,
            ..
        }
    ));
}

#[test]
fn bytes_may_come_one_by_one() {
    let (from, to) = (Shard::new(), Shard::new());
    for log in 0..3 {
        from.append(log, 0..7, 20);
    }
    from.checkpoint(10);
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    let mut import = begin(&to, bytes.len() as u64);
    for at in 0..bytes.len() {
        import.write(bytes.slice(at..=at)).unwrap();
    }
    let staged = import.finish().unwrap();
    assert_eq!(content(staged.store()), from.content());
}

#[test]
fn a_disk_without_room_refuses_before_and_in_the_middle_and_the_shard_goes_on() {
    let (from, to) = (Shard::new(), Shard::new());
    from.fill();
    to.append(7, 0..5, 10);
    to.checkpoint(3);
    let (before, segments, files) = (to.content(), to.segments(), to.files());
    let mut export = from.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    let total = bytes.len() as u64;
    let used = (1 << 40) - to.dir.free_bytes().unwrap();

    to.disk.set_capacity(Some(used + total + 999));
    let refused = Import::begin(&to.store, total, 1_000).err();
    let Some(ImportError::Full { needed, free }) = refused else {
        panic!("{refused:?}");
    };
    assert_eq!((needed, free), (total, total - 1));
    // Somebody else takes the room meanwhile.
    for room in [total / 10, total / 2, total - 50_000] {
        to.disk.set_capacity(None);
        let mut import = begin(&to, total);
        let first = usize::try_from(total / 20).unwrap();
        import.write(bytes.slice(..first)).unwrap();
        to.disk.set_capacity(Some(used + room));
        let written = import.write(bytes.slice(first..));
        let finished = written.and_then(|()| import.finish().map(drop));
        assert!(
            matches!(finished, Err(ImportError::Full { .. })),
            "{room}: {finished:?}"
        );
        assert_eq!(
            (to.segments(), to.files()),
            (segments.clone(), files.clone())
        );
        assert_eq!((1 << 40) - used, {
            to.disk.set_capacity(None);
            to.dir.free_bytes().unwrap()
        });
    }
    assert_eq!(to.content(), before);
    to.append(7, 5..9, 10);
    to.checkpoint(4);
}
