//! The task that works through a mailbox.

use crate::entity::activation;
use crate::entity::actor::{Answer, Job, Running};
use crate::entity::{Request, receipts, timers};
use crate::words::limits;

/// Runs turns until the mailbox is empty.
pub(super) async fn work(mut running: Running) {
    let mut turns = 0;
    while let Some(envelope) = running.next() {
        if envelope.answer.is_closed() {
            continue;
        }
        drop_outdated(&mut running);
        if running.hot.is_none() {
            match Box::pin(activation::activate(&mut running)).await {
                Ok(hot) => running.hot = Some(hot),
                Err(down) => {
                    // A caller that went away wants no answer, here and below.
                    let _ = envelope.answer.send(down.error.clone().into());
                    running.give_up(down.failures, down.retry_at, &down.error);
                    return;
                }
            }
        }
        let answer = match &envelope.job {
            Job::Command(request) => command(&mut running, request).await,
            Job::Timer(due) => match Box::pin(timers::command(&mut running, due)).await {
                Ok(request) => running.turn(&request),
                Err(answer) => answer,
            },
        };
        let _ = envelope.answer.send(answer);
        turns += 1;
        if turns % limits::TURNS_PER_RUN_MAX == 0 {
            tokio::task::yield_now().await;
        }
    }
}

async fn command(running: &mut Running, request: &Request) -> Answer {
    match receipts::look_up(running, request).await {
        Some(answer) => answer,
        None => running.turn(request),
    }
}

/// Loads an entity for which no command waits yet.
pub(super) async fn warm(mut running: Running) {
    match activation::activate(&mut running).await {
        Ok(hot) => {
            running.hot = Some(hot);
            work(running).await;
        }
        Err(down) => running.give_up(down.failures, down.retry_at, &down.error),
    }
}

/// Drops an instance that must not run another turn: someone asked for it, a write of it was not
/// stored, its module is not the live one any more, or its shard was away meanwhile.
fn drop_outdated(running: &mut Running) {
    let retire = running.take_retire();
    let Some(hot) = running.hot.as_mut() else { return };
    let live = running.house.registry.live();
    if hot.generation != live.generation {
        let same = live
            .by_journal(&running.actor.address.journal)
            .is_some_and(|service| service.module.digest == hot.service.module.digest);
        if same {
            hot.generation = live.generation;
        } else {
            running.hot = None;
            return;
        }
    }
    let holdings = running.house.journal.holdings();
    let outdated = running.hot.as_ref().is_some_and(|hot| {
        hot.is_spoilt() || holdings.epoch(hot.fence.shard) != Some(hot.fence.epoch)
    });
    if retire || outdated {
        running.hot = None;
    }
}
