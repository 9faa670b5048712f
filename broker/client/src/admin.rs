//! Looks at queues and topics; changes nothing.

use std::time::Duration;

use millrace_proto::v1::{
    DescribeRequest, DescribeResponse, ListRequest, Summary, list_request::Kind,
};

use crate::client::Client;
use crate::error::Error;
use crate::routing::Way;

/// The most a server puts on one page.
const PAGE_ITEMS: u32 = 1000;

/// The read-only calls.
#[derive(Clone, Debug)]
pub struct Admin {
    client: Client,
}

impl Admin {
    pub(crate) const fn new(client: Client) -> Self {
        Self { client }
    }

    /// All queues and topics of a namespace, or of all when it is empty, in order of their
    /// addresses.
    ///
    /// # Errors
    /// Nobody answers, or the server refuses.
    pub async fn list(&self, kind: Kind, namespace: &str) -> Result<Vec<Summary>, Error> {
        let mut items = Vec::new();
        let mut page_token = String::new();
        loop {
            let request = ListRequest {
                kind: kind.into(),
                namespace: namespace.to_owned(),
                page_size: PAGE_ITEMS,
                page_token: page_token.clone(),
            };
            let ask = |way: Way| {
                let request = request.clone();
                async move { way.admin().list(request).await }
            };
            let page = self.client.call(None, Duration::ZERO, ask).await?;
            items.extend(page.items);
            if page.next_page_token.is_empty() {
                return Ok(items);
            }
            if page.next_page_token == page_token {
                return Err(Error::protocol("the list does not come to an end"));
            }
            page_token = page.next_page_token;
        }
    }

    /// What is declared of one queue or topic, and how it does.
    ///
    /// # Errors
    /// It does not exist, or nobody answers.
    pub async fn describe(&self, address: &str) -> Result<DescribeResponse, Error> {
        let request = DescribeRequest {
            address: address.to_owned(),
        };
        let ask = |way: Way| {
            let request = request.clone();
            async move { way.admin().describe(request).await }
        };
        self.client.call(None, Duration::ZERO, ask).await
    }
}
