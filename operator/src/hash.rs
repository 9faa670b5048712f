//! Short hashes of what was applied. Not for secrets.

use std::fmt::Write as _;

use serde::Serialize;
use sha2::{Digest, Sha256};

/// Bytes of a hash that are kept: 64 bits tell two versions of one object apart.
const KEPT_BYTES: usize = 8;

/// Hash of a value's JSON. Equal values have equal hashes across processes and versions, as long as
/// the value serialises its maps in order.
///
/// # Panics
/// When the value cannot be written as JSON, which Kubernetes' own types always can.
#[must_use]
pub(crate) fn of_json<T: Serialize>(value: &T) -> String {
    let json = serde_json::to_vec(value).expect("Kubernetes types are written as JSON");
    hex(&Sha256::digest(json)[..KEPT_BYTES])
}

/// Lower-case hexadecimal digits.
#[must_use]
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("a String takes any text");
        text
    })
}
