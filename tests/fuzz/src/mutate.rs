//! Changes inputs, the same way every time: a poor man's fuzzer for `cargo test`, which has no
//! coverage to be guided by.

/// Numbers that tend to be on an edge.
const EDGES: [u64; 9] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    u64::MAX,
];
/// Changes made to one input at most.
const CHANGES_MAX: usize = 4;

/// SplitMix64.
#[derive(Clone, Debug)]
pub struct Mutator(u64);

impl Mutator {
    /// The changes of a seed.
    #[must_use]
    pub const fn new(seed: u64) -> Self {
        Self(seed)
    }

    const fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        mixed ^ (mixed >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        let end = u64::try_from(end).unwrap_or(u64::MAX);
        let number = self.next().checked_rem(end).unwrap_or(0);
        usize::try_from(number).unwrap_or(0)
    }

    /// `input`, changed in a few places, perhaps with a part of `other` in it.
    pub fn mutate(&mut self, input: &[u8], other: &[u8], bytes_max: usize) -> Vec<u8> {
        let mut bytes = input.to_vec();
        for _ in 0..=self.below(CHANGES_MAX) {
            self.change(&mut bytes, other);
        }
        bytes.truncate(bytes_max);
        bytes
    }

    fn change(&mut self, bytes: &mut Vec<u8>, other: &[u8]) {
        let at = self.below(bytes.len());
        match self.below(6) {
            0 => {
                let bit = self.below(8);
                if let Some(byte) = bytes.get_mut(at) {
                    *byte ^= 1 << bit;
                }
            }
            1 => {
                let edge = EDGES[self.below(EDGES.len())].to_le_bytes();
                let width = 1 << self.below(4);
                for (byte, edge) in bytes[at..].iter_mut().zip(&edge[..width]) {
                    *byte = *edge;
                }
            }
            2 => {
                let end = (at + 1 + self.below(16)).min(bytes.len());
                bytes.drain(at..end);
            }
            3 => {
                let byte = self.next().to_le_bytes()[0];
                let count = 1 + self.below(8);
                bytes.splice(at..at, std::iter::repeat_n(byte, count));
            }
            4 => bytes.truncate(at),
            _ => {
                let from = self.below(other.len());
                let count = self.below(64).min(other.len() - from);
                let end = (at + count).min(bytes.len());
                bytes.splice(at..end, other[from..from + count].iter().copied());
            }
        }
    }
}
