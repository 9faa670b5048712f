//! What the resources of a namespace declare for one cluster. Pure.

use std::collections::{BTreeMap, BTreeSet};

use kube::Resource;
use kube::core::DeserializeGuard;
use millrace_crds::{Queue, Topic};
use millrace_proto::v1::TopologyObject;
use millrace_proto::v1::topology_object::Spec;

use super::resolve::{Choice, resolve};
use crate::cluster::facts::Asked;

/// Kinds of resources that brokers hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum ResourceKind {
    /// A Topic.
    Topic,
    /// A Queue.
    Queue,
}

impl ResourceKind {
    /// First word of an address.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Topic => "topic",
            Self::Queue => "queue",
        }
    }

    /// The address of a resource of this kind.
    #[must_use]
    pub fn address(self, namespace: &str, name: &str) -> String {
        format!("{}/{namespace}/{name}", self.word())
    }
}

/// The resource an address belongs to; `None` for what no resource declares by itself, as a queue's
/// own dead-letter queue.
#[must_use]
pub fn resource_of<'a>(address: &'a str, namespace: &str) -> Option<(ResourceKind, &'a str)> {
    let mut parts = address.split('/');
    let kind = match parts.next()? {
        "queue" => ResourceKind::Queue,
        "topic" => ResourceKind::Topic,
        _ => return None,
    };
    let same_namespace = parts.next()? == namespace;
    let name = parts.next()?;
    (same_namespace && parts.next().is_none()).then_some((kind, name))
}

/// A resource, whatever its kind.
pub trait Declares: Resource<DynamicType = ()> + Clone {
    /// Which kind it is.
    const KIND: ResourceKind;

    /// The cluster it names.
    fn cluster_ref(&self) -> Option<&str>;

    /// What brokers are told of it.
    ///
    /// # Errors
    /// What is wrong with it, for people.
    fn compile(&self) -> Result<TopologyObject, String>;
}

impl Declares for Queue {
    const KIND: ResourceKind = ResourceKind::Queue;

    fn cluster_ref(&self) -> Option<&str> {
        self.spec
            .cluster_ref
            .as_ref()
            .map(|cluster| cluster.name.as_str())
    }

    fn compile(&self) -> Result<TopologyObject, String> {
        millrace_crds::topology::compile_queue(self).map_err(|error| crate::report(&error))
    }
}

impl Declares for Topic {
    const KIND: ResourceKind = ResourceKind::Topic;

    fn cluster_ref(&self) -> Option<&str> {
        self.spec
            .cluster_ref
            .as_ref()
            .map(|cluster| cluster.name.as_str())
    }

    fn compile(&self) -> Result<TopologyObject, String> {
        millrace_crds::topology::compile_topic(self).map_err(|error| crate::report(&error))
    }
}

/// All that a namespace's resources say about one cluster.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Declared {
    /// What the cluster should have, by address.
    pub objects: BTreeMap<String, TopologyObject>,
    /// Resources that exist and may be the cluster's, but do not say what it should have: broken,
    /// or with a reference that leads nowhere just now. What the broker has of them stays.
    pub kept: BTreeSet<String>,
}

impl Declared {
    /// Who asks for most copies of its own messages, if anybody asks for a number at all.
    #[must_use]
    pub fn most_copies(&self) -> Option<Asked> {
        let copies = |object: &TopologyObject| match object.spec.as_ref()? {
            Spec::Queue(queue) => queue.replication,
            Spec::Topic(topic) => topic.replication,
        };
        let asked = self.objects.iter();
        let asked = asked.filter_map(|(address, object)| Some((copies(object)?, address)));
        let (copies, by) = asked.max_by_key(|(copies, _)| *copies)?;
        let by = by.clone();
        Some(Asked { by, copies })
    }

    /// Adds the resources of one kind.
    pub fn add<K: Declares>(
        &mut self,
        cluster: &str,
        candidates: &[Choice],
        resources: impl IntoIterator<Item = impl AsRef<DeserializeGuard<K>>>,
    ) {
        for resource in resources {
            let resource = resource.as_ref();
            let meta = resource.meta();
            let namespace = meta.namespace.as_deref().unwrap_or_default();
            let name = meta.name.as_deref().unwrap_or_default();
            let address = K::KIND.address(namespace, name);
            let Ok(resource) = &resource.0 else {
                self.kept.insert(address);
                continue;
            };
            match resolve(resource.cluster_ref(), candidates) {
                Ok(name) if name == cluster => match resource.compile() {
                    Ok(object) => {
                        self.objects.insert(address, object);
                    }
                    Err(_) => {
                        self.kept.insert(address);
                    }
                },
                Ok(_) => {}
                Err(_) => {
                    self.kept.insert(address);
                }
            }
        }
    }

    /// Whether a resource of this address exists that is this cluster's, or may be.
    #[must_use]
    pub fn has(&self, address: &str) -> bool {
        self.objects.contains_key(address) || self.kept.contains(address)
    }
}

#[cfg(test)]
mod tests {
    use millrace_proto::v1::{QueueSpec, TopicSpec};

    use super::*;

    #[test]
    fn whoever_asks_for_most_copies_is_named() {
        let mut declared = Declared::default();
        assert_eq!(declared.most_copies(), None);
        let queue = |replication| {
            Spec::Queue(QueueSpec {
                replication,
                ..QueueSpec::default()
            })
        };
        let topic = Spec::Topic(TopicSpec {
            replication: Some(2),
            ..TopicSpec::default()
        });
        for (address, spec) in [
            ("queue/shop/any", queue(None)),
            ("queue/shop/precious", queue(Some(3))),
            ("topic/shop/audit", topic),
        ] {
            let object = TopologyObject {
                address: address.to_owned(),
                spec: Some(spec),
                ..TopologyObject::default()
            };
            declared.objects.insert(address.to_owned(), object);
        }

        let asked = Asked {
            by: "queue/shop/precious".to_owned(),
            copies: 3,
        };
        assert_eq!(declared.most_copies(), Some(asked));
    }
}
