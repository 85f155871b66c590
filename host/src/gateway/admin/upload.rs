//! Uploads: `PUT /v1/modules?name=cart.wasm` with the module as the body, and gRPC's client stream.

use std::fmt::Display;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::Stream;
use http::request::Parts;
use http::{HeaderValue, Request, Response, Version, header};
use http_body_util::BodyExt;
use prost_reflect::DescriptorPool;
use stead_proto::admin::v1 as api;
use stead_proto::admin::v1::upload_module_request::Part;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_stream::StreamExt;
use tonic::codec::Streaming;
use tonic::server::{ClientStreamingService, Grpc};

use crate::gateway::admin::errors::{from_deploy, from_join, to_tonic};
use crate::gateway::admin::{json, modules};
use crate::gateway::body::Body;
use crate::gateway::{error, query};
use crate::registry::Registry;
use crate::wasm::Refusal;
use crate::words::{Digest, Status, clock, limits};

pub const PATH: &str = "/v1/modules";
pub const GRPC_PATH: &str = "/stead.admin.v1.Admin/UploadModule";

pub fn is_grpc<B>(request: &Request<B>) -> bool {
    let content_type = request.headers().get(header::CONTENT_TYPE).map(HeaderValue::as_bytes);
    content_type.and_then(|value| value.strip_prefix(b"application/grpc")).is_some_and(|rest| {
        // Not gRPC-Web, which has no client streams.
        rest.is_empty() || rest.starts_with(b"+") || rest.starts_with(b";")
    })
}

/// Cheap to clone.
#[derive(Clone)]
pub struct Uploads {
    registry: Registry,
    places: Arc<Semaphore>,
}

impl Uploads {
    pub fn new(registry: Registry) -> Self {
        Self { registry, places: Arc::new(Semaphore::new(limits::UPLOADS_AT_ONCE_MAX)) }
    }

    pub async fn put<B>(&self, request: Request<B>, pool: &DescriptorPool) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes, Error: Display> + Send + Unpin,
    {
        let (parts, mut body) = request.into_parts();
        let result = self.put_module(&parts, &mut body).await;
        // Closing an HTTP/1.1 connection that the client still writes to would lose the answer.
        // A client that waits for permission to send has nothing to lose.
        let http_1 = parts.version <= Version::HTTP_11;
        if result.is_err() && http_1 && !parts.headers.contains_key(header::EXPECT) {
            let _ = tokio::time::timeout(limits::BODY_READ_TIMEOUT, discard(&mut body)).await;
        }
        match result.and_then(|response| json::message(pool, "UploadModuleResponse", &response)) {
            Ok(json) => {
                let mut response = Response::new(Body::full(json));
                response.headers_mut().insert(header::CONTENT_TYPE, error::JSON);
                response
            }
            Err(status) => error::json(&status),
        }
    }

    pub async fn grpc<B>(&self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body<Data = Bytes> + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let codec = tonic_prost::ProstCodec::default();
        Grpc::new(codec).client_streaming(self.clone(), request).await.map(|body| {
            Body::new(body.map_err(|status| Status::internal(status.message().to_owned())))
        })
    }

    async fn put_module<B>(
        &self,
        parts: &Parts,
        body: &mut B,
    ) -> Result<api::UploadModuleResponse, Status>
    where
        B: http_body::Body<Data = Bytes, Error: Display> + Send + Unpin,
    {
        let header = header_of(parts)?;
        let pieces = body.into_data_stream().map(|piece| {
            piece
                .map_err(|error| Status::invalid_argument(format!("the upload broke off: {error}")))
        });
        self.receive(header, pieces).await
    }

    async fn stream(
        &self,
        mut stream: Streaming<api::UploadModuleRequest>,
    ) -> Result<api::UploadModuleResponse, Status> {
        let first = tokio::time::timeout(limits::BODY_READ_TIMEOUT, stream.message()).await;
        let first = first.map_err(|_| too_slow())?.map_err(from_tonic)?;
        let Some(Part::Header(header)) = first.and_then(|message| message.part) else {
            return Err(Status::invalid_argument("the first message of an upload is its header"));
        };
        let pieces = stream.map(|message| match message.map_err(from_tonic)?.part {
            Some(Part::Data(data)) => Ok(Bytes::from(data)),
            Some(Part::Header(_)) => Err(Status::invalid_argument(
                "only the first message of an upload is a header; the others carry data",
            )),
            None => {
                Err(Status::invalid_argument("a message of the upload has neither header nor data"))
            }
        });
        self.receive(header, pieces).await
    }

    async fn receive(
        &self,
        header: api::UploadModuleHeader,
        pieces: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    ) -> Result<api::UploadModuleResponse, Status> {
        let mut assembly = Assembly::new(header)?;
        let Ok(place) = self.places.clone().try_acquire_owned() else {
            return Err(Status::resource_exhausted(format!(
                "{} uploads are going on already; try again when one is done",
                limits::UPLOADS_AT_ONCE_MAX
            )));
        };
        tokio::time::timeout(limits::UPLOAD_WALL_MAX, assembly.fill(pieces))
            .await
            .map_err(|_| too_slow())??;
        let (name, bytes) = assembly.finish()?;
        self.keep(name, bytes, place).await
    }

    /// A client that goes away does not stop the compilation: the next upload finds it done.
    async fn keep(
        &self,
        name: String,
        bytes: Bytes,
        place: OwnedSemaphorePermit,
    ) -> Result<api::UploadModuleResponse, Status> {
        let registry = self.registry.clone();
        let started = clock::now();
        let upload = tokio::spawn(async move {
            let upload = registry.upload(&name, bytes).await;
            drop(place);
            upload
        })
        .await
        .map_err(from_join)?
        .map_err(from_deploy)?;
        let (record, took) = (&upload.record, started.elapsed());
        tracing::info!(module = %record.digest.short(), name = record.name, ?took, "module uploaded");
        Ok(api::UploadModuleResponse {
            digest: record.digest.to_string(),
            name: record.name.clone(),
            bytes: record.bytes,
            sdk: upload.sdk,
            entity_types: upload
                .entity_types
                .iter()
                .map(|found| api::EntityType {
                    service: found.service.to_string(),
                    kind: found.kind.name().into(),
                    journal: found.journal.to_string(),
                })
                .collect(),
            already_present: upload.already_present,
        })
    }
}

impl ClientStreamingService<api::UploadModuleRequest> for Uploads {
    type Response = api::UploadModuleResponse;
    type Future = std::pin::Pin<
        Box<dyn Future<Output = Result<tonic::Response<Self::Response>, tonic::Status>> + Send>,
    >;

    fn call(
        &mut self,
        request: tonic::Request<Streaming<api::UploadModuleRequest>>,
    ) -> Self::Future {
        let uploads = self.clone();
        Box::pin(async move {
            uploads.stream(request.into_inner()).await.map(tonic::Response::new).map_err(to_tonic)
        })
    }
}

/// The bytes of a module as they come in, never more than there may be.
struct Assembly {
    name: String,
    digest: Option<Digest>,
    promised: Option<u64>,
    bytes: BytesMut,
}

impl Assembly {
    fn new(header: api::UploadModuleHeader) -> Result<Self, Status> {
        let (name_bytes, name_max) = (header.name.len(), limits::MODULE_NAME_BYTES_MAX);
        if header.name.is_empty() {
            return Err(Status::invalid_argument(
                "name is empty; give the module one, like cart.wasm",
            ));
        }
        if name_bytes > name_max {
            return Err(Status::invalid_argument(format!(
                "name has {name_bytes} bytes; the limit is {name_max}"
            )));
        }
        let promised = Some(header.bytes).filter(|bytes| *bytes > 0);
        if let Some(bytes) = promised {
            check_size(usize::try_from(bytes).unwrap_or(usize::MAX))?;
        }
        let digest = Some(header.digest.as_str()).filter(|digest| !digest.is_empty());
        Ok(Self {
            digest: digest.map(|digest| modules::digest("digest", digest)).transpose()?,
            name: header.name,
            promised,
            bytes: BytesMut::new(),
        })
    }

    async fn fill(
        &mut self,
        mut pieces: impl Stream<Item = Result<Bytes, Status>> + Unpin,
    ) -> Result<(), Status> {
        let started = clock::now();
        loop {
            // What has come so far is enough until then.
            let paid = self.bytes.len() as f64 / limits::UPLOAD_BYTES_PER_SECOND_MIN as f64;
            let until = started + limits::UPLOAD_SLOW_START.max(Duration::from_secs_f64(paid));
            let until = until.min(clock::now() + limits::BODY_READ_TIMEOUT);
            match tokio::time::timeout_at(until, pieces.next()).await {
                Ok(Some(piece)) => self.push(&piece?)?,
                Ok(None) => return Ok(()),
                Err(_) => return Err(too_slow()),
            }
        }
    }

    fn push(&mut self, piece: &[u8]) -> Result<(), Status> {
        check_size(self.bytes.len().saturating_add(piece.len()))?;
        self.bytes.extend_from_slice(piece);
        Ok(())
    }

    fn finish(self) -> Result<(String, Bytes), Status> {
        let bytes = self.bytes.freeze();
        if let Some(promised) = self.promised
            && promised != bytes.len() as u64
        {
            return Err(Status::invalid_argument(format!(
                "the upload is truncated or too long: {promised} bytes were announced, {} came",
                bytes.len()
            )));
        }
        if let Some(wanted) = self.digest {
            let found = Digest::of(&bytes);
            if wanted != found {
                return Err(Status::invalid_argument(format!(
                    "the upload was damaged: its digest should be {wanted} and is {found}"
                )));
            }
        }
        Ok((self.name, bytes))
    }
}

fn check_size(bytes: usize) -> Result<(), Status> {
    let max = limits::MODULE_BYTES_MAX;
    match bytes > max {
        true => Err(from_deploy(Refusal::TooLarge { bytes, max }.into())),
        false => Ok(()),
    }
}

/// What the query and the headers of a PUT say of the module.
fn header_of(parts: &Parts) -> Result<api::UploadModuleHeader, Status> {
    let mut header = api::UploadModuleHeader::default();
    for pair in query::pairs(parts.uri.query().unwrap_or_default()) {
        let (key, value) = pair?;
        match key.as_str() {
            "name" => header.name = value,
            "digest" => header.digest = value,
            other => {
                return Err(Status::invalid_argument(format!(
                    "unknown query parameter {other:?}; there are name and digest"
                )));
            }
        }
    }
    if header.name.is_empty() {
        return Err(Status::invalid_argument(
            "the query parameter name is missing: PUT /v1/modules?name=cart.wasm",
        ));
    }
    let length = parts.headers.get(header::CONTENT_LENGTH);
    header.bytes =
        length.and_then(|value| value.to_str().ok()?.parse().ok()).unwrap_or(header.bytes);
    Ok(header)
}

async fn discard<B: http_body::Body<Data = Bytes> + Unpin>(body: &mut B) {
    let mut bytes = 0;
    while let Some(Ok(piece)) = body.frame().await {
        bytes += piece.data_ref().map_or(0, Bytes::len);
        if bytes > limits::DISCARDED_BYTES_MAX {
            return;
        }
    }
}

fn too_slow() -> Status {
    Status::deadline_exceeded("the upload is too slow; it was given up")
}

fn from_tonic(status: tonic::Status) -> Status {
    let code = crate::words::Code::from_u32(status.code() as i32 as u32);
    Status::new(code.unwrap_or(crate::words::Code::Unknown), status.message())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::words::Code;

    fn header(name: &str) -> api::UploadModuleHeader {
        api::UploadModuleHeader { name: name.into(), ..Default::default() }
    }

    fn refused(header: api::UploadModuleHeader) -> Status {
        Assembly::new(header).err().unwrap()
    }

    #[tokio::test]
    async fn pieces_become_the_module() {
        let digest = Digest::of(b"module").to_string();
        let mut assembly =
            Assembly::new(api::UploadModuleHeader { digest, bytes: 6, ..header("cart.wasm") })
                .unwrap();
        let pieces = [Ok(Bytes::from_static(b"mod")), Ok(Bytes::from_static(b"ule"))];
        assembly.fill(tokio_stream::iter(pieces)).await.unwrap();
        assert_eq!(assembly.finish().unwrap(), ("cart.wasm".into(), Bytes::from_static(b"module")));
    }

    #[test]
    fn a_header_that_cannot_work_is_refused_before_any_data() {
        assert!(refused(header("")).message.starts_with("name is empty"));
        assert!(refused(header(&"n".repeat(257))).message.starts_with("name has 257 bytes"));
        let huge = limits::MODULE_BYTES_MAX as u64 + 1;
        let huge = refused(api::UploadModuleHeader { bytes: huge, ..header("cart.wasm") });
        assert_eq!((huge.code, huge.http_status()), (Code::InvalidArgument, 413));
        let digest = refused(api::UploadModuleHeader { digest: "x".into(), ..header("cart.wasm") });
        assert!(digest.message.starts_with("digest is not a SHA-256"));
    }

    #[test]
    fn more_than_the_limit_is_refused_without_keeping_it() {
        let mut assembly = Assembly::new(header("cart.wasm")).unwrap();
        assembly.push(&vec![0; limits::MODULE_BYTES_MAX]).unwrap();
        assert_eq!(assembly.push(&[0]).unwrap_err().http_status(), 413);
        assert_eq!(assembly.bytes.len(), limits::MODULE_BYTES_MAX);
    }

    #[test]
    fn a_truncated_or_damaged_upload_is_told_from_a_whole_one() {
        let whole = api::UploadModuleHeader { bytes: 9, ..header("cart.wasm") };
        let mut assembly = Assembly::new(whole).unwrap();
        assembly.push(b"module").unwrap();
        assert!(assembly.finish().unwrap_err().message.contains("9 bytes were announced, 6 came"));
        let digest = Digest::of(b"other").to_string();
        let other = api::UploadModuleHeader { digest, ..header("cart.wasm") };
        let mut assembly = Assembly::new(other).unwrap();
        assembly.push(b"module").unwrap();
        assert!(assembly.finish().unwrap_err().message.contains("damaged"));
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_stops_sending_is_given_up() {
        let mut assembly = Assembly::new(header("cart.wasm")).unwrap();
        let silent = tokio_stream::pending::<Result<Bytes, Status>>();
        assert_eq!(assembly.fill(silent).await.unwrap_err().code, Code::DeadlineExceeded);
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_drips_is_given_up_and_a_slow_one_is_not() {
        let fill = async |bytes: usize, pieces: usize| {
            let pieces = tokio_stream::iter(0..pieces).then(move |_| async move {
                tokio::time::sleep(Duration::from_secs(1)).await;
                Ok(Bytes::from(vec![0; bytes]))
            });
            Assembly::new(header("cart.wasm")).unwrap().fill(std::pin::pin!(pieces)).await
        };
        let enough = limits::UPLOAD_BYTES_PER_SECOND_MIN * 3 / 2;
        assert_eq!(fill(enough, 60).await, Ok(()));
        assert_eq!(fill(1_000, 60).await.unwrap_err().code, Code::DeadlineExceeded);
    }

    #[test]
    fn a_put_takes_name_and_digest_from_the_query_and_nothing_else() {
        let put = |uri: &str| {
            let request = Request::put(uri).header("content-length", "7").body(()).unwrap();
            header_of(&request.into_parts().0)
        };
        let header = put("/v1/modules?name=my%20cart.wasm").unwrap();
        assert_eq!((header.name.as_str(), header.bytes), ("my cart.wasm", 7));
        assert!(put("/v1/modules").unwrap_err().message.contains("name is missing"));
        assert!(put("/v1/modules?nmae=x").unwrap_err().message.contains("unknown query"));
    }

    #[test]
    fn only_grpc_itself_streams() {
        let of = |kind: &str| {
            is_grpc(&Request::post("/").header("content-type", kind).body(()).unwrap())
        };
        assert!(of("application/grpc") && of("application/grpc+proto"));
        assert!(!of("application/grpc-web+proto") && !of("application/json"));
    }
}
