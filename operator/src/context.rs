//! What reconciliations share. One [`Context`] for each scope: all namespaces, or one of those
//! named.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};

use kube::Client;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::Store;
use millrace_crds::{BrokerCluster, Queue, Topic};

use crate::backoff::Backoffs;
use crate::bells::Bells;
use crate::brokers::Brokers;
use crate::events::Events;
use crate::metrics::Metrics;
use crate::names::ClusterKey;
use crate::topology::Absences;
use crate::topology::report::Report;
use crate::topology::resolve::Choice;

/// An object that may not be readable: it is there all the same, and must not be taken for deleted.
pub(crate) type Guarded<K> = DeserializeGuard<K>;

/// What the watches have seen.
#[derive(Clone)]
pub(crate) struct Stores {
    pub(crate) clusters: Store<Guarded<BrokerCluster>>,
    pub(crate) queues: Store<Guarded<Queue>>,
    pub(crate) topics: Store<Guarded<Topic>>,
}

impl Stores {
    /// The clusters of a namespace, as references see them.
    pub(crate) fn candidates(&self, namespace: &str) -> Vec<Choice> {
        let of_namespace = |cluster: &Guarded<BrokerCluster>| {
            kube::Resource::meta(cluster).namespace.as_deref() == Some(namespace)
        };
        let clusters = self.clusters.state_filter(of_namespace);
        let candidate = |cluster: Arc<Guarded<BrokerCluster>>| {
            let meta = kube::Resource::meta(&*cluster);
            Choice {
                name: meta.name.clone().unwrap_or_default(),
                leaving: meta.deletion_timestamp.is_some(),
            }
        };
        clusters.into_iter().map(candidate).collect()
    }
}

/// The last report of each cluster's broker.
#[derive(Default)]
pub(crate) struct Reports {
    by_cluster: Mutex<BTreeMap<ClusterKey, Arc<Report>>>,
}

impl Reports {
    pub(crate) fn of(&self, key: &ClusterKey) -> Option<Arc<Report>> {
        let reports = self
            .by_cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reports.get(key).cloned()
    }

    /// Replaces a report and returns the one before.
    pub(crate) fn put(&self, key: ClusterKey, report: Arc<Report>) -> Option<Arc<Report>> {
        let mut reports = self
            .by_cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reports.insert(key, report)
    }

    pub(crate) fn forget(&self, key: &ClusterKey) {
        let mut reports = self
            .by_cluster
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        reports.remove(key);
    }
}

/// What reconciliations share.
pub(crate) struct Context {
    pub(crate) client: Client,
    pub(crate) events: Events,
    pub(crate) metrics: Arc<Metrics>,
    /// Image of clusters that name none.
    pub(crate) default_image: String,
    /// How brokers are reached one by one.
    pub(crate) brokers: Arc<dyn Brokers>,
    /// Port on which brokers are steered; another one only in tests.
    pub(crate) control_port: u16,
    pub(crate) stores: Stores,
    pub(crate) bells: Bells,
    pub(crate) reports: Arc<Reports>,
    pub(crate) absences: Absences,
    /// Failures in a row, by controller and object.
    pub(crate) backoffs: Backoffs<(&'static str, String)>,
}
