//! What a node is told at start: flags over environment over `stead.toml`.
//!
//! | flag                     | environment                | `stead.toml`           |
//! |--------------------------|----------------------------|------------------------|
//! | `--data`                 | `STEAD_DATA`               | `data`                 |
//! | `--listen`               | `STEAD_LISTEN`             | `listen`               |
//! | `--admin`                | `STEAD_ADMIN`              | `admin`                |
//! | `--ports-file`           | `STEAD_PORTS_FILE`         | `ports_file`           |
//! |                          | `STEAD_ADMIN_TOKEN`        | `admin_token`          |
//! | `--tls-certificate`      | `STEAD_TLS_CERTIFICATE`    | `tls.certificate`      |
//! | `--tls-key`              | `STEAD_TLS_KEY`            | `tls.key`              |
//! | `--cors-allowed-origins` | `STEAD_CORS_ALLOWED_ORIGINS` | `cors.allowed_origins` |
//! | `--cors-max-age`         | `STEAD_CORS_MAX_AGE`       | `cors.max_age`         |
//! | `--hot-entities`         | `STEAD_HOT_ENTITIES`       | `hot.entities`         |
//! | `--hot-memory`           | `STEAD_HOT_MEMORY`         | `hot.memory`           |
//! | `--effect-tries`         | `STEAD_EFFECT_TRIES`       | `effect_tries`         |
//! | `--store`                | `STEAD_STORE`              | `store`                |
//! | `--peer`                 | `STEAD_PEER`               | `peer`                 |
//! | `--advertise`            | `STEAD_ADVERTISE`          | `advertise`            |
//! | `--join`                 | `STEAD_JOIN`               | `join`                 |
//! | `--zone`                 | `STEAD_ZONE`               | `zone`                 |
//! | `--capacity`             | `STEAD_CAPACITY`           | `capacity`             |
//! | `--shards`               | `STEAD_SHARDS`             | `shards`               |
//! | `--fast-failover`        | `STEAD_FAST_FAILOVER`      | `fast_failover`        |
//! |                          | `STEAD_CLUSTER_KEY`        | `cluster_key`          |
//! |                          | `STEAD_CLUSTER_KEY_PREVIOUS` | `cluster_key_previous` |
//! | `--peer-tls-certificate` | `STEAD_PEER_TLS_CERTIFICATE` | `peer_tls.certificate` |
//! | `--peer-tls-key`         | `STEAD_PEER_TLS_KEY`       | `peer_tls.key`         |
//! | `--peer-tls-ca`          | `STEAD_PEER_TLS_CA`        | `peer_tls.ca`          |
//! | `--log-format`           | `STEAD_LOG_FORMAT`         | `log.format`           |
//! | `--log-filter`           | `STEAD_LOG_FILTER`         | `log.filter`           |
//!
//! The file is `./stead.toml` if it exists, or the one that `--config` or `STEAD_CONFIG` names. Paths
//! in it are relative to it. The admin token and the cluster keys have no flag: flags are visible to
//! every user of a machine. An empty variable counts as unset.

mod layers;
mod value;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::words::config::layers::Layers;
use crate::words::limits;

/// Everything `stead serve` can be told, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Where to write the addresses that were chosen, as JSON.
    pub ports_file: Option<PathBuf>,
    pub admin_token: Option<Secret>,
    pub tls: Option<TlsFiles>,
    pub cors: CorsConfig,
    /// None: a node of its own, with its journal in the data directory.
    pub cluster: Option<ClusterConfig>,
    pub hot_entities_max: usize,
    pub hot_bytes_max: usize,
    /// After so many failed tries an effect is parked.
    pub effect_tries_max: u32,
    pub log_json: bool,
    /// A `tracing` filter.
    pub log_filter: String,
}

/// A text that never appears in logs.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

/// A node that shares its journal, in PostgreSQL, with others.
#[derive(Clone, Debug)]
pub struct ClusterConfig {
    /// `postgres://..`; may contain a password.
    pub store: Secret,
    /// Where other nodes reach this one: TCP for calls, UDP for gossip.
    pub peer: SocketAddr,
    /// What other nodes are told instead of `peer`. The port may be 0: then it is that of `peer`.
    pub advertise: Option<SocketAddr>,
    /// Other members: `address:port`, or a DNS name that resolves to all of them, with a port.
    pub join: Vec<String>,
    /// The same on every node.
    pub key: Secret,
    /// Understood too, while a key is replaced.
    pub key_previous: Option<Secret>,
    pub zone: String,
    /// How much this node takes compared with others.
    pub capacity: u32,
    /// Of a cluster that does not exist yet.
    pub shards: u32,
    /// Short leases: take-over within 3 s, for more statements and less patience with slow nodes.
    pub fast_failover: bool,
    pub peer_tls: Option<PeerTls>,
    /// Of Stead, as this node tells the others.
    pub version: String,
}

/// Mutual TLS between nodes, instead of what follows from the cluster key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerTls {
    pub files: TlsFiles,
    /// Certificates of the authorities that sign nodes' certificates.
    pub ca: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct CorsConfig {
    /// `*` or origins such as `https://shop.example`. Empty: no CORS headers at all.
    pub allowed_origins: Vec<String>,
    pub max_age_seconds: u32,
}

/// What the command line says; each as it was typed.
#[derive(Clone, Debug, Default)]
pub struct Overrides {
    /// `--config`
    pub config: Option<PathBuf>,
    pub data: Option<String>,
    pub listen: Option<String>,
    pub admin: Option<String>,
    pub ports_file: Option<String>,
    pub tls_certificate: Option<String>,
    pub tls_key: Option<String>,
    /// Separated by commas.
    pub cors_allowed_origins: Option<String>,
    pub cors_max_age: Option<String>,
    pub hot_entities: Option<String>,
    pub hot_memory: Option<String>,
    pub effect_tries: Option<String>,
    pub store: Option<String>,
    pub peer: Option<String>,
    pub advertise: Option<String>,
    /// Separated by commas.
    pub join: Option<String>,
    pub zone: Option<String>,
    pub capacity: Option<String>,
    pub shards: Option<String>,
    pub fast_failover: Option<String>,
    pub peer_tls_certificate: Option<String>,
    pub peer_tls_key: Option<String>,
    pub peer_tls_ca: Option<String>,
    /// Another version of Stead than this is, for tests of updates.
    pub version_for_tests: Option<String>,
    /// `text` or `json`
    pub log_format: Option<String>,
    pub log_filter: Option<String>,
}

/// Why the configuration was refused. Nothing was started.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigError {
    #[error("{} cannot be read: {reason}", path.display())]
    Unreadable { path: PathBuf, reason: String },
    #[error("{} is not valid TOML: {reason}", path.display())]
    Syntax { path: PathBuf, reason: String },
    #[error("{} has an unknown key `{key}`; the keys are {known}", path.display())]
    UnknownKey { path: PathBuf, key: String, known: String },
    /// `origin` names the flag, the variable, or the file and key.
    #[error("{origin}: {reason}")]
    Invalid { origin: String, reason: String },
    #[error(
        "{missing} is not set, but {present} is; TLS needs the certificate and its key, or neither"
    )]
    HalfTls { present: String, missing: &'static str },
    #[error(
        "{origin}: the admin address {admin} can be reached from other machines, so an admin token must protect it; set STEAD_ADMIN_TOKEN, or use a loopback address such as 127.0.0.1:{}",
        admin.port()
    )]
    OpenAdmin { origin: String, admin: SocketAddr },
    #[error(
        "nodes that share a store need the same secret to know each other; set STEAD_CLUSTER_KEY on each of them (`openssl rand -hex 32` makes a good one)"
    )]
    NoClusterKey,
    #[error(
        "{present} is for a node of a cluster; give it the cluster's store with --store postgres://.. or STEAD_STORE"
    )]
    NoCluster { present: String },
    #[error(
        "{origin}: other nodes cannot reach {peer}; say with --advertise at which address they can"
    )]
    NoAdvertise { origin: String, peer: SocketAddr },
    #[error("services and admin API cannot both listen on {address}; give --admin another port")]
    SameAddress { address: SocketAddr },
}

impl Default for Config {
    fn default() -> Self {
        Self {
            data_dir: "stead-data".into(),
            listen: SocketAddr::from(([127, 0, 0, 1], 7832)),
            admin: SocketAddr::from(([127, 0, 0, 1], 7833)),
            ports_file: None,
            admin_token: None,
            tls: None,
            cors: CorsConfig { allowed_origins: Vec::new(), max_age_seconds: 600 },
            cluster: None,
            hot_entities_max: limits::HOT_ENTITIES_DEFAULT,
            hot_bytes_max: limits::HOT_BYTES_DEFAULT,
            effect_tries_max: limits::EFFECT_TRIES_DEFAULT,
            log_json: false,
            log_filter: "info".into(),
        }
    }
}

impl Config {
    /// Reads the environment and the configuration file of this process.
    pub fn resolve(overrides: Overrides) -> Result<Self, ConfigError> {
        let environment = |name: &str| std::env::var_os(name);
        let named = overrides.config.clone().or_else(|| {
            environment("STEAD_CONFIG").filter(|path| !path.is_empty()).map(PathBuf::from)
        });
        let file = match named {
            Some(path) => Some((read(&path)?, path)),
            None => {
                let path = PathBuf::from("stead.toml");
                path.exists().then(|| Ok((read(&path)?, path))).transpose()?
            }
        };
        let file = file.as_ref().map(|(text, path)| (path.as_path(), text.as_str()));
        let version = overrides.version_for_tests.clone();
        let mut config = Self::from_layers(&Layers::new(overrides, &environment, file)?)?;
        if let (Some(cluster), Some(version)) = (&mut config.cluster, version) {
            cluster.version = version;
        }
        Ok(config)
    }

    fn from_layers(layers: &Layers) -> Result<Self, ConfigError> {
        let default = Self::default();
        let config = Self {
            data_dir: layers.get("data", value::path)?.unwrap_or(default.data_dir),
            listen: layers.get("listen", value::address)?.unwrap_or(default.listen),
            admin: layers.get("admin", value::address)?.unwrap_or(default.admin),
            ports_file: layers.get("ports_file", value::path)?,
            admin_token: layers.get("admin_token", value::token)?,
            tls: tls(layers)?,
            cors: CorsConfig {
                allowed_origins: layers
                    .get("cors.allowed_origins", value::origins)?
                    .unwrap_or_default(),
                max_age_seconds: layers
                    .get("cors.max_age", value::duration(limits::CORS_MAX_AGE_MAX))?
                    .as_ref()
                    .map_or(default.cors.max_age_seconds, whole_seconds),
            },
            cluster: cluster(layers)?,
            hot_entities_max: layers
                .get("hot.entities", value::count(1, limits::HOT_ENTITIES_MAX))?
                .unwrap_or(default.hot_entities_max),
            hot_bytes_max: layers
                .get("hot.memory", value::bytes(limits::HOT_BYTES_MIN))?
                .unwrap_or(default.hot_bytes_max),
            effect_tries_max: layers
                .get("effect_tries", value::count(1, limits::EFFECT_TRIES_MOST as usize))?
                .map_or(default.effect_tries_max, |tries| tries as u32),
            log_json: layers.get("log.format", value::log_format)?.unwrap_or(default.log_json),
            log_filter: layers.get("log.filter", value::log_filter)?.unwrap_or(default.log_filter),
        };
        if config.admin_token.is_none() && !config.admin.ip().is_loopback() {
            let origin = layers.origin("admin").unwrap_or_default();
            return Err(ConfigError::OpenAdmin { origin, admin: config.admin });
        }
        if overlap(config.listen, config.admin) {
            return Err(ConfigError::SameAddress { address: config.listen });
        }
        Ok(config)
    }
}

/// Whether one process cannot listen on both.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    // The unspecified address of IPv6 stands for those of IPv4, too.
    let covers =
        |all: IpAddr, one: IpAddr| all.is_unspecified() && (all.is_ipv6() || one.is_ipv4());
    let meet = a == b || covers(a.ip(), b.ip()) || covers(b.ip(), a.ip());
    meet && a.port() == b.port() && a.port() != 0
}

fn tls(layers: &Layers) -> Result<Option<TlsFiles>, ConfigError> {
    tls_files(layers, "tls.certificate", "tls.key")
}

fn tls_files(
    layers: &Layers,
    certificate_key: &'static str,
    key_key: &'static str,
) -> Result<Option<TlsFiles>, ConfigError> {
    let half = |present: &str, missing| {
        let present = layers.origin(present).unwrap_or_default();
        Err(ConfigError::HalfTls { present, missing })
    };
    match (layers.get(certificate_key, value::path)?, layers.get(key_key, value::path)?) {
        (Some(certificate), Some(key)) => Ok(Some(TlsFiles { certificate, key })),
        (None, None) => Ok(None),
        (Some(_), None) => half(certificate_key, key_key),
        (None, Some(_)) => half(key_key, certificate_key),
    }
}

/// What only makes sense together with `store`.
const OF_CLUSTERS: [&str; 9] = [
    "peer",
    "advertise",
    "join",
    "zone",
    "capacity",
    "shards",
    "fast_failover",
    "peer_tls.certificate",
    "peer_tls.ca",
];

fn cluster(layers: &Layers) -> Result<Option<ClusterConfig>, ConfigError> {
    let Some(store) = layers.get("store", value::store)? else {
        return match OF_CLUSTERS.iter().find_map(|key| layers.origin(key)) {
            Some(present) => Err(ConfigError::NoCluster { present }),
            None => Ok(None),
        };
    };
    let key = layers.get("cluster_key", value::cluster_key)?.ok_or(ConfigError::NoClusterKey)?;
    let peer = layers
        .get("peer", value::address)?
        .unwrap_or(SocketAddr::from(([127, 0, 0, 1], limits::PEER_PORT_DEFAULT)));
    let advertise = layers.get("advertise", value::address)?;
    if peer.ip().is_unspecified() && advertise.is_none() {
        let origin = layers.origin("peer").unwrap_or_default();
        return Err(ConfigError::NoAdvertise { origin, peer });
    }
    let files = tls_files(layers, "peer_tls.certificate", "peer_tls.key")?;
    let peer_tls = match (files, layers.get("peer_tls.ca", value::path)?) {
        (Some(files), Some(ca)) => Some(PeerTls { files, ca }),
        (None, None) => None,
        (Some(_), None) => {
            let present = layers.origin("peer_tls.certificate").unwrap_or_default();
            return Err(ConfigError::HalfTls { present, missing: "peer_tls.ca" });
        }
        (None, Some(_)) => {
            let present = layers.origin("peer_tls.ca").unwrap_or_default();
            return Err(ConfigError::HalfTls { present, missing: "peer_tls.certificate" });
        }
    };
    Ok(Some(ClusterConfig {
        store,
        peer,
        advertise,
        join: layers.get("join", value::join)?.unwrap_or_default(),
        key,
        key_previous: layers.get("cluster_key_previous", value::cluster_key)?,
        zone: layers.get("zone", value::zone)?.unwrap_or_default(),
        capacity: layers
            .get("capacity", value::count(1, limits::NODE_CAPACITY_MAX))?
            .map_or(limits::NODE_CAPACITY_DEFAULT, |capacity| capacity as u32),
        shards: layers
            .get("shards", value::count(1, limits::SHARDS_MAX))?
            .map_or(limits::SHARDS_DEFAULT, |shards| shards as u32),
        fast_failover: layers.get("fast_failover", value::switch)?.unwrap_or(false),
        peer_tls,
        version: env!("CARGO_PKG_VERSION").into(),
    }))
}

fn whole_seconds(duration: &Duration) -> u32 {
    duration.as_secs().try_into().unwrap_or(u32::MAX)
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|error| ConfigError::Unreadable {
        path: path.to_owned(),
        reason: error.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use std::ffi::OsString;

    use super::*;

    fn resolve(
        overrides: Overrides,
        environment: &[(&str, &str)],
        file: &str,
    ) -> Result<Config, ConfigError> {
        let environment = |name: &str| {
            environment.iter().find(|(key, _)| *key == name).map(|(_, text)| OsString::from(text))
        };
        let file = (Path::new("/etc/stead/stead.toml"), file);
        Config::from_layers(&Layers::new(overrides, &environment, Some(file))?)
    }

    fn refusal(overrides: Overrides, environment: &[(&str, &str)], file: &str) -> String {
        resolve(overrides, environment, file).unwrap_err().to_string()
    }

    #[test]
    fn nothing_said_means_the_defaults() {
        let config = resolve(Overrides::default(), &[], "").unwrap();
        assert_eq!(config.listen.to_string(), "127.0.0.1:7832");
        assert_eq!(config.admin.to_string(), "127.0.0.1:7833");
        assert_eq!(config.data_dir, Path::new("stead-data"));
        assert_eq!(config.hot_entities_max, limits::HOT_ENTITIES_DEFAULT);
    }

    #[test]
    fn flags_win_over_environment_over_file() {
        let file = "listen = '127.0.0.1:1'\nadmin = '127.0.0.1:2'\ndata = 'here'";
        let environment = [("STEAD_LISTEN", "127.0.0.1:3"), ("STEAD_ADMIN", "127.0.0.1:4")];
        let overrides = Overrides { listen: Some("127.0.0.1:5".into()), ..Overrides::default() };
        let config = resolve(overrides, &environment, file).unwrap();
        assert_eq!(config.listen.port(), 5);
        assert_eq!(config.admin.port(), 4);
        assert_eq!(config.data_dir, Path::new("/etc/stead/here"));
    }

    #[test]
    fn an_empty_variable_counts_as_unset() {
        let config =
            resolve(Overrides::default(), &[("STEAD_ADMIN_TOKEN", ""), ("STEAD_DATA", "")], "");
        let config = config.unwrap();
        assert_eq!(config.admin_token, None);
        assert_eq!(config.data_dir, Path::new("stead-data"));
    }

    #[test]
    fn reads_bytes_and_durations_as_texts_or_numbers() {
        let file = "[hot]\nmemory = '512MiB'\nentities = 5000\n[cors]\nmax_age = '10m'";
        let config = resolve(Overrides::default(), &[], file).unwrap();
        assert_eq!(config.hot_bytes_max, 512 * limits::MIB);
        assert_eq!(config.hot_entities_max, 5000);
        assert_eq!(config.cors.max_age_seconds, 600);
        let environment = [("STEAD_HOT_MEMORY", "2TiB")];
        let config = resolve(Overrides::default(), &environment, file).unwrap();
        assert_eq!(config.hot_bytes_max, 2 * 1024 * 1024 * limits::MIB);

        let environment = [("STEAD_HOT_MEMORY", "536870912"), ("STEAD_HOT_ENTITIES", "7")];
        let config = resolve(Overrides::default(), &environment, "").unwrap();
        assert_eq!(config.hot_bytes_max, 512 * limits::MIB);
        assert_eq!(config.hot_entities_max, 7);
    }

    #[test]
    fn an_unknown_key_is_refused_by_name() {
        let text = refusal(Overrides::default(), &[], "listn = '127.0.0.1:1'");
        assert!(text.starts_with("/etc/stead/stead.toml has an unknown key `listn`; the keys are"));
        let text = refusal(Overrides::default(), &[], "[tls]\ncert = 'a.pem'");
        assert!(text.contains("unknown key `tls.cert`"), "{text}");
        let text = refusal(Overrides::default(), &[], "[tls.certificate]\npath = 'a.pem'");
        assert!(text.contains("key `tls.certificate`"), "{text}");
    }

    #[test]
    fn a_wrong_type_names_file_and_key() {
        let text = refusal(Overrides::default(), &[], "listen = 7832");
        assert!(text.starts_with("/etc/stead/stead.toml, key `listen`: "), "{text}");
        let text = refusal(Overrides::default(), &[], "[hot]\nentities = true");
        assert!(text.starts_with("/etc/stead/stead.toml, key `hot.entities`: "), "{text}");
    }

    #[test]
    fn broken_toml_names_the_file_and_the_line() {
        let text = refusal(Overrides::default(), &[], "listen = '127.0.0.1:1'\nadmin = [");
        assert!(text.starts_with("/etc/stead/stead.toml is not valid TOML: "), "{text}");
        assert!(text.contains("line 2"), "{text}");
    }

    #[test]
    fn a_bad_value_names_its_flag_or_variable() {
        let overrides = Overrides { listen: Some("nowhere".into()), ..Overrides::default() };
        let text = refusal(overrides, &[], "");
        assert!(text.starts_with("--listen: \"nowhere\" is not an address"), "{text}");
        let text = refusal(Overrides::default(), &[("STEAD_HOT_MEMORY", "4 apples")], "");
        assert!(text.starts_with("STEAD_HOT_MEMORY: \"4 apples\" is not a size"), "{text}");
        let text = refusal(Overrides::default(), &[("STEAD_LOG_FORMAT", "xml")], "");
        assert!(text.starts_with("STEAD_LOG_FORMAT: "), "{text}");
    }

    #[test]
    fn an_admin_address_beyond_loopback_needs_a_token() {
        let open = [("STEAD_ADMIN", "0.0.0.0:7833")];
        let text = refusal(Overrides::default(), &open, "");
        assert!(text.starts_with("STEAD_ADMIN: the admin address 0.0.0.0:7833"), "{text}");
        assert!(text.contains("STEAD_ADMIN_TOKEN"), "{text}");
        let locked = [("STEAD_ADMIN", "0.0.0.0:7833"), ("STEAD_ADMIN_TOKEN", "s3cret")];
        assert!(resolve(Overrides::default(), &locked, "").is_ok());
    }

    #[test]
    fn tls_needs_both_files() {
        let text = refusal(Overrides::default(), &[("STEAD_TLS_KEY", "key.pem")], "");
        assert!(text.starts_with("tls.certificate is not set, but STEAD_TLS_KEY is"), "{text}");
    }

    #[test]
    fn the_two_ports_must_differ() {
        let text = refusal(Overrides::default(), &[], "listen = '127.0.0.1:7833'");
        assert!(text.contains("cannot both listen on 127.0.0.1:7833"), "{text}");
        for all in ["0.0.0.0:7833", "[::]:7833"] {
            let text = refusal(Overrides::default(), &[], &format!("listen = '{all}'"));
            assert!(text.contains(&format!("cannot both listen on {all}")), "{text}");
        }
        for file in [
            "listen = '127.0.0.1:0'\nadmin = '127.0.0.1:0'",
            "listen = '0.0.0.0:7832'",
            "listen = '[::1]:7833'",
        ] {
            assert!(resolve(Overrides::default(), &[], file).is_ok(), "{file}");
        }
    }

    #[test]
    fn a_token_is_never_printed() {
        let config = resolve(Overrides::default(), &[("STEAD_ADMIN_TOKEN", "s3cret")], "").unwrap();
        assert!(!format!("{config:?}").contains("s3cret"));
        let text = refusal(Overrides::default(), &[("STEAD_ADMIN_TOKEN", "s3crét")], "");
        assert!(text.starts_with("STEAD_ADMIN_TOKEN: ") && !text.contains("s3cr"), "{text}");
    }
}
