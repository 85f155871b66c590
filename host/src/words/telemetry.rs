//! Logs and metrics.
//!
//! Logs go to stderr through `tracing`. Metrics are counted here, by every floor, and rendered in
//! the Prometheus text format by the admin port. All names start with `stead_`.

use std::io::IsTerminal;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};
use tracing_subscriber::EnvFilter;

use crate::words::Code;

/// Sends logs to stderr, as text or as one JSON object a line. Only the first call counts. The
/// filter was checked with the configuration; one that is not valid means `info`.
pub fn init_logs(json: bool, filter: &str) {
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        // It would say on stderr that stderr cannot be written, and panic over that.
        .log_internal_errors(false);
    let result = if json {
        builder.json().flatten_event(true).with_current_span(true).with_span_list(false).try_init()
    } else {
        builder.with_ansi(std::io::stderr().is_terminal()).try_init()
    };
    // Tests start several nodes in a process; they share its logs.
    drop(result);
}

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

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct EffectLabels {
    pub service: Arc<str>,
    /// A gRPC status code's name, `ok` included.
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ForwardLabels {
    pub result: &'static str,
}

/// What became of an effect, a timer or a forward.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct ResultLabels {
    pub result: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct PeerLabels {
    /// `in` or `out`.
    pub direction: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub struct RefusedLabels {
    pub reason: &'static str,
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
    pub action_effects: Family<EffectLabels, Counter>,
    pub streams: Gauge,
    pub stream_messages_in: Counter,
    pub stream_messages_out: Counter,
    pub effects: Family<ResultLabels, Counter>,
    pub outbox_effects: Gauge,
    pub timers: Family<ResultLabels, Counter>,
    pub timers_pending: Gauge,
    pub timer_late_seconds: Histogram,
    pub command_forwards: Family<ResultLabels, Counter>,
    pub commit_rows: Histogram,
    pub commit_bytes: Counter,
    pub commit_seconds: Histogram,
    pub commit_queue: Gauge,
    pub commit_failures: Counter,
    pub commits_reconciled: Counter,
    pub shards_halted: Counter,
    pub connections: Gauge,
    pub connections_refused: Counter,
    pub forwards: Family<ForwardLabels, Counter>,
    pub forward_seconds: Histogram,
    pub waiting_calls: Gauge,
    pub peer_connections: Family<PeerLabels, Gauge>,
    pub peer_handshakes_refused: Counter,
    pub shards_held: Gauge,
    pub shards_claimed: Counter,
    pub shards_handed_over: Counter,
    pub shards_lost: Counter,
    pub shard_pause_seconds: Histogram,
    pub nodes_fenced: Counter,
    pub registrations: Counter,
    pub lease_remaining_seconds: Gauge<f64, AtomicU64>,
    pub ownership_faults: Counter,
    pub members_alive: Gauge,
    pub gossip_packets_refused: Family<RefusedLabels, Counter>,
    pub consumers: ConsumerMetrics,
}

impl Default for Metrics {
    fn default() -> Self {
        let seconds = || Seconds.new_metric();
        let mut metrics = Self {
            consumers: ConsumerMetrics::default(),
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
            action_effects: Family::default(),
            streams: Gauge::default(),
            stream_messages_in: Counter::default(),
            stream_messages_out: Counter::default(),
            effects: Family::default(),
            outbox_effects: Gauge::default(),
            timers: Family::default(),
            timers_pending: Gauge::default(),
            timer_late_seconds: seconds(),
            command_forwards: Family::default(),
            commit_rows: Histogram::new(exponential_buckets(1.0, 2.0, 13)),
            commit_bytes: Counter::default(),
            commit_seconds: seconds(),
            commit_queue: Gauge::default(),
            commit_failures: Counter::default(),
            commits_reconciled: Counter::default(),
            shards_halted: Counter::default(),
            connections: Gauge::default(),
            connections_refused: Counter::default(),
            forwards: Family::default(),
            forward_seconds: seconds(),
            waiting_calls: Gauge::default(),
            peer_connections: Family::default(),
            peer_handshakes_refused: Counter::default(),
            shards_held: Gauge::default(),
            shards_claimed: Counter::default(),
            shards_handed_over: Counter::default(),
            shards_lost: Counter::default(),
            shard_pause_seconds: seconds(),
            nodes_fenced: Counter::default(),
            registrations: Counter::default(),
            lease_remaining_seconds: Gauge::default(),
            ownership_faults: Counter::default(),
            members_alive: Gauge::default(),
            gossip_packets_refused: Family::default(),
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
        r.register(
            "passivations",
            "Entities dropped from memory: idle, evicted, or left to a newer module",
            m.passivations.clone(),
        );
        r.register("crashes", "Instances lost, by cause", m.crashes.clone());
        r.register("replayed_events", "Events applied by activations", m.replayed_events.clone());
        r.register("snapshots", "Snapshots stored", m.snapshots.clone());
        r.register("hot_entities", "Entities in memory", m.hot_entities.clone());
        r.register(
            "hot_bytes",
            "Memory counted for entities: 32 KiB each, and what their linear memories grew by",
            m.hot_bytes.clone(),
        );
        r.register(
            "commands_in_flight",
            "Commands queued, running or waiting for their commit",
            m.commands_in_flight.clone(),
        );
        register_actions(&mut r, m);
        register_calls(&mut r, m);
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
        r.register(
            "commits_reconciled",
            "Commits whose outcome had to be looked up after a connection was lost",
            m.commits_reconciled.clone(),
        );
        r.register(
            "shards_halted",
            "Shards halted by this node because acknowledged events are missing",
            m.shards_halted.clone(),
        );
        r.register("connections", "Open connections of the services port", m.connections.clone());
        r.register(
            "connections_refused",
            "Connections closed because there were too many",
            m.connections_refused.clone(),
        );
        r.register("forwards", "Commands sent to other nodes, by result", m.forwards.clone());
        r.register_with_unit(
            "forward",
            "Time that another node took to answer a command",
            Unit::Seconds,
            m.forward_seconds.clone(),
        );
        r.register(
            "waiting_calls",
            "Commands that wait for the owner of their shard",
            m.waiting_calls.clone(),
        );
        r.register(
            "peer_connections",
            "Open connections between nodes, by direction",
            m.peer_connections.clone(),
        );
        r.register(
            "peer_handshakes_refused",
            "Connections to the peer port that did not come to a TLS session",
            m.peer_handshakes_refused.clone(),
        );
        register_ownership(&mut r, m);
        r.register(
            "members_alive",
            "Nodes that seem alive to this one, itself included",
            m.members_alive.clone(),
        );
        r.register(
            "gossip_packets_refused",
            "Packets between members that were dropped, by reason",
            m.gossip_packets_refused.clone(),
        );
        m.consumers.register(&mut r);
        metrics.registry = Arc::new(r);
        metrics
    }
}

fn register_actions(r: &mut Registry, m: &Metrics) {
    r.register(
        "action_effects",
        "Effects of actions, by the action's service and by result",
        m.action_effects.clone(),
    );
    r.register("streams", "Calls whose answer streams and has not ended", m.streams.clone());
    r.register(
        "stream_messages_in",
        "Messages of streamed requests that actions received",
        m.stream_messages_in.clone(),
    );
    r.register(
        "stream_messages_out",
        "Messages of streamed answers that actions sent",
        m.stream_messages_out.clone(),
    );
}

fn register_calls(r: &mut Registry, m: &Metrics) {
    r.register(
        "effects",
        "Tries to deliver effects, by result: delivered, rejected, failed, parked",
        m.effects.clone(),
    );
    r.register(
        "outbox_effects",
        "Effects in memory that are not delivered yet",
        m.outbox_effects.clone(),
    );
    r.register("timers", "Timers that were due, by result: fired, failed", m.timers.clone());
    r.register(
        "timers_pending",
        "Timers in memory: those due within the next minute",
        m.timers_pending.clone(),
    );
    r.register_with_unit(
        "timer_late",
        "Time from when a timer was due until its command was stored",
        Unit::Seconds,
        m.timer_late_seconds.clone(),
    );
    r.register(
        "command_forwards",
        "Commands that were forwarded to another function, by result",
        m.command_forwards.clone(),
    );
}

fn register_ownership(r: &mut Registry, m: &Metrics) {
    r.register("shards_held", "Shards that this node holds", m.shards_held.clone());
    r.register("shards_claimed", "Free shards that this node took", m.shards_claimed.clone());
    r.register(
        "shards_handed_over",
        "Shards that this node gave to others",
        m.shards_handed_over.clone(),
    );
    r.register("shards_lost", "Shards that others took from this node", m.shards_lost.clone());
    r.register_with_unit(
        "shard_pause",
        "Time from a shard's last command here until its next owner had it",
        Unit::Seconds,
        m.shard_pause_seconds.clone(),
    );
    r.register("nodes_fenced", "Nodes that this one declared dead", m.nodes_fenced.clone());
    r.register(
        "registrations",
        "Lives of this node in the store since its process began",
        m.registrations.clone(),
    );
    r.register_with_unit(
        "lease_remaining",
        "For how long this node may answer from memory if it cannot renew its lease",
        Unit::Seconds,
        m.lease_remaining_seconds.clone(),
    );
    r.register(
        "ownership_faults",
        "Rows of the store that contradict what it said before; must be 0",
        m.ownership_faults.clone(),
    );
}

/// The metrics of one method, found once: a command then touches no map and hashes nothing.
pub struct CommandMetrics {
    service: Arc<str>,
    method: Arc<str>,
    commands: Family<CommandLabels, Counter>,
    seconds: Histogram,
    /// By status code; a result appears in the text once it has happened.
    results: [OnceLock<Counter>; Code::COUNT],
}

impl CommandMetrics {
    /// Counts a command that was answered.
    pub fn answered(&self, result: Code, took: Duration) {
        self.seconds.observe(took.as_secs_f64());
        self.ended(result);
    }

    /// Counts a stream that ended; how long it took says nothing.
    pub fn ended(&self, result: Code) {
        self.results[result.number() as usize]
            .get_or_init(|| {
                let labels = CommandLabels {
                    service: self.service.clone(),
                    method: self.method.clone(),
                    result: result.name(),
                };
                self.commands.get_or_create_owned(&labels)
            })
            .inc();
    }
}

mod consumers;

pub use consumers::{ConsumerMetrics, GroupLabels};

impl Metrics {
    /// To be kept beside the method.
    pub fn command(&self, service: &Arc<str>, method: &Arc<str>) -> CommandMetrics {
        let labels = TypeLabels { service: service.clone() };
        CommandMetrics {
            service: service.clone(),
            method: method.clone(),
            commands: self.commands.clone(),
            seconds: self.command_seconds.get_or_create_owned(&labels),
            results: Default::default(),
        }
    }

    /// The Prometheus (OpenMetrics) text.
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing to a String cannot fail.
        let _ = prometheus_client::encoding::text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_are_counted_by_service_method_and_result() {
        let metrics = Metrics::default();
        let add = metrics.command(&"shop.Cart".into(), &"Add".into());
        add.answered(Code::Ok, Duration::from_millis(3));
        add.answered(Code::Ok, Duration::from_millis(3));
        add.answered(Code::Unavailable, Duration::from_millis(3));
        let text = metrics.render();
        for line in [
            r#"stead_commands_total{service="shop.Cart",method="Add",result="ok"} 2"#,
            r#"stead_commands_total{service="shop.Cart",method="Add",result="unavailable"} 1"#,
            r#"stead_command_seconds_count{service="shop.Cart"} 3"#,
        ] {
            assert!(text.contains(line), "{line} is missing in\n{text}");
        }
    }
}
