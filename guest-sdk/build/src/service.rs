//! The code for a protobuf service: the trait that an entity or an action implements, the table that
//! leads from a method's name to the trait's method, and the client that makes calls. What implements a
//! workflow is made elsewhere.

use std::fmt::Write;

use prost_build::{Comments, Method, Service, ServiceGenerator};

use crate::workflow::{self, Workflows};

pub struct Generator {
    /// The deflated file descriptor set, beside the generated code.
    pub descriptor_file: String,
    pub workflows: Workflows,
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        let docs = docs(&service.comments, "");
        match self.workflows.get(&full_name) {
            Some(roles) => {
                let described = self.fields(&full_name);
                workflow::generate(&service, &full_name, &docs, &described, roles, buf);
            }
            None => {
                self.entity(&service, &full_name, &docs, buf);
                self.described(&service, &full_name, buf);
            }
        }
        client(&service, &full_name, buf);
    }
}

impl Generator {
    fn entity(&self, service: &Service, full_name: &str, docs: &str, buf: &mut String) {
        let name = &service.name;
        let mut methods = String::new();
        let mut arms = String::new();
        for method in &service.methods {
            methods.push_str(&self::docs(&method.comments, "    "));
            methods.push_str(&signature(method));
            arms.push_str(&arm(method));
        }
        let described = self.fields(full_name);
        let _ = write!(
            buf,
            r#"{docs}#[allow(dead_code)]
pub trait {name}: Sized + 'static {{
{methods}}}

/// The service `{full_name}`, as `E` implements it: what `stead_sdk::export!` takes.
#[allow(dead_code, non_snake_case)]
pub fn {name}<E: {name}>() -> ::stead_sdk::service::Service<E> {{
    #[allow(unused_variables)]
    fn dispatch<E: {name}>(
        state: &E,
        ctx: &mut ::stead_sdk::Context<E>,
        method: &str,
        payload: &[u8],
    ) -> ::stead_sdk::Outcome<E, ::std::vec::Vec<u8>> {{
        match method {{
{arms}            other => ::core::result::Result::Err(::stead_sdk::service::unknown_method({full_name:?}, other)),
        }}
    }}
    ::stead_sdk::service::Service {{
{described}        dispatch: dispatch::<E>,
    }}
}}
"#
        );
    }

    fn described(&self, service: &Service, full_name: &str, buf: &mut String) {
        let name = &service.name;
        let described = self.fields(full_name);
        let _ = write!(
            buf,
            r#"
/// The service `{full_name}` of a view: what `stead_sdk::export!` takes.
#[allow(dead_code, non_snake_case)]
pub fn {name}Rows() -> ::stead_sdk::service::Rows {{
    ::stead_sdk::service::Rows {{
{described}    }}
}}
"#
        );
    }

    fn fields(&self, full_name: &str) -> String {
        let descriptor_file = &self.descriptor_file;
        format!(
            r#"        name: {full_name:?},
        descriptors: include_bytes!(concat!(env!("OUT_DIR"), "/", {descriptor_file:?})),
"#
        )
    }
}

fn signature(method: &Method) -> String {
    let Method { name, input_type, output_type, .. } = method;
    let request = match method.client_streaming {
        true => format!("requests: ::stead_sdk::Requests<{input_type}>"),
        false => format!("command: {input_type}"),
    };
    let (responses, result) = match method.server_streaming {
        true => (
            format!(", responses: ::stead_sdk::Responses<{output_type}>"),
            "::core::result::Result<(), ::stead_sdk::Rejection>".to_owned(),
        ),
        false => (String::new(), format!("::stead_sdk::Outcome<Self, {output_type}>")),
    };
    format!(
        "    fn {name}(&self, ctx: &mut ::stead_sdk::Context<Self>, {request}{responses}) -> {result};\n"
    )
}

fn arm(method: &Method) -> String {
    let (serve, payload) = match (method.client_streaming, method.server_streaming) {
        (false, false) => ("serve", "payload, "),
        (true, false) => ("serve_streamed_in", ""),
        (false, true) => ("serve_streamed_out", "payload, "),
        (true, true) => ("serve_streamed", ""),
    };
    format!(
        "            {:?} => ::stead_sdk::service::{serve}(state, ctx, {payload}{:?}, E::{}),\n",
        method.proto_name,
        method.input_proto_type.trim_start_matches('.'),
        method.name
    )
}

/// Calls of the service, wherever in the deployment it is served. What streams cannot be called.
fn client(service: &Service, full_name: &str, buf: &mut String) {
    let name = &service.name;
    let mut methods = String::new();
    let unary = |method: &&Method| !method.client_streaming && !method.server_streaming;
    for method in service.methods.iter().filter(unary) {
        let Method { name, proto_name, input_type, output_type, .. } = method;
        methods.push_str(&docs(&method.comments, "    "));
        let _ = write!(
            methods,
            r#"    pub fn {name}(request: {input_type}) -> ::stead_sdk::Call<{output_type}> {{
        ::stead_sdk::Call::new({full_name:?}, {proto_name:?}, &request)
    }}
"#
        );
    }
    let _ = write!(
        buf,
        r#"
/// Calls of the service `{full_name}`: to forward to, as effects, for timers.
#[allow(dead_code)]
pub struct {name}Client;

#[allow(dead_code)]
impl {name}Client {{
{methods}}}
"#
    );
}

pub fn docs(comments: &Comments, indent: &str) -> String {
    let mut text = String::new();
    for line in &comments.leading {
        let _ = writeln!(text, "{indent}///{}", escape(line));
    }
    text
}

/// Comments in a .proto are not Rust documentation: nothing in them shall become a link or a test.
fn escape(line: &str) -> String {
    let mut text = String::with_capacity(line.len() + 1);
    if !line.starts_with(' ') && !line.is_empty() {
        text.push(' ');
    }
    for character in line.chars() {
        if matches!(character, '[' | ']' | '<' | '>' | '`') {
            text.push('\\');
        }
        text.push(character);
    }
    text.trim_end().to_owned()
}
