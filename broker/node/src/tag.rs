//! Delivery tags: which lease a client talks about. Opaque to clients, versioned, checksummed so
//! that garbage is told from a stale tag. Not a secret: what cannot be guessed is the owner's id in
//! it.

use bytes::Bytes;
use millrace_engine::command::Held;
use millrace_types::{ErrorCode, LogId, Offset, Refusal, SessionId, ShardId};

/// First byte. Another one means another layout.
const VERSION: u8 = 1;
/// Version, shard, queue, offset, acquired, owner, checksum.
const TAG_BYTES: usize = 1 + 4 + 8 + 8 + 4 + 8 + 4;
/// Where the checksum starts.
const CHECKED_BYTES: usize = TAG_BYTES - 4;

/// What a tag says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Tag {
    /// Where the queue lives.
    pub(super) shard: ShardId,
    /// The queue's life.
    pub(super) queue: LogId,
    /// The session or `Receive` call that holds the lease.
    pub(super) owner: SessionId,
    /// The lease.
    pub(super) held: Held,
}

impl Tag {
    /// As it goes to the client.
    pub(super) fn encode(&self) -> Bytes {
        let mut bytes = Vec::with_capacity(TAG_BYTES);
        bytes.push(VERSION);
        bytes.extend_from_slice(&self.shard.get().to_le_bytes());
        bytes.extend_from_slice(&self.queue.get().to_le_bytes());
        bytes.extend_from_slice(&self.held.offset.get().to_le_bytes());
        bytes.extend_from_slice(&self.held.acquired.to_le_bytes());
        bytes.extend_from_slice(&self.owner.get().to_le_bytes());
        let checksum = crc32c::crc32c(&bytes);
        bytes.extend_from_slice(&checksum.to_le_bytes());
        bytes.into()
    }

    /// As it came from a client; `None` when no broker made it.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        let bytes: &[u8; TAG_BYTES] = bytes.try_into().ok()?;
        let (checked, checksum) = bytes.split_at(CHECKED_BYTES);
        if checked[0] != VERSION || crc32c::crc32c(checked).to_le_bytes() != checksum {
            return None;
        }
        let mut fields = Fields(&checked[1..]);
        Some(Self {
            shard: ShardId::new(fields.u32()?),
            queue: LogId::new(fields.u64()?),
            held: Held {
                offset: Offset::new(fields.u64()?),
                acquired: fields.u32()?,
            },
            owner: SessionId::new(fields.u64()?),
        })
    }
}

/// What a client is told about a tag that `decode` did not take.
pub(super) fn invalid() -> Refusal {
    Refusal::new(
        ErrorCode::InvalidTag,
        "the delivery tag was not made by this cluster",
    )
}

/// Little-endian numbers, one after the other.
struct Fields<'a>(&'a [u8]);

impl Fields<'_> {
    fn u32(&mut self) -> Option<u32> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u32::from_le_bytes(*head))
    }

    fn u64(&mut self) -> Option<u64> {
        let (head, rest) = self.0.split_first_chunk()?;
        self.0 = rest;
        Some(u64::from_le_bytes(*head))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tag() -> Tag {
        Tag {
            shard: ShardId::new(3),
            queue: LogId::new(0x0102_0304_0506_0708),
            owner: SessionId::new(u64::MAX - 5),
            held: Held {
                offset: Offset::new(42),
                acquired: 7,
            },
        }
    }

    #[test]
    fn a_tag_survives_the_way_to_the_client_and_back() {
        let bytes = tag().encode();
        assert!(bytes.len() <= 64);
        assert_eq!(Tag::decode(&bytes), Some(tag()));
    }

    #[test]
    fn a_changed_shortened_or_invented_tag_is_none_of_ours() {
        let bytes = tag().encode();
        for at in 0..bytes.len() {
            for bit in 0..8 {
                let mut forged = bytes.to_vec();
                forged[at] ^= 1 << bit;
                assert_eq!(Tag::decode(&forged), None, "bit {bit} of byte {at}");
            }
            assert_eq!(Tag::decode(&bytes[..at]), None, "the first {at} bytes");
        }
        let longer: Vec<u8> = bytes.iter().copied().chain([0]).collect();
        assert_eq!(Tag::decode(&longer), None);
        assert_eq!(Tag::decode(b"not a tag at all"), None);
        assert_eq!(Tag::decode(&[0; TAG_BYTES]), None);
    }

    #[test]
    fn a_tag_of_another_version_is_none_of_ours_even_with_a_right_checksum() {
        let mut bytes = tag().encode().to_vec();
        bytes[0] = VERSION + 1;
        let checksum = crc32c::crc32c(&bytes[..CHECKED_BYTES]).to_le_bytes();
        bytes[CHECKED_BYTES..].copy_from_slice(&checksum);
        assert_eq!(Tag::decode(&bytes), None);
    }
}
