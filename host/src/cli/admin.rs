//! The admin API as the commands use it: connected, authorised, its errors turned into sentences.

use std::error::Error as _;

use stead_proto::admin::v1 as api;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;

use crate::cli::args::AdminPort;
use crate::cli::call::resolve;
use crate::cli::failed::Failed;
use crate::cli::remote::{self, Remote};
use crate::words::{Code, limits};

pub type Client = api::admin_client::AdminClient<InterceptedService<Channel, Token>>;

pub struct Admin {
    pub client: Client,
    pub remote: Remote,
    has_token: bool,
}

#[derive(Clone)]
pub struct Token(Option<MetadataValue<Ascii>>);

impl Interceptor for Token {
    fn call(
        &mut self,
        mut request: tonic::Request<()>,
    ) -> Result<tonic::Request<()>, tonic::Status> {
        if let Some(value) = &self.0 {
            request.metadata_mut().insert("authorization", value.clone());
        }
        Ok(request)
    }
}

impl Admin {
    pub async fn connect(port: &AdminPort) -> Result<Self, Failed> {
        let given = port.admin_token.as_deref().filter(|token| !token.is_empty());
        let token = given.map(remote::bearer).transpose()?;
        let remote = Remote::admin(port).await?;
        let client = Client::new(InterceptedService::new(remote.channel.clone(), Token(token)))
            .max_decoding_message_size(limits::CLIENT_ANSWER_BYTES_MAX);
        Ok(Self { client, remote, has_token: given.is_some() })
    }

    pub fn failed(&self, status: tonic::Status) -> Failed {
        if status.code() == tonic::Code::Unauthenticated {
            let message = match self.has_token {
                true => format!(
                    "the host at {} refuses this admin token; it must be the STEAD_ADMIN_TOKEN that the host was started with",
                    self.remote.url
                ),
                false => format!(
                    "the host at {} wants an admin token; set STEAD_ADMIN_TOKEN or pass --admin-token",
                    self.remote.url
                ),
            };
            return Failed::status(Code::Unauthenticated, message);
        }
        if status.code() == tonic::Code::Unimplemented && status.source().is_none() {
            return Failed::status(
                Code::Unimplemented,
                format!(
                    "what answers at {} has no such admin API; name the admin port of a stead of this version with --admin-url",
                    self.remote.url
                ),
            );
        }
        self.remote.failed(&status)
    }

    pub async fn services(&mut self) -> Result<api::ListServicesResponse, Failed> {
        let answer = self.client.list_services(api::ListServicesRequest {}).await;
        answer.map(tonic::Response::into_inner).map_err(|status| self.failed(status))
    }

    /// An entity type as typed: a journal, a service, or the end of a service's name. What the host
    /// does not serve now is passed on: it may have entities all the same.
    pub async fn entity_type(&mut self, typed: &str) -> Result<String, Failed> {
        let services = self.services().await?.services;
        if services.iter().any(|service| service.journal == typed) {
            return Ok(typed.into());
        }
        let names: Vec<String> = services.into_iter().map(|service| service.name).collect();
        resolve::by_end(typed, &names).unwrap_or_else(|| Ok(typed.into()))
    }
}
