//! Which cluster is meant, and how its brokers are reached.

use std::path::PathBuf;

use k8s_openapi::api::core::v1::{Pod, Secret};
use kube::api::ListParams;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config, ResourceExt as _};
use millrace::{Failure, Port, Talk, Way};
use millrace_crds::BrokerCluster;

use crate::forward::Forward;

/// Port for clients of a broker pod.
const CLIENT_PORT: u16 = 7070;
/// Port that steers it.
const CONTROL_PORT: u16 = 7071;
/// Port of its metrics.
const METRICS_PORT: u16 = 7072;
/// Key of the token in the control Secret.
const TOKEN_KEY: &str = "token";

/// Where to look.
#[derive(Debug, clap::Args)]
pub(crate) struct Place {
    /// The kubeconfig file [default: what kubectl uses]
    #[arg(long, value_name = "FILE", global = true)]
    kubeconfig: Option<PathBuf>,
    /// Its context [default: the current one]
    #[arg(long, value_name = "NAME", global = true)]
    context: Option<String>,
    /// Of the cluster, and of addresses that do not say it [default: that of the context]
    #[arg(
        short,
        long,
        value_name = "NAMESPACE",
        env = "MILLRACE_NAMESPACE",
        global = true
    )]
    pub(crate) namespace: Option<String>,
    /// The BrokerCluster [default: the only one in the namespace]
    #[arg(long, value_name = "NAME", env = "MILLRACE_CLUSTER", global = true)]
    cluster: Option<String>,
}

impl Place {
    /// The cluster that is meant.
    pub(crate) async fn find(&self) -> Result<Cluster, Failure> {
        let config = self.config().await?;
        let namespace = self.namespace.clone();
        let namespace = namespace.unwrap_or_else(|| config.default_namespace.clone());
        let client = Client::try_from(config)
            .map_err(|error| Failure::usage(format_args!("the kubeconfig is no use: {error}")))?;
        let clusters: Api<BrokerCluster> = Api::namespaced(client.clone(), &namespace);
        let object = match &self.cluster {
            Some(name) => {
                let what = format!("BrokerCluster {namespace}/{name}");
                clusters.get(name).await.map_err(|e| refused(&what, &e))?
            }
            None => {
                let what = format!("BrokerClusters of namespace {namespace}");
                let all = clusters.list(&ListParams::default()).await;
                only(all.map_err(|e| refused(&what, &e))?.items, &namespace)?
            }
        };
        Ok(Cluster {
            client,
            namespace,
            object,
        })
    }

    async fn config(&self) -> Result<Config, Failure> {
        let options = KubeConfigOptions {
            context: self.context.clone(),
            ..KubeConfigOptions::default()
        };
        let wrong = |error: &dyn std::fmt::Display| Failure::usage(format_args!("{error}"));
        match &self.kubeconfig {
            Some(file) => {
                let kubeconfig = Kubeconfig::read_from(file).map_err(|error| wrong(&error))?;
                let config = Config::from_custom_kubeconfig(kubeconfig, &options).await;
                config.map_err(|error| wrong(&error))
            }
            None if self.context.is_some() => {
                let config = Config::from_kubeconfig(&options).await;
                config.map_err(|error| wrong(&error))
            }
            None => Config::infer().await.map_err(|error| wrong(&error)),
        }
    }
}

/// The only cluster there is.
fn only(mut clusters: Vec<BrokerCluster>, namespace: &str) -> Result<BrokerCluster, Failure> {
    match clusters.len() {
        0 => Err(Failure::not_found(format_args!(
            "there is no BrokerCluster in namespace {namespace}; --namespace says where it is"
        ))),
        1 => Ok(clusters.remove(0)),
        _ => {
            let names: Vec<String> = clusters.iter().map(|c| c.name_any()).collect();
            Err(Failure::usage(format_args!(
                "namespace {namespace} has several BrokerClusters, {}: --cluster says which",
                names.join(", ")
            )))
        }
    }
}

/// A cluster that is there.
#[derive(Clone)]
pub(crate) struct Cluster {
    /// The API server.
    pub(crate) client: Client,
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its resource, as it was found.
    pub(crate) object: BrokerCluster,
}

impl Cluster {
    /// Its name.
    pub(crate) fn name(&self) -> String {
        self.object.name_any()
    }

    /// Does what a verb says.
    pub(crate) async fn talk(&self, mut talk: Talk) -> Result<(), Failure> {
        let (port, token) = match talk.port() {
            Port::Clients => (CLIENT_PORT, String::new()),
            Port::Control => (CONTROL_PORT, self.token().await?),
        };
        let forward = Forward::open(self.clone(), port, None).await?;
        talk.go(Way {
            url: forward.url(),
            token,
            namespace: self.namespace.clone(),
        });
        talk.run().await
    }

    /// A way to the port for clients of any broker.
    pub(crate) async fn clients(&self) -> Result<Forward, Failure> {
        Forward::open(self.clone(), CLIENT_PORT, None).await
    }

    /// A way to the control port of any broker.
    pub(crate) async fn control(&self) -> Result<Forward, Failure> {
        Forward::open(self.clone(), CONTROL_PORT, None).await
    }

    /// A way to the metrics of one broker.
    pub(crate) async fn metrics(&self, pod: &str) -> Result<Forward, Failure> {
        Forward::open(self.clone(), METRICS_PORT, Some(pod.to_owned())).await
    }

    /// The control token.
    pub(crate) async fn token(&self) -> Result<String, Failure> {
        let status = self.object.status.as_ref();
        let name = status.and_then(|status| status.control_secret.clone());
        let name = name.unwrap_or_else(|| format!("{}-control", self.name()));
        let secrets: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!(
            "Secret {}/{name}, which has the control token",
            self.namespace
        );
        let secret = secrets.get(&name).await.map_err(|e| refused(&what, &e))?;
        let token = secret.data.unwrap_or_default().remove(TOKEN_KEY);
        let token = token.and_then(|token| String::from_utf8(token.0).ok());
        token.ok_or_else(|| Failure::failed(format_args!("{what}, has no key {TOKEN_KEY}")))
    }

    /// Its broker pods.
    pub(crate) fn pods(&self) -> Api<Pod> {
        Api::namespaced(self.client.clone(), &self.namespace)
    }

    /// Selects them.
    pub(crate) fn selector(&self) -> String {
        let status = self.object.status.as_ref();
        let selector = status.and_then(|status| status.selector.clone());
        selector.unwrap_or_else(|| format!("millrace.dev/cluster={}", self.name()))
    }

    /// The broker pods there are, ready ones first.
    pub(crate) async fn brokers(&self) -> Result<Vec<Pod>, Failure> {
        let what = format!("pods of namespace {}", self.namespace);
        let ours = ListParams::default().labels(&self.selector());
        let all = self.pods().list(&ours).await;
        let mut pods = all.map_err(|e| refused(&what, &e))?.items;
        pods.sort_by_key(|pod| (!is_ready(pod), pod.name_any()));
        Ok(pods)
    }
}

/// Whether clients may be sent there.
pub(crate) fn is_ready(pod: &Pod) -> bool {
    let conditions = pod.status.iter().flat_map(|status| &status.conditions);
    conditions
        .flatten()
        .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// Why the API server does not give something.
pub(crate) fn refused(what: &str, error: &kube::Error) -> Failure {
    match error {
        kube::Error::Api(status) if status.code == 404 => {
            Failure::not_found(format_args!("{what}: {}", status.message))
        }
        kube::Error::Api(status) => Failure::failed(format_args!("{what}: {}", status.message)),
        error => {
            let mut text = error.to_string();
            let mut cause = std::error::Error::source(error);
            while let Some(error) = cause {
                let reason = error.to_string();
                // Some repeat what caused them.
                if !text.contains(&reason) {
                    text = format!("{text}: {reason}");
                }
                cause = error.source();
            }
            Failure::unreachable(format_args!("{what}: {text}"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use millrace_crds::BrokerClusterSpec;

    fn cluster(name: &str) -> BrokerCluster {
        let spec: BrokerClusterSpec =
            serde_json::from_str(r#"{"storage": {"size": "1Gi"}}"#).unwrap();
        BrokerCluster::new(name, spec)
    }

    #[test]
    fn one_cluster_needs_no_name_and_several_do() {
        let found = only(vec![cluster("main")], "shop").unwrap();
        assert_eq!(found.name_any(), "main");
        let none = format!("{:?}", only(vec![], "shop").unwrap_err());
        assert!(
            none.contains("no BrokerCluster in namespace shop"),
            "{none}"
        );
        let several = only(vec![cluster("main"), cluster("other")], "shop");
        let several = format!("{:?}", several.unwrap_err());
        assert!(several.contains("main, other: --cluster"), "{several}");
    }
}
