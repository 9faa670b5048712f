//! For tests: an API server that answers what it was told to and remembers what was asked, and a
//! broker that keeps a topology in memory.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex};

use axum::body::{Body, to_bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode, header};
use axum::response::Response;
use axum::{Router, routing::any};
use kube::Client;
use kube::runtime::watcher;
use millrace_crds::FoundingStatus;
use millrace_proto::v1::cluster_server::{Cluster, ClusterServer};
use millrace_proto::v1::{
    ApplyTopologyRequest, ApplyTopologyResponse, Error, MetadataRequest, MetadataResponse,
    ObjectState, TopologyObject, TopologyState,
};
use prost::Message as _;
use serde_json::{Value, json};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::Code;
use tonic::transport::Server;

use crate::bells::{Listeners, bells};
use crate::brokers::{Brokers, Unanswered};
use crate::cluster::build::Token;
use crate::cluster::desired::ClusterId;
use crate::cluster::facts::{Act, Answer, Question, Said, View};
use crate::context::{Context, Guarded};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::watches::stores;

pub(crate) const CLUSTER_ID: &str = "id0";
pub(crate) const CLUSTER_UID: &str = "cluster-uid";
/// A body of one request is never larger than this in a test.
const BODY_BYTES_MAX: usize = 1 << 20;

/// A request as it came.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Asked {
    pub(crate) method: Method,
    pub(crate) path: String,
    pub(crate) body: Value,
}

/// In order; the last one is given again and again.
type Answers = HashMap<(Method, String), VecDeque<(StatusCode, Value)>>;

/// An API server.
#[derive(Clone, Default)]
pub(crate) struct Api {
    answers: Arc<Mutex<Answers>>,
    asked: Arc<Mutex<Vec<Asked>>>,
}

impl Api {
    /// Sets what a request is answered. Others: reading finds nothing, writing succeeds.
    pub(crate) fn answer(&self, method: Method, path: &str, code: u16, body: Value) {
        let code = StatusCode::from_u16(code).unwrap();
        let mut answers = self.answers.lock().unwrap();
        answers.insert((method, path.to_owned()), [(code, body)].into());
    }

    /// Sets what a request is answered the first time, ahead of what was set before.
    pub(crate) fn answer_first(&self, method: Method, path: &str, code: u16, body: Value) {
        let code = StatusCode::from_u16(code).unwrap();
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.entry((method, path.to_owned())).or_default();
        answers.push_front((code, body));
    }

    /// What reading a path answers.
    pub(crate) fn has(&self, path: &str, body: Value) {
        self.answer(Method::GET, path, 200, body);
    }

    /// What was asked by a method, in order.
    pub(crate) fn asked(&self, method: &Method) -> Vec<Asked> {
        let asked = self.asked.lock().unwrap();
        asked
            .iter()
            .filter(|asked| asked.method == method)
            .cloned()
            .collect()
    }

    /// A client of this server.
    pub(crate) fn client(&self) -> Client {
        let router = Router::new().fallback(any(serve)).with_state(self.clone());
        Client::new(router, "default")
    }
}

async fn serve(State(api): State<Api>, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let body = to_bytes(body, BODY_BYTES_MAX).await.unwrap();
    let body = serde_json::from_slice(&body).unwrap_or_default();
    let (method, path) = (parts.method, parts.uri.path().to_owned());
    let key = (method.clone(), path.clone());
    let told = {
        let mut answers = api.answers.lock().unwrap();
        answers
            .get_mut(&key)
            .and_then(|answers| match answers.len() {
                1 => answers.front().cloned(),
                _ => answers.pop_front(),
            })
    };
    let (code, answer) = told.unwrap_or_else(|| match method {
        Method::GET => (StatusCode::NOT_FOUND, failure(404, "NotFound", "not found")),
        _ => (StatusCode::OK, body_or_object(&body)),
    });
    api.asked.lock().unwrap().push(Asked { method, path, body });
    Response::builder()
        .status(code)
        .header(header::CONTENT_TYPE, "application/json")
        .body(Body::from(answer.to_string()))
        .unwrap()
}

fn body_or_object(body: &Value) -> Value {
    if body.is_object() {
        body.clone()
    } else {
        json!({ "metadata": {} })
    }
}

/// An error of the API server.
pub(crate) fn failure(code: u16, reason: &str, message: &str) -> Value {
    json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure",
        "code": code, "reason": reason, "message": message,
    })
}

/// The BrokerCluster `shop/main`, with its id.
pub(crate) fn cluster() -> Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "BrokerCluster",
        "metadata": {
            "namespace": "shop", "name": "main", "uid": CLUSTER_UID, "generation": 1,
        },
        "spec": {},
        "status": { "clusterID": CLUSTER_ID, "image": "millrace:1" },
    })
}

/// A Queue of the namespace `shop`.
pub(crate) fn queue(name: &str) -> Value {
    json!({
        "apiVersion": "millrace.dev/v1alpha1",
        "kind": "Queue",
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid-{name}"), "generation": 1,
        },
        "spec": {},
    })
}

/// A context whose watches have seen the cluster `shop/main` and these queues.
pub(crate) fn context(api: &Api, control_port: u16, queues: &[Value]) -> (Context, Listeners) {
    let (stores, mut writers) = stores();
    let (bells, listeners) = bells();
    let clusters = [cluster()];
    fill(&clusters, |event| {
        writers.clusters.apply_watcher_event(&event)
    });
    fill(queues, |event| writers.queues.apply_watcher_event(&event));
    fill(&[], |event| writers.topics.apply_watcher_event(&event));
    let client = api.client();
    let context = Context {
        brokers: Arc::new(Nobody),
        events: Events::new(client.clone(), "test"),
        client,
        metrics: Arc::new(Metrics::new()),
        default_image: "millrace:1".to_owned(),
        control_port,
        stores,
        bells,
        reports: Default::default(),
        absences: Default::default(),
        backoffs: Default::default(),
    };
    (context, listeners)
}

fn fill<K>(objects: &[Value], mut apply: impl FnMut(watcher::Event<Guarded<K>>))
where
    Guarded<K>: serde::de::DeserializeOwned,
{
    apply(watcher::Event::Init);
    for object in objects {
        apply(watcher::Event::InitApply(
            serde_json::from_value(object.clone()).unwrap(),
        ));
    }
    apply(watcher::Event::InitDone);
}

/// Brokers that do not answer.
pub(crate) struct Nobody;

impl Nobody {
    fn answers<T>() -> Result<T, Unanswered> {
        Err(Unanswered("nobody is there".to_owned()))
    }
}

#[tonic::async_trait]
impl Brokers for Nobody {
    async fn identify(&self, _: IpAddr, _: &Token) -> Result<Said, Unanswered> {
        Self::answers()
    }

    async fn bootstrap(
        &self,
        _: IpAddr,
        _: &Token,
        _: &ClusterId,
        _: &FoundingStatus,
    ) -> Result<(), Unanswered> {
        Self::answers()
    }

    async fn view(&self, _: IpAddr, _: &Token) -> Result<View, Unanswered> {
        Self::answers()
    }

    async fn ask(&self, _: IpAddr, _: &Token, _: &Question) -> Result<Answer, Unanswered> {
        Self::answers()
    }

    async fn act(&self, _: IpAddr, _: &Token, _: Act, _: &str) -> Result<(), Unanswered> {
        Self::answers()
    }
}

/// Brokers whose disks are empty until they are told to found a cluster.
#[derive(Default)]
pub(crate) struct Empty {
    told: Mutex<Vec<(IpAddr, FoundingStatus)>>,
    calls_max: Mutex<usize>,
}

impl Empty {
    /// How many of them can be told something before the others are not reached any more.
    pub(crate) fn is_deaf_after(&self, calls: usize) {
        *self.calls_max.lock().unwrap() = calls;
    }

    /// Who was told what, in order.
    pub(crate) fn told(&self) -> Vec<(IpAddr, FoundingStatus)> {
        self.told.lock().unwrap().clone()
    }
}

#[tonic::async_trait]
impl Brokers for Empty {
    async fn identify(&self, at: IpAddr, _: &Token) -> Result<Said, Unanswered> {
        let node_id = format!("node at {at}");
        let told = self.told.lock().unwrap();
        Ok(match told.iter().any(|(who, _)| *who == at) {
            true => Said::Member {
                node_id,
                cluster_id: CLUSTER_ID.to_owned(),
            },
            false => Said::Empty { node_id },
        })
    }

    async fn bootstrap(
        &self,
        at: IpAddr,
        _: &Token,
        _: &ClusterId,
        founding: &FoundingStatus,
    ) -> Result<(), Unanswered> {
        let mut told = self.told.lock().unwrap();
        if told.len() >= *self.calls_max.lock().unwrap() {
            return Nobody::answers();
        }
        told.push((at, founding.clone()));
        Ok(())
    }

    async fn view(&self, _: IpAddr, _: &Token) -> Result<View, Unanswered> {
        Nobody::answers()
    }

    async fn ask(&self, _: IpAddr, _: &Token, _: &Question) -> Result<Answer, Unanswered> {
        Nobody::answers()
    }

    async fn act(&self, _: IpAddr, _: &Token, _: Act, _: &str) -> Result<(), Unanswered> {
        Nobody::answers()
    }
}

/// A broker with a topology in memory. Refuses objects whose address contains `refused`, and more
/// of them than its limit.
#[derive(Clone, Default)]
pub(crate) struct Broker {
    state: Arc<Mutex<BrokerState>>,
}

#[derive(Default)]
struct BrokerState {
    revision: u64,
    objects_max: Option<usize>,
    /// The next delta finds another revision.
    is_ahead: bool,
    digest: Vec<u8>,
    /// How many looks after each delta show what was before it.
    late_looks: usize,
    /// What those still show.
    past: Option<Past>,
    /// Deltas it was sent.
    deltas: usize,
    objects: BTreeMap<String, TopologyObject>,
}

/// A view of before a delta.
struct Past {
    looks_left: usize,
    revision: u64,
    objects: BTreeMap<String, TopologyObject>,
}

impl BrokerState {
    /// Revision and objects as a look sees them.
    fn seen(&mut self) -> (u64, &BTreeMap<String, TopologyObject>) {
        let past = self.past.as_mut().filter(|past| past.looks_left > 0);
        match past {
            Some(past) => {
                past.looks_left -= 1;
                (past.revision, &past.objects)
            }
            None => (self.revision, &self.objects),
        }
    }
}

impl Broker {
    /// Serves on a port of its own until the test ends.
    pub(crate) async fn serve(&self) -> u16 {
        let any_port = SocketAddr::from(([127, 0, 0, 1], 0));
        let listener = tokio::net::TcpListener::bind(any_port).await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let server = Server::builder().add_service(ClusterServer::new(self.clone()));
        tokio::spawn(server.serve_with_incoming(TcpListenerStream::new(listener)));
        port
    }

    /// Gives it a queue it has from before.
    pub(crate) fn holds(&self, address: &str, uid: &str) {
        let object = TopologyObject {
            address: address.to_owned(),
            uid: uid.to_owned(),
            generation: 1,
            spec: None,
        };
        let mut state = self.state.lock().unwrap();
        state.objects.insert(address.to_owned(), object);
        state.revision += 1;
    }

    /// Sets how many objects it takes.
    pub(crate) fn limit(&self, objects_max: usize) {
        self.state.lock().unwrap().objects_max = Some(objects_max);
    }

    /// Somebody else changes its topology before the next delta comes.
    pub(crate) fn is_changed_in_between(&self) {
        self.state.lock().unwrap().is_ahead = true;
    }

    /// Gives it a digest that nothing changes.
    pub(crate) fn encodes_otherwise(&self) {
        self.state.lock().unwrap().digest = vec![1; 32];
    }

    /// It is not the leader: so many looks after a delta show what was before it.
    pub(crate) fn shows_late(&self, looks: usize) {
        self.state.lock().unwrap().late_looks = looks;
    }

    /// How many deltas it was sent.
    pub(crate) fn deltas(&self) -> usize {
        self.state.lock().unwrap().deltas
    }

    /// Addresses of all it has.
    pub(crate) fn addresses(&self) -> Vec<String> {
        self.state.lock().unwrap().objects.keys().cloned().collect()
    }
}

/// A refusal with its reason, as brokers send it.
fn refusal(code: Code, reason: &str) -> tonic::Status {
    let error = Error {
        reason: reason.to_owned(),
        message: reason.to_owned(),
        ..Error::default()
    };
    let detail = prost_types::Any {
        type_url: "type.googleapis.com/millrace.v1.Error".to_owned(),
        value: error.encode_to_vec(),
    };
    let rich = tonic_types::pb::Status {
        code: code.into(),
        message: reason.to_owned(),
        details: vec![detail],
    };
    tonic::Status::with_details(code, reason, rich.encode_to_vec().into())
}

/// The operator does not steer nodes yet.
fn not_faked() -> tonic::Status {
    tonic::Status::unimplemented("not faked")
}

#[tonic::async_trait]
impl Cluster for Broker {
    async fn nodes(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodesRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::NodesResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn shards(
        &self,
        _request: tonic::Request<millrace_proto::v1::ShardsRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::ShardsResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn can_stop(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::BlockersResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn caught_up(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::BlockersResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn drain_node(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn undrain_node(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn cordon_node(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn uncordon_node(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn forget_node(
        &self,
        _request: tonic::Request<millrace_proto::v1::NodeRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn transfer_leader(
        &self,
        _request: tonic::Request<millrace_proto::v1::TransferLeaderRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn move_replica(
        &self,
        _request: tonic::Request<millrace_proto::v1::MoveReplicaRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn set_replication(
        &self,
        _request: tonic::Request<millrace_proto::v1::SetReplicationRequest>,
    ) -> Result<tonic::Response<millrace_proto::v1::OrderedResponse>, tonic::Status> {
        Err(not_faked())
    }

    async fn metadata(
        &self,
        request: tonic::Request<MetadataRequest>,
    ) -> Result<tonic::Response<MetadataResponse>, tonic::Status> {
        let token = request.metadata().get("authorization");
        if token.is_none_or(|token| token != "Bearer secret") {
            return Err(tonic::Status::unauthenticated("no"));
        }
        let mut state = self.state.lock().unwrap();
        let digest = state.digest.clone().into();
        let (revision, objects) = state.seen();
        let object = |object: &TopologyObject| ObjectState {
            address: object.address.clone(),
            uid: object.uid.clone(),
            generation: object.generation,
            applied: true,
            orphaned: false,
            problems: Vec::new(),
        };
        Ok(tonic::Response::new(MetadataResponse {
            cluster_id: CLUSTER_ID.to_owned(),
            node_id: "n1".to_owned(),
            version: "0.1.0".to_owned(),
            shards: 4,
            topology: Some(TopologyState {
                revision,
                applied_revision: revision,
                digest,
                objects: objects.values().map(object).collect(),
            }),
        }))
    }

    async fn apply_topology(
        &self,
        request: tonic::Request<ApplyTopologyRequest>,
    ) -> Result<tonic::Response<ApplyTopologyResponse>, tonic::Status> {
        let request = request.into_inner();
        let mut state = self.state.lock().unwrap();
        state.deltas += 1;
        if std::mem::take(&mut state.is_ahead) {
            state.revision += 1;
        }
        if request.base_revision != state.revision {
            return Err(refusal(Code::Aborted, "REVISION_CONFLICT"));
        }
        let new = request.upserts.iter().map(|object| &object.address);
        let new = new.filter(|address| !state.objects.contains_key(*address));
        if state
            .objects_max
            .is_some_and(|max| state.objects.len() + new.count() > max)
        {
            return Err(refusal(Code::ResourceExhausted, "LIMIT_REACHED"));
        }
        if request
            .upserts
            .iter()
            .any(|object| object.address.contains("refused"))
        {
            return Err(tonic::Status::invalid_argument("that one is refused"));
        }
        state.past = Some(Past {
            looks_left: state.late_looks,
            revision: state.revision,
            objects: state.objects.clone(),
        });
        for object in request.upserts {
            state.objects.insert(object.address.clone(), object);
        }
        for removal in request.removals {
            state.objects.remove(&removal.address);
        }
        state.revision += 1;
        let revision = state.revision;
        Ok(tonic::Response::new(ApplyTopologyResponse { revision }))
    }
}
