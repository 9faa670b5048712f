//! Which partition a key belongs to. Part of the contract: the same key lands in the same partition
//! on every broker and in every version, as long as the topic has as many partitions.

/// 64-bit FNV-1a: published, trivial to write in any language, good enough for short keys.
const FNV_OFFSET: u64 = 0xcbf2_9ce4_8422_2325;
const FNV_PRIME: u64 = 0x0000_0100_0000_01b3;

/// The partition of `key` among `partitions`: 64-bit FNV-1a of the key's bytes, modulo the number
/// of partitions. 0 when there are none.
#[must_use]
pub fn partition_for(key: &str, partitions: u32) -> u32 {
    let hash = key.bytes().fold(FNV_OFFSET, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(FNV_PRIME)
    });
    hash.checked_rem(u64::from(partitions))
        .and_then(|partition| u32::try_from(partition).ok())
        .unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_partition_of_a_key_never_changes() {
        // From another implementation of FNV-1a.
        let golden = [
            ("", 7, 2),
            ("a", 7, 5),
            ("order-1", 8, 5),
            ("customer/42", 12, 8),
            ("é", 1000, 617),
        ];
        for (key, partitions, partition) in golden {
            assert_eq!(
                partition_for(key, partitions),
                partition,
                "{key:?} of {partitions}"
            );
        }
        assert_eq!(partition_for("anything", 1), 0);
        assert_eq!(partition_for("anything", 0), 0);
    }

    #[test]
    fn keys_spread_over_all_partitions() {
        let mut hits = [0_u32; 8];
        for n in 0..8_000 {
            hits[partition_for(&format!("order-{n}"), 8) as usize] += 1;
        }
        assert!(hits.iter().all(|&n| n > 700), "{hits:?}");
    }
}
