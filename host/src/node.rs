//! Floor 9: a node, assembled in reading order.

mod banner;
mod files;
mod gossip;
mod member;
mod ports;
mod process;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::action::Actions;
use crate::cluster::Cluster;
use crate::consumer::{Consumers, Views};
use crate::entity::{Caller, Entities, EntitiesConfig};
use crate::gateway::admin::{About, Admin, AdminBackend, Readiness};
use crate::gateway::server::{self, ServerOptions};
use crate::gateway::services::Services;
use crate::gateway::tls;
use crate::journal::sqlite::{self, SqliteStore};
use crate::journal::{AnyStore, Holdings, Journal};
use crate::node::files::Watched;
use crate::node::member::{Ground, Member};
use crate::node::ports::Ports;
use crate::node::process::Signals;
use crate::registry::Registry;
use crate::router::{Callers, Router};
use crate::wasm::Engine;
use crate::wasm::engine::EngineConfig;
use crate::words::clock::{self, Instant};
use crate::words::config::Config;
use crate::words::telemetry::{self, Metrics};
use crate::words::{Revision, limits};

/// Checked against Cargo.lock by a test: the crate does not tell.
pub const WASMTIME_VERSION: &str = "48.0.8";

/// Serves until it is told to stop. Returns an error if the node could not start, or stopped because
/// it could no longer do its work.
pub async fn run(config: Config) -> anyhow::Result<()> {
    let mut phases = Phases::new();
    telemetry::init_logs(config.log_json, &config.log_filter);
    // First of all, so that no signal is missed while the node starts.
    let mut signals = Signals::listen()?;
    process::raise_open_files();
    let mut joined = None;
    let started = tokio::select! {
        node = Node::start(&config, &mut phases, &mut joined) => Some(node),
        name = signals.next() => {
            tracing::info!("{name} while starting: stopped");
            None
        }
    };
    let mut node = match started {
        Some(Ok(node)) => node,
        not_started => {
            // A registration renews the lease: a node that is started again and again would keep its shards from
            // the others.
            if let Some(cluster) = joined {
                member::leave(&cluster).await;
            }
            return not_started.map_or(Ok(()), |node| node.map(drop));
        }
    };

    let end = tokio::select! {
        name = signals.next() => End::Told(name),
        reason = node.admin.journal.failed() => End::JournalFailed(reason),
        reason = gone(node.database.as_ref()) => End::JournalFailed(reason.into()),
        reason = expelled(node.member.as_ref()) => End::Expelled(reason),
        reason = node.services_port.ended() => End::PortEnded("services", reason),
        reason = node.admin_port.ended() => End::PortEnded("admin", reason),
    };
    if let Some(file) = &config.ports_file {
        ports::remove_file(file);
    }
    match end {
        End::Told(name) => {
            tracing::info!("{name}: stopping; a second signal stops at once");
            tokio::select! {
                () = node.stop() => {}
                name = signals.next() => process::exit_now(&format!("{name} again: stopped at once")),
                () = tokio::time::sleep(shutdown_max(&config)) => process::exit_now("the work in hand did not end in time: stopped without it"),
            }
            tracing::info!("stopped");
            Ok(())
        }
        End::JournalFailed(reason) => {
            tracing::error!(%reason, "the journal failed; nothing can be acknowledged until the node is started again");
            node.abandon().await;
            Err(anyhow::anyhow!("the journal failed: {reason}; start the node again to go on"))
        }
        End::Expelled(reason) => {
            node.abandon().await;
            Err(anyhow::anyhow!("this node cannot stay in its cluster: {reason}"))
        }
        End::PortEnded(port, reason) => {
            tracing::error!(reason, "the {port} port no longer serves; the node stops");
            if tokio::time::timeout(shutdown_max(&config), node.stop()).await.is_err() {
                process::exit_now("the work in hand did not end in time: stopped without it");
            }
            Err(anyhow::anyhow!(
                "the {port} port no longer serves: {reason}; start the node again to go on"
            ))
        }
    }
}

/// Returns when the database is no longer where it was.
async fn gone(database: Option<&Watched>) -> String {
    match database {
        Some(database) => database.gone().await,
        None => std::future::pending().await,
    }
}

/// Returns when the node must not be a member any more.
async fn expelled(member: Option<&member::Serving>) -> Arc<str> {
    match member {
        Some(member) => member.cluster.failed().await,
        None => std::future::pending().await,
    }
}

/// A member of a cluster has more to do when it stops.
fn shutdown_max(config: &Config) -> Duration {
    match config.cluster {
        Some(_) => limits::SHUTDOWN_MAX + limits::CLUSTER_DRAIN_MAX,
        None => limits::SHUTDOWN_MAX,
    }
}

enum End {
    Told(&'static str),
    JournalFailed(Arc<str>),
    /// Another process has this member's identity.
    Expelled(Arc<str>),
    /// A node that nobody can reach is better started again.
    PortEnded(&'static str, String),
}

/// Everything that runs.
struct Node {
    admin: Admin,
    actions: Actions,
    /// Of a node of its own.
    database: Option<Watched>,
    /// Of a member of a cluster.
    member: Option<member::Serving>,
    services_port: Port,
    admin_port: Port,
}

/// A port that serves.
struct Port {
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

impl Node {
    /// From when on `joined` is told, the node is a member, whether it starts or not.
    async fn start(
        config: &Config,
        phases: &mut Phases,
        joined: &mut Option<Cluster>,
    ) -> anyhow::Result<Self> {
        let started_at_ms = clock::unix_ms();
        let metrics = Metrics::default();
        process::create_data_dir(&config.data_dir)?;
        let data_dir = config.data_dir.canonicalize().unwrap_or(config.data_dir.clone());
        let tls = config.tls.as_ref().map(tls::load).transpose()?;

        let (journal, database, ground) = match &config.cluster {
            None => {
                let store = AnyStore::Sqlite(SqliteStore::open(&data_dir).await?);
                let database = Watched::new(data_dir.join(sqlite::FILE))?;
                let journal = Journal::start(store, Holdings::alone(), metrics.clone());
                (journal, Some(database), None)
            }
            Some(cluster) => {
                let (ground, journal) = Ground::open(cluster, &data_dir, &metrics).await?;
                (journal, None, Some(ground))
            }
        };
        phases.done("journal");

        let engine = engine(&data_dir, config)?;
        phases.done("engine");

        let registry = Registry::open(engine, journal.clone())
            .await
            .context("the deployed modules cannot be read")?;
        phases.done("registry");

        let entities = Entities::new(
            registry.clone(),
            journal.clone(),
            metrics.clone(),
            EntitiesConfig {
                hot_entities_max: config.hot_entities_max,
                hot_bytes_max: config.hot_bytes_max,
                effect_tries_max: config.effect_tries_max,
                ..EntitiesConfig::default()
            },
        );
        let store_name = ground.as_ref().map(|ground| ground.store.clone()).unwrap_or_default();
        // What may fail comes before the node is a member, if it can.
        let ports = Ports::prepare(config)?;
        let member = match (ground, ports.peer, &config.cluster) {
            (Some(ground), Some(peer), Some(cluster)) => Some(
                Member::join(ground, peer, cluster, &registry, &entities, &journal, &metrics)
                    .await?,
            ),
            _ => None,
        };
        *joined = member.as_ref().map(|member| member.cluster.clone());
        phases.done("cluster");
        let router = match &member {
            Some(member) => member.router.clone(),
            None => Router::local(entities.clone()),
        };
        let actions = Actions::new(registry.clone(), metrics.clone());
        let views = Views::new(journal.clone());
        let callers = Callers::new(registry.clone(), &router, actions.downgrade(), views.clone());
        let callers: Arc<dyn Caller> = Arc::new(callers);
        actions.calls_through(callers.clone());
        entities.set_caller(callers.clone());
        let consumers =
            Consumers::start(&registry, &journal, callers, views.clone(), metrics.clone());
        let admin = Admin {
            registry: registry.clone(),
            entities: entities.clone(),
            actions: actions.clone(),
            consumers,
            journal,
            metrics: metrics.clone(),
            readiness: Readiness::default(),
            membership: member.as_ref().map(|member| member.membership.clone()),
            about: Arc::new(About {
                started_at_ms,
                data_dir,
                store: if member.is_some() { "postgres" } else { "sqlite" },
                wasmtime_version: WASMTIME_VERSION,
                hot_entities_max: config.hot_entities_max,
                hot_bytes_max: config.hot_bytes_max,
            }),
        };
        let admin_backend = AdminBackend::new(admin.clone(), config.admin_token.as_ref())?;

        let services_listener = ports.services.listen()?;
        let admin_listener = ports.admin.listen()?;
        if let Some(file) = ports.file {
            file.publish()?;
        }
        if let Some(member) = &member {
            admin.readiness.starting(Some("the cluster's store has not told who owns what"));
            tokio::spawn(ready_once_told(member.cluster.clone(), admin.readiness.clone()));
        }
        let member = member.map(|member| member.serve(&admin));
        let services_port = Port::serve(
            services_listener,
            Services::new(registry, router, actions.clone(), views)
                .healthy_until(admin.readiness.draining()),
            ServerOptions {
                tls,
                cors: config.cors.clone(),
                metrics,
                shutdown_max: limits::DRAIN_MAX,
                ..ServerOptions::default()
            },
        );
        // Local tools speak plain HTTP to it, and its connections are not those of the services port.
        let admin_port = Port::serve(
            admin_listener,
            admin_backend,
            ServerOptions {
                connections_max: limits::ADMIN_CONNECTIONS_MAX,
                request_bodies_bytes_max: limits::ADMIN_REQUEST_BODIES_BYTES_MAX,
                shutdown_max: limits::ADMIN_DRAIN_MAX,
                ..ServerOptions::default()
            },
        );
        phases.done("ports");

        banner::print(config, &ports.addresses, &admin, &store_name);
        phases.total();
        Ok(Self { admin, actions, database, member, services_port, admin_port })
    }

    /// Lets the work in hand end, and leaves everything on disk.
    async fn stop(self) {
        let Self { admin, actions, member, services_port, admin_port, .. } = self;
        admin.readiness.drain();
        if let Some(member) = &member {
            member.drain().await;
        }
        admin.consumers.stop();
        services_port.stop.cancel();
        // Actions first: what they call may be entities.
        if tokio::time::timeout(limits::STREAM_DRAIN_MAX, actions.drain()).await.is_err() {
            actions.stop();
        }
        let drained = tokio::time::timeout(limits::DRAIN_MAX, admin.entities.drain()).await;
        if drained.is_err() {
            tracing::warn!("some commands did not end within {:?}", limits::DRAIN_MAX);
        }
        services_port.end(limits::ADMIN_DRAIN_MAX).await;
        if let Some(member) = member {
            member.leave().await;
        }
        admin_port.stop.cancel();
        admin_port.end(limits::ADMIN_DRAIN_MAX).await;
        admin.journal.close().await;
    }

    /// Nothing can be saved any more; callers who wait get their answers.
    async fn abandon(self) {
        let Self { admin, actions, member, services_port, admin_port, .. } = self;
        admin.readiness.drain();
        actions.stop();
        admin.consumers.stop();
        if let Some(member) = &member {
            member.abandon();
        }
        services_port.stop.cancel();
        admin_port.stop.cancel();
        services_port.end(limits::ADMIN_DRAIN_MAX).await;
        admin_port.end(limits::ADMIN_DRAIN_MAX).await;
    }
}

impl Port {
    fn serve<B: crate::gateway::backend::Backend>(
        listener: TcpListener,
        backend: B,
        options: ServerOptions,
    ) -> Self {
        let stop = CancellationToken::new();
        let serving = server::serve(listener, Arc::new(backend), options, stop.clone());
        Self { stop, serving: tokio::spawn(serving) }
    }

    /// Waits until the port serves no longer though nobody has stopped it, and says why.
    async fn ended(&mut self) -> String {
        match (&mut self.serving).await {
            Ok(()) => "it ended".into(),
            Err(error) => error.to_string(),
        }
    }

    async fn end(self, wait_max: Duration) {
        // One that has ended may have been asked already.
        if self.serving.is_finished() {
            return;
        }
        if tokio::time::timeout(wait_max, self.serving).await.is_err() {
            tracing::warn!("some connections did not end within {wait_max:?}");
        }
    }
}

/// Calls can be routed once the store has been looked at.
async fn ready_once_told(cluster: Cluster, readiness: Readiness) {
    let told = cluster.view().wait_for(|view| !view.shards.is_empty()).await.is_ok();
    if told {
        readiness.starting(None);
    }
}

fn engine(data_dir: &Path, config: &Config) -> anyhow::Result<Engine> {
    Engine::new(EngineConfig {
        cache_dir: Some(data_dir.join("compiled")),
        compiler: Some(std::env::current_exe().context("the path of this program is not known")?),
        instances_max: config.hot_entities_max,
    })
    .context("the WebAssembly engine cannot start")
}

/// How long each part of the start took.
struct Phases {
    began: Instant,
    last: Instant,
}

impl Phases {
    fn new() -> Self {
        let now = clock::now();
        Self { began: now, last: now }
    }

    fn done(&mut self, phase: &'static str) {
        let now = clock::now();
        tracing::debug!(phase, took = ?now - self.last, "start");
        self.last = now;
    }

    fn total(&self) {
        tracing::debug!(took = ?self.began.elapsed(), "ready");
    }
}

/// What is live, for people.
fn live(revision: Revision, services: usize) -> String {
    match (revision, services) {
        (Revision(0), _) => "nothing deployed yet".into(),
        (revision, 1) => format!("revision {revision}, 1 service live"),
        (revision, services) => format!("revision {revision}, {services} services live"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_port_that_panics_is_noticed_and_can_still_be_ended() {
        let serving = tokio::spawn(async { panic!("no more") });
        let mut port = Port { stop: CancellationToken::new(), serving };
        assert!(port.ended().await.contains("no more"));
        port.end(Duration::from_secs(1)).await;
    }

    #[test]
    fn the_version_of_wasmtime_is_the_locked_one() {
        let lock = include_str!("../../Cargo.lock");
        let entry = format!("name = \"wasmtime\"\nversion = \"{WASMTIME_VERSION}\"\n");
        assert!(lock.contains(&entry), "WASMTIME_VERSION is not what Cargo.lock says");
    }
}
