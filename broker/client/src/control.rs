//! Steers a cluster: its control port, with the control token.

use std::time::Duration;

use millrace_proto::v1::cluster_client::ClusterClient;
use millrace_proto::v1::{
    ApplyTopologyRequest, ApplyTopologyResponse, MetadataRequest, MetadataResponse,
};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request};

use crate::client::{Client, ClientOptions, REPLY_BYTES_MAX};
use crate::error::{Applied, Error};
use crate::routing::Way;

/// The calls of the control port.
#[derive(Clone, Debug)]
pub struct Control {
    client: Client,
    authorization: MetadataValue<Ascii>,
}

impl Control {
    /// Prepares a connection; it is made by the first call. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The URL is malformed, or the token has characters that a header cannot carry.
    pub fn connect(options: impl Into<ClientOptions>, token: &str) -> Result<Self, Error> {
        let client = Client::connect(options)?;
        let authorization = MetadataValue::try_from(format!("Bearer {}", token.trim()));
        let mut authorization = authorization.map_err(|_| {
            let text = "the control token has characters that a header cannot carry".to_owned();
            Error::local(
                Error::INVALID_OPTION,
                Code::InvalidArgument,
                Applied::No,
                text,
            )
        })?;
        authorization.set_sensitive(true);
        Ok(Self {
            client,
            authorization,
        })
    }

    /// Who this cluster is and which topology it has.
    ///
    /// # Errors
    /// Nobody answers, or the token is refused.
    pub async fn metadata(&self) -> Result<MetadataResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(MetadataRequest {});
            async move { rpc(&way).metadata(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    /// Changes the topology by a delta; all of it is applied, or nothing.
    ///
    /// # Errors
    /// `REVISION_CONFLICT` when the topology changed since `base_revision`; whatever else the
    /// server finds wrong with the delta; nobody answers.
    pub async fn apply_topology(
        &self,
        delta: ApplyTopologyRequest,
    ) -> Result<ApplyTopologyResponse, Error> {
        let ask = |way: Way| {
            let request = self.request(delta.clone());
            async move { rpc(&way).apply_topology(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }

    fn request<T>(&self, body: T) -> Request<T> {
        let mut request = Request::new(body);
        request
            .metadata_mut()
            .insert("authorization", self.authorization.clone());
        request
    }
}

fn rpc(way: &Way) -> ClusterClient<tonic::transport::Channel> {
    ClusterClient::new(way.channel()).max_decoding_message_size(REPLY_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_token_that_no_header_can_carry_is_refused() {
        let error = Control::connect("http://127.0.0.1:1", "a\nb").unwrap_err();
        assert_eq!(error.reason, Error::INVALID_OPTION);
    }
}
