//! The code for a protobuf service: the trait that an entity implements, and the table that leads
//! from a method's name to the trait's method.

use std::fmt::Write;

use prost_build::{Comments, Service, ServiceGenerator};
use prost_types::FileDescriptorSet;

use crate::Error;

pub struct Generator {
    /// The deflated file descriptor set, beside the generated code.
    pub descriptor_file: String,
}

/// Refuses what no entity can serve.
pub fn check(descriptors: &FileDescriptorSet) -> Result<(), Error> {
    for file in &descriptors.file {
        for service in &file.service {
            for method in &service.method {
                if method.client_streaming() || method.server_streaming() {
                    return Err(Error(format!(
                        "{}: {}.{} streams; a method of an entity takes one message and answers one",
                        file.name(),
                        service.name(),
                        method.name()
                    )));
                }
            }
        }
    }
    Ok(())
}

impl ServiceGenerator for Generator {
    fn generate(&mut self, service: Service, buf: &mut String) {
        let name = &service.name;
        let full_name = match service.package.as_str() {
            "" => service.proto_name.clone(),
            package => format!("{package}.{}", service.proto_name),
        };
        let mut methods = String::new();
        let mut arms = String::new();
        for method in &service.methods {
            methods.push_str(&docs(&method.comments, "    "));
            let _ = writeln!(
                methods,
                "    fn {}(&self, ctx: &mut ::stead_sdk::Context<Self>, command: {}) -> ::stead_sdk::Outcome<Self, {}>;",
                method.name, method.input_type, method.output_type
            );
            let _ = writeln!(
                arms,
                "            {:?} => ::stead_sdk::service::serve(state, ctx, payload, {:?}, E::{}),",
                method.proto_name,
                method.input_proto_type.trim_start_matches('.'),
                method.name
            );
        }
        let docs = docs(&service.comments, "");
        let descriptor_file = &self.descriptor_file;
        let _ = write!(
            buf,
            r#"{docs}pub trait {name}: ::stead_sdk::EventSourced {{
{methods}}}

/// The service `{full_name}`, as `E` implements it: what `stead_sdk::export!` takes.
#[allow(non_snake_case)]
pub fn {name}<E: {name}>() -> ::stead_sdk::service::Service<E> {{
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
        name: {full_name:?},
        descriptors: include_bytes!(concat!(env!("OUT_DIR"), "/", {descriptor_file:?})),
        dispatch: dispatch::<E>,
    }}
}}
"#
        );
    }
}

fn docs(comments: &Comments, indent: &str) -> String {
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
