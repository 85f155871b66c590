//! The load generator: prebuilt HTTP/1.1 requests over keep-alive connections, one in flight on each.
//!
//! It shares two cores with what it measures, so it does next to nothing: one thread, no HTTP library,
//! no allocation per request. Every answer must be a 200; anything else ends the measurement.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::LocalSet;

const RESPONSE_BYTES_MAX: usize = 64 * 1024;

/// What one measurement gave.
#[derive(Clone, Debug, Default)]
pub struct Measured {
    pub calls: u64,
    pub seconds: f64,
    /// Sorted.
    latencies_us: Vec<u32>,
}

impl Measured {
    pub fn per_second(&self) -> f64 {
        self.calls as f64 / self.seconds
    }

    pub fn percentile_us(&self, percent: usize) -> u32 {
        let at = self.latencies_us.len().saturating_sub(1) * percent / 100;
        self.latencies_us.get(at).copied().unwrap_or_default()
    }
}

/// When a measurement ends.
#[derive(Clone, Copy)]
pub enum Until {
    Elapsed(Duration),
    /// Every request of the list has been sent once.
    Sent,
}

/// The bytes of a request.
pub fn request(method: &str, path: &str, content_type: &str, body: &[u8]) -> Bytes {
    let mut request = format!(
        "{method} {path} HTTP/1.1\r\nhost: stead\r\ncontent-type: {content_type}\r\n\
         content-length: {}\r\n\r\n",
        body.len()
    )
    .into_bytes();
    request.extend_from_slice(body);
    request.into()
}

/// Sends the requests, round and round, over so many connections.
pub fn run(
    address: &str,
    requests: &[Bytes],
    connections: usize,
    until: Until,
) -> anyhow::Result<Measured> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(LocalSet::new().run_until(drive(address, requests, connections, until)))
}

async fn drive(
    address: &str,
    requests: &[Bytes],
    connections: usize,
    until: Until,
) -> anyhow::Result<Measured> {
    let mut streams = Vec::with_capacity(connections);
    for _ in 0..connections {
        let stream =
            TcpStream::connect(address).await.with_context(|| format!("connect {address}"))?;
        stream.set_nodelay(true)?;
        streams.push(stream);
    }
    let start = Instant::now();
    let tasks: Vec<_> = streams
        .into_iter()
        .enumerate()
        .map(|(number, stream)| {
            // Connections start apart from each other and go through the same list.
            let mine: Vec<Bytes> = match until {
                Until::Sent => requests.iter().skip(number).step_by(connections).cloned().collect(),
                Until::Elapsed(_) => {
                    let mut all = requests.to_vec();
                    all.rotate_left(number * requests.len() / connections);
                    all
                }
            };
            tokio::task::spawn_local(connection(stream, mine, start, until))
        })
        .collect();
    let mut measured = Measured::default();
    for task in tasks {
        measured.latencies_us.extend(task.await??);
    }
    measured.seconds = start.elapsed().as_secs_f64();
    measured.calls = measured.latencies_us.len() as u64;
    measured.latencies_us.sort_unstable();
    Ok(measured)
}

async fn connection(
    mut stream: TcpStream,
    requests: Vec<Bytes>,
    start: Instant,
    until: Until,
) -> anyhow::Result<Vec<u32>> {
    let mut latencies_us = Vec::with_capacity(1 << 14);
    let mut buffer = vec![0; RESPONSE_BYTES_MAX];
    loop {
        for request in &requests {
            if matches!(until, Until::Elapsed(time) if start.elapsed() >= time) {
                return Ok(latencies_us);
            }
            let sent = Instant::now();
            stream.write_all(request).await?;
            read_response(&mut stream, &mut buffer).await?;
            latencies_us.push(sent.elapsed().as_micros() as u32);
        }
        if matches!(until, Until::Sent) {
            return Ok(latencies_us);
        }
    }
}

async fn read_response(stream: &mut TcpStream, buffer: &mut [u8]) -> anyhow::Result<()> {
    let mut filled = 0;
    loop {
        let read = stream.read(&mut buffer[filled..]).await?;
        if read == 0 {
            bail!("the connection was closed in the middle of an answer");
        }
        filled += read;
        let got = &buffer[..filled];
        let Some(head) = got.windows(4).position(|window| window == b"\r\n\r\n") else {
            continue;
        };
        let length = content_length(&got[..head]).context("an answer without content-length")?;
        if filled < head + 4 + length {
            continue;
        }
        if !got.starts_with(b"HTTP/1.1 200 ") {
            bail!("not a 200: {}", String::from_utf8_lossy(got));
        }
        return Ok(());
    }
}

fn content_length(head: &[u8]) -> Option<usize> {
    head.split(|byte| *byte == b'\n').find_map(|line| {
        let (name, value) = line.split_at_checked(15)?;
        if !name.eq_ignore_ascii_case(b"content-length:") {
            return None;
        }
        std::str::from_utf8(value).ok()?.trim().parse().ok()
    })
}
