//! A look at every entity: where it is, what it went through, what it holds.

use std::collections::BTreeSet;
use std::sync::Arc;

use stead_proto::admin::v1 as api;
use stead_proto::admin::v1::list_entities_request::Temperature;

use crate::entity::{CrashReport, HotEntity};
use crate::gateway::admin::errors::from_store;
use crate::gateway::admin::page::{self, Page, Row};
use crate::gateway::admin::{Admin, json, time};
use crate::journal::{EntityFilter, EntityPage, Loaded, StoredEvent};
use crate::registry::{Live, Service};
use crate::words::{Address, EntityId, JournalName, Message, Seq, Status, limits};

impl Admin {
    pub(super) async fn list_entities(
        &self,
        request: api::ListEntitiesRequest,
    ) -> Result<api::ListEntitiesResponse, Status> {
        let temperature = Temperature::try_from(request.temperature)
            .map_err(|_| Status::invalid_argument("temperature must be ANY, HOT or COLD"))?;
        let live = self.registry.live();
        let entity_type = Some(request.entity_type.as_str()).filter(|name| !name.is_empty());
        let filter = EntityFilter {
            journal: entity_type.map(|name| journal_of(&live, name)),
            id_prefix: request.id_prefix,
            after: page::parse_token(&request.page_token)?,
            limit: page::size(request.page_size)?,
        };
        let page = match temperature {
            Temperature::Any => {
                let stored = self.journal.entities(&filter).await.map_err(from_store)?;
                page::merge(stored, self.hot(&filter), filter.limit)
            }
            Temperature::Hot => page::merge(EntityPage::default(), self.hot(&filter), filter.limit),
            Temperature::Cold => self.cold(filter).await?,
        };
        Ok(api::ListEntitiesResponse {
            entities: page.rows.into_iter().map(|row| summary(&live, row)).collect(),
            next_page_token: page.next.as_ref().map(page::token).unwrap_or_default(),
        })
    }

    /// NOT_FOUND for a name, unless it is empty, that is neither deployed nor has entities.
    pub(super) async fn check_entity_type(&self, name: &str) -> Result<(), Status> {
        let live = self.registry.live();
        let journal = journal_of(&live, name);
        if name.is_empty()
            || live.services.contains_key(name)
            || live.by_journal(&journal).is_some()
            || self.journal.count_entities(&journal, 1).await.map_err(from_store)? > 0
        {
            return Ok(());
        }
        let shown = &name[..name.floor_char_boundary(limits::JOURNAL_NAME_BYTES_MAX)];
        let known = self.known_journals(&live).await?;
        Err(Status::not_found(match known.is_empty() {
            true => format!("there is no entity type {shown:?}, nor any other yet"),
            false => format!("there is no entity type {shown:?}; there are {}", known.join(", ")),
        }))
    }

    /// Journals that are deployed or have entities, by name, but not more than are good to read.
    async fn known_journals(&self, live: &Live) -> Result<Vec<String>, Status> {
        let with_entities = live.services.values().filter(|service| service.kind.has_entities());
        let mut known: BTreeSet<String> =
            with_entities.map(|service| service.journal.to_string()).collect();
        let mut filter = EntityFilter { limit: 1, ..EntityFilter::default() };
        while known.len() < limits::ENTITY_TYPES_TOLD_MAX {
            let page = self.journal.entities(&filter).await.map_err(from_store)?;
            let Some(first) = page.entities.into_iter().next() else { break };
            let journal = first.journal.to_string();
            // The next journal: no name has this character, and none that is lower.
            filter.after = Some(Address::new(format!("{journal}!").as_str(), ""));
            known.insert(journal);
        }
        Ok(known.into_iter().take(limits::ENTITY_TYPES_TOLD_MAX).collect())
    }

    fn hot(&self, filter: &EntityFilter) -> Vec<HotEntity> {
        let limit = filter.limit + 1;
        self.entities.hot(filter.journal.as_ref(), &filter.id_prefix, filter.after.as_ref(), limit)
    }

    async fn cold(&self, mut filter: EntityFilter) -> Result<Page, Status> {
        let mut rows = Vec::new();
        for _ in 0..limits::COLD_PAGE_READS_MAX {
            let stored = self.journal.entities(&filter).await.map_err(from_store)?;
            for row in stored.entities.into_iter().map(Row::from) {
                if rows.len() == filter.limit {
                    return Ok(Page { rows, next: filter.after });
                }
                filter.after = Some(row.address.clone());
                if self.entities.hot_one(&row.address).is_none() {
                    rows.push(row);
                }
            }
            if !stored.more {
                return Ok(Page { rows, next: None });
            }
        }
        Ok(Page { rows, next: filter.after })
    }

    pub(super) async fn get_entity(
        &self,
        request: api::GetEntityRequest,
    ) -> Result<api::Entity, Status> {
        let found = self.find(&request.entity_type, &request.id).await?;
        let crash = self.entities.crash(&found.address);
        let hot = self.entities.hot_one(&found.address);
        let (effects, timers) = self.pending(&found.address).await?;
        let is_unknown = found.loaded.seq == Seq::ZERO
            && crash.is_none()
            && hot.is_none()
            && effects.is_empty()
            && timers.is_empty();
        if is_unknown {
            return Err(found.missing());
        }
        Ok(api::Entity { effects, timers, ..entity(found, hot, crash) })
    }

    pub(super) async fn list_events(
        &self,
        request: api::ListEventsRequest,
    ) -> Result<api::ListEventsResponse, Status> {
        let limit = page::size(request.page_size)?;
        let from = Seq(request.from.max(1));
        let found = self.find(&request.entity_type, &request.id).await?;
        if found.loaded.seq == Seq::ZERO {
            return Err(found.missing());
        }
        let page = self
            .journal
            .events(&found.address, from, limit, limits::EVENTS_LISTED_BYTES_MAX)
            .await
            .map_err(from_store)?;
        let next = page.events.last().filter(|_| page.more).map(|last| last.seq.plus(1));
        let service = found.service.as_deref();
        Ok(api::ListEventsResponse {
            events: page.events.into_iter().map(|stored| event(service, stored)).collect(),
            next_from: next.unwrap_or_default().0,
        })
    }

    pub(super) async fn get_state(
        &self,
        request: api::GetStateRequest,
    ) -> Result<api::GetStateResponse, Status> {
        let found = self.find(&request.entity_type, &request.id).await?;
        if found.loaded.seq == Seq::ZERO {
            return Err(found.missing());
        }
        let Some(service) = &found.service else {
            return Err(Status::failed_precondition(format!(
                "no live module knows the journal {}; deploy one to see the state of its entities",
                found.address.journal
            )));
        };
        let at = request.at.map(Seq);
        let folded = self.entities.state(service, &found.address.id, at).await?;
        let Some(state) = folded.state else {
            return Ok(api::GetStateResponse {
                seq: folded.seq.0,
                note: "the guest gives no snapshot, so its state cannot be shown".into(),
                ..Default::default()
            });
        };
        let (json, note) = decoded(Some(service), &state);
        Ok(api::GetStateResponse {
            seq: folded.seq.0,
            r#type: state.type_name.to_string(),
            json,
            data: state.data.into(),
            note,
        })
    }

    pub(super) async fn passivate(
        &self,
        request: api::PassivateRequest,
    ) -> Result<api::PassivateResponse, Status> {
        let live = self.registry.live();
        let address = address(&live, &request.entity_type, &request.id)?;
        Ok(api::PassivateResponse { was_hot: self.entities.passivate(&address).await })
    }

    pub(super) fn address_of(&self, entity_type: &str, id: &str) -> Result<Address, Status> {
        address(&self.registry.live(), entity_type, id)
    }

    /// A name is that of a live service, or else of a journal.
    pub(super) fn journal_named(&self, name: &str) -> JournalName {
        journal_of(&self.registry.live(), name)
    }

    async fn find(&self, entity_type: &str, id: &str) -> Result<Found, Status> {
        let live = self.registry.live();
        let address = address(&live, entity_type, id)?;
        let service = live.by_journal(&address.journal).cloned();
        let loaded = self.journal.load(&address, None).await.map_err(from_store)?;
        Ok(Found { address, service, loaded })
    }
}

struct Found {
    address: Address,
    service: Option<Arc<Service>>,
    loaded: Loaded,
}

impl Found {
    fn missing(&self) -> Status {
        let Address { journal, id } = &self.address;
        Status::not_found(match &self.service {
            Some(service) => format!("{} has no entity {id:?}", service.name),
            None => format!(
                "there is no entity {id:?} in a journal {journal:?}, and no live service of that name"
            ),
        })
    }
}

fn address(live: &Live, entity_type: &str, id: &str) -> Result<Address, Status> {
    for (field, text) in [("entity_type", entity_type), ("id", id)] {
        if text.is_empty() {
            return Err(Status::invalid_argument(format!("{field} must not be empty")));
        }
    }
    Ok(Address { journal: journal_of(live, entity_type), id: EntityId::from(id) })
}

/// A name is that of a live service, or else of a journal.
fn journal_of(live: &Live, name: &str) -> JournalName {
    match live.services.get(name) {
        Some(service) => service.journal.clone(),
        None => JournalName::from(name),
    }
}

fn service_name(live: &Live, journal: &JournalName) -> String {
    live.by_journal(journal).map(|service| service.name.to_string()).unwrap_or_default()
}

fn summary(live: &Live, row: Row) -> api::EntitySummary {
    let hot = row.hot.as_ref();
    api::EntitySummary {
        service: service_name(live, &row.address.journal),
        seq: row.seq.0,
        hot: hot.is_some(),
        memory_bytes: hot.map_or(0, |hot| hot.memory_bytes as u64),
        idle: hot.map(|hot| time::duration(hot.idle)),
        journal: row.address.journal.to_string(),
        id: row.address.id.to_string(),
    }
}

pub(super) fn crash_report(crash: CrashReport) -> api::Crash {
    api::Crash {
        time: Some(time::timestamp(crash.at_ms)),
        what: crash.what.into(),
        during: crash.during,
        reason: crash.reason,
        backtrace: crash.backtrace,
        consecutive: crash.consecutive,
        retry_time: crash.retry_at_ms.map(time::timestamp),
    }
}

fn entity(found: Found, hot: Option<HotEntity>, crash: Option<CrashReport>) -> api::Entity {
    let hot = hot.as_ref();
    api::Entity {
        service: found.service.map(|service| service.name.to_string()).unwrap_or_default(),
        journal: found.address.journal.to_string(),
        id: found.address.id.to_string(),
        seq: found.loaded.seq.0,
        snapshot_seq: found.loaded.snapshot.map_or(0, |snapshot| snapshot.seq.0),
        hot: hot.is_some(),
        memory_bytes: hot.map_or(0, |hot| hot.memory_bytes as u64),
        idle: hot.map(|hot| time::duration(hot.idle)),
        queued: hot.map_or(0, |hot| hot.queued.try_into().unwrap_or(u32::MAX)),
        last_crash: crash.map(crash_report),
        effects: Vec::new(),
        timers: Vec::new(),
    }
}

pub(super) fn event(service: Option<&Service>, stored: StoredEvent) -> api::Event {
    let (json, note) = decoded(service, &stored.event);
    api::Event {
        seq: stored.seq.0,
        time: Some(time::timestamp(stored.at_ms)),
        r#type: stored.event.type_name.to_string(),
        json,
        data: stored.event.data.into(),
        note,
    }
}

/// The message in JSON, or a note that says why not.
fn decoded(service: Option<&Service>, message: &Message) -> (Option<prost_types::Value>, String) {
    match json::decode(service.map(|service| &service.module.pool), message) {
        Ok(json) => (Some(json), String::new()),
        Err(note) => (None, note),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn nothing_live() -> Live {
        Live {
            revision: Default::default(),
            generation: 0,
            modules: Vec::new(),
            services: Default::default(),
            broken: Vec::new(),
        }
    }

    #[test]
    fn an_unknown_name_is_taken_for_a_journal() {
        let address = address(&nothing_live(), "carts", "ada").unwrap();
        assert_eq!(address, Address::new("carts", "ada"));
    }

    #[test]
    fn an_entity_without_type_or_id_is_refused_by_field() {
        let refused =
            |entity_type, id| address(&nothing_live(), entity_type, id).unwrap_err().message;
        assert_eq!(refused("", "ada"), "entity_type must not be empty");
        assert_eq!(refused("carts", ""), "id must not be empty");
    }

    #[test]
    fn a_missing_entity_is_named() {
        let found = Found {
            address: Address::new("carts", "ada"),
            service: None,
            loaded: Loaded::default(),
        };
        assert!(found.missing().message.contains(r#"no entity "ada" in a journal "carts""#));
    }

    #[test]
    fn a_hot_row_says_where_it_is_and_a_cold_one_does_not() {
        let address = Address::new("carts", "ada");
        let cold = Row { address: address.clone(), seq: Seq(3), hot: None };
        let shown = summary(&nothing_live(), cold);
        assert_eq!((shown.hot, shown.memory_bytes, shown.idle, shown.seq), (false, 0, None, 3));
        let hot = HotEntity {
            journal: address.journal,
            id: address.id,
            seq: Seq(4),
            memory_bytes: 65_536,
            idle: Duration::from_millis(1_500),
            queued: 2,
        };
        let shown = summary(&nothing_live(), Row::from(hot));
        assert_eq!((shown.hot, shown.memory_bytes, shown.seq), (true, 65_536, 4));
        assert_eq!(shown.idle.unwrap().seconds, 1);
    }

    #[test]
    fn an_event_of_an_unknown_journal_is_given_as_bytes_with_a_note() {
        let stored = StoredEvent {
            seq: Seq(7),
            at_ms: 1_500,
            event: Message::new("shop.ItemAdded", vec![1, 2, 3]),
        };
        let shown = event(None, stored);
        assert_eq!((shown.seq, shown.data.as_slice()), (7, &[1, 2, 3][..]));
        assert!(shown.json.is_none() && shown.note.contains("no live module"));
    }
}
