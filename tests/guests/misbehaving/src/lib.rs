//! A guest that breaks every rule on request. It stands on the WIT contract alone, without the SDK,
//! so that nothing keeps it from answering nonsense.

mod deeds;
mod description;

mod proto {
    include!(concat!(env!("OUT_DIR"), "/misbehaving.v1.rs"));
}

mod bindings {
    wit_bindgen::generate!({ path: "../../../wit", world: "function" });
}

use std::cell::RefCell;

use bindings::exports::stead::function::{discovery, entity};
use bindings::stead::function::types::{Command, Description, Message, Outcome, Rejection};
use prost::{Message as _, Name};
use proto::{Count, Happened, Request};

struct Guest;

impl discovery::Guest for Guest {
    fn describe() -> Description {
        description::describe()
    }
}

impl entity::Guest for Guest {
    type Instance = Instance;
}

/// What events may do to an entity for good.
#[derive(Default)]
struct State {
    count: u64,
    /// Nothing may hide the poison from a replay: there are no more snapshots.
    poisoned: bool,
    snapshot_traps: bool,
    snapshot_bytes: usize,
}

#[derive(Default)]
struct Instance {
    state: RefCell<State>,
}

impl entity::GuestInstance for Instance {
    fn new(_entity_type: String, _entity_id: String) -> Self {
        if cfg!(feature = "constructor-traps") {
            panic!("as asked");
        }
        Self::default()
    }

    fn restore(&self, state: Message) -> Result<(), String> {
        let count = Count::decode(&*state.data).map_err(|error| error.to_string())?.count;
        self.state.borrow_mut().count = count;
        Ok(())
    }

    fn apply(&self, events: Vec<Message>) -> Result<(), String> {
        for event in events {
            if event.type_name != Happened::full_name() {
                return Err(format!("there is no event {}", event.type_name));
            }
            let event = Happened::decode(&*event.data).map_err(|error| error.to_string())?;
            if event.what == "poison" {
                panic!("poisoned");
            }
            self.state.borrow_mut().happened(&event.what);
        }
        Ok(())
    }

    fn handle(&self, command: Command) -> Result<Outcome, Rejection> {
        let request = Request::decode(&*command.payload).unwrap_or_default();
        deeds::run(&mut self.state.borrow_mut(), &request)
    }

    fn snapshot(&self) -> Option<Message> {
        let state = self.state.borrow();
        if state.snapshot_traps {
            panic!("as asked");
        }
        if state.poisoned {
            return None;
        }
        let mut data = Count { count: state.count }.encode_to_vec();
        data.resize(data.len() + state.snapshot_bytes, 0xff);
        Some(Message { type_name: Count::full_name(), data })
    }
}

impl State {
    fn happened(&mut self, what: &str) {
        self.count += 1;
        match what {
            "poison" => self.poisoned = true,
            "snapshot-trap" => self.snapshot_traps = true,
            "huge-snapshot" => self.snapshot_bytes = 20 * 1024 * 1024,
            _ => {}
        }
    }
}

bindings::export!(Guest with_types_in bindings);
