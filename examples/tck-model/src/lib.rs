//! The models of the compatibility tests: a command says what to do.

#![cfg_attr(not(feature = "every-kind"), allow(dead_code, unused_imports))]

mod action;
mod event_sourced;
mod reader;
mod value;
mod workflow;

mod api {
    stead_sdk::include_proto!("stead.tck.v1");
}

use action::{Acting, Other, Passing};
use api::{ActionModel, ActionTwo, EventConsumer, FlowModel, ModelViewRows, Relay};
use api::{EventSourcedConfigured, EventSourcedModel, EventSourcedTwo};
use api::{ValueEntityConfigured, ValueEntityModel, ValueEntityTwo};
use event_sourced::Model;
use reader::{Consumer, Rows};
use value::Text;
use workflow::Steps;

#[cfg(not(feature = "every-kind"))]
stead_sdk::export! {
    Model: EventSourcedModel, journal = "tck-model", snapshot_every = 5;
    Model: EventSourcedTwo, journal = "tck-two";
    Model: EventSourcedConfigured, journal = "tck-configured", passivate_after_ms = 100;
}

#[cfg(feature = "every-kind")]
stead_sdk::export! {
    Model: EventSourcedModel, journal = "tck-model", snapshot_every = 5;
    Model: EventSourcedTwo, journal = "tck-two";
    Model: EventSourcedConfigured, journal = "tck-configured", passivate_after_ms = 100;
    value Text: ValueEntityModel, journal = "tck-value-model", history = 3;
    value Text: ValueEntityTwo, journal = "tck-value-two";
    value Text: ValueEntityConfigured, journal = "tck-value-configured", passivate_after_ms = 100;
    action Acting: ActionModel;
    action Other: ActionTwo;
    action Passing: Relay;
    workflow Steps: FlowModel, journal = "tck-flow";
    action Consumer: EventConsumer;
    view Rows: ModelViewRows, source = "tck-model", version = reader::VERSION;
}
