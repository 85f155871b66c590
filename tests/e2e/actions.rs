//! The A rows of the acceptance list that Cloudstate's TCK left us, one test a row: each shape of a
//! method with each answer and each way to have effects, against the model action. And what happens to
//! streams when one side is slow, or goes away.

mod fraud;
mod http;
mod model;
mod outside;
mod streams;

use model::{Answer, Effects, Model, Shape};

/// Effects of a row: their ids, and whether the caller's answer waits for them.
macro_rules! rows {
    ($($name:ident: $shape:ident $answer:ident $effects:ident;)*) => {
        $(
            #[tokio::test]
            async fn $name() {
                Model::start().await.check(Shape::$shape, Answer::$answer, Effects::$effects).await;
            }
        )*
    };
}

rows! {
    unary_reply: Unary Reply None;
    unary_reply_with_an_effect: Unary Reply One;
    unary_reply_with_a_synchronous_effect: Unary Reply Synchronous;
    unary_reply_with_several_effects: Unary Reply Several;
    unary_none: Unary None None;
    unary_none_with_an_effect: Unary None One;
    unary_none_with_a_synchronous_effect: Unary None Synchronous;
    unary_none_with_several_effects: Unary None Several;
    unary_forward: Unary Forward None;
    unary_forward_with_an_effect: Unary Forward One;
    unary_forward_with_a_synchronous_effect: Unary Forward Synchronous;
    unary_forward_with_several_effects: Unary Forward Several;
    unary_failure: Unary Failure None;
    unary_failure_with_an_effect: Unary Failure One;
    unary_failure_with_a_synchronous_effect: Unary Failure Synchronous;
    unary_failure_with_several_effects: Unary Failure Several;

    streamed_in_reply: StreamedIn Reply None;
    streamed_in_reply_with_an_effect: StreamedIn Reply One;
    streamed_in_reply_with_a_synchronous_effect: StreamedIn Reply Synchronous;
    streamed_in_reply_with_several_effects: StreamedIn Reply Several;
    streamed_in_none: StreamedIn None None;
    streamed_in_none_with_an_effect: StreamedIn None One;
    streamed_in_none_with_a_synchronous_effect: StreamedIn None Synchronous;
    streamed_in_none_with_several_effects: StreamedIn None Several;
    streamed_in_forward: StreamedIn Forward None;
    streamed_in_forward_with_an_effect: StreamedIn Forward One;
    streamed_in_forward_with_a_synchronous_effect: StreamedIn Forward Synchronous;
    streamed_in_forward_with_several_effects: StreamedIn Forward Several;
    streamed_in_failure: StreamedIn Failure None;
    streamed_in_failure_with_an_effect: StreamedIn Failure One;
    streamed_in_failure_with_a_synchronous_effect: StreamedIn Failure Synchronous;
    streamed_in_failure_with_several_effects: StreamedIn Failure Several;

    streamed_out_replies: StreamedOut Reply None;
    streamed_out_replies_with_an_effect: StreamedOut Reply One;
    streamed_out_replies_with_a_synchronous_effect: StreamedOut Reply Synchronous;
    streamed_out_replies_with_several_effects: StreamedOut Reply Several;
    streamed_out_none: StreamedOut None None;
    streamed_out_none_with_several_effects: StreamedOut None Several;
    streamed_out_forwards: StreamedOut Forward None;
    streamed_out_forwards_with_several_effects: StreamedOut Forward Several;
    streamed_out_failures: StreamedOut Failure None;
    streamed_out_failures_with_several_effects: StreamedOut Failure Several;

    streamed_replies: Streamed Reply None;
    streamed_replies_with_an_effect: Streamed Reply One;
    streamed_replies_with_a_synchronous_effect: Streamed Reply Synchronous;
    streamed_replies_with_several_effects: Streamed Reply Several;
    streamed_none: Streamed None None;
    streamed_none_with_several_effects: Streamed None Several;
    streamed_forwards: Streamed Forward None;
    streamed_forwards_with_several_effects: Streamed Forward Several;
    streamed_failures: Streamed Failure None;
    streamed_failures_with_several_effects: Streamed Failure Several;
}

#[tokio::test]
async fn streamed_in_with_no_request_at_all() {
    let model = Model::start().await;
    let (replies, status) = model.process(Shape::StreamedIn, Vec::new()).await;
    assert!(status.is_none(), "{status:?}");
    assert_eq!(replies, [""]);
}

#[tokio::test]
async fn streamed_with_no_request_at_all() {
    let model = Model::start().await;
    let (replies, status) = model.process(Shape::Streamed, Vec::new()).await;
    assert!(status.is_none(), "{status:?}");
    assert!(replies.is_empty(), "{replies:?}");
}

#[tokio::test]
async fn a_call_of_an_entity_while_the_action_runs() {
    let model = Model::start().await;
    for (shape, wanted) in [(Shape::Unary, "x"), (Shape::Streamed, "xx")] {
        let requests = vec![model::one(vec![model::call("called", "x")])];
        let (replies, status) = model.process(shape, requests).await;
        assert!(status.is_none(), "{status:?}");
        assert_eq!(replies, [wanted]);
    }
}
