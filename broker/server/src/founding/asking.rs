//! Asks other nodes who they are, sends them a record, and asks to be taken in.
//!
//! Names are looked up anew each time: a pod gets another address, and a name more of them.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures::future::join_all;
use millrace_node::{Cluster, Registration};
use millrace_peers::Credential as _;
use millrace_proto::membership::v1 as wire;
use millrace_proto::membership::v1::membership_client::MembershipClient;
use millrace_types::{Founding, ReplicaId};
use tokio::net::lookup_host;
use tokio::time::timeout;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use super::plan::{Answer, Way};
use crate::convert::membership as convert;
use crate::token::Guard;

/// To look a name up, connect and be answered: many round trips, and short enough that a node which
/// is not there holds nobody up for long.
const ASK_WITHIN: Duration = Duration::from_secs(2);
/// A new node is written down by a majority, perhaps after an election.
const REGISTER_WITHIN: Duration = Duration::from_secs(10);
/// Addresses of one name that are asked: more nodes than a cluster can have.
const ADDRESSES_MAX: usize = 64;
/// An answer: the addresses of all nodes several times over.
const ANSWER_BYTES_MAX: usize = 256 << 10;

type Client = MembershipClient<InterceptedService<Channel, Token>>;

/// Asks other nodes.
#[derive(Clone)]
pub(crate) struct Asking {
    guard: Arc<Guard>,
}

/// Shows the cluster's token with each call.
#[derive(Clone)]
struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(token) = &self.0 {
            request
                .metadata_mut()
                .insert("authorization", token.clone());
        }
        Ok(request)
    }
}

impl Asking {
    /// Shows what the guard has.
    pub(crate) fn new(guard: Arc<Guard>) -> Self {
        Self { guard }
    }

    /// Asks everybody who was named who they are. Who founds knows one node by each name, who joins
    /// as many as a name has addresses.
    pub(crate) async fn identify(&self, way: &Way) -> BTreeMap<String, Answer> {
        match way {
            Way::Found(listed) => {
                let asked = listed.iter().map(|address| async move {
                    let answer = self.identify_one(address).await;
                    let answer = answer.map_or_else(Answer::Silence, Answer::Peer);
                    (address.clone(), answer)
                });
                join_all(asked).await.into_iter().collect()
            }
            Way::Join(listed) => {
                let asked = listed.iter().map(|address| self.identify_each(address));
                join_all(asked).await.into_iter().flatten().collect()
            }
        }
    }

    async fn identify_one(&self, address: &str) -> Result<super::plan::Peer, String> {
        let answer = within(ASK_WITHIN, async {
            let mut client = self.connect(address).await?;
            let answer = client.identify(wire::IdentifyRequest {}).await;
            answer.map_err(|status| text(&status))
        });
        let answer = answer.await?.into_inner();
        convert::peer(answer).map_err(|refusal| refusal.message)
    }

    async fn identify_each(&self, address: &str) -> Vec<(String, Answer)> {
        let found = match within(ASK_WITHIN, look_up(address)).await {
            Ok(found) => found,
            Err(why) => return vec![(address.to_owned(), Answer::Silence(why))],
        };
        let asked = found.into_iter().map(|at| async move {
            let at = at.to_string();
            let answer = self.identify_one(&at).await;
            (at, answer.map_or_else(Answer::Silence, Answer::Peer))
        });
        join_all(asked).await
    }

    /// Sends a record.
    ///
    /// # Errors
    /// Why it is not taken, or not known to be.
    pub(crate) async fn bootstrap(&self, address: &str, record: &Founding) -> Result<(), String> {
        let founding = Some(convert::founding(record));
        within(ASK_WITHIN, async {
            let mut client = self.connect(address).await?;
            let sent = client.bootstrap(wire::BootstrapRequest { founding }).await;
            sent.map(|_| ()).map_err(|status| text(&status))
        })
        .await
    }

    /// Asks to be taken in.
    ///
    /// # Errors
    /// Why that has not happened yet.
    pub(crate) async fn register(
        &self,
        address: &str,
        registration: Registration,
        cluster_id: &str,
    ) -> Result<(Cluster, ReplicaId), String> {
        let request = convert::registration(registration, cluster_id);
        let answer = within(REGISTER_WITHIN, async {
            let mut client = self.connect(address).await?;
            let answer = client.register(request).await;
            answer.map_err(|status| text(&status))
        });
        let answer = answer.await?.into_inner();
        convert::read_registered(answer).map_err(|refusal| refusal.message)
    }

    /// Connects to the first address of a name at which somebody listens.
    async fn connect(&self, address: &str) -> Result<Client, String> {
        let mut why = String::from("the name has no address");
        for at in look_up(address).await? {
            let endpoint = Endpoint::from_shared(format!("http://{at}"));
            let endpoint = endpoint.map_err(|error| crate::report(&error))?;
            match endpoint.connect().await {
                Ok(channel) => {
                    let client = MembershipClient::with_interceptor(channel, self.token()?);
                    return Ok(client.max_decoding_message_size(ANSWER_BYTES_MAX));
                }
                Err(error) => why = root(&error),
            }
        }
        Err(why)
    }

    /// As it is now.
    fn token(&self) -> Result<Token, String> {
        let Some(token) = self.guard.token() else {
            return Ok(Token(None));
        };
        let value = [b"Bearer ".as_slice(), &token].concat();
        let mut value = MetadataValue::try_from(value)
            .map_err(|_| "our token has characters that a header cannot carry")?;
        value.set_sensitive(true);
        Ok(Token(Some(value)))
    }
}

async fn look_up(address: &str) -> Result<Vec<SocketAddr>, String> {
    let found = lookup_host(address).await;
    let found = found.map_err(|error| error.to_string())?;
    Ok(found.take(ADDRESSES_MAX).collect())
}

async fn within<T>(
    limit: Duration,
    asked: impl Future<Output = Result<T, String>>,
) -> Result<T, String> {
    let late = |_| Err(format!("no answer within {} s", limit.as_secs()));
    timeout(limit, asked).await.unwrap_or_else(late)
}

/// What is at the bottom of it: what the transport puts around that says nothing more.
fn root(error: &dyn std::error::Error) -> String {
    let mut root = error;
    while let Some(source) = root.source() {
        root = source;
    }
    root.to_string()
}

/// What a node said, in its words if it has some.
fn text(status: &Status) -> String {
    match status.message() {
        "" => format!("{:?}", status.code()),
        text => text.to_owned(),
    }
}
