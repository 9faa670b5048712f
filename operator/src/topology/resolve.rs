//! Which cluster a queue or topic belongs to. Pure. A reference stays within its namespace.

use crate::reasons;

/// A BrokerCluster of the namespace, as far as references care.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Its name.
    pub name: String,
    /// It is being deleted.
    pub leaving: bool,
}

/// Why a reference leads nowhere.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// One of `reasons`.
    pub reason: &'static str,
    /// For people.
    pub message: String,
}

/// The name of the cluster meant: the one named, or the only one there is.
///
/// # Errors
/// When there is none of that name, none at all, or several to choose from.
pub fn resolve(named: Option<&str>, candidates: &[Choice]) -> Result<String, Unresolved> {
    let found = match named {
        Some(name) => candidates.iter().find(|candidate| candidate.name == name),
        None => only(candidates)?,
    };
    match (found, named) {
        (Some(cluster), _) if cluster.leaving => Err(Unresolved {
            reason: reasons::CLUSTER_LEAVING,
            message: format!("BrokerCluster {} is being deleted", cluster.name),
        }),
        (Some(cluster), _) => Ok(cluster.name.clone()),
        (None, Some(name)) => Err(Unresolved {
            reason: reasons::CLUSTER_NOT_FOUND,
            message: format!("there is no BrokerCluster {name} in this namespace"),
        }),
        (None, None) => Err(Unresolved {
            reason: reasons::CLUSTER_NOT_FOUND,
            message: "there is no BrokerCluster in this namespace".to_owned(),
        }),
    }
}

/// The only cluster. One that is being deleted does not make a choice ambiguous.
fn only(candidates: &[Choice]) -> Result<Option<&Choice>, Unresolved> {
    let staying: Vec<&Choice> = candidates.iter().filter(|c| !c.leaving).collect();
    match staying.as_slice() {
        [] => Ok(candidates.first()),
        [cluster] => Ok(Some(cluster)),
        several => {
            let names: Vec<&str> = several.iter().map(|c| c.name.as_str()).collect();
            Err(Unresolved {
                reason: reasons::CLUSTER_AMBIGUOUS,
                message: format!("which BrokerCluster? name one of {}", names.join(", ")),
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(names: &[&str]) -> Vec<Choice> {
        let candidate = |name: &&str| Choice {
            name: name.trim_start_matches('-').to_owned(),
            leaving: name.starts_with('-'),
        };
        names.iter().map(candidate).collect()
    }

    #[test]
    fn a_reference_finds_the_cluster_it_names_or_the_only_one() {
        for (named, clusters, expected) in [
            (Some("a"), there(&["a", "b"]), Ok("a")),
            (None, there(&["a"]), Ok("a")),
            (None, there(&["a", "-b"]), Ok("a")),
            (Some("c"), there(&["a"]), Err(reasons::CLUSTER_NOT_FOUND)),
            (None, there(&[]), Err(reasons::CLUSTER_NOT_FOUND)),
            (None, there(&["a", "b"]), Err(reasons::CLUSTER_AMBIGUOUS)),
            (Some("a"), there(&["-a"]), Err(reasons::CLUSTER_LEAVING)),
            (None, there(&["-a"]), Err(reasons::CLUSTER_LEAVING)),
        ] {
            let resolved = resolve(named, &clusters);

            let resolved = resolved.as_deref().map_err(|unresolved| unresolved.reason);
            assert_eq!(resolved, expected, "{named:?} among {clusters:?}");
        }
    }
}
