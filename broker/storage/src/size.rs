//! Sizes that came from a disk, as sizes in memory.

/// The size as an index. Offsets are checked against the file they point into before they get here;
/// a machine with smaller indexes than offsets is not supported.
pub(crate) const fn in_memory(bytes: u64) -> usize {
    const { assert!(usize::BITS >= u64::BITS, "a 64-bit machine is needed") };
    #[expect(clippy::cast_possible_truncation, reason = "not on 64-bit machines")]
    {
        bytes as usize
    }
}
