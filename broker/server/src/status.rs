//! The one place where a refusal becomes a gRPC status: code by `ErrorCode::grpc_code`, and one
//! `millrace.v1.Error` as the detail. Clients branch on its reason, never on the text.

use millrace_types::Refusal;
use prost::Message as _;
use tonic::{Code, Status};

use crate::convert;

/// Type of the detail, as `google.protobuf.Any` wants it.
pub(crate) const DETAIL_TYPE_URL: &str = "type.googleapis.com/millrace.v1.Error";

/// The status that ends a call with this refusal.
#[must_use]
pub(crate) fn status(refusal: Refusal) -> Status {
    let code = refusal.code.grpc_code();
    let text = refusal.message.clone();
    let detail = prost_types::Any {
        type_url: DETAIL_TYPE_URL.to_owned(),
        value: convert::error(refusal).encode_to_vec(),
    };
    let rich = tonic_types::pb::Status {
        code,
        message: text.clone(),
        details: vec![detail],
    };
    Status::with_details(Code::from_i32(code), text, rich.encode_to_vec().into())
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1;
    use millrace_types::ErrorCode;

    use super::*;

    #[test]
    fn a_refusal_travels_as_the_one_detail_of_its_status() {
        let refusal = Refusal::new(ErrorCode::QueueFull, "queue/a/b is full")
            .with("limit", "10")
            .retry_after_millis(1500);
        let status = status(refusal);
        assert_eq!(status.code(), Code::ResourceExhausted);

        let rich = tonic_types::pb::Status::decode(status.details()).unwrap();
        assert_eq!(rich.details.len(), 1);
        assert_eq!(rich.details[0].type_url, DETAIL_TYPE_URL);
        let error = v1::Error::decode(rich.details[0].value.as_slice()).unwrap();
        assert_eq!(error.reason, "QUEUE_FULL");
        assert_eq!(error.applied(), v1::Applied::NotApplied);
        assert_eq!(error.metadata["limit"], "10");
        let retry_after = error.retry_after.unwrap();
        assert_eq!((retry_after.seconds, retry_after.nanos), (1, 500_000_000));
    }
}
