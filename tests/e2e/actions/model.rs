//! The model action, called over gRPC.

use std::time::{Duration, Instant};

use futures_util::StreamExt;
use stead_tests::Host;
use stead_tests::model::EVENT_SOURCED;
use stead_tests::tck::action_model_client::ActionModelClient;
use stead_tests::tck::process_step::Step;
use stead_tests::tck::{
    ActionCall, ActionCrash, ActionEffect, ActionFail, ActionForward, ActionReply, ActionRequest,
    ActionResponse, ActionSpin, ProcessGroup, ProcessStep,
};
use tonic::transport::Channel;
use tonic::{Code, Status, Streaming};

pub use stead_tests::model::EVERY_KIND as GUEST;

/// Where it can be seen that ActionTwo was called.
const SEEN_IN: &str = EVENT_SOURCED.two;
const SOON: Duration = Duration::from_secs(20);

pub struct Model {
    pub host: Host,
    pub client: ActionModelClient<Channel>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    Unary,
    StreamedIn,
    StreamedOut,
    Streamed,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer {
    Reply,
    None,
    Forward,
    Failure,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effects {
    None,
    One,
    Synchronous,
    Several,
}

pub fn reply(message: &str) -> Step {
    Step::Reply(ActionReply { message: message.into() })
}

pub fn fail(message: &str) -> Step {
    Step::Fail(ActionFail { message: message.into() })
}

pub fn crash() -> Step {
    Step::Crash(ActionCrash {})
}

/// Takes the guest a while.
pub fn spin(rounds: u64) -> Step {
    Step::Spin(ActionSpin { rounds })
}

pub fn call(id: &str, value: &str) -> Step {
    Step::Call(ActionCall { id: id.into(), value: value.into() })
}

fn effect(id: &str, synchronous: bool) -> Step {
    Step::Effect(ActionEffect { id: id.into(), synchronous })
}

/// A request of one group.
pub fn one(steps: Vec<Step>) -> ActionRequest {
    ActionRequest { groups: vec![group(steps)] }
}

pub fn group(steps: Vec<Step>) -> ProcessGroup {
    let step = |step| ProcessStep { step: Some(step) };
    ProcessGroup { steps: steps.into_iter().map(step).collect() }
}

impl Model {
    pub async fn start() -> Self {
        let host = Host::with_guest(GUEST).await;
        let channel = Channel::from_shared(host.services.base().to_owned()).expect("an address");
        let client = ActionModelClient::new(channel.connect().await.expect("connects"));
        Self { host, client }
    }

    /// The messages that came, and how the call failed if it did.
    pub async fn process(
        &self,
        shape: Shape,
        mut requests: Vec<ActionRequest>,
    ) -> (Vec<String>, Option<Status>) {
        let mut client = self.client.clone();
        let single = |answer: Result<tonic::Response<ActionResponse>, Status>| match answer {
            Ok(response) => (vec![response.into_inner().message], None),
            Err(status) => (Vec::new(), Some(status)),
        };
        let streamed = match shape {
            Shape::Unary => return single(client.process_unary(requests.remove(0)).await),
            Shape::StreamedIn => {
                let requests = futures_util::stream::iter(requests);
                return single(client.process_streamed_in(requests).await);
            }
            Shape::StreamedOut => client.process_streamed_out(requests.remove(0)).await,
            Shape::Streamed => client.process_streamed(futures_util::stream::iter(requests)).await,
        };
        match streamed {
            Ok(response) => collect(response.into_inner()).await,
            Err(status) => (Vec::new(), Some(status)),
        }
    }

    /// One row of the list.
    pub async fn check(&self, shape: Shape, answer: Answer, effects: Effects) {
        let waited_for = effects != Effects::One;
        let ids: &[&str] = match effects {
            Effects::None => &[],
            Effects::One | Effects::Synchronous => &["a"],
            Effects::Several => &["a", "b", "c"],
        };
        let mut steps: Vec<_> = ids.iter().map(|id| effect(id, waited_for)).collect();
        match answer {
            Answer::Reply => steps.push(reply("one")),
            Answer::None => {}
            Answer::Forward => steps.push(Step::Forward(ActionForward { id: "f".into() })),
            Answer::Failure => steps.push(fail("as told")),
        }
        let mut requests = vec![one(steps)];
        let streams_out = matches!(shape, Shape::StreamedOut | Shape::Streamed);
        if answer == Answer::Reply {
            // Something follows, which replaces the reply if there is only one.
            match shape {
                Shape::Unary => {}
                Shape::StreamedIn | Shape::Streamed => requests.push(one(vec![reply("two")])),
                Shape::StreamedOut => requests[0].groups.push(group(vec![reply("two")])),
            }
        }
        let (replies, status) = self.process(shape, requests).await;

        match answer {
            Answer::Failure => {
                let status = status.expect("a failure");
                assert_eq!(status.code(), Code::FailedPrecondition, "{status}");
                assert_eq!(status.message(), "as told");
                assert!(replies.is_empty(), "{replies:?}");
            }
            Answer::Reply | Answer::None | Answer::Forward => {
                assert!(status.is_none(), "{status:?}");
                let wanted: &[&str] = match (answer, shape) {
                    (Answer::Reply, Shape::Unary) => &["one"],
                    (Answer::Reply, Shape::StreamedIn) => &["two"],
                    (Answer::Reply, _) => &["one", "two"],
                    (Answer::None, _) if streams_out => &[],
                    // The reply of ActionTwo is empty, as none is.
                    (Answer::None | Answer::Forward | Answer::Failure, _) => &[""],
                };
                assert_eq!(replies, wanted);
            }
        }
        let mut seen: Vec<&str> = ids.to_vec();
        if answer == Answer::Forward {
            seen.push("f");
        }
        for id in seen {
            let events = match waited_for {
                true => self.calls_of_two(id).await,
                false => self.a_call_of_two(id).await,
            };
            assert_eq!(events, ["ActionTwo"], "{id}");
        }
    }

    /// What ActionTwo left with an id.
    async fn calls_of_two(&self, id: &str) -> Vec<String> {
        let events = self.host.events(SEEN_IN, id).await;
        events.iter().map(|e| e["json"]["value"].as_str().expect("a value").to_owned()).collect()
    }

    /// The same, once there is something.
    async fn a_call_of_two(&self, id: &str) -> Vec<String> {
        let start = Instant::now();
        loop {
            let events = self.calls_of_two(id).await;
            if !events.is_empty() {
                return events;
            }
            assert!(start.elapsed() < SOON, "no effect reached {id}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Waits until a metric has a value.
    pub async fn until(&self, metric: &str, is_wanted: impl Fn(f64) -> bool) -> f64 {
        let start = Instant::now();
        loop {
            let value = self.host.metric(metric).await;
            if is_wanted(value) {
                return value;
            }
            assert!(start.elapsed() < SOON, "{metric} is {value}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }
}

/// To the end of a stream.
pub async fn collect(mut stream: Streaming<ActionResponse>) -> (Vec<String>, Option<Status>) {
    let mut replies = Vec::new();
    while let Some(next) = stream.next().await {
        match next {
            Ok(response) => replies.push(response.message),
            Err(status) => return (replies, Some(status)),
        }
    }
    (replies, None)
}
