//! `kubectl millrace report`: a bundle for a bug report. Takes what this user may see; what he may
//! not, or what does not answer, is named in it and costs nothing else.

use std::fmt::Debug;
use std::path::PathBuf;
use std::time::Duration;

use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::Request;
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use jiff::Timestamp;
use k8s_openapi::api::apps::v1::{Deployment, StatefulSet};
use k8s_openapi::api::core::v1::{ConfigMap, Event, Node, PersistentVolumeClaim, Pod, Service};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{ListParams, LogParams};
use kube::{Api, Resource, ResourceExt as _};
use millrace::{Failure, tell};
use millrace_client::{Client, ClientOptions, Control};
use millrace_crds::{BrokerCluster, Queue, Topic};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::bundle::Bundle;
use crate::place::{Cluster, refused};
use crate::redact;

/// Of one log: what happened lately, and a file that can still be sent.
const LOG_BYTES_MAX: i64 = 16 << 20;
/// Of the metrics of one broker, which grow with its queues.
const METRICS_BYTES_MAX: usize = 64 << 20;
/// A broker that does not answer for so long is one finding.
const ANSWER_WAIT_MAX: Duration = Duration::from_secs(20);
/// Which pods are operators.
const OPERATOR: &str = "app.kubernetes.io/name=millrace,app.kubernetes.io/component=operator";

/// Options of the verb.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The file to write; it must not be there [default: millrace-report-CLUSTER-TIME.tar.gz]
    #[arg(short, long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// Lines of each log, from its end
    #[arg(long, value_name = "N", default_value_t = 20_000,
        value_parser = clap::value_parser!(i64).range(1..))]
    log_lines: i64,
}

/// Writes it.
pub(crate) async fn run(args: Args, cluster: &Cluster) -> Result<(), Failure> {
    let now = Timestamp::now();
    let root = format!(
        "millrace-report-{}-{}",
        cluster.name(),
        now.strftime("%Y%m%dT%H%M%SZ")
    );
    let file = args.file.unwrap_or_else(|| format!("{root}.tar.gz").into());
    let failed =
        |error: std::io::Error| Failure::local(&format!("cannot write {}", file.display()), &error);
    let seconds = u64::try_from(now.as_second()).unwrap_or_default();
    let bundle = Bundle::create(&file, root, seconds).map_err(failed)?;
    let mut report = Report {
        cluster,
        log_lines: args.log_lines,
        token: cluster.token().await,
        bundle,
    };
    report.fill().await.map_err(failed)?;
    let missing = report.bundle.finish().map_err(failed)?;
    missing
        .lines()
        .for_each(|line| tell(format_args!("not in it: {line}")));
    println!("{}", file.display());
    Ok(())
}

struct Report<'a> {
    cluster: &'a Cluster,
    log_lines: i64,
    token: Result<String, Failure>,
    bundle: Bundle,
}

impl Report<'_> {
    async fn fill(&mut self) -> std::io::Result<()> {
        let version = format!("kubectl-millrace {}\n", env!("CARGO_PKG_VERSION"));
        self.bundle.add("version.txt", version.as_bytes())?;
        let (client, namespace) = (self.cluster.client.clone(), &self.cluster.namespace);
        let here = ListParams::default();
        let ours = ListParams::default().labels(&self.cluster.selector());
        let of_cluster = format!("millrace.dev/cluster={}", self.cluster.name());
        let of_cluster = ListParams::default().labels(&of_cluster);

        let clusters: Api<BrokerCluster> = Api::namespaced(client.clone(), namespace);
        self.resources("brokerclusters", clusters, &here).await?;
        let queues: Api<Queue> = Api::all(client.clone());
        self.resources("queues", queues, &here).await?;
        let topics: Api<Topic> = Api::all(client.clone());
        self.resources("topics", topics, &here).await?;
        let sets: Api<StatefulSet> = Api::namespaced(client.clone(), namespace);
        self.resources("statefulsets", sets, &of_cluster).await?;
        let services: Api<Service> = Api::namespaced(client.clone(), namespace);
        self.resources("services", services, &of_cluster).await?;
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), namespace);
        self.resources("configmaps", maps, &of_cluster).await?;
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), namespace);
        self.resources("poddisruptionbudgets", budgets, &of_cluster)
            .await?;
        let claims: Api<PersistentVolumeClaim> = Api::namespaced(client.clone(), namespace);
        self.resources("persistentvolumeclaims", claims, &of_cluster)
            .await?;
        let events: Api<Event> = Api::namespaced(client.clone(), namespace);
        self.resources("events", events, &here).await?;
        let nodes: Api<Node> = Api::all(client.clone());
        self.resources("nodes", nodes, &here).await?;
        let pods = self.resources("pods", self.cluster.pods(), &ours).await?;
        let operator = ListParams::default().labels(OPERATOR);
        let deployments: Api<Deployment> = Api::all(client.clone());
        self.resources("operator-deployments", deployments, &operator)
            .await?;
        let operators: Api<Pod> = Api::all(client);
        let operators = self
            .resources("operator-pods", operators, &operator)
            .await?;
        for pod in pods.iter().chain(&operators) {
            self.logs(pod).await?;
        }
        for pod in &pods {
            self.metrics(&pod.name_any()).await?;
        }
        self.brokers_say().await
    }

    /// A list of resources, as YAML.
    async fn resources<K>(
        &mut self,
        name: &str,
        api: Api<K>,
        which: &ListParams,
    ) -> std::io::Result<Vec<K>>
    where
        K: Resource + Clone + Debug + DeserializeOwned + Serialize,
    {
        let file = format!("resources/{name}.yaml");
        let items = match api.list(which).await {
            Ok(list) => list.items,
            Err(error) => {
                self.bundle.lacks(&file, refused(name, &error));
                return Ok(Vec::new());
            }
        };
        match yaml(&items) {
            Ok(text) => self.bundle.add(&file, text.as_bytes())?,
            Err(error) => self.bundle.lacks(&file, error),
        }
        Ok(items)
    }

    /// What a pod's containers have said, and said before their last restart.
    async fn logs(&mut self, pod: &Pod) -> std::io::Result<()> {
        let (namespace, name) = (pod.namespace().unwrap_or_default(), pod.name_any());
        let api: Api<Pod> = Api::namespaced(self.cluster.client.clone(), &namespace);
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        for container in containers {
            let restarts = restarts(pod, &container.name);
            for previous in [false, true] {
                if previous && restarts == 0 {
                    continue;
                }
                let end = if previous { ".previous.log" } else { ".log" };
                let file = format!("logs/{namespace}/{name}/{}{end}", container.name);
                let params = LogParams {
                    container: Some(container.name.clone()),
                    limit_bytes: Some(LOG_BYTES_MAX),
                    tail_lines: Some(self.log_lines),
                    previous,
                    ..LogParams::default()
                };
                match api.logs(&name, &params).await {
                    Ok(text) => {
                        let secret = self.token.as_deref().ok();
                        let text = redact::text(&text, secret);
                        self.bundle.add(&file, text.as_bytes())?;
                    }
                    Err(error) => self.bundle.lacks(&file, refused("log", &error)),
                }
            }
        }
        Ok(())
    }

    /// What a broker counts.
    async fn metrics(&mut self, pod: &str) -> std::io::Result<()> {
        let file = format!("metrics/{pod}.txt");
        match timeout(ANSWER_WAIT_MAX, metrics(self.cluster, pod)).await {
            Ok(Ok(text)) => self.bundle.add(&file, &text),
            Ok(Err(why)) => {
                self.bundle.lacks(&file, why);
                Ok(())
            }
            Err(_) => {
                self.bundle.lacks(&file, "no answer in time");
                Ok(())
            }
        }
    }

    /// What the brokers say of nodes, shards, queues and topics.
    async fn brokers_say(&mut self) -> std::io::Result<()> {
        let token = self.token.as_deref().map_err(ToString::to_string);
        let told = match token {
            Ok(token) => timeout(ANSWER_WAIT_MAX, standing(self.cluster, token)).await,
            Err(why) => Ok(Err(why)),
        };
        match told.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok((nodes, shards)) => {
                self.bundle
                    .add("nodes.json", format!("{nodes:#}").as_bytes())?;
                self.bundle
                    .add("shards.json", format!("{shards:#}").as_bytes())?;
            }
            Err(why) => self.bundle.lacks("nodes.json, shards.json", why),
        }
        let told = timeout(ANSWER_WAIT_MAX, backlogs(self.cluster)).await;
        match told.unwrap_or_else(|_| Err("no answer in time".to_owned())) {
            Ok(list) => self.bundle.add("list.json", format!("{list:#}").as_bytes()),
            Err(why) => {
                self.bundle.lacks("list.json", why);
                Ok(())
            }
        }
    }
}

fn yaml<K: Serialize>(items: &[K]) -> Result<String, String> {
    let mut value = serde_json::to_value(items).map_err(|error| error.to_string())?;
    redact::resource(&mut value);
    serde_saphyr::to_string(&value).map_err(|error| error.to_string())
}

fn restarts(pod: &Pod, container: &str) -> i32 {
    let statuses = pod
        .status
        .iter()
        .flat_map(|status| &status.container_statuses);
    let ours = statuses.flatten().find(|status| status.name == container);
    ours.map_or(0, |status| status.restart_count)
}

async fn metrics(cluster: &Cluster, pod: &str) -> Result<Bytes, String> {
    let forward = cluster.metrics(pod).await.map_err(|why| why.to_string())?;
    let socket = TcpStream::connect(forward.address()).await;
    let socket = socket.map_err(|error| error.to_string())?;
    let opened = hyper::client::conn::http1::handshake(TokioIo::new(socket)).await;
    let (mut sender, connection) = opened.map_err(|error| error.to_string())?;
    // Ends with the request; an error shows there.
    let connection = tokio::spawn(connection);
    let request = Request::get("/metrics")
        .header("host", pod)
        .body(Empty::<Bytes>::new());
    let request = request.map_err(|error| error.to_string())?;
    let response = sender.send_request(request).await;
    let body = response.map_err(|error| error.to_string())?.into_body();
    let body = Limited::new(body, METRICS_BYTES_MAX).collect().await;
    connection.abort();
    Ok(body.map_err(|error| error.to_string())?.to_bytes())
}

async fn standing(
    cluster: &Cluster,
    token: &str,
) -> Result<(serde_json::Value, serde_json::Value), String> {
    let forward = cluster.control().await.map_err(|why| why.to_string())?;
    let control = Control::connect(ClientOptions::new(forward.url()), token);
    let control = control.map_err(|error| error.to_string())?;
    let told = millrace::nodes_as_json(&control).await;
    told.map_err(|error| error.to_string())
}

async fn backlogs(cluster: &Cluster) -> Result<serde_json::Value, String> {
    let forward = cluster.clients().await.map_err(|why| why.to_string())?;
    let options = ClientOptions {
        direct: false,
        ..ClientOptions::new(forward.url())
    };
    let client = Client::connect(options).map_err(|error| error.to_string())?;
    let told = millrace::list_as_json(&client).await;
    told.map_err(|error| error.to_string())
}
