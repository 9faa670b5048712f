//! Who of a cluster's brokers serves, and whether they are enough. Pure.

use super::Inputs;
use crate::cluster::facts::{Claim, Observed, Pod, Said, View};
use crate::cluster::size::size;

/// The brokers of a cluster as status counts them.
#[derive(Clone, Debug, Default)]
pub(super) struct Crew {
    /// Broker pods that there should be.
    pub(super) size: usize,
    /// Nodes that vote; at least 1.
    pub(super) voters: usize,
    /// Those of them that serve.
    pub(super) serving: usize,
    /// Pods that should serve and do not, each with what is known of it.
    pub(super) down: Vec<String>,
}

impl Crew {
    /// Whether those that serve are a majority of those that vote.
    pub(super) fn is_enough(&self) -> bool {
        self.serving > self.voters / 2
    }

    /// What is missing, in a sentence.
    pub(super) fn shortage(&self) -> String {
        let Self { size, down, .. } = self;
        let up = size.saturating_sub(down.len());
        format!("{up} of {size} brokers serve; {}", down.join("; "))
    }
}

/// Counts the brokers; `None` when there was no look at them.
pub(super) fn crew(inputs: Inputs<'_>) -> Option<Crew> {
    let (desired, observed) = (inputs.desired?, inputs.observed?);
    let brokers = size(desired, observed);
    let mut down = Vec::new();
    let mut serving = 0;
    for ordinal in 0..brokers {
        let name = desired.key.pod(ordinal);
        let pod = observed.pods.iter().find(|pod| pod.name == name);
        match pod {
            Some(pod) if pod.ready && !pod.leaving => {
                serving += usize::from(votes(observed, pod, ordinal));
            }
            Some(pod) => down.push(why(pod)),
            None => down.push(format!("there is no pod {name}")),
        }
    }
    Some(Crew {
        size: brokers as usize,
        voters: voters(observed).max(1),
        serving,
        down,
    })
}

fn why(pod: &Pod) -> String {
    let name = &pod.name;
    match &pod.trouble {
        _ if pod.leaving => format!("pod {name} is stopping"),
        Some(trouble) => trouble.message.clone(),
        None => format!("pod {name} is not ready"),
    }
}

fn voters(observed: &Observed) -> usize {
    let seen = |view: &View| view.nodes.values().filter(|node| node.votes > 0).count();
    match observed.view.as_ref().map(seen) {
        Some(count) if count > 0 => count,
        _ => observed
            .claims
            .iter()
            .filter(|claim| claim.node_id.is_some())
            .count(),
    }
}

/// Whether the node in a pod votes; one that nobody has told about counts as one that does.
fn votes(observed: &Observed, pod: &Pod, ordinal: u32) -> bool {
    let claimed = |claim: &&Claim| claim.ordinal == ordinal;
    let node = match observed.brokers.get(&pod.name).and_then(Said::node_id) {
        Some(node) => Some(node),
        None => {
            let claim = observed.claims.iter().find(claimed);
            claim.and_then(|claim| claim.node_id.as_deref())
        }
    };
    let (Some(node), Some(view)) = (node, &observed.view) else {
        return true;
    };
    let told = view.nodes.values().any(|node| node.votes > 0);
    !told || view.nodes.get(node).is_some_and(|node| node.votes > 0)
}
