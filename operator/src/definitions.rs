//! Waits until our kinds are defined. An operator installed before its definitions, or whose
//! definitions come by another way, waits rather than crashes.

use std::time::Duration;

use kube::{Client, CustomResourceExt, Resource};
use millrace_crds::{BrokerCluster, GROUP, Queue, Topic, VERSION};

use crate::metrics::Metrics;

/// Somebody waits for it after `helm install`; it costs one request.
const PERIOD: Duration = Duration::from_secs(2);

/// Returns when the API server serves all of our kinds. Needs no rights: discovery is open to
/// everybody.
pub(crate) async fn wait(client: &Client, metrics: &Metrics) {
    let mut logged = None;
    loop {
        let missing = missing(client).await;
        metrics.definitions_missing(missing.as_ref().map_or(0, Vec::len));
        let problem = match missing {
            Ok(missing) if missing.is_empty() => return,
            Ok(missing) => format!("not defined yet: {}", missing.join(", ")),
            Err(error) => crate::report(&error),
        };
        if logged.as_ref() != Some(&problem) {
            tracing::warn!(problem, "WaitingForCRD");
            logged = Some(problem);
        }
        tokio::time::sleep(PERIOD).await;
    }
}

async fn missing(client: &Client) -> kube::Result<Vec<String>> {
    let served = match client
        .list_api_group_resources(&format!("{GROUP}/{VERSION}"))
        .await
    {
        Ok(list) => list.resources,
        // A group that nobody serves is answered without a Status, hence by its code.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => return Err(error),
    };
    let ours = [
        (BrokerCluster::plural(&()), BrokerCluster::crd_name()),
        (Queue::plural(&()), Queue::crd_name()),
        (Topic::plural(&()), Topic::crd_name()),
    ];
    let missing = ours
        .into_iter()
        .filter(|(plural, _)| !served.iter().any(|resource| resource.name == *plural));
    Ok(missing.map(|(_, name)| name.to_owned()).collect())
}
