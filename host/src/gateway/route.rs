//! From a path to a method: full names (`/pkg.Service/Method`) and `google.api.http` templates.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use prost::Message as _;
use prost_reflect::{FieldDescriptor, Kind, MessageDescriptor, MethodDescriptor};
use stead_proto::google::api::HttpRule;
use stead_proto::google::api::http_rule::Pattern;

use crate::entity::Consistency;
use crate::gateway::template::{Template, Tree, Variable};
use crate::gateway::transcode;
use crate::registry::{Method, Service};
use crate::words::limits;

const HTTP_BODY: &str = "google.api.HttpBody";

/// A method that can be called.
pub struct Endpoint {
    pub descriptor: MethodDescriptor,
    pub service: Arc<str>,
    pub method: Arc<str>,
    /// `/pkg.Service/Method`
    pub path: Arc<str>,
    pub target: Target,
    pub input: MessageDescriptor,
    pub output: MessageDescriptor,
    /// Whether the request is a stream, and whether the answer is.
    pub client_streams: bool,
    pub server_streams: bool,
    /// Declared `NO_SIDE_EFFECTS`: may be called by GET.
    pub no_side_effects: bool,
    /// `stead.consistency`, for callers who do not say.
    pub consistency: Option<Consistency>,
}

/// Who answers.
pub enum Target {
    Function { service: Arc<Service>, method: Arc<Method> },
    Admin,
}

impl Endpoint {
    pub fn streams(&self) -> bool {
        self.client_streams || self.server_streams
    }

    pub fn new(descriptor: MethodDescriptor, target: Target) -> Self {
        let service: Arc<str> = descriptor.parent_service().full_name().into();
        let method: Arc<str> = descriptor.name().into();
        let options = Options::of(&descriptor);
        Self {
            path: format!("/{service}/{method}").into(),
            input: descriptor.input(),
            output: descriptor.output(),
            client_streams: descriptor.is_client_streaming(),
            server_streams: descriptor.is_server_streaming(),
            no_side_effects: options.idempotency_level == Some(1),
            consistency: options.strictness(),
            descriptor,
            service,
            method,
            target,
        }
    }
}

/// All endpoints of a port. Immutable: a deployment builds a new one.
#[derive(Default)]
pub struct Routes {
    pub by_path: HashMap<Arc<str>, Arc<Endpoint>>,
    pub templates: Tree<Binding>,
    services: BTreeMap<Arc<str>, Vec<Arc<str>>>,
    faults: Vec<String>,
}

/// How one HTTP request shape maps to a method's request and response.
pub struct Binding {
    pub endpoint: Arc<Endpoint>,
    pub variables: Vec<(Variable, Vec<FieldDescriptor>)>,
    pub verb: Option<Box<str>>,
    pub body: RequestBody,
    pub response_body: Option<FieldDescriptor>,
}

/// Where the body of an HTTP request goes.
#[derive(Debug)]
pub enum RequestBody {
    None,
    Whole,
    Field(FieldDescriptor),
}

impl Routes {
    /// Where two templates conflict the first, by service name, wins; `faults` says so.
    pub fn new(endpoints: impl IntoIterator<Item = Endpoint>) -> Self {
        let mut endpoints: Vec<_> = endpoints.into_iter().map(Arc::new).collect();
        endpoints.sort_by(|a, b| a.path.cmp(&b.path));
        let mut routes = Self::default();
        for endpoint in endpoints {
            routes.bind(&endpoint);
            let methods = routes.services.entry(endpoint.service.clone()).or_default();
            methods.push(endpoint.method.clone());
            routes.by_path.insert(endpoint.path.clone(), endpoint);
        }
        routes
    }

    /// Templates that are not served, one sentence each: malformed, naming no field, or taken.
    pub fn faults(&self) -> &[String] {
        &self.faults
    }

    /// The methods of a service, for a caller who named one that it does not have.
    pub fn methods_of(&self, service: &str) -> Option<&[Arc<str>]> {
        self.services.get(service).map(Vec::as_slice)
    }

    fn bind(&mut self, endpoint: &Arc<Endpoint>) {
        let Some(mut rule) = Options::of(&endpoint.descriptor).http else { return };
        let more = std::mem::take(&mut rule.additional_bindings);
        for rule in std::iter::once(rule).chain(more).take(limits::TEMPLATES_PER_METHOD_MAX) {
            if let Err(fault) = self.bind_one(endpoint, rule) {
                let name = endpoint.descriptor.full_name();
                self.faults.push(format!("{name}: {fault}"));
            }
        }
    }

    fn bind_one(&mut self, endpoint: &Arc<Endpoint>, rule: HttpRule) -> Result<(), String> {
        let (method, path) = match rule.pattern {
            Some(Pattern::Get(path)) => ("GET".into(), path),
            Some(Pattern::Put(path)) => ("PUT".into(), path),
            Some(Pattern::Post(path)) => ("POST".into(), path),
            Some(Pattern::Delete(path)) => ("DELETE".into(), path),
            Some(Pattern::Patch(path)) => ("PATCH".into(), path),
            Some(Pattern::Custom(custom)) => (custom.kind, custom.path),
            None => return Err("google.api.http has no pattern".into()),
        };
        let template = Template::parse(&path).map_err(|error| error.to_string())?;
        let input = &endpoint.input;
        let mut variables = Vec::new();
        for variable in &template.variables {
            let fields = transcode::resolve(input, &variable.field)
                .map_err(|fault| format!("path template {path:?}: {fault}"))?;
            if fields.last().is_some_and(|field| field.is_list() || field.is_map()) {
                let field = &variable.field;
                return Err(format!("path template {path:?}: field {field} is repeated"));
            }
            variables.push((variable.clone(), fields));
        }
        let field = |message: &MessageDescriptor, name: &str, what| {
            message.get_field_by_name(name).ok_or_else(|| {
                format!("{what} names {name:?}, which {} does not have", message.full_name())
            })
        };
        let binding = Binding {
            endpoint: endpoint.clone(),
            variables,
            verb: template.verb.as_deref().map(Into::into),
            body: match rule.body.as_str() {
                "" => RequestBody::None,
                "*" => RequestBody::Whole,
                name => RequestBody::Field(field(input, name, "body")?),
            },
            response_body: match rule.response_body.as_str() {
                "" => None,
                name => Some(field(&endpoint.output, name, "response_body")?),
            },
        };
        self.templates.insert(&method, &template, binding).map_err(|taken| {
            format!("{method} {path} is taken by {}", taken.endpoint.descriptor.full_name())
        })
    }
}

pub fn is_http_body(message: &MessageDescriptor) -> bool {
    message.full_name() == HTTP_BODY
}

pub fn is_http_body_field(field: &FieldDescriptor) -> bool {
    !field.is_list() && matches!(field.kind(), Kind::Message(message) if is_http_body(&message))
}

/// What this floor reads of `google.protobuf.MethodOptions`, whether or not the pool knows the
/// extension.
#[derive(Clone, PartialEq, prost::Message)]
struct Options {
    #[prost(int32, optional, tag = "34")]
    idempotency_level: Option<i32>,
    #[prost(message, optional, tag = "72295728")]
    http: Option<HttpRule>,
    /// `stead.consistency`
    #[prost(int32, optional, tag = "50801")]
    consistency: Option<i32>,
}

impl Options {
    fn of(method: &MethodDescriptor) -> Self {
        // Options that were decoded once encode to what can be decoded again.
        Self::decode(method.options().encode_to_vec().as_slice()).unwrap_or_default()
    }

    /// What this version does not know is none.
    fn strictness(&self) -> Option<Consistency> {
        match self.consistency? {
            1 => Some(Consistency::Leased),
            2 => Some(Consistency::Fenced),
            3 => Some(Consistency::Stale),
            _ => None,
        }
    }
}
