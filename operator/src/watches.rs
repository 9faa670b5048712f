//! Watches of a scope: our resources with all their content, what clusters own by metadata only.
//! Turns what they see into rings.
//!
//! Promises: the operator's own status writes ring nothing; an object that went while the watch was
//! interrupted rings all the same.

use std::collections::{HashMap, HashSet};
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;

use futures::future::{BoxFuture, FutureExt};
use futures::{Stream, StreamExt};
use k8s_openapi::NamespaceResourceScope;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{
    ConfigMap, PersistentVolumeClaim, Pod, Secret, Service, ServiceAccount,
};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::PartialObjectMeta;
use kube::runtime::reflector::store::Writer;
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use millrace_crds::{BrokerCluster, Queue, Topic};
use serde::de::DeserializeOwned;

use crate::bells::Bells;
use crate::context::{Guarded, Reports, Stores};
use crate::labels;
use crate::metrics::Metrics;
use crate::names::ClusterKey;

/// Where the stores' content comes from.
pub(crate) struct Writers {
    pub(crate) clusters: Writer<Guarded<BrokerCluster>>,
    pub(crate) queues: Writer<Guarded<Queue>>,
    pub(crate) topics: Writer<Guarded<Topic>>,
}

/// Empty stores with their writers.
pub(crate) fn stores() -> (Stores, Writers) {
    let (clusters, queues, topics) = (Writer::default(), Writer::default(), Writer::default());
    let stores = Stores {
        clusters: clusters.as_reader(),
        queues: queues.as_reader(),
        topics: topics.as_reader(),
    };
    let writers = Writers {
        clusters,
        queues,
        topics,
    };
    (stores, writers)
}

/// What the watches of a scope need.
pub(crate) struct Watches {
    pub(crate) client: Client,
    /// `None`: all namespaces.
    pub(crate) namespace: Option<String>,
    pub(crate) stores: Stores,
    pub(crate) bells: Bells,
    pub(crate) reports: Arc<Reports>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Watches {
    /// Watches until dropped; watches that fail are started again, ever more slowly.
    pub(crate) async fn run(self, writers: Writers) {
        let watches = Arc::new(self);
        let all: Vec<BoxFuture<'_, ()>> = vec![
            watches.resources(writers.clusters, |w, namespace, name| {
                let key = ClusterKey::new(namespace, name);
                if w.stores.clusters.get(&key.object_ref()).is_none() {
                    w.reports.forget(&key);
                }
                w.bells.cluster_changed(&key, &w.stores);
            }),
            watches.resources(writers.queues, |w, namespace, name| {
                w.bells.queue_changed(namespace, name, &w.stores);
            }),
            watches.resources(writers.topics, |w, namespace, name| {
                w.bells.topic_changed(namespace, name, &w.stores);
            }),
            watches.owned::<StatefulSet>(Bells::owned_changed),
            watches.owned::<Service>(Bells::owned_changed),
            watches.owned::<ConfigMap>(Bells::owned_changed),
            watches.owned::<ServiceAccount>(Bells::owned_changed),
            watches.owned::<PodDisruptionBudget>(Bells::owned_changed),
            watches.owned::<PersistentVolumeClaim>(Bells::owned_changed),
            watches.owned::<Secret>(Bells::broker_changed),
            watches.owned::<Pod>(Bells::broker_changed),
        ];
        futures::future::join_all(all).await;
    }

    fn api<K>(&self) -> Api<K>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        match &self.namespace {
            Some(namespace) => Api::namespaced(self.client.clone(), namespace),
            None => Api::all(self.client.clone()),
        }
    }

    /// Fills a store and rings for each resource whose spec changed, that came or that went.
    fn resources<K>(
        self: &Arc<Self>,
        writer: Writer<Guarded<K>>,
        ring: impl Fn(&Self, &str, &str) + Send + 'static,
    ) -> BoxFuture<'static, ()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let events = watcher(self.api::<Guarded<K>>(), watcher::Config::default())
            .modify(|object| object.managed_fields_mut().clear())
            .default_backoff()
            .reflect(writer);
        let watches = Arc::clone(self);
        async move {
            let mut news = News::default();
            let mut events = std::pin::pin!(watches.logged::<K, _, _>(events));
            while let Some(event) = events.next().await {
                for (namespace, name) in news.of(event) {
                    ring(&watches, &namespace, &name);
                }
            }
        }
        .boxed()
    }

    /// Rings for the cluster of each labelled object that changed, came or went. What went while
    /// the watch was interrupted is in no list: after a list every cluster looks.
    fn owned<K>(self: &Arc<Self>, ring: fn(&Bells, &ClusterKey)) -> BoxFuture<'static, ()>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
        K: Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let selector = watcher::Config::default().labels(labels::any_cluster());
        let events = watcher(self.api::<PartialObjectMeta<K>>(), selector).default_backoff();
        let watches = Arc::clone(self);
        async move {
            let mut events = std::pin::pin!(watches.logged::<K, _, _>(events));
            while let Some(event) = events.next().await {
                for cluster in clusters_of(&event, &watches.stores) {
                    ring(&watches.bells, &cluster);
                }
            }
        }
        .boxed()
    }

    /// What a watch yields; its errors are logged and counted here, and it goes on.
    fn logged<K, T, S>(&self, events: S) -> impl Stream<Item = T> + use<K, T, S>
    where
        K: Resource<DynamicType = ()>,
        S: Stream<Item = watcher::Result<T>>,
    {
        let metrics = Arc::clone(&self.metrics);
        events.filter_map(move |event| {
            let event = event.inspect_err(|error| {
                metrics.watch_failed();
                let error = crate::report(error);
                tracing::warn!(kind = %K::kind(&()), error, "watch failed and is started again");
            });
            std::future::ready(event.ok())
        })
    }
}

/// The clusters that have to look again because of something they own.
fn clusters_of<K: Resource>(event: &watcher::Event<K>, stores: &Stores) -> Vec<ClusterKey> {
    match event {
        watcher::Event::Apply(object) | watcher::Event::Delete(object) => {
            let cluster = object.labels().get(labels::CLUSTER).cloned();
            let place = object.namespace().zip(cluster);
            place
                .map(|(namespace, name)| ClusterKey::new(namespace, name))
                .into_iter()
                .collect()
        }
        watcher::Event::InitDone => {
            let places = stores
                .clusters
                .state()
                .into_iter()
                .map(|cluster| place(&*cluster));
            places
                .map(|(namespace, name)| ClusterKey::new(namespace, name))
                .collect()
        }
        watcher::Event::Init | watcher::Event::InitApply(_) => Vec::new(),
    }
}

type Place = (String, String);

/// Tells which events say something new: status is none of our news, we wrote it.
#[derive(Default)]
struct News {
    seen: HashMap<Place, Version>,
    /// While a list is read anew.
    listing: Option<Listing>,
}

/// A list as far as it was read. The store takes it over only when it is complete: whoever looked
/// before that would see what was.
#[derive(Default)]
struct Listing {
    there: HashSet<Place>,
    new: Vec<Place>,
}

/// What of an object counts as its version. Deletion raises the generation, too.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Version {
    uid: Option<String>,
    generation: Option<i64>,
}

impl News {
    /// The objects to look at again because of an event.
    fn of<K: Resource>(&mut self, event: watcher::Event<K>) -> Vec<Place> {
        match event {
            watcher::Event::Init => {
                let broken_off = self.listing.take().unwrap_or_default();
                self.listing = Some(Listing {
                    there: HashSet::new(),
                    new: broken_off.new,
                });
                Vec::new()
            }
            watcher::Event::InitApply(object) => {
                let new = self.applied(&object);
                let listing = self.listing.get_or_insert_default();
                listing.there.insert(place(&object));
                listing.new.extend(new);
                Vec::new()
            }
            watcher::Event::InitDone => self.listed(),
            watcher::Event::Apply(object) => self.applied(&object),
            watcher::Event::Delete(object) => {
                let place = place(&object);
                self.seen.remove(&place);
                vec![place]
            }
        }
    }

    fn applied<K: Resource>(&mut self, object: &K) -> Vec<Place> {
        let place = place(object);
        let meta = object.meta();
        let version = Version {
            uid: meta.uid.clone(),
            generation: meta.generation,
        };
        let before = self.seen.insert(place.clone(), version.clone());
        if before == Some(version) {
            Vec::new()
        } else {
            vec![place]
        }
    }

    /// What came, changed or went while nobody looked.
    fn listed(&mut self) -> Vec<Place> {
        let Listing { there, mut new } = self.listing.take().unwrap_or_default();
        let gone = self.seen.keys().filter(|place| !there.contains(*place));
        let went: Vec<Place> = gone.cloned().collect();
        for place in &went {
            self.seen.remove(place);
        }
        new.extend(went);
        new
    }
}

fn place<K: Resource>(object: &K) -> Place {
    let meta = object.meta();
    (
        meta.namespace.clone().unwrap_or_default(),
        meta.name.clone().unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use kube::runtime::watcher::Event;

    fn config(name: &str, uid: &str, generation: i64) -> ConfigMap {
        let mut object = ConfigMap::default();
        object.metadata.namespace = Some("a".to_owned());
        object.metadata.name = Some(name.to_owned());
        object.metadata.uid = Some(uid.to_owned());
        object.metadata.generation = Some(generation);
        object
    }

    fn names(places: Vec<Place>) -> Vec<String> {
        places.into_iter().map(|(_, name)| name).collect()
    }

    #[test]
    fn a_status_write_is_no_news_but_a_change_or_another_object_of_the_name_is() {
        let mut news = News::default();

        assert_eq!(names(news.of(Event::Apply(config("x", "u1", 1)))), ["x"]);
        assert!(news.of(Event::Apply(config("x", "u1", 1))).is_empty());
        assert_eq!(names(news.of(Event::Apply(config("x", "u1", 2)))), ["x"]);
        assert_eq!(names(news.of(Event::Apply(config("x", "u2", 2)))), ["x"]);
        assert_eq!(names(news.of(Event::Delete(config("x", "u2", 2)))), ["x"]);
        assert_eq!(names(news.of(Event::Apply(config("x", "u2", 2)))), ["x"]);
    }

    #[test]
    fn what_went_while_the_watch_was_interrupted_is_news() {
        let mut news = News::default();
        news.of(Event::Apply(config("stays", "u", 1)));
        news.of(Event::Apply(config("goes", "u", 1)));

        assert!(news.of(Event::<ConfigMap>::Init).is_empty());
        assert!(
            news.of(Event::InitApply(config("stays", "u", 1)))
                .is_empty()
        );
        assert_eq!(names(news.of(Event::<ConfigMap>::InitDone)), ["goes"]);
    }

    #[test]
    fn what_a_list_brings_is_news_once_the_store_has_all_of_it() {
        let mut news = News::default();

        assert!(news.of(Event::<ConfigMap>::Init).is_empty());
        assert!(news.of(Event::InitApply(config("x", "u", 1))).is_empty());
        // The list breaks off and is read from its beginning.
        assert!(news.of(Event::<ConfigMap>::Init).is_empty());
        assert!(news.of(Event::InitApply(config("x", "u", 1))).is_empty());
        assert_eq!(names(news.of(Event::<ConfigMap>::InitDone)), ["x"]);
    }

    #[tokio::test]
    async fn every_cluster_looks_after_what_is_owned_was_listed_anew() {
        let (context, _listeners) = crate::fakes::context(&crate::fakes::Api::default(), 1, &[]);
        let mut owned = config("main-config", "u", 1);
        let labels = [(labels::CLUSTER.to_owned(), "other".to_owned())];
        owned.metadata.labels = Some(labels.into());
        let other = ClusterKey::new("a", "other");

        let clusters = |event| clusters_of(&event, &context.stores);

        assert_eq!(clusters(Event::Delete(owned.clone())), [other]);
        assert_eq!(clusters(Event::InitApply(owned)), []);
        let all = [ClusterKey::new("shop", "main")];
        assert_eq!(clusters(Event::InitDone), all);
    }
}
