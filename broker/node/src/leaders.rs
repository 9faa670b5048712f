//! Who leads each shard, as far as this node knows: its own replicas say so. Never an authority:
//! who is asked and does not lead says that, too.

use std::collections::{BTreeMap, BTreeSet};

use millrace_types::{NodeId, ShardId};
use tokio::sync::watch;

/// Who leads a shard.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Led {
    /// Nobody, or nobody knows.
    #[default]
    Nobody,
    /// This node.
    Here,
    /// Another one.
    There(NodeId),
}

/// Everybody who leads something.
#[derive(Debug)]
pub(super) struct Leaders(watch::Sender<BTreeMap<ShardId, Led>>);

impl Leaders {
    /// Nobody is known to lead anything yet.
    pub(super) fn new() -> Self {
        Self(watch::Sender::new(BTreeMap::new()))
    }

    /// Who leads a shard now.
    pub(super) fn set(&self, shard: ShardId, led: Led) {
        self.0.send_if_modified(|leaders| {
            let changed = leaders.get(&shard).copied().unwrap_or_default() != led;
            if changed {
                leaders.insert(shard, led);
            }
            changed
        });
    }

    /// Who leads a shard.
    pub(super) fn get(&self, shard: ShardId) -> Led {
        self.0.borrow().get(&shard).copied().unwrap_or_default()
    }

    /// Every other node that leads something.
    pub(super) fn others(&self) -> BTreeSet<NodeId> {
        let leaders = self.0.borrow();
        let others = leaders.values().filter_map(|led| match led {
            Led::There(node) => Some(*node),
            Led::Here | Led::Nobody => None,
        });
        others.collect()
    }

    /// All that is known, and a way to wait for the next change.
    pub(super) fn watch(&self) -> watch::Receiver<BTreeMap<ShardId, Led>> {
        self.0.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_change_wakes_those_who_wait() {
        let (leaders, shard) = (Leaders::new(), ShardId::new(3));
        let mut watch = leaders.watch();
        leaders.set(shard, Led::Nobody);
        assert!(!watch.has_changed().unwrap());
        leaders.set(shard, Led::There(NodeId::new(7)));
        assert!(watch.has_changed().unwrap());
        watch.mark_unchanged();
        leaders.set(shard, Led::There(NodeId::new(7)));
        assert!(!watch.has_changed().unwrap());
        assert_eq!(leaders.get(shard), Led::There(NodeId::new(7)));
        assert_eq!(leaders.get(ShardId::new(4)), Led::Nobody);
    }
}
