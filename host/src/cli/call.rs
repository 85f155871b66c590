//! `stead call`: any unary method of any host with server reflection, from JSON to JSON.

mod json;
mod reflect;
pub mod resolve;

use std::io::Read;
use std::time::Duration;

use http::uri::PathAndQuery;
use tonic::metadata::{BinaryMetadataValue, MetadataKey, MetadataMap};

use crate::cli::args::{CallArgs, Header};
use crate::cli::failed::Failed;
use crate::cli::output::Output;
use crate::cli::remote::{self, BytesCodec, Remote};
use crate::words::limits;

pub async fn run(args: CallArgs, out: &Output) -> Result<(), Failed> {
    let text = match args.json.as_deref() {
        Some("-") => read_stdin()?,
        Some(text) => text.to_string(),
        None => String::new(),
    };
    let remote = Remote::services(&args.services).await?;
    let timeout = args.timeout;
    let method = within(timeout, reflect::method(&remote, &args.method)).await?;
    if method.is_client_streaming() || method.is_server_streaming() {
        return Err(Failed::usage(format!(
            "{} is a streaming method; `stead call` makes unary calls only",
            method.full_name()
        )));
    }
    let payload = json::encode(&method.input(), &text)?;

    let mut request = remote::with_timeout(payload, timeout);
    add_headers(request.metadata_mut(), &args.headers)?;
    if let Some(key) = &args.idempotency_key {
        let header = Header { name: "idempotency-key".into(), value: key.clone() };
        add_headers(request.metadata_mut(), &[header])?;
    }
    let path = format!("/{}/{}", method.parent_service().full_name(), method.name());
    let path = PathAndQuery::try_from(path).map_err(|error| Failed::local(error.to_string()))?;

    let mut client = remote::raw(remote.channel.clone());
    client
        .ready()
        .await
        .map_err(|error| remote.failed(&tonic::Status::from_error(error.into())))?;
    let reply = client
        .unary(request, path, BytesCodec)
        .await
        .map_err(|status| remote.failed(&status))?
        .into_inner();
    out.answer(&json::decode(&method.output(), &reply)?);
    Ok(())
}

/// Reflection counts against the time-out too, but nothing has happened when it runs out.
async fn within<T>(
    timeout: Duration,
    work: impl Future<Output = Result<T, Failed>>,
) -> Result<T, Failed> {
    match tokio::time::timeout(timeout, work).await {
        Ok(result) => result,
        Err(_) => Err(Failed::unreachable(format!(
            "the host did not describe its services within {timeout:?}; nothing was called"
        ))),
    }
}

fn read_stdin() -> Result<String, Failed> {
    let mut text = String::new();
    std::io::stdin()
        .lock()
        .take(limits::BODY_BYTES_MAX as u64 + 1)
        .read_to_string(&mut text)
        .map_err(|error| Failed::local(format!("cannot read the request from stdin: {error}")))?;
    if text.len() > limits::BODY_BYTES_MAX {
        return Err(Failed::usage(format!(
            "the request on stdin is longer than {} bytes",
            limits::BODY_BYTES_MAX
        )));
    }
    Ok(text)
}

/// Names that end in `-bin` carry bytes, written in base64.
fn add_headers(metadata: &mut MetadataMap, headers: &[Header]) -> Result<(), Failed> {
    use base64::Engine as _;
    for Header { name, value } in headers {
        let wrong = |what: &str| Failed::usage(format!("header {name}: {what}"));
        if name.ends_with("-bin") {
            let key = MetadataKey::from_bytes(name.as_bytes())
                .map_err(|_| wrong("this is not a name of a header"))?;
            let bytes = base64::engine::general_purpose::STANDARD
                .decode(value)
                .map_err(|_| wrong("the value of a -bin header must be base64"))?;
            metadata.append_bin(key, BinaryMetadataValue::from_bytes(&bytes));
        } else {
            let key = MetadataKey::from_bytes(name.as_bytes())
                .map_err(|_| wrong("this is not a name of a header"))?;
            let value = value
                .parse()
                .map_err(|_| wrong("the value may only hold visible ASCII characters"))?;
            metadata.append(key, value);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cli::failed::Exit;

    fn add(name: &str, value: &str) -> Result<MetadataMap, Failed> {
        let mut metadata = MetadataMap::new();
        add_headers(&mut metadata, &[Header { name: name.into(), value: value.into() }])?;
        Ok(metadata)
    }

    #[test]
    fn headers_become_metadata_and_bin_headers_bytes() {
        assert_eq!(add("x-trace", "abc").unwrap().get("x-trace").unwrap(), "abc");
        let metadata = add("x-trace-bin", "AAEC").unwrap();
        let value = metadata.get_bin("x-trace-bin").unwrap().to_bytes().unwrap();
        assert_eq!(&value[..], [0, 1, 2]);
    }

    #[test]
    fn headers_that_cannot_be_sent_are_named() {
        for (name, value) in [("b@d name", "x"), ("x-line", "a\nb"), ("x-bin", "%%%")] {
            let failed = add(name, value).unwrap_err();
            assert_eq!(failed.exit, Exit::Usage);
            assert!(failed.message.starts_with(&format!("header {name}: ")), "{failed}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_host_that_never_describes_itself_is_given_up() {
        let failed =
            within::<()>(Duration::from_secs(3), std::future::pending()).await.unwrap_err();
        assert_eq!(failed.exit, Exit::Unreachable);
        assert!(failed.message.contains("3s"), "{failed}");
    }
}
