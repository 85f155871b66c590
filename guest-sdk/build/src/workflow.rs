//! The code for the service of a workflow.

use std::collections::BTreeMap;
use std::fmt::Write;

use prost_build::{Method, Service};
use prost_reflect::{DescriptorPool, ExtensionDescriptor, MethodDescriptor, ServiceDescriptor};

use crate::Error;
use crate::service::docs;

const OPTION: &str = "stead.workflow_role";
const STATUS: &str = "stead.workflow.v1.Status";
const EMPTY: &str = "google.protobuf.Empty";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    Start,
    Signal,
    Query,
}

/// By the full name of the service, the roles of its methods in their order.
pub type Workflows = BTreeMap<String, Vec<Role>>;

/// The services with a method that has a role.
pub fn read(pool: &DescriptorPool) -> Result<Workflows, Error> {
    let Some(option) = pool.get_extension_by_name(OPTION) else { return Ok(Workflows::new()) };
    let mut workflows = Workflows::new();
    for service in pool.services() {
        if let Some(roles) = roles(&service, &option)? {
            workflows.insert(service.full_name().to_owned(), roles);
        }
    }
    Ok(workflows)
}

fn roles(
    service: &ServiceDescriptor,
    option: &ExtensionDescriptor,
) -> Result<Option<Vec<Role>>, Error> {
    let said: Vec<_> = service.methods().map(|method| role(&method, option)).collect();
    if said.iter().all(Option::is_none) {
        return Ok(None);
    }
    let starts = said.iter().filter(|role| **role == Some(Role::Start)).count();
    let mut roles = Vec::with_capacity(said.len());
    for (method, role) in service.methods().zip(said) {
        let fault = |text: &str| Err(Error(format!("{}: {text}", method.full_name())));
        let role = match role {
            Some(role) => role,
            None if starts == 0 && roles.is_empty() => Role::Start,
            None => return fault("a method of a workflow needs a (stead.workflow_role)"),
        };
        if role == Role::Start && roles.contains(&Role::Start) {
            return fault("another method starts the workflow already");
        }
        if method.is_client_streaming() || method.is_server_streaming() {
            return fault("it streams; a method of a workflow takes one message and answers one");
        }
        if role != Role::Query && ![STATUS, EMPTY].contains(&method.output().full_name()) {
            return fault(
                "what starts or signals a workflow answers stead.workflow.v1.Status or \
                          google.protobuf.Empty",
            );
        }
        roles.push(role);
    }
    if !roles.contains(&Role::Start) {
        let name = service.full_name();
        return Err(Error(format!(
            "{name}: no method starts the workflow; the first one has \
                                  another (stead.workflow_role)"
        )));
    }
    Ok(Some(roles))
}

fn role(method: &MethodDescriptor, option: &ExtensionDescriptor) -> Option<Role> {
    let options = method.options();
    match options.get_extension(option).as_enum_number()? {
        1 => Some(Role::Start),
        2 => Some(Role::Signal),
        3 => Some(Role::Query),
        _ => None,
    }
}

pub fn generate(
    service: &Service,
    full_name: &str,
    docs: &str,
    described: &str,
    roles: &[Role],
    buf: &mut String,
) {
    let name = &service.name;
    let methods = || service.methods.iter().zip(roles);
    let Some((started, _)) = methods().find(|entry| *entry.1 == Role::Start) else { return };
    let mut signals = String::new();
    let mut queries = String::new();
    let mut arms = String::new();
    for (method, role) in methods() {
        match role {
            Role::Start => {}
            Role::Signal => signals.push_str(&signal(method)),
            Role::Query if is_status(method) => arms.push_str(&status_arm(method)),
            Role::Query => {
                queries.push_str(&self::docs(&method.comments, "    "));
                queries.push_str(&query(method));
                arms.push_str(&query_arm(method));
            }
        }
    }
    let (start_type, start_name) = (&started.input_type, &started.proto_name);
    let (start_answer, progress) = (answer(started), "::stead_sdk::workflow::Progress");
    let _ = write!(
        buf,
        r#"{docs}#[allow(dead_code)]
pub trait {name}: ::stead_sdk::Workflow<Input = {start_type}> {{
{queries}}}

/// The service `{full_name}`, as the workflow `W` implements it: what `stead_sdk::export!` takes.
#[allow(dead_code, non_snake_case)]
pub fn {name}<W: {name}>() -> ::stead_sdk::workflow::service::Service<W> {{
    #[allow(unused_variables)]
    fn query<W: {name}>(
        progress: &{progress}<<W as ::stead_sdk::Workflow>::Output>,
        method: &str,
        payload: &[u8],
    ) -> ::core::result::Result<::std::vec::Vec<u8>, ::stead_sdk::Rejection> {{
        match method {{
{arms}            other => ::core::result::Result::Err(::stead_sdk::service::unknown_method({full_name:?}, other)),
        }}
    }}
    ::stead_sdk::workflow::service::Service {{
{described}        start: ::stead_sdk::workflow::service::Start {{
            method: {start_name:?},
            answer: {start_answer},
            check: ::stead_sdk::workflow::service::check::<{start_type}>,
        }},
        signals: &[{signals}],
        query: query::<W>,
    }}
}}
"#
    );
}

fn is_status(method: &Method) -> bool {
    method.output_proto_type.trim_start_matches('.') == STATUS
}

fn answer(method: &Method) -> &'static str {
    match is_status(method) {
        true => "::stead_sdk::workflow::service::Answer::Status",
        false => "::stead_sdk::workflow::service::Answer::Empty",
    }
}

fn signal(method: &Method) -> String {
    format!(
        r#"::stead_sdk::workflow::service::Signal {{
            method: {:?},
            request: {:?},
            answer: {},
            check: ::stead_sdk::workflow::service::check::<{}>,
        }}, "#,
        method.proto_name,
        method.input_proto_type.trim_start_matches('.'),
        answer(method),
        method.input_type,
    )
}

fn query(method: &Method) -> String {
    let Method { name, input_type, output_type, .. } = method;
    format!(
        "    fn {name}(progress: &::stead_sdk::workflow::Progress<Self::Output>, request: {input_type}) -> \
         ::core::result::Result<{output_type}, ::stead_sdk::Rejection>;\n"
    )
}

fn query_arm(method: &Method) -> String {
    format!(
        "            {:?} => ::stead_sdk::workflow::service::serve_query(progress, payload, {:?}, W::{}),\n",
        method.proto_name,
        method.input_proto_type.trim_start_matches('.'),
        method.name
    )
}

fn status_arm(method: &Method) -> String {
    format!(
        "            {:?} => ::stead_sdk::workflow::service::serve_query(progress, payload, {:?}, \
         |progress, _: {}| ::core::result::Result::Ok(::core::clone::Clone::clone(&progress.status))),\n",
        method.proto_name,
        method.input_proto_type.trim_start_matches('.'),
        method.input_type
    )
}
