//! Who the broker pods are, and the token that steers them.

use std::collections::BTreeMap;
use std::fmt;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Secret, ServiceAccount};

use super::meta;
use crate::cluster::desired::Desired;
use crate::names;

/// The token of a control port. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Random bytes in a token: as many as a key that nobody guesses.
    pub const BYTES: usize = 32;

    /// A token of these random bytes, as text that fits a header and a file.
    #[must_use]
    pub fn from_random(bytes: [u8; Self::BYTES]) -> Self {
        Self(crate::hash::hex(&bytes))
    }

    /// The token in a Secret's data; `None` when it is empty or no text.
    #[must_use]
    pub fn from_secret(data: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(data).ok()?.trim();
        (!text.is_empty()).then(|| Self(text.to_owned()))
    }

    /// For the `authorization` header, and nothing else.
    #[must_use]
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// Brokers do not speak to the API server: no token of theirs is mounted.
pub(super) fn service_account(desired: &Desired) -> ServiceAccount {
    ServiceAccount {
        metadata: meta(desired, desired.key.service_account()),
        automount_service_account_token: Some(false),
        ..ServiceAccount::default()
    }
}

pub(super) fn control_secret(desired: &Desired, token: &Token) -> Secret {
    let data = ByteString(token.reveal().as_bytes().to_vec());
    Secret {
        metadata: meta(desired, desired.key.control_secret()),
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(names::TOKEN_KEY.to_owned(), data)])),
        ..Secret::default()
    }
}
