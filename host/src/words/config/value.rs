//! Reads the value of a setting, or says in half a sentence what is wrong with it.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::Value;
use tracing_subscriber::EnvFilter;

use crate::words::config::Secret;
use crate::words::config::layers::Said;
use crate::words::limits::{CLUSTER_KEY_BYTES_MIN, ZONE_BYTES_MAX};

pub(super) fn path(said: &Said) -> Result<PathBuf, String> {
    let text = text(said)?;
    if text.is_empty() {
        return Err("a path must not be empty".into());
    }
    Ok(said.base.as_deref().unwrap_or(Path::new("")).join(text))
}

pub(super) fn address(said: &Said) -> Result<SocketAddr, String> {
    let text = text(said)?;
    let parsed = match text.strip_prefix("localhost:") {
        Some(port) => port.parse().ok().map(|port: u16| (Ipv4Addr::LOCALHOST, port).into()),
        None => text.parse().ok(),
    };
    parsed.ok_or_else(|| {
        format!("{text:?} is not an address; write it like 127.0.0.1:7832 or [::1]:7832")
    })
}

pub(super) fn token(said: &Said) -> Result<Secret, String> {
    let text = text(said)?;
    let printable = text.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
    if text.is_empty() || !printable || text.trim() != text {
        return Err(
            "a token must be printable ASCII, without spaces around it; `openssl rand -hex 32` makes a good one"
                .into(),
        );
    }
    Ok(Secret::new(text))
}

/// The URL of a PostgreSQL database.
pub(super) fn store(said: &Said) -> Result<Secret, String> {
    let text = text(said)?;
    if text.starts_with("postgres://") || text.starts_with("postgresql://") {
        return Ok(Secret::new(text));
    }
    // Not shown: it may contain a password.
    Err("the store must be postgres://user@host/database; without one, the journal is kept in the data directory".into())
}

pub(super) fn cluster_key(said: &Said) -> Result<Secret, String> {
    let key = token(said)?;
    if key.expose().len() < CLUSTER_KEY_BYTES_MIN {
        return Err(format!(
            "a cluster key has at least {CLUSTER_KEY_BYTES_MIN} characters; `openssl rand -hex 32` makes a good one"
        ));
    }
    Ok(key)
}

/// `host:port`, several with commas.
pub(super) fn join(said: &Said) -> Result<Vec<String>, String> {
    let seeds = list(said, "addresses")?;
    for seed in &seeds {
        let port = seed.rsplit_once(':').and_then(|(_, port)| port.parse::<u16>().ok());
        if port.is_none_or(|port| port == 0) {
            return Err(format!(
                "{seed:?} is not the address of a node; write it like 10.0.0.7:7834 or stead.internal:7834"
            ));
        }
    }
    Ok(seeds)
}

pub(super) fn zone(said: &Said) -> Result<String, String> {
    let text = text(said)?;
    let fine = text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte));
    if text.len() > ZONE_BYTES_MAX || !fine {
        return Err(format!(
            "a zone has at most {ZONE_BYTES_MAX} letters, digits, `-`, `_` and `.`"
        ));
    }
    Ok(text.into())
}

pub(super) fn switch(said: &Said) -> Result<bool, String> {
    match said.value() {
        Value::Boolean(on) => Ok(*on),
        Value::String(text) if text == "true" => Ok(true),
        Value::String(text) if text == "false" => Ok(false),
        other => Err(format!("expected true or false, found {other}")),
    }
}

fn list(said: &Said, of: &str) -> Result<Vec<String>, String> {
    match said.value() {
        Value::String(text) => Ok(text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
            .map(Into::into)
            .collect()),
        Value::Array(values) => values
            .iter()
            .map(|value| value.as_str().map(Into::into).ok_or(format!("{of} must be texts")))
            .collect(),
        other => Err(format!("expected a list of {of}, found {}", kind(other))),
    }
}

pub(super) fn origins(said: &Said) -> Result<Vec<String>, String> {
    let origins = list(said, "origins")?;
    for origin in &origins {
        let host = origin.strip_prefix("https://").or_else(|| origin.strip_prefix("http://"));
        if origin != "*" && host.is_none_or(|host| host.is_empty() || host.contains('/')) {
            return Err(format!(
                "{origin:?} is not an origin; write `*`, or scheme and host like https://shop.example"
            ));
        }
    }
    Ok(origins)
}

pub(super) fn count(min: usize, max: usize) -> impl Fn(&Said) -> Result<usize, String> {
    move |said| {
        let number = match said.value() {
            Value::Integer(number) => usize::try_from(*number).ok(),
            Value::String(text) => text.trim().replace('_', "").parse().ok(),
            other => return Err(format!("expected a number, found {}", kind(other))),
        };
        number
            .filter(|number| (min..=max).contains(number))
            .ok_or_else(|| format!("expected a whole number from {min} to {max}"))
    }
}

pub(super) fn bytes(min: usize) -> impl Fn(&Said) -> Result<usize, String> {
    const UNITS: [(&str, u64); 14] = [
        ("", 1),
        ("b", 1),
        ("k", 1 << 10),
        ("kb", 1_000),
        ("kib", 1 << 10),
        ("m", 1 << 20),
        ("mb", 1_000_000),
        ("mib", 1 << 20),
        ("g", 1 << 30),
        ("gb", 1_000_000_000),
        ("gib", 1 << 30),
        ("t", 1 << 40),
        ("tb", 1_000_000_000_000),
        ("tib", 1 << 40),
    ];
    move |said| {
        let bytes = match said.value() {
            Value::Integer(number) => usize::try_from(*number).ok(),
            Value::String(text) => scaled(text, &UNITS).and_then(|bytes| bytes.try_into().ok()),
            other => {
                return Err(format!("expected a size such as \"64MiB\", found {}", kind(other)));
            }
        };
        match bytes {
            Some(bytes) if bytes >= min => Ok(bytes),
            Some(bytes) => Err(format!("{bytes} bytes are too few; at least {min} are needed")),
            None => Err(format!("{} is not a size; write it like 64MiB or 4GiB", said.value())),
        }
    }
}

/// A bare number means seconds.
pub(super) fn duration(max: Duration) -> impl Fn(&Said) -> Result<Duration, String> {
    const UNITS_MS: [(&str, u64); 5] =
        [("", 1_000), ("ms", 1), ("s", 1_000), ("m", 60_000), ("h", 3_600_000)];
    move |said| {
        let ms = match said.value() {
            Value::Integer(number) => {
                u64::try_from(*number).ok().and_then(|seconds| seconds.checked_mul(1_000))
            }
            Value::String(text) => scaled(text, &UNITS_MS),
            other => return Err(format!("expected a time such as \"30s\", found {}", kind(other))),
        };
        match ms.map(Duration::from_millis) {
            Some(duration) if duration <= max => Ok(duration),
            Some(_) => Err(format!("{} is too long; at most {max:?}", said.value())),
            None => Err(format!("{} is not a time; write it like 500ms, 30s or 10m", said.value())),
        }
    }
}

/// True for JSON.
pub(super) fn log_format(said: &Said) -> Result<bool, String> {
    match text(said)? {
        "text" => Ok(false),
        "json" => Ok(true),
        other => Err(format!("{other:?} is not a log format; it is text or json")),
    }
}

pub(super) fn log_filter(said: &Said) -> Result<String, String> {
    let text = text(said)?;
    EnvFilter::builder().parse(text).map_err(|error| {
        format!("{text:?} is not a log filter ({error}); write it like info or info,stead=debug")
    })?;
    Ok(text.to_owned())
}

fn text(said: &Said) -> Result<&str, String> {
    said.text().ok_or_else(|| format!("expected a text, found {}", kind(said.value())))
}

fn kind(value: &Value) -> &'static str {
    match value {
        Value::String(_) => "a text",
        Value::Integer(_) | Value::Float(_) => "a number",
        Value::Boolean(_) => "true or false",
        Value::Datetime(_) => "a date",
        Value::Array(_) => "a list",
        Value::Table(_) => "a table",
    }
}

/// A whole number times the value of the unit behind it.
fn scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '_').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.replace('_', "").parse().ok()?;
    let unit = unit.trim().to_lowercase();
    let (_, scale) = units.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*scale)
}
