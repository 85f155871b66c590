//! What a node is told at start: flags over environment over `stead.toml`.

use std::net::SocketAddr;
use std::path::PathBuf;

use crate::words::limits;

/// Everything `stead serve` can be told, resolved.
#[derive(Clone, Debug)]
pub struct Config {
    pub data_dir: PathBuf,
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    /// Where to write the addresses that were chosen, as JSON.
    pub ports_file: Option<PathBuf>,
    pub admin_token: Option<String>,
    pub tls: Option<TlsFiles>,
    pub cors: CorsConfig,
    pub hot_entities_max: usize,
    pub hot_bytes_max: usize,
    pub log_json: bool,
    /// A `tracing` filter.
    pub log_filter: String,
}

#[derive(Clone, Debug)]
pub struct TlsFiles {
    pub certificate: PathBuf,
    pub key: PathBuf,
}

#[derive(Clone, Debug, Default)]
pub struct CorsConfig {
    /// `*` or origins such as `https://shop.example`. Empty: no CORS headers at all.
    pub allowed_origins: Vec<String>,
    pub max_age_seconds: u32,
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
            cors: CorsConfig::default(),
            hot_entities_max: limits::HOT_ENTITIES_DEFAULT,
            hot_bytes_max: limits::HOT_BYTES_DEFAULT,
            log_json: false,
            log_filter: "info".into(),
        }
    }
}
