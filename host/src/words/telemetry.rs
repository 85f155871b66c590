//! Logs and metrics.
//!
//! Logs go to stderr through `tracing`. Metrics are counted here, by every floor, and rendered in
//! the Prometheus text format by the admin port. All names start with `stead_`.

use std::sync::Arc;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CommandLabels {
    pub service: Arc<str>,
    pub method: Arc<str>,
    /// A gRPC status code's name, `ok` included.
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct TypeLabels {
    pub service: Arc<str>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct CrashLabels {
    pub service: Arc<str>,
    pub what: &'static str,
}

#[derive(Clone)]
pub struct Seconds;

impl MetricConstructor<Histogram> for Seconds {
    fn new_metric(&self) -> Histogram {
        // 50 us to 13 s.
        Histogram::new(exponential_buckets(0.000_05, 2.0, 18))
    }
}

/// Everything that is counted. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    pub registry: Arc<Registry>,
    pub commands: Family<CommandLabels, Counter>,
    pub command_seconds: Family<TypeLabels, Histogram, Seconds>,
    pub activations: Family<TypeLabels, Counter>,
    pub activation_seconds: Family<TypeLabels, Histogram, Seconds>,
    pub passivations: Family<TypeLabels, Counter>,
    pub crashes: Family<CrashLabels, Counter>,
    pub replayed_events: Family<TypeLabels, Counter>,
    pub snapshots: Family<TypeLabels, Counter>,
    pub hot_entities: Gauge,
    pub hot_bytes: Gauge,
    pub commands_in_flight: Gauge,
    pub commit_rows: Histogram,
    pub commit_bytes: Counter,
    pub commit_seconds: Histogram,
    pub commit_queue: Gauge,
    pub commit_failures: Counter,
    pub connections: Gauge,
    pub connections_refused: Counter,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Seconds.new_metric();
        let mut metrics = Self {
            registry: Arc::default(),
            commands: Family::default(),
            command_seconds: Family::new_with_constructor(Seconds),
            activations: Family::default(),
            activation_seconds: Family::new_with_constructor(Seconds),
            passivations: Family::default(),
            crashes: Family::default(),
            replayed_events: Family::default(),
            snapshots: Family::default(),
            hot_entities: Gauge::default(),
            hot_bytes: Gauge::default(),
            commands_in_flight: Gauge::default(),
            commit_rows: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            commit_bytes: Counter::default(),
            commit_seconds: seconds(),
            commit_queue: Gauge::default(),
            commit_failures: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
        };
        let mut r = Registry::with_prefix("stead");
        let m = &metrics;
        r.register("commands", "Commands answered, by result", m.commands.clone());
        r.register_with_unit(
            "command",
            "Time from a command's arrival to its answer",
            Unit::Seconds,
            m.command_seconds.clone(),
        );
        r.register("activations", "Entities loaded into memory", m.activations.clone());
        r.register_with_unit(
            "activation",
            "Time to load an entity and replay its events",
            Unit::Seconds,
            m.activation_seconds.clone(),
        );
        r.register("passivations", "Idle entities dropped from memory", m.passivations.clone());
        r.register("crashes", "Instances lost, by cause", m.crashes.clone());
        r.register("replayed_events", "Events applied by activations", m.replayed_events.clone());
        r.register("snapshots", "Snapshots stored", m.snapshots.clone());
        r.register("hot_entities", "Entities in memory", m.hot_entities.clone());
        r.register("hot_bytes", "Linear memory of entities in memory", m.hot_bytes.clone());
        r.register(
            "commands_in_flight",
            "Commands queued, running or waiting for their commit",
            m.commands_in_flight.clone(),
        );
        r.register("commit_rows", "Rows of a journal commit", m.commit_rows.clone());
        r.register("commit_bytes", "Bytes handed to the journal", m.commit_bytes.clone());
        r.register_with_unit(
            "commit",
            "Time that a journal commit took",
            Unit::Seconds,
            m.commit_seconds.clone(),
        );
        r.register("commit_queue", "Writes waiting for a commit", m.commit_queue.clone());
        r.register("commit_failures", "Commits that failed", m.commit_failures.clone());
        r.register("connections", "Open connections of the services port", m.connections.clone());
        r.register(
            "connections_refused",
            "Connections closed because there were too many",
            m.connections_refused.clone(),
        );
        metrics.registry = Arc::new(r);
        metrics
    }
}

impl Metrics {
    /// The Prometheus (OpenMetrics) text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}
