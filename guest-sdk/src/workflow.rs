//! Workflows: durable steps, written as straight code.
//!
//! The code runs until it waits, for a step, a time or a signal. What happened is stored as events, and
//! an instance that was lost gets to where it was by running the code again with what is stored. So the
//! code MUST ask for the same in the same order whenever it is given the same: the time, chance and
//! what others say come through [`Ctx`] alone, and neither from statics nor from a map without order.
//! Where it asks for another step than was stored, after a change of the code say, the workflow cannot
//! be activated, and says which step it is.
//!
//! A workflow has at most 10,000 events, of which a step takes two and each further attempt two more.
//! Beyond that it fails with RESOURCE_EXHAUSTED and is compensated. There are no snapshots.

mod ctx;
mod engine;
mod history;
mod live;
mod run;

pub mod service;

use std::future::Future;

use prost::{Message, Name};

use crate::rejection::Rejection;

pub use ctx::{Ctx, SignalWait, SignalWithin, Sleep, Step};
pub(crate) use live::Live;
#[cfg(not(target_arch = "wasm32"))]
pub(crate) use live::RESULT;

/// What is stored of a workflow, and [`Status`](v1::Status), what it says of itself.
pub mod v1 {
    include!(concat!(env!("OUT_DIR"), "/stead.workflow.v1.rs"));
}

/// A workflow: code that runs once for each entity of its service, however often the host restarts.
pub trait Workflow: 'static {
    /// The request of the method that starts it.
    type Input: Message + Default;

    /// What it results in, for its status.
    type Output: Name + Default;

    /// All of it. When it returns an error, the compensations of its steps are called, the newest first,
    /// each until it succeeds.
    fn run(
        ctx: Ctx,
        input: Self::Input,
    ) -> impl Future<Output = Result<Self::Output, Rejection>> + 'static;
}

/// How a workflow is, for its queries.
pub struct Progress<O> {
    pub status: v1::Status,
    /// Of a completed workflow: what its code returned.
    pub result: Option<O>,
}

/// The most events of a workflow.
const EVENTS_MAX: u32 = 10_000;

/// The most signals that nobody has waited for yet.
const SIGNALS_KEPT_MAX: usize = 1_000;

#[cfg(test)]
mod tests;
