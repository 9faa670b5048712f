//! Why a call failed. Decodes the one `millrace.v1.Error` detail of a gRPC status, and says for
//! everything else what the client itself knows: above all, whether it may have happened.

use std::collections::BTreeMap;
use std::error::Error as _;
use std::time::Duration;

use millrace_proto::v1;
use prost::Message as _;
use tonic::{Code, ConnectError, Status};

/// Whether a failed operation happened all the same.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Applied {
    /// It did not, and will not.
    No,
    /// It did.
    Yes,
    /// It may have happened, or still take effect.
    Unknown,
}

/// What a server refused, or why it could not be asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} ({reason})")]
pub struct Error {
    /// Stable, for programs: the server's reason, or one of the `Error::*` constants.
    pub reason: String,
    /// For people.
    pub message: String,
    /// Whether it happened all the same.
    pub applied: Applied,
    /// Repeating it after this long may succeed.
    pub retry_after: Option<Duration>,
    /// The status of the call, or what it would be for this entry alone.
    pub code: Code,
    /// Facts for programs: `address`, `limit`, `actual`, `field`.
    pub metadata: BTreeMap<String, String>,
}

impl Error {
    /// Nobody answers at the server's address.
    pub const UNREACHABLE: &'static str = "UNREACHABLE";
    /// The connection was lost before an answer came.
    pub const CONNECTION_LOST: &'static str = "CONNECTION_LOST";
    /// The server answered something that the protocol does not allow.
    pub const PROTOCOL: &'static str = "PROTOCOL";
    /// The publisher, consumer or subscription was closed.
    pub const CLOSED: &'static str = "CLOSED";
    /// The server's URL or the control token is malformed.
    pub const INVALID_OPTION: &'static str = "INVALID_OPTION";

    /// An error of the client's own.
    pub(crate) fn local(reason: &str, code: Code, applied: Applied, message: String) -> Self {
        Self {
            reason: reason.to_owned(),
            message,
            applied,
            retry_after: None,
            code,
            metadata: BTreeMap::new(),
        }
    }

    /// The stream ended while an answer was due.
    pub(crate) fn connection_lost() -> Self {
        Self::local(
            Self::CONNECTION_LOST,
            Code::Unavailable,
            Applied::Unknown,
            "the connection was lost before the answer came".to_owned(),
        )
    }

    /// The publisher, consumer or subscription is closed.
    pub(crate) fn closed(applied: Applied) -> Self {
        Self::local(
            Self::CLOSED,
            Code::Cancelled,
            applied,
            "closed before it was decided".to_owned(),
        )
    }

    /// The answer makes no sense.
    pub(crate) fn protocol(message: &str) -> Self {
        Self::local(
            Self::PROTOCOL,
            Code::Internal,
            Applied::Unknown,
            message.to_owned(),
        )
    }

    /// Whether the same request may succeed later without anybody changing it.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retry_after.is_some()
            || matches!(self.code, Code::Unavailable | Code::ResourceExhausted)
    }

    /// Whether it says that nobody answered, rather than what was answered.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        self.reason == Self::UNREACHABLE || self.reason == Self::CONNECTION_LOST
    }

    /// Whether what the call names does not exist.
    #[must_use]
    pub fn is_not_found(&self) -> bool {
        self.code == Code::NotFound
    }

    /// The same, for an operation whose first attempt may have happened.
    pub(crate) fn after_unknown(mut self) -> Self {
        if self.applied == Applied::No {
            self.applied = Applied::Unknown;
        }
        self
    }
}

impl From<v1::Error> for Error {
    fn from(wire: v1::Error) -> Self {
        let code = code_of(&wire.reason);
        Self {
            applied: match wire.applied() {
                v1::Applied::NotApplied => Applied::No,
                v1::Applied::Applied => Applied::Yes,
                v1::Applied::Unspecified | v1::Applied::Unknown => Applied::Unknown,
            },
            retry_after: wire.retry_after.and_then(|d| Duration::try_from(d).ok()),
            reason: wire.reason,
            message: wire.message,
            code,
            metadata: wire.metadata.into_iter().collect(),
        }
    }
}

impl From<Status> for Error {
    fn from(status: Status) -> Self {
        if let Some(mut error) = detail(&status).map(Self::from) {
            error.code = status.code();
            return error;
        }
        if let Some(cause) = connect_error(&status) {
            return Self::local(
                Self::UNREACHABLE,
                Code::Unavailable,
                Applied::No,
                format!("nobody answers: {cause}"),
            );
        }
        let (reason, applied) = match status.code() {
            Code::Unavailable | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => {
                (Self::CONNECTION_LOST.to_owned(), Applied::Unknown)
            }
            Code::Internal | Code::Aborted | Code::DataLoss | Code::Ok => {
                (Self::PROTOCOL.to_owned(), Applied::Unknown)
            }
            code => (upper_snake(&format!("{code:?}")), Applied::No),
        };
        Self::local(&reason, status.code(), applied, status.message().to_owned())
    }
}

/// The `millrace.v1.Error` among the details of a status.
fn detail(status: &Status) -> Option<v1::Error> {
    const TYPE: &str = "/millrace.v1.Error";
    let rich = tonic_types::pb::Status::decode(status.details()).ok()?;
    let any = rich
        .details
        .iter()
        .find(|any| any.type_url.ends_with(TYPE))?;
    v1::Error::decode(any.value.as_slice()).ok()
}

/// The text of the deepest cause, when the connection could not be made at all.
fn connect_error(status: &Status) -> Option<String> {
    let mut cause = status.source();
    let mut connecting = false;
    let mut text = String::new();
    while let Some(error) = cause {
        connecting |= error.is::<ConnectError>();
        text = error.to_string();
        cause = error.source();
    }
    connecting.then_some(text)
}

/// The gRPC code of a reason that came for one entry of a batch, without a status of its own. Those
/// a client does not know are `Unknown`; the reason itself tells more.
fn code_of(reason: &str) -> Code {
    match reason {
        "INVALID_ARGUMENT" | "WRONG_KIND" | "MESSAGE_TOO_LARGE" | "INVALID_TAG" => {
            Code::InvalidArgument
        }
        "NO_SUCH_QUEUE" | "NO_SUCH_TOPIC" | "NO_SUCH_PARTITION" => Code::NotFound,
        "QUEUE_FULL" | "LIMIT_REACHED" | "DISK_FULL" | "OVERLOADED" => Code::ResourceExhausted,
        "ORPHANED" | "STALE_DELIVERY" | "SESSION_EXPIRED" | "WRONG_CLUSTER" | "RETRY_TOO_LATE" => {
            Code::FailedPrecondition
        }
        "REVISION_CONFLICT" => Code::Aborted,
        "OFFSET_OUT_OF_RANGE" => Code::OutOfRange,
        "INTERNAL" => Code::Internal,
        "SHARD_UNAVAILABLE" | "NOT_LEADER" | "DRAINING" => Code::Unavailable,
        "UNAUTHENTICATED" => Code::Unauthenticated,
        _ => Code::Unknown,
    }
}

/// `PermissionDenied` as `PERMISSION_DENIED`.
fn upper_snake(camel: &str) -> String {
    let mut text = String::new();
    for (at, letter) in camel.chars().enumerate() {
        if at > 0 && letter.is_ascii_uppercase() {
            text.push('_');
        }
        text.push(letter.to_ascii_uppercase());
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refusal() -> v1::Error {
        v1::Error {
            reason: "QUEUE_FULL".into(),
            message: "queue/a/b holds 10 messages".into(),
            applied: v1::Applied::NotApplied.into(),
            retry_after: Some(prost_types::Duration {
                seconds: 1,
                nanos: 0,
            }),
            metadata: [("limit".to_owned(), "10".to_owned())].into(),
        }
    }

    #[test]
    fn the_detail_of_a_status_is_decoded() {
        let rich = tonic_types::pb::Status {
            code: Code::ResourceExhausted as i32,
            message: String::new(),
            details: vec![prost_types::Any {
                type_url: "type.googleapis.com/millrace.v1.Error".into(),
                value: refusal().encode_to_vec(),
            }],
        };
        let details = rich.encode_to_vec().into();
        let status = Status::with_details(Code::ResourceExhausted, "full", details);

        let error = Error::from(status);

        assert_eq!(error.reason, "QUEUE_FULL");
        assert_eq!(error.applied, Applied::No);
        assert_eq!(error.retry_after, Some(Duration::from_secs(1)));
        assert_eq!(error.code, Code::ResourceExhausted);
        assert_eq!(error.metadata["limit"], "10");
        assert!(error.is_retryable());
    }

    #[test]
    fn an_entry_of_a_batch_gets_the_code_of_its_reason() {
        assert_eq!(Error::from(refusal()).code, Code::ResourceExhausted);
    }

    #[test]
    fn a_lost_connection_leaves_the_outcome_unknown() {
        let error = Error::from(Status::unavailable("broken pipe"));
        assert_eq!(error.applied, Applied::Unknown);
        assert!(error.is_unreachable());
    }

    #[test]
    fn garbage_in_the_details_is_not_fatal() {
        let status = Status::with_details(Code::PermissionDenied, "no", vec![0xff; 9].into());
        let error = Error::from(status);
        assert_eq!(error.reason, "PERMISSION_DENIED");
        assert_eq!(error.applied, Applied::No);
    }
}
