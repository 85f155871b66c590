//! The workflow model: one step after the other.

use std::time::Duration;

use stead_sdk::{Ctx, Rejection, Workflow};

use crate::api::{EventSourcedTwoClient, Flow, FlowModel, Request, Response};

/// Between two tries of a step.
const PAUSE: Duration = Duration::from_millis(50);

pub struct Steps;

impl FlowModel for Steps {}

impl Workflow for Steps {
    type Input = Flow;
    type Output = Response;

    /// What the last step answered.
    async fn run(ctx: Ctx, flow: Flow) -> Result<Response, Rejection> {
        let mut last = Response::default();
        for (number, step) in flow.steps.into_iter().enumerate() {
            let two =
                |actions| EventSourcedTwoClient::call(Request { id: step.id.clone(), actions });
            last = ctx
                .step(&format!("step {number}"), two(step.actions))
                .retries(step.retries, PAUSE)
                .compensate(two(step.undo))
                .await?;
            if step.crash {
                panic!("as told");
            }
        }
        Ok(last)
    }
}
