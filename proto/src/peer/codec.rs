//! How frames between nodes are encoded and decoded. As prost does it, and two things it does not:
//! what is encoded gets its memory at once, and what is decoded is counted before, since two bytes
//! on the wire can ask for a hundred in memory and a frame may have millions of them.

use bytes::{Buf as _, Bytes};
use prost::Message as _;
use prost::encoding::{WireType, decode_key, decode_varint};
use tonic::Status;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};

use super::v1::PeerFrame;

/// Messages of one frame: bounds what one wake-up of the receiver has to do.
pub const FRAME_MESSAGES_MAX: usize = 4_096;
/// Entries of all messages of one frame: what they take in memory besides their bytes is then no
/// more than the largest frame. The smallest entry has about ten bytes, so that a megabyte of
/// them, the most that is appended at once, has not half as many.
pub const FRAME_ENTRIES_MAX: usize = 1 << 18;

/// Field numbers on the way from a frame to its entries, and whether what is there counts.
const PATH: [(u32, Counted); 4] = [
    (2, Counted::Message),
    (4, Counted::Nothing),
    (2, Counted::Nothing),
    (3, Counted::Entry),
];

/// Encodes and decodes frames.
#[derive(Clone, Copy, Debug, Default)]
pub struct FrameCodec;

#[derive(Clone, Copy, Debug)]
enum Counted {
    Message,
    Entry,
    Nothing,
}

#[derive(Debug, Default)]
struct Count {
    messages: usize,
    entries: usize,
}

impl Codec for FrameCodec {
    type Encode = PeerFrame;
    type Decode = PeerFrame;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for FrameCodec {
    type Item = PeerFrame;
    type Error = Status;

    fn encode(&mut self, frame: PeerFrame, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.reserve(frame.encoded_len());
        frame
            .encode(buffer)
            .map_err(|error| Status::internal(error.to_string()))
    }
}

impl Decoder for FrameCodec {
    type Item = PeerFrame;
    type Error = Status;

    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<PeerFrame>, Status> {
        let frame = buffer.copy_to_bytes(buffer.remaining());
        decode_frame(frame).map(Some).map_err(Status::internal)
    }
}

/// Decodes a frame, after counting what it has.
///
/// # Errors
/// What is wrong with it, for people.
pub fn decode_frame(frame: Bytes) -> Result<PeerFrame, String> {
    check(&frame)?;
    PeerFrame::decode(frame).map_err(|error| error.to_string())
}

/// Counts what an encoded frame has, without decoding it.
fn check(frame: &Bytes) -> Result<(), String> {
    let mut count = Count::default();
    walk(frame, &PATH, &mut count)?;
    if count.messages > FRAME_MESSAGES_MAX {
        return Err(format!("more than {FRAME_MESSAGES_MAX} messages"));
    }
    if count.entries > FRAME_ENTRIES_MAX {
        return Err(format!("more than {FRAME_ENTRIES_MAX} entries"));
    }
    Ok(())
}

/// Goes through the fields of an encoded message and down the path; as deep as that is long.
fn walk(mut bytes: &[u8], path: &[(u32, Counted)], count: &mut Count) -> Result<(), String> {
    let Some(((number, counted), below)) = path.split_first() else {
        return Ok(());
    };
    while !bytes.is_empty() {
        let (tag, wire_type) = decode_key(&mut bytes).map_err(|error| error.to_string())?;
        let mut varint = || decode_varint(&mut bytes).map_err(|error| error.to_string());
        let length = match wire_type {
            WireType::Varint => {
                varint()?;
                continue;
            }
            WireType::SixtyFourBit => 8,
            WireType::ThirtyTwoBit => 4,
            WireType::LengthDelimited => varint()?,
            // Deprecated, and in no message of any version: what is in one would not be counted.
            WireType::StartGroup | WireType::EndGroup => return Err("a group".to_owned()),
        };
        let length = usize::try_from(length).unwrap_or(usize::MAX);
        let Some((field, rest)) = bytes.split_at_checked(length) else {
            return Err("a field is longer than its frame".to_owned());
        };
        bytes = rest;
        if tag == *number && wire_type == WireType::LengthDelimited {
            match counted {
                Counted::Message => count.messages += 1,
                Counted::Entry => count.entries += 1,
                Counted::Nothing => {}
            }
            walk(field, below, count)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::peer::v1::raft_message::Payload;
    use crate::peer::v1::shard_message::Body;
    use crate::peer::v1::{Append, Entry, Hello, RaftMessage, ShardMessage};

    fn frame(messages: usize, entries: usize) -> Bytes {
        let append = Append {
            entries: vec![Entry::default(); entries],
            ..Append::default()
        };
        let message = ShardMessage {
            body: Some(Body::Raft(RaftMessage {
                term: 1,
                payload: Some(Payload::Append(append)),
            })),
            ..ShardMessage::default()
        };
        let frame = PeerFrame {
            hello: Some(Hello::default()),
            messages: vec![message; messages],
            ..PeerFrame::default()
        };
        Bytes::from(frame.encode_to_vec())
    }

    #[test]
    fn a_frame_is_decoded_only_when_it_has_not_too_much() {
        assert_eq!(check(&frame(0, 0)), Ok(()));
        assert_eq!(check(&frame(FRAME_MESSAGES_MAX, 1)), Ok(()));
        check(&frame(FRAME_MESSAGES_MAX + 1, 0)).unwrap_err();
        assert_eq!(check(&frame(1, FRAME_ENTRIES_MAX)), Ok(()));
        check(&frame(1, FRAME_ENTRIES_MAX + 1)).unwrap_err();
    }

    #[test]
    fn what_is_said_twice_is_counted_twice() {
        let one = frame(1, FRAME_ENTRIES_MAX / 2 + 1);
        // Two frames one after the other decode as one with the messages of both.
        check(&Bytes::from([one.clone(), one].concat())).unwrap_err();
    }

    #[test]
    fn a_group_is_refused() {
        let group = [(2 << 3) | 3, (2 << 3) | 4];
        check(&Bytes::copy_from_slice(&group)).unwrap_err();
    }
}
