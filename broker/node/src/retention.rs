//! What retention lets go of a partition. It waits for bound queues that have not looked yet, but
//! not for ever: a partition never holds more than twice what it is allowed because somebody lags.

use millrace_engine::Partition;
use millrace_types::{Offset, Wall};

/// A partition may grow to this many times its bounds while a bound queue lags behind. Enough for a
/// consumer's outage to pass, and a number that a volume can be planned with.
pub(super) const LAG_FACTOR: u64 = 2;

/// Everything below this may go now; `None`: nothing may. `lowest_cursor` is the first offset that
/// some bound queue has not looked at.
pub(super) fn trim_to(
    partition: &Partition,
    lowest_cursor: Option<Offset>,
    wall: Wall,
) -> Option<Offset> {
    let wanted = partition.trim_point(wall)?;
    // What is too much even so is judged message by message: old ones that everybody has looked at
    // are no reason to let go of new ones.
    let waited = partition.trim_point_within(LAG_FACTOR, wall);
    let allowed = match lowest_cursor {
        Some(cursor) => wanted.min(cursor).max(waited.unwrap_or_default()),
        None => wanted,
    };
    (allowed > partition.first()).then_some(allowed)
}

/// Whether time or growth can ever make something go.
pub(super) fn has_bounds(partition: &Partition) -> bool {
    let spec = partition.spec();
    let bounded =
        spec.age_ms_max.is_some() || spec.bytes_max.is_some() || spec.messages_max.is_some();
    bounded && !partition.is_frozen() && partition.first() < partition.end()
}

#[cfg(test)]
mod tests {
    use millrace_engine::Shard;
    use millrace_engine::command::{BatchHeader, Command, Entry};
    use millrace_engine::spec::PartitionSpec;
    use millrace_types::{Elapsed, LogId, ShardId, Stamp};

    use super::*;

    const LOG: LogId = LogId::new(7);

    /// A shard with a partition that keeps ten messages of at most some age and holds `count`.
    fn shard(count: u32, age_ms_max: Option<u64>) -> Shard {
        let mut shard = Shard::new(ShardId::new(1));
        let spec = PartitionSpec {
            age_ms_max,
            bytes_max: None,
            messages_max: Some(10),
            message_bytes_max: 100,
            dedup_ms: 120_000,
        };
        let configure = Command::ConfigurePartition {
            log: LOG,
            address: "topic/test/events".parse().unwrap(),
            partition: 0,
            revision: 1,
            spec,
        };
        apply(&mut shard, configure, Wall::from_millis(1));
        publish(&mut shard, count, Wall::from_millis(1));
        shard
    }

    fn publish(shard: &mut Shard, count: u32, wall: Wall) {
        let batch = BatchHeader { count, bytes: 10 };
        apply(
            shard,
            Command::Publish {
                log: LOG,
                batch,
                dedup: None,
            },
            wall,
        );
    }

    fn apply(shard: &mut Shard, command: Command, wall: Wall) {
        let elapsed = Elapsed::from_millis(wall.as_millis());
        let stamp = Stamp { wall, elapsed };
        let index = shard.applied().next();
        shard.apply(index, &Entry { stamp, command });
    }

    fn trimmed(count: u32, cursor: Option<u64>) -> Option<u64> {
        let shard = shard(count, None);
        let partition = shard.partition(LOG).unwrap();
        trim_to(partition, cursor.map(Offset::new), Wall::from_millis(9)).map(Offset::get)
    }

    #[test]
    fn retention_waits_for_a_bound_queue_that_lags() {
        assert_eq!(trimmed(15, None), Some(5));
        assert_eq!(trimmed(15, Some(3)), Some(3));
        assert_eq!(trimmed(15, Some(9)), Some(5));
        assert_eq!(trimmed(15, Some(0)), None);
        assert_eq!(trimmed(9, None), None);
    }

    #[test]
    fn retention_stops_waiting_at_twice_its_bounds() {
        assert_eq!(trimmed(20, Some(2)), Some(2));
        assert_eq!(trimmed(25, Some(2)), Some(5));
        assert_eq!(trimmed(25, Some(9)), Some(9));
    }

    #[test]
    fn old_messages_that_were_looked_at_are_no_reason_to_let_go_of_new_ones() {
        let mut shard = shard(2, Some(100));
        publish(&mut shard, 13, Wall::from_millis(1_000));
        let partition = shard.partition(LOG).unwrap();
        let point = trim_to(partition, Some(Offset::new(2)), Wall::from_millis(1_001));
        assert_eq!(point, Some(Offset::new(2)));
    }
}
