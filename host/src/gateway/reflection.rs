//! gRPC server reflection, v1 and v1alpha: how clients without a .proto learn what can be called.

mod catalogue;

use std::sync::Arc;

use futures_util::stream::{BoxStream, StreamExt};
use http::{Request, Response};
use prost_reflect::DescriptorPool;
use stead_proto::grpc::reflection::v1::server_reflection_server as v1;
use stead_proto::grpc::reflection::v1alpha::server_reflection_server as v1alpha;

use crate::gateway::body::Body;
use crate::gateway::grpc_service;
use crate::registry::Registry;
use crate::words::Digest;
use crate::words::limits::REFLECTION_REQUEST_BYTES_MAX;

use catalogue::{Answer, Catalogue, Query, Session};

/// Serves the paths that start with `/grpc.reflection.`.
pub async fn serve<B>(request: Request<B>, registry: &Registry) -> Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let registry = registry.clone();
    Reflection::new(move || Catalogue::of(&registry.live())).serve(request).await
}

/// The same on the admin port, for one service that never changes.
pub async fn serve_one<B>(
    request: Request<B>,
    service: &'static str,
    pool: DescriptorPool,
) -> Response<Body>
where
    B: http_body::Body + Send + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
{
    let owner = Digest([0; 32]);
    Reflection::new(move || Catalogue::new(&[(service, owner)], vec![(owner, pool.clone())]))
        .serve(request)
        .await
}

/// Both versions at once.
#[derive(Clone)]
struct Reflection {
    catalogue: Arc<dyn Fn() -> Catalogue + Send + Sync>,
}

impl Reflection {
    /// The catalogue is asked for with every question: deployments come and go while a stream lasts.
    fn new(catalogue: impl Fn() -> Catalogue + Send + Sync + 'static) -> Self {
        Self { catalogue: Arc::new(catalogue) }
    }

    async fn serve<B>(self, request: Request<B>) -> Response<Body>
    where
        B: http_body::Body + Send + 'static,
        B::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send + 'static,
    {
        if request.uri().path().starts_with("/grpc.reflection.v1alpha.") {
            let server = v1alpha::ServerReflectionServer::new(self)
                .max_decoding_message_size(REFLECTION_REQUEST_BYTES_MAX);
            grpc_service::serve(server, request).await
        } else {
            let server = v1::ServerReflectionServer::new(self)
                .max_decoding_message_size(REFLECTION_REQUEST_BYTES_MAX);
            grpc_service::serve(server, request).await
        }
    }
}

/// The two versions differ in their package only.
macro_rules! version {
    ($version:ident) => {
        #[tonic::async_trait]
        impl $version::ServerReflection for Reflection {
            type ServerReflectionInfoStream = BoxStream<
                'static,
                Result<
                    stead_proto::grpc::reflection::$version::ServerReflectionResponse,
                    tonic::Status,
                >,
            >;

            async fn server_reflection_info(
                &self,
                request: tonic::Request<
                    tonic::Streaming<
                        stead_proto::grpc::reflection::$version::ServerReflectionRequest,
                    >,
                >,
            ) -> Result<tonic::Response<Self::ServerReflectionInfoStream>, tonic::Status> {
                use stead_proto::grpc::reflection::$version::server_reflection_request::MessageRequest;
                use stead_proto::grpc::reflection::$version::server_reflection_response::MessageResponse;
                use stead_proto::grpc::reflection::$version::{
                    ErrorResponse, ExtensionNumberResponse, FileDescriptorResponse,
                    ListServiceResponse, ServerReflectionResponse, ServiceResponse,
                };

                let catalogue = Arc::clone(&self.catalogue);
                let mut session = Session::default();
                let answers = request.into_inner().map(move |request| {
                    let request = request?;
                    let query = match request.message_request.clone() {
                        Some(MessageRequest::FileByFilename(name)) => Query::File(name),
                        Some(MessageRequest::FileContainingSymbol(name)) => Query::Symbol(name),
                        Some(MessageRequest::FileContainingExtension(extension)) => {
                            Query::Extension(
                                extension.containing_type,
                                extension.extension_number,
                            )
                        }
                        Some(MessageRequest::AllExtensionNumbersOfType(name)) => {
                            Query::ExtensionNumbers(name)
                        }
                        Some(MessageRequest::ListServices(_)) => Query::Services,
                        None => Query::Nothing,
                    };
                    let answer = match session.answer(&catalogue(), query) {
                        Answer::Files(file_descriptor_proto) => {
                            MessageResponse::FileDescriptorResponse(FileDescriptorResponse {
                                file_descriptor_proto,
                            })
                        }
                        Answer::ExtensionNumbers(base_type_name, extension_number) => {
                            MessageResponse::AllExtensionNumbersResponse(ExtensionNumberResponse {
                                base_type_name,
                                extension_number,
                            })
                        }
                        Answer::Services(names) => {
                            let service =
                                names.into_iter().map(|name| ServiceResponse { name }).collect();
                            MessageResponse::ListServicesResponse(ListServiceResponse { service })
                        }
                        Answer::Error(code, error_message) => {
                            let error_code = code as i32;
                            MessageResponse::ErrorResponse(ErrorResponse {
                                error_code,
                                error_message,
                            })
                        }
                    };
                    Ok(ServerReflectionResponse {
                        valid_host: request.host.clone(),
                        original_request: Some(request),
                        message_response: Some(answer),
                    })
                });
                Ok(tonic::Response::new(answers.boxed()))
            }
        }
    };
}

version!(v1);
version!(v1alpha);

#[cfg(test)]
mod tests;
