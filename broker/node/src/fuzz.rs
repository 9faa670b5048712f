//! For the fuzz targets: delivery tags, which nobody outside may read.

use bytes::Bytes;

use crate::tag::Tag;

/// The tag these bytes are, encoded again; `None` when they are none.
#[must_use]
pub fn tag_again(bytes: &[u8]) -> Option<Bytes> {
    Tag::decode(bytes).map(|tag| tag.encode())
}
