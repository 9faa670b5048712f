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
    let allowed = match lowest_cursor {
        Some(cursor) if !is_overgrown(partition, wall) => wanted.min(cursor),
        _ => wanted,
    };
    (allowed > partition.first()).then_some(allowed)
}

fn is_overgrown(partition: &Partition, wall: Wall) -> bool {
    let spec = partition.spec();
    let beyond = |max: Option<u64>, actual: u64| {
        max.is_some_and(|max| actual > max.saturating_mul(LAG_FACTOR))
    };
    beyond(spec.messages_max, partition.first().until(partition.end()))
        || beyond(spec.bytes_max, partition.bytes())
        || beyond(
            spec.age_ms_max,
            partition
                .oldest()
                .map_or(0, |oldest| wall.millis_since(oldest)),
        )
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
    use millrace_types::{Elapsed, LogId, LogIndex, ShardId, Stamp};

    use super::*;

    const LOG: LogId = LogId::new(7);

    /// A shard with a partition that keeps ten messages and holds `count`.
    fn shard(count: u32) -> Shard {
        let mut shard = Shard::new(ShardId::new(1));
        let spec = PartitionSpec {
            age_ms_max: None,
            bytes_max: None,
            messages_max: Some(10),
            message_bytes_max: 100,
        };
        let configure = Command::ConfigurePartition {
            log: LOG,
            address: "topic/test/events".parse().unwrap(),
            partition: 0,
            revision: 1,
            spec,
        };
        let publish = Command::Publish {
            log: LOG,
            batch: BatchHeader { count, bytes: 10 },
        };
        for (index, command) in [configure, publish].into_iter().enumerate() {
            let stamp = Stamp {
                wall: Wall::from_millis(1),
                elapsed: Elapsed::from_millis(1),
            };
            shard.apply(LogIndex::new(index as u64 + 1), &Entry { stamp, command });
        }
        shard
    }

    fn trimmed(count: u32, cursor: Option<u64>) -> Option<u64> {
        let shard = shard(count);
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
        assert_eq!(trimmed(21, Some(2)), Some(11));
    }
}
