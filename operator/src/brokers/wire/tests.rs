//! Calls to a broker of a few lines.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use millrace_crds::FounderStatus;
use millrace_proto::membership::v1::membership_server::{Membership, MembershipServer};
use millrace_proto::membership::v1::{
    BootstrapResponse, IdentifyResponse, RegisterRequest, RegisterResponse,
};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Response;
use tonic::transport::Server;

use super::*;

const LOCALHOST: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const NODE: u64 = 0x0123_4567_89ab_cdef;
const NODE_TEXT: &str = "0123456789abcdef";

/// A broker that can be founded, with the token `secret`.
#[derive(Clone, Default)]
struct Fake {
    founding: Arc<Mutex<Option<Founding>>>,
}

impl Fake {
    async fn serve(&self) -> Wire {
        let any_port = SocketAddr::from((LOCALHOST, 0));
        let listener = tokio::net::TcpListener::bind(any_port).await.unwrap();
        let control_port = listener.local_addr().unwrap().port();
        let server = Server::builder().add_service(MembershipServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        Wire { control_port }
    }

    fn admit<T>(&self, request: &Request<T>) -> Result<(), Status> {
        match request.metadata().get("authorization") {
            Some(bearer) if bearer == "Bearer secret" => Ok(()),
            _ => Err(Status::unauthenticated("no")),
        }
    }
}

#[tonic::async_trait]
impl Membership for Fake {
    async fn identify(
        &self,
        request: Request<IdentifyRequest>,
    ) -> Result<Response<IdentifyResponse>, Status> {
        self.admit(&request)?;
        let founding = self.founding.lock().unwrap().clone();
        let state = match &founding {
            None => State::Joining,
            Some(_) => State::Member,
        };
        Ok(Response::new(IdentifyResponse {
            node_id: NODE,
            state: state.into(),
            cluster_id: founding.map_or_else(String::new, |founding| founding.cluster_id),
            ..IdentifyResponse::default()
        }))
    }

    async fn bootstrap(
        &self,
        request: Request<BootstrapRequest>,
    ) -> Result<Response<BootstrapResponse>, Status> {
        self.admit(&request)?;
        let founding = request.into_inner().founding;
        let mut recorded = self.founding.lock().unwrap();
        if recorded.is_some() && *recorded != founding {
            return Err(Status::failed_precondition("founded otherwise"));
        }
        recorded.clone_from(&founding);
        Ok(Response::new(BootstrapResponse {
            node_id: NODE,
            founding,
        }))
    }

    async fn register(
        &self,
        _: Request<RegisterRequest>,
    ) -> Result<Response<RegisterResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }
}

fn token(text: &str) -> Token {
    Token::from_secret(text.as_bytes()).unwrap()
}

fn founding() -> FoundingStatus {
    FoundingStatus {
        shards: 4,
        replication: 3,
        founders: vec![FounderStatus {
            node_id: NODE_TEXT.to_owned(),
            address: "orders-0.orders-nodes.shop.svc:7073".to_owned(),
        }],
        done: false,
    }
}

#[tokio::test]
async fn an_empty_broker_is_founded_once_and_says_so() {
    let fake = Fake::default();
    let wire = fake.serve().await;
    let (token, id) = (token("secret"), ClusterId::parse("ours").unwrap());
    let node_id = NODE_TEXT.to_owned();

    let before = wire.identify(LOCALHOST, &token).await;
    assert_eq!(
        before,
        Ok(Said::Empty {
            node_id: node_id.clone()
        })
    );

    for _ in 0..2 {
        let told = wire.bootstrap(LOCALHOST, &token, &id, &founding()).await;
        assert_eq!(told, Ok(()));
    }
    let cluster_id = "ours".to_owned();
    let after = wire.identify(LOCALHOST, &token).await;
    assert_eq!(
        after,
        Ok(Said::Member {
            node_id,
            cluster_id
        })
    );
    let recorded = fake.founding.lock().unwrap().clone().unwrap();
    assert_eq!(recorded.founders[0].node_id, NODE);
    assert_eq!((recorded.shards, recorded.replication), (4, 3));

    let otherwise = FoundingStatus {
        replication: 1,
        ..founding()
    };
    let refused = wire.bootstrap(LOCALHOST, &token, &id, &otherwise).await;
    assert_eq!(refused, Err(Unanswered("founded otherwise".to_owned())));
}

#[tokio::test]
async fn a_broker_that_refuses_or_is_not_there_is_no_empty_one() {
    let wire = Fake::default().serve().await;

    let refused = wire.identify(LOCALHOST, &token("wrong")).await;
    assert_eq!(refused, Err(Unanswered("no".to_owned())));

    let elsewhere = IpAddr::from([127, 0, 0, 2]);
    let absent = wire.identify(elsewhere, &token("secret")).await;
    assert!(absent.is_err());
}

#[test]
fn a_node_is_called_here_as_brokers_call_it() {
    assert_eq!(text(NODE), NODE_TEXT);
    for node_id in [1, u64::MAX, NODE] {
        assert_eq!(number(&text(node_id)), Ok(node_id));
    }
    assert!(number("orders-0").is_err());
}
