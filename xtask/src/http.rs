//! One HTTP/1.1 request on a connection of its own: what `curl` would send, without needing curl.

use std::io::{Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use anyhow::{Context, bail};
use serde_json::Value;

const TIMEOUT: Duration = Duration::from_secs(30);

/// Sends JSON (or nothing) and reads JSON; any status but 200 is an error with the body in it.
pub fn json(method: &str, base: &str, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
    send(method, base, path, body, "")
}

/// The same for a command that takes effect once however often it is sent with this key.
pub fn json_once(
    method: &str,
    base: &str,
    path: &str,
    body: Option<&Value>,
    idempotency_key: &str,
) -> anyhow::Result<Value> {
    send(method, base, path, body, &format!("idempotency-key: {idempotency_key}\r\n"))
}

fn send(
    method: &str,
    base: &str,
    path: &str,
    body: Option<&Value>,
    headers: &str,
) -> anyhow::Result<Value> {
    let address = base.strip_prefix("http://").context("the host's address is not http://")?;
    let mut stream =
        TcpStream::connect(address).with_context(|| format!("cannot reach {address}"))?;
    stream.set_read_timeout(Some(TIMEOUT))?;
    stream.set_write_timeout(Some(TIMEOUT))?;
    let body = body.map(Value::to_string).unwrap_or_default();
    write!(
        stream,
        "{method} {path} HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\n\
         content-length: {}\r\n{headers}connection: close\r\n\r\n{body}",
        body.len()
    )?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, text) = response.split_once("\r\n\r\n").context("the answer is not HTTP")?;
    let status = head.split_whitespace().nth(1).unwrap_or_default();
    if status != "200" {
        bail!("{method} {path} was answered {status}: {text}");
    }
    serde_json::from_str(text).with_context(|| format!("{method} {path} was not answered in JSON"))
}
