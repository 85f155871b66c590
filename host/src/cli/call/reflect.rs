//! Descriptors from a running host, by gRPC server reflection v1, or v1alpha where that is all it has.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use http::uri::PathAndQuery;
use prost_reflect::prost::Message as _;
use prost_reflect::{DescriptorPool, MethodDescriptor};
use prost_types::{FileDescriptorProto, FileDescriptorSet};
use stead_proto::grpc::reflection::v1::server_reflection_request::MessageRequest;
use stead_proto::grpc::reflection::v1::server_reflection_response::MessageResponse;
use stead_proto::grpc::reflection::v1::{ServerReflectionRequest, ServerReflectionResponse};

use crate::cli::call::resolve;
use crate::cli::failed::Failed;
use crate::cli::remote::{self, BytesCodec, Remote};
use crate::words::{Code, limits};

const V1: &str = "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo";
const V1ALPHA: &str = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo";

/// Finds the method that a person named.
pub async fn method(remote: &Remote, typed: &str) -> Result<MethodDescriptor, Failed> {
    let mut reflection = Reflection { remote, path: V1 };
    let services = reflection.services().await?;
    let target = resolve::target(typed, &services)?;
    let pool = reflection.pool(&target.service).await?;
    let service = pool.get_service_by_name(&target.service).ok_or_else(|| {
        Failed::local(format!("the host lists {} but does not describe it", target.service))
    })?;
    let names: Vec<String> = service.methods().map(|method| method.name().to_string()).collect();
    let name = resolve::method_named(&target.service, target.method.as_deref(), &names)?;
    service
        .methods()
        .find(|method| method.name() == name)
        .ok_or_else(|| Failed::local(format!("{} lost its method {name}", target.service)))
}

struct Reflection<'a> {
    remote: &'a Remote,
    /// v1 until the host says that it has none.
    path: &'static str,
}

impl Reflection<'_> {
    /// What can be called, without the services of the transport itself.
    async fn services(&mut self) -> Result<Vec<String>, Failed> {
        match self.ask(vec![MessageRequest::ListServices(String::new())]).await?.pop() {
            Some(MessageResponse::ListServicesResponse(list)) => {
                let names = list.service.into_iter().map(|service| service.name);
                Ok(names.filter(|name| !name.starts_with("grpc.")).collect())
            }
            other => Err(unexpected(other)),
        }
    }

    /// The file that declares a symbol, and all that it imports.
    async fn pool(&mut self, symbol: &str) -> Result<DescriptorPool, Failed> {
        let mut files = BTreeMap::new();
        let mut wanted = vec![MessageRequest::FileContainingSymbol(symbol.into())];
        let mut asked = BTreeSet::new();
        while !wanted.is_empty() {
            for answer in self.ask(std::mem::take(&mut wanted)).await? {
                match answer {
                    MessageResponse::FileDescriptorResponse(found) => {
                        for bytes in found.file_descriptor_proto {
                            let file = FileDescriptorProto::decode(bytes.as_slice())
                                .map_err(|error| garbled(&error.to_string()))?;
                            files.entry(file.name().to_string()).or_insert(file);
                        }
                    }
                    other => return Err(unexpected(Some(other))),
                }
            }
            if files.len() > limits::CLIENT_REFLECTED_FILES_MAX {
                return Err(garbled("too many files"));
            }
            let missing: BTreeSet<String> = files
                .values()
                .flat_map(|file| file.dependency.iter())
                .filter(|name| !files.contains_key(*name))
                .cloned()
                .collect();
            for name in missing {
                if let Some(file) = DescriptorPool::global().get_file_by_name(&name) {
                    files.insert(name, file.file_descriptor_proto().clone());
                } else if asked.insert(name.clone()) {
                    wanted.push(MessageRequest::FileByFilename(name));
                } else {
                    return Err(garbled(&format!("it imports {name}, which is not there")));
                }
            }
        }
        let set = FileDescriptorSet { file: files.into_values().collect() };
        DescriptorPool::from_file_descriptor_set(set).map_err(|error| garbled(&error.to_string()))
    }

    /// One stream: all questions, then all answers.
    async fn ask(
        &mut self,
        questions: Vec<MessageRequest>,
    ) -> Result<Vec<MessageResponse>, Failed> {
        match self.ask_at(self.path, &questions).await {
            Err(status) if status.code() == tonic::Code::Unimplemented && self.path == V1 => {
                self.path = V1ALPHA;
            }
            answer => return answer.map_err(|status| self.remote.failed(&status)),
        }
        self.ask_at(self.path, &questions).await.map_err(|status| {
            if status.code() == tonic::Code::Unimplemented {
                return Failed::status(
                    Code::Unimplemented,
                    format!(
                        "what answers at {} has no server reflection, which `stead call` needs; is it the services port of a stead?",
                        self.remote.url
                    ),
                );
            }
            self.remote.failed(&status)
        })
    }

    async fn ask_at(
        &self,
        path: &'static str,
        questions: &[MessageRequest],
    ) -> Result<Vec<MessageResponse>, tonic::Status> {
        let requests: Vec<Bytes> = questions
            .iter()
            .map(|question| ServerReflectionRequest {
                host: String::new(),
                message_request: Some(question.clone()),
            })
            .map(|request| request.encode_to_vec().into())
            .collect();
        let expected = requests.len();
        let mut client = remote::raw(self.remote.channel.clone());
        client.ready().await.map_err(|error| tonic::Status::from_error(error.into()))?;
        let mut answers = client
            .streaming(
                tonic::Request::new(tokio_stream::iter(requests)),
                PathAndQuery::from_static(path),
                BytesCodec,
            )
            .await?
            .into_inner();
        let mut found = Vec::with_capacity(expected);
        while found.len() < expected {
            let Some(bytes) = answers.message().await? else {
                return Err(tonic::Status::data_loss("reflection ended before its last answer"));
            };
            let response = ServerReflectionResponse::decode(bytes)
                .map_err(|error| tonic::Status::data_loss(error.to_string()))?;
            match response.message_response {
                Some(response) => found.push(response),
                None => return Err(tonic::Status::data_loss("reflection gave an empty answer")),
            }
        }
        Ok(found)
    }
}

fn garbled(reason: &str) -> Failed {
    Failed::local(format!("the host's description of its services cannot be read: {reason}"))
}

fn unexpected(answer: Option<MessageResponse>) -> Failed {
    match answer {
        Some(MessageResponse::ErrorResponse(error)) => Failed::status(
            Code::from_u32(error.error_code as u32).unwrap_or(Code::Unknown),
            error.error_message,
        ),
        _ => garbled("it answered another question"),
    }
}
