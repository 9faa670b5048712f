//! Health and metrics over HTTP.

use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::metrics::Metrics;

/// How far the operator has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Custom resource definitions are missing.
    WaitingForDefinitions,
    /// The Lease was not looked at yet.
    Electing,
    /// Another operator acts; this one is ready to.
    Standby,
    /// It acts, but has not seen everything yet.
    Starting,
    /// Every controller runs.
    Acting,
}

impl Phase {
    /// Whether it does, or stands ready to do, its work. A standby is ready: otherwise an update
    /// that starts the new pod first would wait for ever for the old one to let go.
    const fn is_ready(self) -> bool {
        matches!(self, Self::Standby | Self::Acting)
    }

    const fn text(self) -> &'static str {
        match self {
            Self::WaitingForDefinitions => "waiting for custom resource definitions",
            Self::Electing => "waiting for the lease",
            Self::Standby => "another operator acts",
            Self::Starting => "controllers are starting",
            Self::Acting => "controllers run",
        }
    }
}

#[derive(Clone)]
struct Health {
    phase: watch::Receiver<Phase>,
    metrics: Arc<Metrics>,
}

/// Serves until dropped.
///
/// # Errors
/// When the listener fails.
pub(crate) async fn serve(
    listener: TcpListener,
    phase: watch::Receiver<Phase>,
    metrics: Arc<Metrics>,
) -> std::io::Result<()> {
    let router = Router::new()
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(readyz))
        .route("/metrics", get(text))
        .with_state(Health { phase, metrics });
    axum::serve(listener, router).await
}

async fn readyz(State(health): State<Health>) -> impl IntoResponse {
    let phase = *health.phase.borrow();
    let code = match phase.is_ready() {
        true => StatusCode::OK,
        false => StatusCode::SERVICE_UNAVAILABLE,
    };
    (code, format!("{}\n", phase.text()))
}

async fn text(State(health): State<Health>) -> impl IntoResponse {
    let type_ = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, type_)], health.metrics.text())
}
