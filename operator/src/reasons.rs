//! Condition types, their reasons, and reasons of events. Stable: people and programs wait for
//! them. [`ALL`] is what the documentation lists.

/// Condition types.
pub mod condition {
    /// The resource does what it declares.
    pub const READY: &str = "Ready";
    /// All brokers serve, all shards have their copies, and nothing is being changed.
    pub const STABLE: &str = "Stable";
    /// Something is unwise; only there while it is.
    pub const WARNING: &str = "Warning";
    /// Something is being changed.
    pub const PROGRESSING: &str = "Progressing";
    /// The brokers have the current generation (of a Queue or Topic; of all of them, on a cluster).
    pub const SYNCED: &str = "Synced";
}

macro_rules! reasons {
    ($($(#[doc = $doc:literal])* $name:ident = $text:literal;)*) => {
        $($(#[doc = $doc])* pub const $name: &str = $text;)*

        /// Every reason with its meaning, in the order of this file.
        pub const ALL: &[(&str, &str)] = &[$(($text, concat!($($doc),*))),*];
    };
}

reasons! {
    /// The operator has not come by yet; the definitions' own default says so.
    NOT_RECONCILED = "NotReconciled";
    /// It does what it declares.
    READY = "Ready";
    /// Nothing is left to do.
    SETTLED = "Settled";
    /// Objects are being created or changed.
    APPLYING = "Applying";
    /// The broker pod starts and does not serve yet.
    STARTING = "Starting";
    /// The brokers are about to found the cluster: all of them have to answer first.
    FOUNDING = "Founding";
    /// A broker lost its disk before the cluster was founded, and too few are left to do it.
    FOUNDER_LOST = "FounderLost";
    /// A majority serves, but not everybody does; the message says who is missing.
    DEGRADED = "Degraded";
    /// Too few brokers serve to agree on anything.
    NO_QUORUM = "NoQuorum";
    /// Shards do not have all their copies yet.
    REPLICATING = "Replicating";
    /// The operator restarts a broker pod, for its image, settings or resources changed.
    RESTARTING = "Restarting";
    /// A broker pod is to be restarted, but the others cannot do without it now.
    RESTART_BLOCKED = "RestartBlocked";
    /// A restarted broker pod does not come back; the other pods are left as they are.
    RESTART_STALLED = "RestartStalled";
    /// The last broker goes: its copies of shards move to the others, then its pod is removed.
    SCALING_DOWN = "ScalingDown";
    /// Fewer brokers are asked for, and the last one cannot go now; the message says why.
    SCALE_DOWN_BLOCKED = "ScaleDownBlocked";
    /// An even number of brokers survives no more than the odd one below it.
    EVEN_REPLICAS = "EvenReplicas";
    /// The object cannot be read or contradicts itself; an API server with our schema refuses it.
    INVALID = "Invalid";
    /// An object of a name the cluster needs belongs to somebody else.
    NAME_TAKEN = "NameTaken";
    /// Claims, StatefulSet and status name different cluster ids: whose data it is must be cleared
    /// up.
    IDENTITY_CONFLICT = "IdentityConflict";
    /// Objects of a deleted cluster of the same name are not gone yet.
    PREDECESSOR_LEAVING = "PredecessorLeaving";
    /// The control Secret is there, but holds no token; delete it and a new one is made.
    CONTROL_TOKEN_MISSING = "ControlTokenMissing";
    /// The API server refused or did not answer.
    API_FAILED = "ApiFailed";
    /// No node takes the broker pod.
    POD_UNSCHEDULABLE = "PodUnschedulable";
    /// The broker's image cannot be pulled.
    IMAGE_UNAVAILABLE = "ImageUnavailable";
    /// The broker exits again and again; its log says why.
    POD_CRASHING = "PodCrashing";
    /// The broker pod is stopping.
    POD_STOPPING = "PodStopping";

    /// No BrokerCluster of that name, or none at all, in the namespace.
    CLUSTER_NOT_FOUND = "ClusterNotFound";
    /// Several BrokerClusters are in the namespace and `clusterRef` names none of them.
    CLUSTER_AMBIGUOUS = "ClusterAmbiguous";
    /// The BrokerCluster is being deleted.
    CLUSTER_LEAVING = "ClusterLeaving";
    /// The broker does not answer; what it has is unchanged.
    BROKER_UNAVAILABLE = "BrokerUnavailable";
    /// The broker that answers belongs to another cluster.
    WRONG_CLUSTER = "WrongCluster";
    /// The broker has not taken this generation everywhere yet.
    SYNCING = "Syncing";
    /// The broker has refused it.
    REFUSED = "Refused";
    /// Resources seem to be gone, but that could not be made certain; nothing is removed.
    REMOVAL_FROZEN = "RemovalFrozen";

    /// Event: the operator deletes a broker pod so that it starts anew.
    RESTARTING_POD = "RestartingPod";
    /// Event: the last broker is about to give its copies of shards to the others, and to go.
    REMOVING_BROKER = "RemovingBroker";
    /// Event: the cluster id was taken over from claims that were there.
    CLAIMS_ADOPTED = "ClaimsAdopted";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_reason_is_one_camel_case_word_with_a_meaning() {
        for (reason, meaning) in ALL {
            assert!(
                reason.starts_with(|c: char| c.is_ascii_uppercase()),
                "{reason}"
            );
            assert!(
                reason.bytes().all(|b| b.is_ascii_alphanumeric()),
                "{reason}"
            );
            assert!(meaning.trim().ends_with('.'), "{reason} has no meaning");
        }
    }
}
