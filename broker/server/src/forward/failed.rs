//! What a call that was passed on and failed means: what the other node said, or, when it said
//! nothing, whether the call can have reached it.

use std::error::Error as _;
use std::time::Duration;

use millrace_node::Peer;
use millrace_proto::v1;
use millrace_types::{Applied, ErrorCode, Refusal, ShardId};
use prost::Message as _;
use tonic::{Code, ConnectError, Status};

use crate::status::DETAIL_TYPE_URL;

/// A node that went down, or lost the lead, is replaced after about this long.
const RETRY_AFTER_MS: u64 = 100;

/// The refusal of a call that was passed on to the leader of a shard.
pub(super) fn of_call(status: &Status, peer: &Peer, shard: ShardId) -> Refusal {
    if let Some(error) = detail(status) {
        return refusal(error);
    }
    let node = peer.node;
    let away = |text: String| {
        Refusal::new(ErrorCode::NotLeader, text)
            .with("shard", shard.to_string())
            .retry_after_millis(RETRY_AFTER_MS)
    };
    if let Some(cause) = connect_error(status) {
        let text = format!("node {node}, which leads shard {shard}, cannot be reached: {cause}");
        return away(text);
    }
    let said = status.message();
    match status.code() {
        // It says so itself, before it looks at the call.
        Code::Unimplemented => away(format!("node {node} does not know this call")),
        Code::DeadlineExceeded => {
            away(format!("node {node} did not answer in time: {said}")).unknown()
        }
        _ => away(format!("the connection to node {node} was lost: {said}")).unknown(),
    }
}

/// A refusal as it came over the wire. Of a reason of a later version the text and the rest stay.
pub(crate) fn refusal(error: v1::Error) -> Refusal {
    let applied = match error.applied() {
        v1::Applied::NotApplied => Applied::No,
        v1::Applied::Applied => Applied::Yes,
        v1::Applied::Unspecified | v1::Applied::Unknown => Applied::Unknown,
    };
    let known = ErrorCode::ALL.into_iter();
    let code = known.into_iter().find(|code| code.reason() == error.reason);
    let retry_after = error
        .retry_after
        .and_then(|after| Duration::try_from(after).ok());
    let retry_after = retry_after.map(|after| u64::try_from(after.as_millis()).unwrap_or(u64::MAX));
    Refusal {
        code: code.unwrap_or(ErrorCode::Internal),
        message: error.message,
        applied,
        retry_after_ms: retry_after,
        metadata: error.metadata.into_iter().collect(),
    }
}

/// The `millrace.v1.Error` among the details of a status.
fn detail(status: &Status) -> Option<v1::Error> {
    let rich = tonic_types::pb::Status::decode(status.details()).ok()?;
    let ours = |any: &&prost_types::Any| any.type_url == DETAIL_TYPE_URL;
    let any = rich.details.iter().find(ours)?;
    v1::Error::decode(any.value.as_slice()).ok()
}

/// The text of the deepest cause, when the connection could not be made at all.
fn connect_error(status: &Status) -> Option<String> {
    let mut cause = status.source();
    let (mut connecting, mut text) = (false, String::new());
    while let Some(error) = cause {
        connecting |= error.is::<ConnectError>();
        text = error.to_string();
        cause = error.source();
    }
    connecting.then_some(text)
}

#[cfg(test)]
mod tests {
    use millrace_types::NodeId;

    use super::*;
    use crate::status::status;

    fn peer() -> Peer {
        Peer {
            node: NodeId::new(7),
            client: "127.0.0.1:1".into(),
        }
    }

    #[test]
    fn what_the_leader_refused_is_passed_on_as_it_was_said() {
        let said = Refusal::new(ErrorCode::QueueFull, "queue/a/b is full")
            .with("limit", "10")
            .retry_after_millis(1500);
        let heard = of_call(&status(said.clone()), &peer(), ShardId::new(1));
        assert_eq!(heard, said);
    }

    #[test]
    fn a_connection_that_broke_leaves_the_outcome_unknown() {
        let heard = of_call(&Status::unavailable("h2"), &peer(), ShardId::new(1));
        assert_eq!(
            (heard.code, heard.applied),
            (ErrorCode::NotLeader, Applied::Unknown)
        );
    }

    #[tokio::test]
    async fn a_connection_that_was_never_made_leaves_nothing_applied() {
        let channel = tonic::transport::Endpoint::from_static("http://127.0.0.1:1").connect_lazy();
        let mut admin = v1::admin_client::AdminClient::new(channel);
        let status = admin
            .describe(v1::DescribeRequest::default())
            .await
            .unwrap_err();
        let heard = of_call(&status, &peer(), ShardId::new(1));
        assert_eq!(
            (heard.code, heard.applied),
            (ErrorCode::NotLeader, Applied::No)
        );
    }
}
