//! The commands and their flags, as clap reads them. No behaviour lives here.

use std::path::PathBuf;
use std::time::Duration;

use clap::builder::styling::{AnsiColor, Styles};
use clap::{Args, Parser, Subcommand};
use clap_complete::Shell;

use crate::cli::output::Format;
use crate::cli::units;
use crate::words::limits::{SHARDS_DEFAULT, SHARDS_MAX};

const STYLES: Styles = Styles::styled()
    .header(AnsiColor::Green.on_default().bold())
    .usage(AnsiColor::Green.on_default().bold())
    .literal(AnsiColor::Cyan.on_default().bold())
    .placeholder(AnsiColor::Cyan.on_default());

const ROOT_HELP: &str = "\
A first round:
  stead serve                                  run a node, data in ./stead-data
  stead build examples/shopping-cart           compile an entity to a component
  stead deploy target/stead/shopping-cart.wasm make it live
  stead call ShoppingCart/GetCart '{\"userId\":\"ada\"}'

Exit codes:
  0 done   1 failed   2 usage   3 refused by the host   4 host not reachable";

/// Runs and talks to Stead, a home for stateful functions in WebAssembly.
#[derive(Debug, Parser)]
#[command(name = "stead", version, styles = STYLES, after_help = ROOT_HELP)]
#[command(disable_help_subcommand = true, max_term_width = 100)]
pub struct Cli {
    /// What to print: text for people, or json for programs, whose fields are stable.
    #[arg(long, global = true, value_enum, default_value_t, value_name = "FORMAT")]
    #[arg(hide_possible_values = true, display_order = 900)]
    pub format: Format,

    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a node.
    Serve(Box<ServeArgs>),
    /// Compile a Rust package to a component that can be deployed.
    Build(BuildArgs),
    /// Say what is in a module, or what is wrong with it, without a host.
    Check(CheckArgs),
    /// Upload modules and make their services live.
    Deploy(DeployArgs),
    /// List what was deployed, newest first.
    Versions(VersionsArgs),
    /// Make an earlier revision live again.
    Rollback(RollbackArgs),
    /// List the services that can be called now.
    Services(ServicesArgs),
    /// Call a method with JSON; no .proto is needed.
    Call(CallArgs),
    /// Look at entities: their journals, their state, then and now.
    #[command(subcommand)]
    Entity(EntityCommand),
    /// Look at who consumes event logs, and help those that are stuck.
    #[command(subcommand)]
    Consumers(ConsumersCommand),
    /// Look at effects that were given up, and retry or drop them.
    #[command(subcommand, name = "dead-letters")]
    DeadLetters(DeadLettersCommand),
    /// Look at a cluster, and take nodes out of it.
    #[command(subcommand)]
    Cluster(ClusterCommand),
    /// Move journals between stores.
    #[command(subcommand)]
    Store(StoreCommand),
    /// Check this machine and the host, and say what to do.
    Doctor(DoctorArgs),
    /// Print a completion script for a shell.
    #[command(
        after_help = "Example:\n  stead completions bash > ~/.local/share/bash-completion/completions/stead"
    )]
    Completions {
        /// Which shell.
        shell: Shell,
    },
    /// Compile the module on stdin: how a host keeps the compiler out of its own process.
    #[command(hide = true)]
    InternalCompile,
}

/// Where to find the services port.
#[derive(Debug, Args)]
pub struct ServicesPort {
    /// Where the services are.
    #[arg(long, env = "STEAD_URL", value_name = "URL", default_value = "http://127.0.0.1:7832")]
    #[arg(help_heading = "Host")]
    pub url: String,

    /// PEM file of the certificates to trust at a https:// address.
    #[arg(long, env = "STEAD_CA", value_name = "FILE", help_heading = "Host")]
    #[arg(default_value = "/etc/ssl/certs/ca-certificates.crt")]
    pub ca: PathBuf,
}

/// Where to find the admin port.
#[derive(Debug, Args)]
pub struct AdminPort {
    /// Where the admin API is.
    #[arg(long, env = "STEAD_ADMIN_URL", value_name = "URL")]
    #[arg(default_value = "http://127.0.0.1:7833", help_heading = "Host")]
    pub admin_url: String,

    /// The token that the host wants, if it wants one.
    #[arg(long, env = "STEAD_ADMIN_TOKEN", value_name = "TOKEN", hide_env_values = true)]
    #[arg(help_heading = "Host")]
    pub admin_token: Option<String>,
}

const SERVE_HELP: &str = "\
Each flag can be given in the environment or in stead.toml too; flags win over the environment, \
the environment over the file. The admin token comes from STEAD_ADMIN_TOKEN or the file only, so \
that it is in no list of processes.

Examples:
  stead serve                                    services on 7832, admin on 7833, data in ./stead-data
  stead serve --listen 127.0.0.1:0 --admin 127.0.0.1:0 --ports-file ports.json
  stead serve --listen 0.0.0.0:443 --tls-certificate cert.pem --tls-key key.pem";

#[derive(Debug, Args)]
#[command(after_help = SERVE_HELP)]
pub struct ServeArgs {
    /// Where everything is kept [default: ./stead-data] [env: STEAD_DATA]
    #[arg(long, value_name = "DIR")]
    pub data: Option<String>,

    /// Address of the services; port 0 picks a free one [default: 127.0.0.1:7832] [env: STEAD_LISTEN]
    #[arg(long, value_name = "ADDR")]
    pub listen: Option<String>,

    /// Address of the admin API [default: 127.0.0.1:7833] [env: STEAD_ADMIN]
    #[arg(long, value_name = "ADDR")]
    pub admin: Option<String>,

    /// Write the addresses that were chosen to this file, as JSON [env: STEAD_PORTS_FILE]
    #[arg(long, value_name = "FILE")]
    pub ports_file: Option<String>,

    /// Read this file [default: ./stead.toml if there is one] [env: STEAD_CONFIG]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,

    /// Certificate chain of the services port, PEM [env: STEAD_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE", alias = "tls-cert", help_heading = "Browsers and TLS")]
    pub tls_certificate: Option<String>,

    /// Its private key, PEM [env: STEAD_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Browsers and TLS")]
    pub tls_key: Option<String>,

    /// Let pages of these origins call; `*` for any, several with commas or by repeating the flag
    /// [env: STEAD_CORS_ALLOWED_ORIGINS]
    #[arg(long, value_name = "ORIGIN", alias = "cors-origin", help_heading = "Browsers and TLS")]
    pub cors_allowed_origins: Vec<String>,

    /// How long browsers may remember that, such as 10m [env: STEAD_CORS_MAX_AGE]
    #[arg(long, value_name = "DURATION", help_heading = "Browsers and TLS")]
    pub cors_max_age: Option<String>,

    /// How many entities may be in memory at once [env: STEAD_HOT_ENTITIES]
    #[arg(long, value_name = "COUNT", alias = "hot-entities-max", help_heading = "Bounds")]
    pub hot_entities: Option<String>,

    /// How much memory they may use together, such as 4GiB [env: STEAD_HOT_MEMORY]
    #[arg(long, value_name = "SIZE", alias = "hot-bytes-max", help_heading = "Bounds")]
    pub hot_memory: Option<String>,

    /// How often an effect is tried before it waits among the dead letters [env: STEAD_EFFECT_TRIES]
    #[arg(long, value_name = "COUNT", help_heading = "Bounds")]
    pub effect_tries: Option<String>,

    /// Share a journal with other nodes: postgres://user@host/database, better given by the
    /// environment if it has a password [env: STEAD_STORE]
    #[arg(long, value_name = "URL", help_heading = "Cluster")]
    pub store: Option<String>,

    /// Address for other nodes, TCP and UDP [default: 127.0.0.1:7834] [env: STEAD_PEER]
    #[arg(long, value_name = "ADDR", help_heading = "Cluster")]
    pub peer: Option<String>,

    /// Where other nodes reach it, if not at --peer [env: STEAD_ADVERTISE]
    #[arg(long, value_name = "ADDR", help_heading = "Cluster")]
    pub advertise: Option<String>,

    /// Another member, or a DNS name that resolves to all of them; repeatable [env: STEAD_JOIN]
    #[arg(long, value_name = "HOST:PORT", help_heading = "Cluster")]
    pub join: Vec<String>,

    /// Where this node is, for people and `cluster status` [env: STEAD_ZONE]
    #[arg(long, value_name = "NAME", help_heading = "Cluster")]
    pub zone: Option<String>,

    /// How many shards it takes compared with others [default: 100] [env: STEAD_CAPACITY]
    #[arg(long, value_name = "WEIGHT", help_heading = "Cluster")]
    pub capacity: Option<String>,

    /// Shards of a new cluster; they never change [default: 1024] [env: STEAD_SHARDS]
    #[arg(long, value_name = "COUNT", help_heading = "Cluster")]
    pub shards: Option<String>,

    /// Take over within 3 s instead of 8, for less patience with slow nodes; the same on every node
    /// [env: STEAD_FAST_FAILOVER]
    #[arg(long, help_heading = "Cluster")]
    pub fast_failover: bool,

    /// Certificate chain of this node, PEM, for mutual TLS between nodes
    /// [env: STEAD_PEER_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub peer_tls_certificate: Option<String>,

    /// Its private key, PEM [env: STEAD_PEER_TLS_KEY]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub peer_tls_key: Option<String>,

    /// Certificates of the authority that signs nodes' certificates, PEM [env: STEAD_PEER_TLS_CA]
    #[arg(long, value_name = "FILE", help_heading = "Cluster")]
    pub peer_tls_ca: Option<String>,

    /// The version of Stead to tell other nodes, for tests of updates alone
    #[arg(long, value_name = "VERSION", hide = true)]
    pub version_for_tests: Option<String>,

    /// How log lines are written, on stderr: text or json [default: text] [env: STEAD_LOG_FORMAT]
    #[arg(long, value_name = "FORMAT", help_heading = "Logs")]
    pub log_format: Option<String>,

    /// What is logged, such as info or stead::entity=debug,warn [default: info]
    /// [env: STEAD_LOG_FILTER]
    #[arg(long, value_name = "FILTER", alias = "log", help_heading = "Logs")]
    pub log_filter: Option<String>,
}

const BUILD_HELP: &str = "\
Needs cargo and the target wasm32-unknown-unknown, no other tool. The path of the component is \
printed on stdout.

JSON: {file, bytes, digest}

Examples:
  stead build examples/shopping-cart
  stead deploy $(stead build)";

#[derive(Debug, Args)]
#[command(after_help = BUILD_HELP)]
pub struct BuildArgs {
    /// The folder of the package.
    #[arg(default_value = ".")]
    pub dir: PathBuf,

    /// The file to write [default: <target folder>/stead/<package>.wasm]
    #[arg(long, short, value_name = "FILE")]
    pub out: Option<PathBuf>,

    /// Features of the package, separated by commas.
    #[arg(long, value_name = "FEATURES", value_delimiter = ',')]
    pub features: Vec<String>,
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {file, digest, bytes, sdk, services: [{name, kind, journal, module_digest, module_name, snapshot_every, passivate_after_ms, memory_bytes_max, deadline_ms, last_crash: {time, what, during, reason, backtrace, consecutive, retry_time}, methods: [{name, input, output, http: [{method, path, body}]}]}]}"
)]
pub struct CheckArgs {
    /// The component to look at.
    pub file: PathBuf,
}

const DEPLOY_HELP: &str = "\
A live module that shares a service or a journal with one of the files is replaced as a whole: a \
service of it that is in none of the files is removed. Other modules stay. Hot entities switch over \
between two commands, and none is lost.

JSON: {revision, plan, modules: [{file, name, digest, bytes, sdk, already_present}],
       changes: [{action: added|replaced|removed|unchanged, service, kind, journal, module_digest}],
       grants: [{module, allow}]}

Examples:
  stead deploy cart.wasm
  stead deploy bridge.wasm --allow http=https://api.example.com
  stead deploy cart.wasm chat.wasm --plan";

#[derive(Debug, Args)]
#[command(after_help = DEPLOY_HELP)]
pub struct DeployArgs {
    /// Components, as `stead build` makes them.
    #[arg(required = true, value_name = "FILE")]
    pub files: Vec<PathBuf>,

    /// Only say what would change. The files are uploaded, nothing that runs is touched.
    #[arg(long)]
    pub plan: bool,

    /// Even if entity types that have entities disappear or change their kind.
    #[arg(long)]
    pub force: bool,

    /// Do not ask before a service is removed.
    #[arg(long, short)]
    pub yes: bool,

    /// What actions of these modules may reach: `http=https://api.example.com`, several by commas.
    #[arg(long, value_name = "http=ORIGIN", value_delimiter = ',')]
    pub allow: Vec<String>,

    /// A word for people, kept with the revision.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub note: String,

    #[command(flatten)]
    pub port: AdminPort,

    #[command(flatten)]
    pub services: ServicesPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {revisions: [{revision, live, create_time, note, modules: [{digest, name, bytes, upload_time}], grants: [{module, allow}]}]}"
)]
pub struct VersionsArgs {
    /// How many to list.
    #[arg(long, value_name = "COUNT", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {revision, changes: [{action, service, kind, journal, module_digest}]}"
)]
pub struct RollbackArgs {
    /// The revision whose modules become live again; without it, the one before the live one.
    #[arg(value_parser = clap::value_parser!(u64).range(1..))]
    pub revision: Option<u64>,

    /// Even if entity types that have entities disappear or change their kind.
    #[arg(long)]
    pub force: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {revision, services: [{name, kind, journal, module_digest, module_name, snapshot_every, passivate_after_ms, memory_bytes_max, deadline_ms, last_crash: {time, what, during, reason, backtrace, consecutive, retry_time}, methods: [{name, input, output, http: [{method, path, body}]}]}], broken_modules: [{digest, name, reason}]}"
)]
pub struct ServicesArgs {
    /// With their methods and HTTP addresses.
    #[arg(long, short)]
    pub methods: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

const CALL_HELP: &str = "\
The reply is printed as JSON, on one line with --format json. An error of the host ends with exit \
code 3 and its gRPC code on stderr.

Examples:
  stead call shop.ShoppingCart/GetCart '{\"userId\":\"ada\"}'
  stead call ShoppingCart/AddItem - < item.json --idempotency-key 7f3a
  stead call ShoppingCart                        lists the methods";

#[derive(Debug, Args)]
#[command(after_help = CALL_HELP)]
pub struct CallArgs {
    /// The method: pkg.Service/Method, or the end of it that is unique.
    #[arg(value_name = "SERVICE/METHOD")]
    pub method: String,

    /// The request [default: {}]; - reads it from stdin.
    #[arg(value_name = "JSON | -")]
    pub json: Option<String>,

    /// Makes the command take effect once, however often it is sent with this key.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,

    /// Send a header along; repeatable.
    #[arg(long = "header", short = 'H', value_name = "NAME:VALUE", value_parser = Header::parse)]
    pub headers: Vec<Header>,

    /// How long to wait for the reply.
    #[arg(long, value_name = "DURATION", default_value = "30s", value_parser = units::parse_duration)]
    pub timeout: Duration,

    #[command(flatten)]
    pub services: ServicesPort,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    pub name: String,
    pub value: String,
}

impl Header {
    fn parse(text: &str) -> Result<Self, String> {
        match text.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok(Self { name: name.trim().to_ascii_lowercase(), value: value.trim().to_string() })
            }
            _ => Err("write it as NAME:VALUE".into()),
        }
    }
}

#[derive(Debug, Subcommand)]
pub enum ClusterCommand {
    /// Say which nodes there are, how they are, and which shards they hold.
    Status(ClusterStatusArgs),
    /// Have a node give all its shards to others, before it is stopped.
    Drain(ClusterDrainArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {cluster_id, node_id, revision, shards: {total, owned, free, halted, moving}, lease_remaining_ms, read_ago_ms, store_silent, members: [{node_id, address, zone, capacity, version, state, gossip, incarnation, shards, lease_age_ms, revision, broken, start_time}], disagreements}"
)]
pub struct ClusterStatusArgs {
    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(after_help = "JSON: {node_id, draining, shards}")]
pub struct ClusterDrainArgs {
    /// Its id, the start of it, or its address.
    #[arg(value_name = "NODE")]
    pub node: String,

    /// Let it take shards again.
    #[arg(long)]
    pub cancel: bool,

    /// Do not wait until it holds none.
    #[arg(long)]
    pub no_wait: bool,

    #[command(flatten)]
    pub port: AdminPort,
}

mod functions;

pub use functions::{
    ConsumeFrom, ConsumersCommand, ConsumersDeleteArgs, ConsumersListArgs, ConsumersResetArgs,
    ConsumersSkipArgs, DeadLetterArgs, DeadLettersCommand, DeadLettersListArgs,
};

#[derive(Debug, Subcommand)]
pub enum StoreCommand {
    /// Copy all that a stopped node keeps into a new cluster's database, or back, and compare.
    Copy(StoreCopyArgs),
}

const STORE_COPY_HELP: &str = "\
Stop every node of both stores first. The target must be empty; a copy that is interrupted starts again \
with a new one. A store is sqlite:DIR or postgres://user@host/database.

Example:
  stead store copy --from sqlite:stead-data --to postgres://stead@db.internal/stead

JSON: {entities, events, snapshots, receipts, effects, timers, groups, view_rows, modules, revisions}";

#[derive(Debug, Args)]
#[command(after_help = STORE_COPY_HELP)]
pub struct StoreCopyArgs {
    /// What to copy; it is not changed.
    #[arg(long, value_name = "STORE")]
    pub from: String,

    /// Where to.
    #[arg(long, env = "STEAD_STORE", hide_env_values = true, value_name = "STORE")]
    pub to: String,

    /// Leave groups of consumers and rows of views behind: they begin anew on the copy.
    #[arg(long)]
    pub without_consumers: bool,

    /// How many shards a new cluster gets; it can never be changed.
    #[arg(long, value_name = "N", default_value_t = SHARDS_DEFAULT)]
    #[arg(value_parser = clap::value_parser!(u32).range(1..=SHARDS_MAX as i64))]
    pub shards: u32,
}

#[derive(Debug, Subcommand)]
pub enum EntityCommand {
    /// List entities, by type and id.
    List(EntityListArgs),
    /// Say how an entity is: its journal, its place in memory, its timers, undelivered effects, its
    /// last crash.
    #[command(
        after_help = "JSON: {service, journal, id, seq, snapshot_seq, hot, memory_bytes, idle_ms, queued, last_crash: {time, what, during, reason, backtrace, consecutive, retry_time}, effects: [{id, journal, entity_id, service, method, payload_bytes, create_time, tries, error, next_try_time, dead_letter}], timers: [{name, due_time, every_ms, method, tries, error}]}"
    )]
    Get(EntityArgs),
    /// Print the events of an entity, oldest first.
    Events(EntityEventsArgs),
    /// Print the state of an entity, now or after any of its events.
    State(EntityStateArgs),
    /// Drop an entity from memory; its next command loads it again.
    #[command(after_help = "JSON: {was_hot}")]
    Passivate(EntityArgs),
}

#[derive(Debug, Args)]
#[command(
    after_help = "JSON: {entities: [{service, journal, id, seq, hot, memory_bytes, idle_ms}], next_page_token}"
)]
pub struct EntityListArgs {
    /// Only of this type: a service (or the end of its name), or a journal.
    #[arg(value_name = "TYPE")]
    pub entity_type: Option<String>,

    /// Only ids that start so.
    #[arg(long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub prefix: String,

    /// Only those in memory.
    #[arg(long, conflicts_with = "cold")]
    pub hot: bool,

    /// Only those not in memory.
    #[arg(long)]
    pub cold: bool,

    /// How many to list.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    /// Go on where another list ended.
    #[arg(long, value_name = "TOKEN", default_value = "", hide_default_value = true)]
    pub page_token: String,

    #[command(flatten)]
    pub port: AdminPort,
}

/// Which entity.
#[derive(Debug, Args)]
pub struct EntityName {
    /// Its type: a service (or the end of its name), or a journal; TYPE/ID in one works too.
    #[arg(value_name = "TYPE")]
    pub entity_type: String,

    /// Its id.
    #[arg(value_name = "ID")]
    pub id: Option<String>,
}

#[derive(Debug, Args)]
pub struct EntityArgs {
    #[command(flatten)]
    pub name: EntityName,

    #[command(flatten)]
    pub port: AdminPort,
}

const EVENTS_HELP: &str = "\
JSON: {events: [{seq, time, type, json, data_base64, note}], next_from}

Example:
  stead entity events ShoppingCart ada --from 100 --limit 20";

#[derive(Debug, Args)]
#[command(after_help = EVENTS_HELP)]
pub struct EntityEventsArgs {
    #[command(flatten)]
    pub name: EntityName,

    /// Number of the first event wanted.
    #[arg(long, value_name = "SEQ", default_value_t = 1)]
    pub from: u64,

    /// How many to print.
    #[arg(long, value_name = "COUNT", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: u32,

    #[command(flatten)]
    pub port: AdminPort,
}

const STATE_HELP: &str = "\
In text, the state itself is printed, as JSON. With --format json it comes with where it is from: \
{seq, type, json, data_base64, note}

Example:
  stead entity state ShoppingCart ada --at 2      the cart as it was after its second event";

#[derive(Debug, Args)]
#[command(after_help = STATE_HELP)]
pub struct EntityStateArgs {
    #[command(flatten)]
    pub name: EntityName,

    /// As it was after the event of this number; 0 before the first.
    #[arg(long, value_name = "SEQ")]
    pub at: Option<u64>,

    #[command(flatten)]
    pub port: AdminPort,
}

#[derive(Debug, Args)]
#[command(
    after_help = "Ends with exit code 1 if anything is marked fail.\n\nJSON: {checks: [{name, result: ok|warn|fail, message}]}"
)]
pub struct DoctorArgs {
    /// The data directory that `stead serve` uses.
    #[arg(long, value_name = "DIR", env = "STEAD_DATA", default_value = "stead-data")]
    pub data: PathBuf,

    #[command(flatten)]
    pub services: ServicesPort,

    #[command(flatten)]
    pub port: AdminPort,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    fn parse(line: &str) -> Result<Command, clap::Error> {
        Cli::try_parse_from(line.split(' ')).map(|cli| cli.command)
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_explains_itself() {
        fn visit(command: &clap::Command) {
            assert!(command.get_about().is_some(), "{} has no help", command.get_name());
            for argument in command.get_arguments() {
                let help = argument.get_help().is_some();
                assert!(help, "{} {} has no help", command.get_name(), argument.get_id());
            }
            command.get_subcommands().for_each(visit);
        }
        visit(&Cli::command());
    }

    #[test]
    fn format_can_stand_anywhere() {
        for line in ["stead --format json versions", "stead versions --format json"] {
            let cli = Cli::try_parse_from(line.split(' ')).unwrap();
            assert_eq!(cli.format, Format::Json);
        }
    }

    #[test]
    fn usage_errors_have_exit_code_2() {
        for line in ["stead nonsense", "stead deploy", "stead rollback x", "stead rollback 0"] {
            assert_eq!(parse(line).unwrap_err().exit_code(), 2, "{line}");
        }
        assert_eq!(parse("stead --help").unwrap_err().exit_code(), 0);
    }

    #[test]
    fn headers_are_split_at_the_first_colon() {
        let header = Header::parse("X-Trace: a:b").unwrap();
        assert_eq!(header, Header { name: "x-trace".into(), value: "a:b".into() });
        assert!(Header::parse("no colon").is_err());
        assert!(Header::parse(": value").is_err());
    }

    #[test]
    fn a_negative_or_json_argument_is_taken_as_it_is() {
        let Command::Call(call) = parse("stead call Cart/Get -").unwrap() else { panic!() };
        assert_eq!(call.json.as_deref(), Some("-"));
        assert_eq!(call.timeout, Duration::from_secs(30));
    }
}
