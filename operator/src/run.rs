//! The operator's life: listen, wait for the definitions, win the election, reconcile, let go.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use futures::future::join_all;
use kube::Client;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::controllers::{self, Shared};
use crate::events::Events;
use crate::http::{self, Phase};
use crate::leader::Elector;
use crate::metrics::{Leads, Metrics};
use crate::options::RunOptions;
use crate::{definitions, hash, logs};

/// What is being reconciled when told to stop gets this long; the Lease must be given up before the
/// pod is killed.
const STOP_LIMIT: Duration = Duration::from_secs(20);

/// Runs until told to stop. A second signal ends it at once.
///
/// # Errors
/// When it cannot listen or reach the API server, or loses the election after it had won.
pub async fn run(options: RunOptions, log: &str) -> anyhow::Result<()> {
    logs::start(log).context("the log filter is malformed")?;
    let client = Client::try_default()
        .await
        .context("no way to reach an API server")?;
    let metrics = Arc::new(Metrics::new());
    let (phase, phase_seen) = watch::channel(Phase::WaitingForDefinitions);
    let listener = TcpListener::bind(options.http_listen)
        .await
        .with_context(|| format!("cannot listen on {}", options.http_listen))?;
    let stop = CancellationToken::new();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        http = %options.http_listen,
        namespaces = ?options.watch_namespaces,
        "operator starts"
    );
    let served = http::serve(listener, phase_seen, Arc::clone(&metrics));
    tokio::select! {
        biased;
        () = stop_on_signals(stop.clone()) => Ok(()),
        result = act(&options, client, metrics, phase, &stop) => result,
        result = served => result.context("health and metrics are not served any more"),
    }
}

/// Waits for its turn and reconciles until stopped.
async fn act(
    options: &RunOptions,
    client: Client,
    metrics: Arc<Metrics>,
    phase: watch::Sender<Phase>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let identity = identity(options)?;
    let namespace = options
        .lease_namespace
        .as_deref()
        .unwrap_or(client.default_namespace());
    let mut elector = Elector::new(client.clone(), namespace, &options.lease_name, &identity);
    let turn = async {
        definitions::wait(&client, &metrics).await;
        phase.send_replace(Phase::Electing);
        elector
            .acquire(|| phase.send_modify(|phase| *phase = Phase::Standby))
            .await;
    };
    tokio::select! {
        biased;
        () = stop.cancelled() => return Ok(()),
        () = turn => {}
    }
    metrics.leads(Leads::Acting);
    phase.send_replace(Phase::Starting);
    let shared = Shared {
        events: Events::new(client.clone(), &identity),
        client,
        metrics: Arc::clone(&metrics),
        default_image: options.broker_image.clone(),
    };
    let kept = reconcile(options, shared, &phase, &mut elector, stop).await;
    metrics.leads(Leads::Standby);
    kept?;
    elector.release().await;
    tracing::info!("operator stopped");
    Ok(())
}

/// Runs the controllers of all scopes for as long as the Lease is kept. The Lease is kept also
/// while what is being reconciled comes to its end.
async fn reconcile(
    options: &RunOptions,
    shared: Shared,
    phase: &watch::Sender<Phase>,
    elector: &mut Elector,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    let scopes = options.scopes();
    let started = std::sync::atomic::AtomicUsize::new(0);
    let count = scopes.len();
    let controllers = join_all(scopes.into_iter().map(|namespace| {
        let started = || {
            if started.fetch_add(1, std::sync::atomic::Ordering::Relaxed) + 1 == count {
                phase.send_replace(Phase::Acting);
            }
        };
        controllers::run(shared.clone(), namespace, started, stop.clone())
    }));
    let mut controllers = pin!(controllers);
    let never = CancellationToken::new();
    let mut kept = pin!(elector.keep(&never));
    tokio::select! {
        biased;
        kept = &mut kept => return kept.context("controllers are dropped as they are"),
        () = stop.cancelled() => {}
        _ = &mut controllers => {}
    }
    tokio::select! {
        biased;
        _ = &mut controllers => Ok(()),
        kept = &mut kept => kept.context("controllers are dropped as they are"),
        () = tokio::time::sleep(STOP_LIMIT) => {
            tracing::warn!("some reconciliations did not come to their end");
            Ok(())
        }
    }
}

/// Who this operator is: the pod's name, made unique, for a pod that starts anew under its name has
/// lost all it knew.
fn identity(options: &RunOptions) -> anyhow::Result<String> {
    let mut random = [0; 4];
    getrandom::fill(&mut random).context("no randomness")?;
    let name = options.identity.as_deref().unwrap_or("millrace-operator");
    Ok(format!("{name}_{}", hash::hex(&random)))
}

/// The first signal asks to stop; returns at the second.
async fn stop_on_signals(stop: CancellationToken) {
    let signals = signal(SignalKind::terminate())
        .and_then(|terminate| Ok((terminate, signal(SignalKind::interrupt())?)));
    let (mut terminate, mut interrupt) = match signals {
        Ok(signals) => signals,
        Err(error) => {
            tracing::error!(%error, "signals cannot be heard");
            return std::future::pending().await;
        }
    };
    for _ in 0..2 {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        tracing::info!("operator is told to stop");
        stop.cancel();
    }
}
