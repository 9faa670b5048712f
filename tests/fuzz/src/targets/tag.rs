//! Delivery tags.

use millrace_node::fuzz::tag_again;

/// Bytes of a tag: version, 32 of content, checksum.
const TAG_BYTES: usize = 37;

pub(crate) fn check(bytes: &[u8]) {
    if let Some(again) = tag_again(bytes) {
        assert_eq!(again, bytes, "another tag than it was read from");
    }
    // The same with the right checksum, which says nothing about what it covers.
    let mut sealed = bytes.to_vec();
    sealed.resize(TAG_BYTES - 4, 0);
    let checksum = crc32c::crc32c(&sealed).to_le_bytes();
    sealed.extend(checksum);
    if let Some(again) = tag_again(&sealed) {
        assert_eq!(again, sealed, "another tag than it was read from");
        let mut changed = sealed;
        let at = usize::from(bytes.first().copied().unwrap_or(0)) % TAG_BYTES;
        changed[at] ^= 1 << (bytes.len() % 8);
        assert!(tag_again(&changed).is_none(), "a changed byte went unseen");
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let counted = (1..=32_u8).collect::<Vec<u8>>();
    vec![
        [&[1], counted.as_slice()].concat(),
        vec![2; 33],
        vec![0xff; 64],
    ]
}
