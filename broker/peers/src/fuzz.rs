//! For the fuzz targets: frames taken apart as a session does, and made as a dialer does.

use bytes::Bytes;
use millrace_proto::peer::decode_frame;
use millrace_replica::ShardMessage;
use prost::Message as _;

use crate::convert::{Frame, Packed, unpacked};

/// The messages of a frame that were sent whole; none when the frame cannot be read.
#[must_use]
pub fn messages(frame: Bytes) -> Vec<ShardMessage> {
    let Ok(frame) = decode_frame(frame) else {
        return Vec::new();
    };
    let messages = frame.messages.into_iter();
    messages
        .filter_map(|message| unpacked(message).ok())
        .collect()
}

/// A frame with these messages.
#[must_use]
pub fn frame(messages: Vec<ShardMessage>) -> Vec<u8> {
    let packed = messages.into_iter().map(Packed::from);
    let frame = Frame {
        messages: packed.map(Packed::sealed).collect(),
        ..Frame::default()
    };
    frame.encode_to_vec()
}
