//! `self-test`: makes a small cluster and a queue, sends messages through, removes everything
//! again. What `helm test` runs; speaks to people on standard output.
//!
//! Promises: what it made is removed whatever happens, its claim too, unless it is killed.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::core::v1::PersistentVolumeClaim;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{DeleteParams, PostParams};
use kube::{Api, Client, Resource};
use millrace_client::{ConsumerOptions, Message, PublisherOptions};
use millrace_crds::{
    BrokerCluster, BrokerClusterSpec, ClusterRef, DeletionPolicy, Queue, QueueSpec, Size, Storage,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::time::{sleep, timeout};

use crate::condition::{Truth, find};
use crate::hash;
use crate::names::ClusterKey;
use crate::options::SelfTestOptions;
use crate::reasons::condition;

/// Enough to need more than one delivery, few enough to take no time.
const MESSAGES: usize = 100;
/// The smallest the definition allows.
const STORAGE: &str = "1Gi";
/// Somebody watches.
const POLL: Duration = Duration::from_secs(1);
/// A claim goes when its pod has stopped.
const REMOVAL_LIMIT: Duration = Duration::from_secs(90);

/// What the test works with.
struct Stage {
    client: Client,
    key: ClusterKey,
}

/// Runs the test.
///
/// # Errors
/// When it fails, with the message of the condition that is to blame, if there is one.
pub async fn self_test(options: SelfTestOptions) -> anyhow::Result<()> {
    let client = Client::try_default()
        .await
        .context("no way to reach an API server")?;
    let namespace = options.namespace.clone();
    let namespace = namespace.unwrap_or_else(|| client.default_namespace().to_owned());
    let mut random = [0; 4];
    getrandom::fill(&mut random).context("no randomness")?;
    let key = ClusterKey::new(namespace, format!("self-test-{}", hash::hex(&random)));
    let stage = Stage { client, key };
    let tested = tokio::select! {
        tested = timeout(options.timeout, stage.test(options.storage_class)) => tested
            .unwrap_or_else(|_| Err(anyhow::anyhow!("not done within {:?}", options.timeout))),
        () = told_to_stop() => Err(anyhow::anyhow!("told to stop")),
    };
    let tested = match tested {
        Err(error) => Err(stage.blame(error).await),
        Ok(()) => Ok(()),
    };
    let removed = stage
        .remove()
        .await
        .context("not everything could be removed");
    tested?;
    removed?;
    println!("self-test passed");
    Ok(())
}

impl Stage {
    async fn test(&self, storage_class: Option<String>) -> anyhow::Result<()> {
        let name = &self.key.name;
        let cluster = BrokerCluster::new(name, cluster_spec(storage_class));
        self.api()
            .create(&PostParams::default(), &cluster)
            .await
            .context("BrokerCluster")?;
        println!("created BrokerCluster {}", self.key);
        let queue = Queue::new(name, queue_spec(name)?);
        self.api()
            .create(&PostParams::default(), &queue)
            .await
            .context("Queue")?;
        println!("created Queue {}", self.key);

        let cluster: BrokerCluster = self
            .ready(|cluster: &BrokerCluster| {
                cluster
                    .status
                    .as_ref()
                    .map(|status| status.conditions.clone())
            })
            .await?;
        println!("BrokerCluster is ready");
        self.ready(|queue: &Queue| {
            queue
                .status
                .as_ref()
                .map(|status| status.conditions.clone())
        })
        .await?;
        println!("Queue is ready");

        let endpoint = cluster.status.and_then(|status| status.endpoint);
        let endpoint = endpoint.context("the cluster is ready, but does not say where it is")?;
        self.send_and_take(&format!("http://{endpoint}")).await
    }

    /// Publishes messages and takes each of them once.
    async fn send_and_take(&self, url: &str) -> anyhow::Result<()> {
        let address = format!("queue/{}/{}", self.key.namespace, self.key.name);
        let client = millrace_client::Client::connect(url)?;
        let publisher = client.publisher(&address, PublisherOptions::default());
        let mut pending = Vec::new();
        let texts: BTreeSet<String> = (0..MESSAGES).map(|n| format!("message {n}")).collect();
        for text in &texts {
            let message = Message {
                payload: text.clone().into_bytes().into(),
                ..Message::default()
            };
            pending.push(publisher.send(&message).await?);
        }
        for acknowledged in pending {
            acknowledged.await.context("publish")?;
        }
        println!("published {MESSAGES} messages to {address}, all acknowledged");

        let mut consumer = client.consumer(&address, ConsumerOptions::default());
        let mut left = texts;
        while !left.is_empty() {
            let delivery = consumer.next().await.context("the consumer was closed")??;
            let text = String::from_utf8_lossy(&delivery.message.payload).into_owned();
            ensure!(left.remove(&text), "{text:?} came twice, or was never sent");
            delivery.accept().await.context("accept")?;
        }
        consumer.close().await;
        println!("consumed {MESSAGES} messages, all accepted");
        Ok(())
    }

    /// Waits until a resource of the test's name says that it is ready.
    async fn ready<K>(&self, conditions: impl Fn(&K) -> Option<Vec<Condition>>) -> anyhow::Result<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned,
    {
        loop {
            let object: K = self.api().get(&self.key.name).await?;
            let conditions = conditions(&object).unwrap_or_default();
            let generation = object.meta().generation;
            let ready = find(&conditions, condition::READY).is_some_and(|ready| {
                ready.status == Truth::True.as_str() && ready.observed_generation == generation
            });
            if ready {
                return Ok(object);
            }
            sleep(POLL).await;
        }
    }

    /// Adds what the resources say about themselves.
    async fn blame(&self, error: anyhow::Error) -> anyhow::Error {
        let mut words = Vec::new();
        let api: Api<BrokerCluster> = self.api();
        if let Ok(cluster) = api.get(&self.key.name).await {
            let conditions = cluster.status.map(|status| status.conditions);
            words.extend(complaint("BrokerCluster", conditions.as_deref()));
        }
        let api: Api<Queue> = self.api();
        if let Ok(queue) = api.get(&self.key.name).await {
            let conditions = queue.status.map(|status| status.conditions);
            words.extend(complaint("Queue", conditions.as_deref()));
        }
        if words.is_empty() {
            error
        } else {
            error.context(words.join("; "))
        }
    }

    async fn remove(&self) -> anyhow::Result<()> {
        let name = &self.key.name;
        let queue = delete(self.api::<Queue>(), name).await;
        let cluster = delete(self.api::<BrokerCluster>(), name).await;
        let claim_name = self.key.claim(0);
        let claims: Api<PersistentVolumeClaim> = self.api();
        let claim = delete(claims.clone(), &claim_name).await;
        queue.and(cluster).and(claim)?;
        let gone = async {
            while claims.get_opt(&claim_name).await?.is_some() {
                sleep(POLL).await;
            }
            anyhow::Ok(())
        };
        match timeout(REMOVAL_LIMIT, gone).await {
            Ok(gone) => gone?,
            Err(_) => bail!("claim {claim_name} is still there after {REMOVAL_LIMIT:?}"),
        }
        println!("removed BrokerCluster, Queue and claim {claim_name}");
        Ok(())
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Api::namespaced(self.client.clone(), &self.key.namespace)
    }
}

fn cluster_spec(storage_class: Option<String>) -> BrokerClusterSpec {
    BrokerClusterSpec {
        storage: Storage {
            size: Size::new(STORAGE),
            storage_class_name: storage_class,
        },
        replicas: 1,
        ..BrokerClusterSpec::default()
    }
}

/// By the definition's own defaults, and nothing kept when it is deleted.
fn queue_spec(cluster: &str) -> anyhow::Result<QueueSpec> {
    let mut spec: QueueSpec = serde_json::from_str("{}")?;
    spec.cluster_ref = Some(ClusterRef {
        name: cluster.to_owned(),
    });
    spec.deletion_policy = DeletionPolicy::Delete;
    Ok(spec)
}

/// What a resource that is not ready says about it.
fn complaint(kind: &str, conditions: Option<&[Condition]>) -> Option<String> {
    let ready = find(conditions.unwrap_or_default(), condition::READY);
    let Some(ready) = ready else {
        return Some(format!("{kind} has no status; does the operator run?"));
    };
    let fails = ready.status != Truth::True.as_str();
    fails.then(|| format!("{kind} is not ready: {}: {}", ready.reason, ready.message))
}

async fn delete<K>(api: Api<K>, name: &str) -> anyhow::Result<()>
where
    K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Serialize,
{
    match api.delete(name, &DeleteParams::background()).await {
        Err(kube::Error::Api(status)) if status.is_not_found() => Ok(()),
        other => other
            .map(drop)
            .with_context(|| format!("{} {name}", K::kind(&()))),
    }
}

async fn told_to_stop() {
    use tokio::signal::unix::{SignalKind, signal};
    match signal(SignalKind::terminate()) {
        Ok(mut terminate) => drop(terminate.recv().await),
        Err(_) => std::future::pending().await,
    }
}
