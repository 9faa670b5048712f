//! Who has to look again when something changes. A ring wakes one object in one controller; rings
//! for an object that already waits or works are merged there.

use kube::Resource;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{Lookup, ObjectRef, Store};
use millrace_crds::{BrokerCluster, Queue, Topic};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};

use crate::context::{Guarded, Stores};
use crate::names::ClusterKey;
use crate::topology::declared::{ResourceKind, resource_of};
use crate::topology::report::{Report, Touched};

type Ring<K> = UnboundedSender<ObjectRef<Guarded<K>>>;

/// Rings of one controller. Unbounded, for whoever rings must not wait for who is woken; a
/// controller takes them at once and merges those of one object, so that there are never more than
/// objects.
pub(crate) type Rung<K> = UnboundedReceiver<ObjectRef<Guarded<K>>>;

/// The controllers of a scope, as those who wake them see them.
#[derive(Clone)]
pub(crate) struct Bells {
    clusters: Ring<BrokerCluster>,
    topologies: Ring<BrokerCluster>,
    queues: Ring<Queue>,
    topics: Ring<Topic>,
}

/// The other ends, one for each controller.
pub(crate) struct Listeners {
    pub(crate) clusters: Rung<BrokerCluster>,
    pub(crate) topologies: Rung<BrokerCluster>,
    pub(crate) queues: Rung<Queue>,
    pub(crate) topics: Rung<Topic>,
}

/// Bells with somebody to hear each.
pub(crate) fn bells() -> (Bells, Listeners) {
    let (clusters, clusters_rung) = unbounded_channel();
    let (topologies, topologies_rung) = unbounded_channel();
    let (queues, queues_rung) = unbounded_channel();
    let (topics, topics_rung) = unbounded_channel();
    let bells = Bells {
        clusters,
        topologies,
        queues,
        topics,
    };
    let listeners = Listeners {
        clusters: clusters_rung,
        topologies: topologies_rung,
        queues: queues_rung,
        topics: topics_rung,
    };
    (bells, listeners)
}

impl Bells {
    /// A BrokerCluster came, changed or went: also references in its namespace may lead elsewhere
    /// now.
    pub(crate) fn cluster_changed(&self, key: &ClusterKey, stores: &Stores) {
        ring(&self.clusters, key.object_ref());
        self.topologies_of(&key.namespace, stores);
        self.resources_of(&key.namespace, stores);
    }

    /// A queue came, changed or went.
    pub(crate) fn queue_changed(&self, namespace: &str, name: &str, stores: &Stores) {
        ring(&self.queues, ObjectRef::new(name).within(namespace));
        self.topologies_of(namespace, stores);
    }

    /// A topic came, changed or went.
    pub(crate) fn topic_changed(&self, namespace: &str, name: &str, stores: &Stores) {
        ring(&self.topics, ObjectRef::new(name).within(namespace));
        self.topologies_of(namespace, stores);
    }

    /// Something a cluster owns changed.
    pub(crate) fn owned_changed(&self, key: &ClusterKey) {
        ring(&self.clusters, key.object_ref());
    }

    /// A cluster's pod or control Secret changed: its broker may answer now.
    pub(crate) fn broker_changed(&self, key: &ClusterKey) {
        ring(&self.clusters, key.object_ref());
        ring(&self.topologies, key.object_ref());
    }

    /// A cluster's broker reported something else than before.
    pub(crate) fn report_changed(
        &self,
        key: &ClusterKey,
        before: Option<&Report>,
        after: &Report,
        stores: &Stores,
    ) {
        ring(&self.clusters, key.object_ref());
        match after.touched_since(before) {
            Touched::All => self.resources_of(&key.namespace, stores),
            Touched::Some(addresses) => {
                for address in addresses {
                    self.resource_at(&address, &key.namespace);
                }
            }
        }
    }

    fn resource_at(&self, address: &str, namespace: &str) {
        match resource_of(address, namespace) {
            Some((ResourceKind::Queue, name)) => {
                ring(&self.queues, ObjectRef::new(name).within(namespace));
            }
            Some((ResourceKind::Topic, name)) => {
                ring(&self.topics, ObjectRef::new(name).within(namespace));
            }
            None => {}
        }
    }

    fn topologies_of(&self, namespace: &str, stores: &Stores) {
        ring_all(&self.topologies, &stores.clusters, namespace);
    }

    fn resources_of(&self, namespace: &str, stores: &Stores) {
        ring_all(&self.queues, &stores.queues, namespace);
        ring_all(&self.topics, &stores.topics, namespace);
    }
}

fn ring_all<K>(bell: &Ring<K>, store: &Store<Guarded<K>>, namespace: &str)
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let there = store.state_filter(|object: &DeserializeGuard<K>| {
        object.meta().namespace.as_deref() == Some(namespace)
    });
    for object in there {
        ring(bell, object.to_object_ref(()));
    }
}

/// Nobody listens any more only while stopping.
fn ring<K: Resource<DynamicType = ()> + 'static>(bell: &Ring<K>, object: ObjectRef<Guarded<K>>) {
    drop(bell.send(object));
}
