//! What operators see of effects, timers and consumers, and what they decide about them.

use stead_proto::admin::v1 as api;

use crate::consumer::GroupStatus;
use crate::entity::CallError;
use crate::gateway::admin::errors::{from_deploy, from_store};
use crate::gateway::admin::{Admin, page, time};
use crate::journal::{EffectId, Laggard, OutboxRow, Partition, TimerRow};
use crate::registry::Start;
use crate::words::{Address, Seq, Status, limits};

impl Admin {
    pub(super) async fn list_dead_letters(
        &self,
        request: api::ListDeadLettersRequest,
    ) -> Result<api::ListDeadLettersResponse, Status> {
        let size = page::size(request.page_size)?;
        let after = match request.page_token.as_str() {
            "" => None,
            token => Some(effect_id(token).map_err(|_| {
                Status::invalid_argument("page_token is not from an answer of this method")
            })?),
        };
        let mut rows = self.entities.dead_letters(after, size + 1).await?;
        let is_last = rows.len() <= size;
        rows.truncate(size);
        let next = rows.last().filter(|_| !is_last).map(|row| hex::encode(row.id.0));
        Ok(api::ListDeadLettersResponse {
            dead_letters: rows.iter().map(effect).collect(),
            next_page_token: next.unwrap_or_default(),
        })
    }

    /// The dead letter with an id.
    pub(super) async fn dead_letter(&self, id: &str) -> Result<OutboxRow, Status> {
        let id = effect_id(id)?;
        let row = self.entities.effect(id).await?;
        row.filter(|row| row.parked).ok_or_else(|| {
            Status::not_found(format!("there is no dead letter {}", hex::encode(id.0)))
        })
    }

    pub(super) async fn retry_dead_letter(
        &self,
        request: api::RetryDeadLetterRequest,
    ) -> Result<api::RetryDeadLetterResponse, Status> {
        self.entities
            .retry_effect(effect_id(&request.id)?)
            .await
            .map_err(CallError::into_status)?;
        Ok(api::RetryDeadLetterResponse {})
    }

    pub(super) async fn drop_dead_letter(
        &self,
        request: api::DropDeadLetterRequest,
    ) -> Result<api::DropDeadLetterResponse, Status> {
        self.entities.drop_effect(effect_id(&request.id)?).await.map_err(CallError::into_status)?;
        Ok(api::DropDeadLetterResponse {})
    }

    /// What an entity waits for: its undelivered effects, and its timers.
    pub(super) async fn pending(
        &self,
        address: &Address,
    ) -> Result<(Vec<api::Effect>, Vec<api::EntityTimer>), Status> {
        let most = limits::PENDING_SHOWN_MAX;
        let effects = self.entities.effects_of(address, most).await?;
        let timers = self.entities.timers_of(address, most).await?;
        Ok((effects.iter().map(effect).collect(), timers.iter().map(timer).collect()))
    }

    pub(super) async fn list_consumers(
        &self,
        _request: api::ListConsumersRequest,
    ) -> Result<api::ListConsumersResponse, Status> {
        let groups = self.consumers.status().await.map_err(from_store)?;
        Ok(api::ListConsumersResponse { consumers: groups.into_iter().map(consumer).collect() })
    }

    /// Of the partitions that this node reads.
    pub(super) async fn reset_consumer(
        &self,
        request: api::ResetConsumerRequest,
    ) -> Result<api::ResetConsumerResponse, Status> {
        use api::reset_consumer_request::To;
        let to = match To::try_from(request.to) {
            Ok(To::Beginning) => Start::Beginning,
            Ok(To::Now) => Start::Now,
            Ok(To::Unspecified) | Err(_) => {
                return Err(Status::invalid_argument("to must be BEGINNING or NOW"));
            }
        };
        let partitions = request.partitions.into_iter().map(Partition).collect();
        let reset = self.consumers.reset(&request.group, to, partitions).await?;
        let partitions = reset.into_iter().map(|partition| partition.0).collect();
        Ok(api::ResetConsumerResponse { partitions })
    }

    pub(super) async fn delete_consumer(
        &self,
        request: api::DeleteConsumerRequest,
    ) -> Result<api::DeleteConsumerResponse, Status> {
        // What another node has deployed a moment ago counts.
        self.registry.follow().await.map_err(from_deploy)?;
        self.consumers.delete(&request.group).await?;
        Ok(api::DeleteConsumerResponse {})
    }

    pub(super) async fn skip_event(
        &self,
        request: api::SkipEventRequest,
    ) -> Result<api::SkipEventResponse, Status> {
        let address = self.address_in_group(&request)?;
        self.consumers.skip(&request.group, address, Seq(request.seq)).await?;
        Ok(api::SkipEventResponse {})
    }

    pub(super) fn address_in_group(
        &self,
        request: &api::SkipEventRequest,
    ) -> Result<Address, Status> {
        if request.entity_id.is_empty() || request.seq == 0 {
            return Err(Status::invalid_argument("entity_id and seq must say which event to skip"));
        }
        let Some(log) = self.consumers.log_of(&request.group) else {
            return Err(Status::not_found(format!(
                "nothing that is deployed consumes as {:?}; `stead consumers list` shows what does",
                request.group
            )));
        };
        Ok(Address { journal: log, id: request.entity_id.as_str().into() })
    }
}

fn effect_id(text: &str) -> Result<EffectId, Status> {
    let mut id = [0; 16];
    hex::decode_to_slice(text, &mut id).map_err(|_| {
        let shown: String = text.chars().take(64).collect();
        Status::invalid_argument(format!("id is {shown:?}; it must be 32 hexadecimal digits"))
    })?;
    Ok(EffectId(id))
}

fn effect(row: &OutboxRow) -> api::Effect {
    api::Effect {
        id: hex::encode(row.id.0),
        journal: row.source.journal.to_string(),
        entity_id: row.source.id.to_string(),
        service: row.call.service.clone(),
        method: row.call.method.clone(),
        payload_bytes: row.call.payload.len() as u64,
        create_time: Some(time::timestamp(row.call.created_ms)),
        tries: row.tries,
        error: row.error.clone(),
        next_try_time: (!row.parked).then(|| time::timestamp(row.due_ms)),
        dead_letter: row.parked,
    }
}

fn timer(row: &TimerRow) -> api::EntityTimer {
    let every = row.timer.every_ms.map(std::time::Duration::from_millis);
    api::EntityTimer {
        name: row.name.clone(),
        due_time: Some(time::timestamp(row.timer.due_ms)),
        every: every.map(time::duration),
        method: row.timer.method.clone(),
        tries: row.tries,
        error: row.error.clone(),
    }
}

fn consumer(status: GroupStatus) -> api::Consumer {
    let (event_log, service) = status.live.unwrap_or_default();
    let laggard = |laggard: Laggard| api::ConsumerLaggard {
        entity_id: laggard.address.id.to_string(),
        seq: laggard.next.0,
        tries: laggard.tries,
        error: laggard.error,
        next_try_time: Some(time::timestamp(laggard.due_ms)),
    };
    api::Consumer {
        group: status.group.to_string(),
        event_log,
        service,
        view: status.is_view,
        behind: status.behind,
        laggards: status.laggards.into_iter().map(laggard).collect(),
        more_laggards: status.more_laggards,
        serving: status.is_serving,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_that_is_none_is_refused_with_what_it_must_be() {
        assert_eq!(effect_id(&"0f".repeat(16)), Ok(EffectId([15; 16])));
        for text in ["", "0f", "zz", &"0".repeat(33)] {
            let status = effect_id(text).expect_err("refused");
            assert!(status.message.contains("32 hexadecimal digits"), "{status:?}");
        }
    }
}
