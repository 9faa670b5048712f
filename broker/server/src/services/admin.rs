//! `Admin`: looks at queues and topics. Changes nothing.

use millrace_proto::v1;
use millrace_proto::v1::admin_server::Admin;
use millrace_types::{Address, Refusal};
use tonic::{Request, Response, Status};

use super::Context;
use crate::convert::facts;
use crate::forward::{Origin, Place};
use crate::status::status;
use crate::validate::{self, Bounded, invalid};
use millrace_node::{List, MESSAGES_MAX};

/// Objects of a page when the caller does not say.
const PAGE_DEFAULT: u32 = 100;

/// The service.
#[derive(Clone, Debug)]
pub(crate) struct Service(pub(crate) Context);

#[tonic::async_trait]
impl Admin for Service {
    async fn list(
        &self,
        request: Request<v1::ListRequest>,
    ) -> Result<Response<v1::ListResponse>, Status> {
        let list = list(request.into_inner()).map_err(status)?;
        let listed = self.0.broker.list(list).await.map_err(status)?;
        Ok(Response::new(v1::ListResponse {
            items: listed.items.into_iter().map(facts::summary).collect(),
            next_page_token: listed.next.map(|next| next.to_string()).unwrap_or_default(),
        }))
    }

    async fn describe(
        &self,
        request: Request<v1::DescribeRequest>,
    ) -> Result<Response<v1::DescribeResponse>, Status> {
        let origin = Origin::of(request.metadata());
        let described = self.describe_routed(&origin, request.into_inner()).await;
        described.map(Response::new).map_err(status)
    }
}

impl Service {
    /// A queue is described where it is led, for who consumes it is known there; a topic by what is
    /// applied here.
    async fn describe_routed(
        &self,
        origin: &Origin,
        request: v1::DescribeRequest,
    ) -> Result<v1::DescribeResponse, Refusal> {
        let address = validate::address(&request.address)?;
        let (forward, broker) = (&self.0.forward, &self.0.broker);
        if !address.is_queue() {
            return facts::description(broker.describe(&address).await?);
        }
        let mut call = forward.call(origin, broker.queue_shard(&address).await?);
        loop {
            let answer = match call.place().await? {
                Place::Here => {
                    let described = broker.describe(&address).await;
                    described.and_then(facts::description)
                }
                Place::There(remote) => {
                    let mut admin = remote.admin();
                    let call = admin.describe(origin.request(request.clone()));
                    remote.look(call).await
                }
            };
            match answer {
                Err(refusal) if call.again(&refusal).await => {}
                answer => return answer.map_err(|refusal| call.hinted(refusal)),
            }
        }
    }
}

fn list(request: v1::ListRequest) -> Result<List, Refusal> {
    use v1::list_request::Kind;
    let page_size = Bounded {
        field: "page_size",
        default: PAGE_DEFAULT,
        max: MESSAGES_MAX,
    };
    let kind = Kind::try_from(request.kind)
        .map_err(|_| invalid("kind", format!("{} is not known", request.kind)))?;
    let objects_max = page_size.check(request.page_size)?;
    Ok(List {
        queues: matches!(kind, Kind::Unspecified | Kind::Queue),
        topics: matches!(kind, Kind::Unspecified | Kind::Topic),
        namespace: Some(request.namespace).filter(|namespace| !namespace.is_empty()),
        after: after(&request.page_token)?,
        objects_max: usize::try_from(objects_max).unwrap_or(usize::MAX),
    })
}

/// A page token is the last address of the page before; clients must not care.
fn after(token: &str) -> Result<Option<Address>, Refusal> {
    if token.is_empty() {
        return Ok(None);
    }
    let parsed = token.parse().map(Some);
    parsed.map_err(|_| invalid("page_token", "is none of ours; start again without it"))
}
