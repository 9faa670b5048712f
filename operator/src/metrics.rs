//! Every metric of the operator, with its help text. Labels have few, known values.

use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::Registry;

/// From a read of a cache to a broker that does not answer.
const SECONDS_BUCKETS: [f64; 8] = [0.005, 0.02, 0.1, 0.5, 1.0, 5.0, 15.0, 60.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReconcileLabels {
    controller: &'static str,
    result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ControllerLabels {
    controller: &'static str,
}

/// The operator's metrics.
pub(crate) struct Metrics {
    registry: Registry,
    reconciles: Family<ReconcileLabels, Counter>,
    seconds: Family<ControllerLabels, Histogram, fn() -> Histogram>,
    watch_errors: Counter,
    writes: Counter,
    leader: Gauge,
    definitions_missing: Gauge,
}

impl Metrics {
    pub(crate) fn new() -> Self {
        let mut registry = Registry::with_prefix("millrace_operator");
        let reconciles = Family::default();
        registry.register(
            "reconciles",
            "Reconciliations by controller and result",
            reconciles.clone(),
        );
        let buckets: fn() -> Histogram = || Histogram::new(SECONDS_BUCKETS);
        let seconds = Family::new_with_constructor(buckets);
        registry.register(
            "reconcile_seconds",
            "How long a reconciliation took",
            seconds.clone(),
        );
        let watch_errors = Counter::default();
        registry.register(
            "watch_errors",
            "Watches that failed and were started again",
            watch_errors.clone(),
        );
        let writes = Counter::default();
        registry.register(
            "writes",
            "Writes to the API server; none while nothing changes",
            writes.clone(),
        );
        let leader = Gauge::default();
        registry.register(
            "leader",
            "1 while this operator is the acting one",
            leader.clone(),
        );
        let definitions_missing = Gauge::default();
        registry.register(
            "definitions_missing",
            "Custom resource definitions that are waited for",
            definitions_missing.clone(),
        );
        Self {
            registry,
            reconciles,
            seconds,
            watch_errors,
            writes,
            leader,
            definitions_missing,
        }
    }

    /// A reconciliation ended.
    pub(crate) fn reconciled(
        &self,
        controller: &'static str,
        result: &'static str,
        took: Duration,
    ) {
        self.reconciles
            .get_or_create(&ReconcileLabels { controller, result })
            .inc();
        self.seconds
            .get_or_create(&ControllerLabels { controller })
            .observe(took.as_secs_f64());
    }

    pub(crate) fn watch_failed(&self) {
        self.watch_errors.inc();
    }

    pub(crate) fn wrote(&self) {
        self.writes.inc();
    }

    pub(crate) fn leads(&self, leads: Leads) {
        self.leader.set(match leads {
            Leads::Acting => 1,
            Leads::Standby => 0,
        });
    }

    pub(crate) fn definitions_missing(&self, count: usize) {
        self.definitions_missing
            .set(i64::try_from(count).unwrap_or(i64::MAX));
    }

    /// All metrics in the OpenMetrics text format.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        match encode(&mut text, &self.registry) {
            Ok(()) => text,
            Err(_) => String::new(),
        }
    }
}

/// Whether this operator acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Leads {
    /// It holds the Lease.
    Acting,
    /// Another one does, or none.
    Standby,
}
