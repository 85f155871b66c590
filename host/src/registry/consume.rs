//! Which methods consume an event log, and from where: the option `(stead.consume)`, and Cloudstate's
//! `(cloudstate.eventing)` with an `event_log`.

use prost::Message;
use prost_reflect::MethodDescriptor;

use crate::registry::wire;
use crate::words::limits::{GROUP_NAME_BYTES_MAX, JOURNAL_NAME_BYTES_MAX};

/// `(stead.consume)`
const CONSUME_OPTION: u32 = 50802;
/// `(cloudstate.eventing)`
const EVENTING_OPTION: u32 = 1081;
/// A method with this request takes events of every type.
const ANY: &str = "google.protobuf.Any";

/// What a method consumes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Consume {
    /// The journal name of the entity type whose events these are.
    pub event_log: String,
    pub group: String,
    pub start: Start,
    /// The type of the events that the method takes; none takes all, packed in an `Any`.
    pub event_type: Option<String>,
}

/// Where a group begins that has never consumed anything.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Start {
    #[default]
    Beginning,
    Now,
}

#[derive(Clone, PartialEq, Message)]
struct ConsumeOption {
    #[prost(string, tag = "1")]
    event_log: String,
    #[prost(string, tag = "2")]
    group: String,
    #[prost(int32, tag = "3")]
    from: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Eventing {
    #[prost(message, optional, tag = "1")]
    input: Option<EventSource>,
}

#[derive(Clone, PartialEq, Message)]
struct EventSource {
    #[prost(string, tag = "1")]
    consumer_group: String,
    #[prost(string, tag = "2")]
    topic: String,
    #[prost(string, tag = "3")]
    event_log: String,
}

impl Consume {
    /// The name under which the group's places are stored: a log has its own groups.
    pub fn group_of_log(&self) -> String {
        format!("{}/{}", self.event_log, self.group)
    }

    /// None if the method consumes nothing. Faults are sentences for the author of the service, without
    /// the method's name.
    pub fn of(method: &MethodDescriptor) -> Result<Option<Self>, Vec<String>> {
        let Some(option) = read(method)? else { return Ok(None) };
        let mut faults = Vec::new();
        let name = |what: &str, name: &str, max: usize, faults: &mut Vec<String>| {
            let may_be = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
            if !(1..=max).contains(&name.len()) || !name.bytes().all(may_be) {
                faults.push(format!(
                    "(stead.consume).{what} is {name:?}; it must be 1 to {max} characters of A-Za-z0-9._-"
                ));
            }
        };
        name("event_log", &option.event_log, JOURNAL_NAME_BYTES_MAX, &mut faults);
        name("group", &option.group, GROUP_NAME_BYTES_MAX, &mut faults);
        if method.is_client_streaming() || method.is_server_streaming() {
            faults.push("it consumes an event log, and must be unary for that".to_owned());
        }
        let start = match option.from {
            0 => Start::Beginning,
            1 => Start::Now,
            other => {
                faults
                    .push(format!("(stead.consume).from is {other}; it must be BEGINNING or NOW"));
                Start::Beginning
            }
        };
        if !faults.is_empty() {
            return Err(faults);
        }
        let request = method.input().full_name().to_owned();
        let event_type = (request != ANY).then_some(request);
        Ok(Some(Self { event_log: option.event_log, group: option.group, start, event_type }))
    }
}

fn read(method: &MethodDescriptor) -> Result<Option<ConsumeOption>, Vec<String>> {
    let options = method.options().encode_to_vec();
    let mut found: Option<ConsumeOption> = None;
    for option in wire::fields(&options).flatten() {
        let wire::Value::Bytes(bytes) = option.value else { continue };
        match option.number {
            CONSUME_OPTION => found
                .get_or_insert_with(ConsumeOption::default)
                .merge(bytes)
                .map_err(|error| vec![format!("its (stead.consume) cannot be read: {error}")])?,
            EVENTING_OPTION => {
                let eventing = Eventing::decode(bytes).map_err(|error| {
                    vec![format!("its (cloudstate.eventing) cannot be read: {error}")]
                })?;
                let Some(input) = eventing.input else { continue };
                if input.event_log.is_empty() {
                    return Err(vec![format!(
                        "(cloudstate.eventing) names the topic {:?}; this host consumes event logs only",
                        input.topic
                    )]);
                }
                found = Some(ConsumeOption {
                    event_log: input.event_log,
                    group: input.consumer_group,
                    from: 0,
                });
            }
            _ => {}
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::registry::{descriptor, testing};

    fn consume(source: &'static str) -> Result<Option<Consume>, Vec<String>> {
        let pool = descriptor::read(&testing::compile(source)).expect("valid");
        let service = pool.services().next().expect("a service");
        Consume::of(&service.methods().next().expect("a method"))
    }

    #[test]
    fn a_method_without_the_option_consumes_nothing() {
        let source = r#"syntax = "proto3"; message E {} message R {}
            service S { rpc On(E) returns (R); }"#;
        assert_eq!(consume(source), Ok(None));
    }

    #[test]
    fn cloudstates_option_names_log_and_group() {
        let source = r#"syntax = "proto3"; import "cloudstate/eventing.proto"; package t;
            message E {} message R {}
            service S { rpc On(E) returns (R) {
                option (cloudstate.eventing).in = { event_log: "cart", consumer_group: "hot" };
            } }"#;
        let expected = Consume {
            event_log: "cart".into(),
            group: "hot".into(),
            start: Start::Beginning,
            event_type: Some("t.E".into()),
        };
        assert_eq!(consume(source), Ok(Some(expected)));
    }

    #[test]
    fn topics_and_streams_and_bad_names_are_refused() {
        let topic = r#"syntax = "proto3"; import "cloudstate/eventing.proto"; message E {} message R {}
            service S { rpc On(E) returns (R) {
                option (cloudstate.eventing).in = { topic: "t", consumer_group: "hot" };
            } }"#;
        assert!(consume(topic).expect_err("refused")[0].contains("event logs only"));
        let stream = r#"syntax = "proto3"; import "cloudstate/eventing.proto"; message E {} message R {}
            service S { rpc On(stream E) returns (R) {
                option (cloudstate.eventing).in = { event_log: "a b", consumer_group: "" };
            } }"#;
        let faults = consume(stream).expect_err("refused");
        assert_eq!(faults.len(), 3, "{faults:?}");
    }
}
