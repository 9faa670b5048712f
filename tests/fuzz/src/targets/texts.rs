//! Small texts with a grammar: addresses, spans, sizes.

use std::str::FromStr as _;

use millrace_crds::{Size, Span};
use millrace_types::Address;

/// Fifteen digits are the most that a size may have.
const SIZE_WITHOUT_UNIT_MAX: u64 = 1_000_000_000_000_000;
/// Longest text of an error about a short text.
const ERROR_BYTES_MAX: usize = 4096;

pub(crate) fn check(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match Address::from_str(&text) {
        Ok(address) => {
            assert_eq!(address.to_string(), text, "addresses have one spelling");
            if let Some(dead) = address.dead_letter() {
                assert_eq!(dead.to_string().parse(), Ok(dead));
            }
        }
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX),
    }
    match Span::new(&*text).duration() {
        Ok(duration) => {
            let millis = Span::new(format!("{}ms", duration.as_millis()));
            // Nine digits are the most that a part may have.
            if duration.as_millis() < 1_000_000_000 {
                assert_eq!(millis.duration(), Ok(duration));
            }
        }
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX),
    }
    match Size::new(&*text).bytes() {
        // Of a size without a unit, too, that is as long as it may be.
        Ok(bytes) if bytes >= SIZE_WITHOUT_UNIT_MAX => {}
        Ok(bytes) => assert_eq!(Size::new(bytes.to_string()).bytes(), Ok(bytes)),
        Err(error) => assert!(error.to_string().len() <= ERROR_BYTES_MAX),
    }
}

pub(crate) fn seeds() -> Vec<Vec<u8>> {
    let texts = [
        "queue/default/orders",
        "queue/default/orders/dead",
        "topic/a-1/b-2",
        "1h30m0.5s",
        "999999999h",
        "2562047h47m16s854ms",
        "10Gi",
        "1.5e3",
        "128974848000m",
        "18446744073709551615",
    ];
    texts.map(|text| text.as_bytes().to_vec()).to_vec()
}
