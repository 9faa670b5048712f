//! A picture that stays while the shard goes on.

use super::*;

#[test]
fn any_stretch_reads_the_same_again_though_everything_is_settled_and_rewritten() {
    let shard = Shard::new();
    shard.fill();
    let mut export = shard.store.export().unwrap().unwrap();
    let bytes = read_all(&mut export);
    let total = bytes.len();
    assert_eq!(export.total_bytes(), total as u64);
    assert!(export.read(total as u64, 10).unwrap().is_empty());
    let sent = shard.segments();

    for log in 0..10 {
        shard.discard(log, 0..45);
        shard.append(log, 60..70, 30_000);
    }
    shard.checkpoint(30);
    shard.discard(7, 0..70);
    shard.checkpoint(40);
    shard.checkpoint(50);

    assert!(sent.iter().all(|number| shard.segments().contains(number)));
    let mut at = 0;
    let mut place = 1_usize;
    while at < 400 {
        place = (place * 7_919 + 13) % total;
        let length = (place * 31) % 90_000;
        let end = (place + length).min(total);
        let found = export.read(place as u64, length).unwrap();
        assert_eq!(found, bytes.slice(place..end), "{place}..{end}");
        at += 1;
    }
    assert_eq!(read_all(&mut export), bytes);
    // Nothing needs what was rewritten any more.
    drop(export);
    let left = shard.segments();
    assert!(sent.iter().any(|number| !left.contains(number)));
    shard.checkpoint(60);
    let disk = shard.disk.clone();
    let content = shard.content();
    drop(shard);
    assert_eq!(Shard::on(disk).content(), content);
}

#[test]
fn a_shard_without_a_checkpoint_has_nothing_to_send() {
    let shard = Shard::new();
    assert!(shard.store.export().unwrap().is_none());
    shard.append(1, 0..4, 10);
    assert!(shard.store.export().unwrap().is_none());
}

#[test]
fn damage_is_not_sent() {
    let shard = Shard::new();
    shard.fill();
    let total = usize::try_from(shard.store.export().unwrap().unwrap().total_bytes()).unwrap();
    let names = shard.segments();
    let path = data_path()
        .join("shards/1/segments")
        .join(segment::name(names[0]));
    shard.disk.corrupt(&path, 5_000, 4).unwrap();

    let mut export = shard.store.export().unwrap().unwrap();
    let error = export.read(0, total).unwrap_err();

    let ReadError::Corrupt { path: found, .. } = &error else {
        panic!("{error}");
    };
    assert_eq!(*found, path);
    let path: PathBuf = data_path().join("shards/1/checkpoint-00000000000000000020");
    shard.disk.corrupt(&path, 60, 4).unwrap();
    assert!(shard.store.export().is_err());
}
