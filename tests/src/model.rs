//! The model entities of `examples/tck-model`, which do what a command says, over HTTP/JSON.

use serde_json::{Value, json};

use crate::client::Answer;
use crate::eventually::becomes;
use crate::host::{Host, Options};

/// The guest with models of every kind.
pub const EVERY_KIND: &str = "tck-every-kind";

/// A kind of entity with models.
#[derive(Clone, Copy, Debug)]
pub struct Kind {
    pub guest: &'static str,
    /// Does what it is told.
    pub model: &'static str,
    /// Receives forwards and effects, and does what these tell it.
    pub two: &'static str,
    /// Is passivated after 100 ms.
    pub configured: &'static str,
    /// The action that changes the state.
    change: &'static str,
    /// Changes add up, instead of replacing each other.
    adds_up: bool,
}

pub const EVENT_SOURCED: Kind = Kind {
    guest: "tck-model",
    model: "stead.tck.v1.EventSourcedModel",
    two: "stead.tck.v1.EventSourcedTwo",
    configured: "stead.tck.v1.EventSourcedConfigured",
    change: "emit",
    adds_up: true,
};

pub const VALUE: Kind = Kind {
    guest: EVERY_KIND,
    model: "stead.tck.v1.ValueEntityModel",
    two: "stead.tck.v1.ValueEntityTwo",
    configured: "stead.tck.v1.ValueEntityConfigured",
    change: "update",
    adds_up: false,
};

/// Event-sourced entities beside models of every kind.
pub const BESIDE_EVERY_KIND: Kind = Kind { guest: EVERY_KIND, ..EVENT_SOURCED };

impl Kind {
    /// Emits an event or updates the state.
    pub fn change(&self, value: &str) -> Value {
        json!({(self.change): {"value": value}})
    }

    /// The state after these changes.
    pub fn after(&self, changes: &[&str]) -> String {
        match self.adds_up {
            true => changes.concat(),
            false => changes.last().copied().unwrap_or_default().to_owned(),
        }
    }
}

pub fn emit(value: &str) -> Value {
    EVENT_SOURCED.change(value)
}

pub fn update(value: &str) -> Value {
    VALUE.change(value)
}

pub fn delete() -> Value {
    json!({"delete": {}})
}

pub fn fail(message: &str) -> Value {
    json!({"fail": {"message": message}})
}

/// Traps.
pub fn crash() -> Value {
    crash_unless("")
}

/// Traps, unless the state contains this.
pub fn crash_unless(text: &str) -> Value {
    json!({"crash": {"unless": text}})
}

/// The second service answers, after it has done this.
pub fn forward(id: &str, actions: &[Value]) -> Value {
    json!({"forward": {"id": id, "actions": actions}})
}

/// The second service is told to do this.
pub fn effect(id: &str, actions: &[Value]) -> Value {
    json!({"effect": {"id": id, "actions": actions}})
}

/// An effect that the answer waits for.
pub fn synchronous(id: &str, actions: &[Value]) -> Value {
    json!({"effect": {"id": id, "actions": actions, "synchronous": true}})
}

/// The same forward or effect by way of an action.
pub fn through_an_action(mut action: Value) -> Value {
    for call in action.as_object_mut().expect("an action").values_mut() {
        call["throughAnAction"] = json!(true);
    }
    action
}

/// A host with the models of a kind.
pub struct Model {
    pub host: Host,
    pub kind: Kind,
}

impl Model {
    pub async fn start(kind: Kind) -> Self {
        Self { host: Host::with_guest(kind.guest).await, kind }
    }

    pub async fn with(options: Options, kind: Kind) -> Self {
        let host = options.start().await;
        host.deploy(kind.guest).await;
        Self { host, kind }
    }

    pub async fn kill_and_restart(self) -> Self {
        Self { host: self.host.kill_and_restart().await, kind: self.kind }
    }

    pub async fn process(&self, id: &str, actions: &[Value]) -> Answer {
        let request = json!({"id": id, "actions": actions});
        self.host.services.post(&format!("/{}/Process", self.kind.model), &request).await
    }

    /// What the command answers: the state after it, if it is not forwarded.
    pub async fn state(&self, id: &str, actions: &[Value]) -> String {
        message(self.process(id, actions).await)
    }

    /// The state of an entity of the second service.
    pub async fn two(&self, id: &str) -> String {
        self.tell_two(id, &[]).await
    }

    pub async fn tell_two(&self, id: &str, actions: &[Value]) -> String {
        let path = format!("/{}/Call", self.kind.two);
        let request = json!({"id": id, "actions": actions});
        message(self.host.services.post(&path, &request).await)
    }

    /// Once an effect has come.
    pub async fn two_becomes(&self, id: &str, wanted: &str) {
        let what = format!("the state of {id}");
        becomes(&what, wanted.to_owned(), async || self.two(id).await).await;
    }

    /// What the journal of an entity holds: values of events or states, `None` where a state was deleted.
    pub async fn stored(&self, id: &str) -> Vec<Option<String>> {
        self.journal(self.kind.model, id).await
    }

    pub async fn stored_by_two(&self, id: &str) -> Vec<Option<String>> {
        self.journal(self.kind.two, id).await
    }

    async fn journal(&self, service: &str, id: &str) -> Vec<Option<String>> {
        let events = self.host.events(service, id).await;
        events.iter().map(|event| Some(event["json"]["value"].as_str()?.to_owned())).collect()
    }
}

#[track_caller]
fn message(answer: Answer) -> String {
    answer.ok()["message"].as_str().expect("a message").to_owned()
}

/// What is expected of [`Model::stored`] where nothing was deleted.
pub fn values(values: &[&str]) -> Vec<Option<String>> {
    values.iter().map(|value| Some((*value).to_owned())).collect()
}
