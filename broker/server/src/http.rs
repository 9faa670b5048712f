//! Metrics and health over HTTP, for Prometheus and the kubelet.
//!
//! `/livez`: 200 as long as the process can answer and has not failed. `/readyz`: 200 only while
//! the node serves; otherwise 503 with the reason. `/metrics`: OpenMetrics text.

use std::io;

use axum::Router;
use axum::extract::State as Shared;
use axum::http::header::CONTENT_TYPE;
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;
use crate::state::{State, StateCell};
use crate::tasks::Stop;

/// What Prometheus asks OpenMetrics text by.
const OPEN_METRICS: HeaderValue =
    HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");

/// What the handlers look at.
#[derive(Clone, Debug)]
pub(crate) struct Pages {
    pub(crate) state: StateCell,
    pub(crate) metrics: Metrics,
}

/// Serves until the node has ended: health is asked for to the last.
pub(crate) async fn serve(listener: TcpListener, pages: Pages, stop: Stop) -> io::Result<()> {
    let router = Router::new()
        .route("/livez", get(live))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(pages);
    let ended = async move { stop.ended().await };
    axum::serve(listener, router)
        .with_graceful_shutdown(ended)
        .await
}

async fn live(Shared(pages): Shared<Pages>) -> Response {
    match pages.state.now() {
        State::Failed(reason) => unavailable(format!("failed: {reason}\n")),
        State::Waiting(_) | State::Starting | State::Serving | State::Draining => {
            "ok\n".into_response()
        }
    }
}

async fn ready(Shared(pages): Shared<Pages>) -> Response {
    match pages.state.now() {
        State::Serving => "ok\n".into_response(),
        State::Waiting(reason) => unavailable(format!("{reason}\n")),
        State::Starting => unavailable("starting: the data directory is being read\n".to_owned()),
        State::Draining => unavailable("draining: the node is going down\n".to_owned()),
        State::Failed(reason) => unavailable(format!("failed: {reason}\n")),
    }
}

async fn metrics(Shared(pages): Shared<Pages>) -> Response {
    match pages.metrics.text().await {
        Ok(text) => ([(CONTENT_TYPE, OPEN_METRICS)], text).into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

fn unavailable(text: String) -> Response {
    (StatusCode::SERVICE_UNAVAILABLE, text).into_response()
}
