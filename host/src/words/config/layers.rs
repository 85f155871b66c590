//! Where a setting was said: flag, variable or file, the first that has it.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use toml::{Table, Value};

use crate::words::config::{ConfigError, Overrides};

/// One setting as it was said.
pub(super) struct Said {
    value: Value,
    /// What relative paths start from, if not from the working directory.
    pub(super) base: Option<PathBuf>,
    origin: String,
}

impl Said {
    /// The value, if it is a text.
    pub(super) fn text(&self) -> Option<&str> {
        self.value.as_str()
    }

    pub(super) fn value(&self) -> &Value {
        &self.value
    }
}

/// A flag, and how `stead.toml` calls the same. The variable follows from the key.
type Row = (&'static str, Option<String>);

pub(super) struct Layers {
    said: Vec<(&'static str, Said)>,
}

impl Layers {
    pub(super) fn new(
        flags: Overrides,
        environment: &dyn Fn(&str) -> Option<OsString>,
        file: Option<(&Path, &str)>,
    ) -> Result<Self, ConfigError> {
        let rows: [Row; 27] = [
            ("data", flags.data),
            ("listen", flags.listen),
            ("admin", flags.admin),
            ("ports_file", flags.ports_file),
            ("admin_token", None),
            ("tls.certificate", flags.tls_certificate),
            ("tls.key", flags.tls_key),
            ("cors.allowed_origins", flags.cors_allowed_origins),
            ("cors.max_age", flags.cors_max_age),
            ("hot.entities", flags.hot_entities),
            ("hot.memory", flags.hot_memory),
            ("effect_tries", flags.effect_tries),
            ("store", flags.store),
            ("peer", flags.peer),
            ("advertise", flags.advertise),
            ("join", flags.join),
            ("zone", flags.zone),
            ("capacity", flags.capacity),
            ("shards", flags.shards),
            ("fast_failover", flags.fast_failover),
            ("cluster_key", None),
            ("cluster_key_previous", None),
            ("peer_tls.certificate", flags.peer_tls_certificate),
            ("peer_tls.key", flags.peer_tls_key),
            ("peer_tls.ca", flags.peer_tls_ca),
            ("log.format", flags.log_format),
            ("log.filter", flags.log_filter),
        ];
        let mut in_file = match file {
            Some((path, text)) => parse(path, text, &rows)?,
            None => Vec::new(),
        };
        let mut said = Vec::new();
        for (key, flag) in rows {
            let found = match (flag, variable(key, environment)?) {
                (Some(text), _) => Some(Said {
                    value: Value::String(text),
                    base: None,
                    origin: format!("--{}", key.replace(['.', '_'], "-")),
                }),
                (None, Some(said)) => Some(said),
                (None, None) => in_file
                    .iter()
                    .position(|(name, _)| name == key)
                    .map(|index| in_file.swap_remove(index).1),
            };
            said.extend(found.map(|found| (key, found)));
        }
        Ok(Self { said })
    }

    /// The setting `key`, read by `parse`, whose error says what is wrong with it.
    pub(super) fn get<T>(
        &self,
        key: &str,
        parse: impl FnOnce(&Said) -> Result<T, String>,
    ) -> Result<Option<T>, ConfigError> {
        let Some(said) = self.find(key) else { return Ok(None) };
        parse(said)
            .map(Some)
            .map_err(|reason| ConfigError::Invalid { origin: said.origin.clone(), reason })
    }

    /// Names the flag, variable, or file and key that a setting comes from.
    pub(super) fn origin(&self, key: &str) -> Option<String> {
        self.find(key).map(|said| said.origin.clone())
    }

    fn find(&self, key: &str) -> Option<&Said> {
        self.said.iter().find(|(name, _)| *name == key).map(|(_, said)| said)
    }
}

fn variable(
    key: &str,
    environment: &dyn Fn(&str) -> Option<OsString>,
) -> Result<Option<Said>, ConfigError> {
    let name = format!("STEAD_{}", key.replace('.', "_").to_uppercase());
    let Some(value) = environment(&name).filter(|value| !value.is_empty()) else {
        return Ok(None);
    };
    match value.into_string() {
        Ok(text) => Ok(Some(Said { value: Value::String(text), base: None, origin: name })),
        Err(_) => Err(ConfigError::Invalid {
            origin: name,
            reason: "the value is not valid UTF-8".into(),
        }),
    }
}

/// The settings of a file under their full keys.
fn parse(path: &Path, text: &str, rows: &[Row]) -> Result<Vec<(String, Said)>, ConfigError> {
    let table: Table = text.parse().map_err(|error: toml::de::Error| ConfigError::Syntax {
        path: path.to_owned(),
        reason: error.to_string(),
    })?;
    let mut flat = Vec::new();
    flatten("", table, rows, &mut flat);
    let base = path.parent();
    flat.into_iter()
        .map(|(key, value)| {
            if !rows.iter().any(|(known, _)| *known == key) {
                let known: Vec<&str> = rows.iter().map(|(known, _)| *known).collect();
                return Err(ConfigError::UnknownKey {
                    path: path.to_owned(),
                    key,
                    known: known.join(", "),
                });
            }
            let origin = format!("{}, key `{key}`", path.display());
            Ok((key, Said { value, base: base.map(Path::to_owned), origin }))
        })
        .collect()
}

fn flatten(prefix: &str, table: Table, rows: &[Row], into: &mut Vec<(String, Value)>) {
    for (name, value) in table {
        let key = format!("{prefix}{name}");
        match value {
            // A table in the place of a setting is kept, to be refused as one.
            Value::Table(inner) if !rows.iter().any(|(known, _)| *known == key) => {
                flatten(&format!("{key}."), inner, rows, into);
            }
            value => into.push((key, value)),
        }
    }
}
