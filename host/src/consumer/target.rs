//! What becomes of an event: a call of an action, or a new row of a view.

use std::sync::Arc;

use futures_util::StreamExt;

use crate::consumer::page::{Event, Run};
use crate::consumer::subscription::{Projection, Subscription, Takers, Target};
use crate::entity::{Caller, Consistency, OutCall};
use crate::journal::{Journal, NewRow, RowChange};
use crate::registry::Method;
use crate::wasm::StateChange;
use crate::words::{Address, Message, Seq, Trail, clock, limits};

/// What became of the events of one entity.
pub struct Ran {
    pub address: Address,
    /// The number after the last event that was consumed.
    pub next: Seq,
    /// How many of them were not.
    pub left: usize,
    /// Why the next one was not.
    pub fault: Option<String>,
    pub row: Option<RowChange>,
}

/// Runs what a subscription has for these events: several entities at once, one event of each at a time.
pub async fn consume(
    subscription: &Subscription,
    caller: &Arc<dyn Caller>,
    journal: &Journal,
    runs: Vec<Run>,
) -> Vec<Ran> {
    let ran = futures_util::stream::iter(runs).map(|run| async move {
        match &subscription.target {
            Target::Action(takers) => call(takers, caller, &subscription.group, run).await,
            Target::View(projection) => fold(projection, &subscription.group, journal, run).await,
        }
    });
    ran.buffer_unordered(limits::CONSUMED_AT_ONCE_MAX).collect().await
}

async fn call(takers: &Takers, caller: &Arc<dyn Caller>, group: &Arc<str>, run: Run) -> Ran {
    let Run { address, events } = run;
    let next = events.first().map_or(Seq(1), |event| event.seq);
    let mut ran = Ran { next, left: events.len(), fault: None, row: None, address };
    for event in events {
        let seq = event.seq;
        if let Some(method) = takers.of(&event.event.type_name) {
            let out = out_call(takers, method, group, &ran.address, event);
            if let Err(status) = caller.call(out).await {
                ran.fault = Some(format!("{}: {}", status.code.name(), status.message));
                return ran;
            }
        }
        ran.next = seq.plus(1);
        ran.left -= 1;
    }
    ran
}

fn out_call(
    takers: &Takers,
    method: &Arc<Method>,
    group: &Arc<str>,
    address: &Address,
    event: Event,
) -> OutCall {
    let Event { seq, at_ms, event } = event;
    let metadata = cloud_event(address, seq, at_ms, &event);
    let payload = match &method.consume {
        Some(consume) if consume.event_type.is_none() => any(&event),
        _ => event.data,
    };
    OutCall {
        service: takers.service.name.to_string(),
        method: method.name.to_string(),
        payload,
        metadata,
        idempotency_key: Some(format!("{group}/{}/{seq}", address.id)),
        fresh: None,
        deadline: clock::now() + limits::CONSUME_CALL_MAX,
        request_id: format!("{group}-{seq}").into(),
        trail: Trail::default(),
        consistency: Consistency::Leased,
    }
}

/// The attributes of CloudEvents 1.0, as metadata.
pub fn cloud_event(
    address: &Address,
    seq: Seq,
    at_ms: u64,
    event: &Message,
) -> Vec<(String, String)> {
    let entry = |name: &str, value: String| (name.to_owned(), value);
    vec![
        entry("ce-specversion", "1.0".into()),
        entry("ce-id", format!("{}/{}/{seq}", address.journal, address.id)),
        entry("ce-source", format!("/{}", address.journal)),
        entry("ce-type", event.type_name.to_string()),
        entry("ce-time", time(at_ms)),
        entry("ce-subject", address.id.to_string()),
        entry("ce-sequence", seq.to_string()),
        entry("ce-datacontenttype", "application/protobuf".into()),
    ]
}

fn time(unix_ms: u64) -> String {
    let (seconds, nanos) = ((unix_ms / 1_000) as i64, (unix_ms % 1_000 * 1_000_000) as i32);
    prost_types::Timestamp { seconds, nanos }.to_string()
}

/// The event as a `google.protobuf.Any`.
fn any(event: &Message) -> bytes::Bytes {
    use prost::Message as _;
    let any = prost_types::Any {
        type_url: format!("type.googleapis.com/{}", event.type_name),
        value: event.data.to_vec(),
    };
    any.encode_to_vec().into()
}

/// All events of an entity at once; if that fails, one after the other, to find the one that does.
async fn fold(projection: &Projection, group: &Arc<str>, journal: &Journal, run: Run) -> Ran {
    let Run { address, events } = run;
    let first = events.first().map_or(Seq(1), |event| event.seq);
    let last = events.last().map_or(first, |event| event.seq.plus(1));
    let key = address.id.as_str();
    let before = match journal.view_row(group, key).await {
        Ok(row) => row.map(|row| row.message),
        Err(error) => {
            let (left, fault) = (events.len(), Some(error.to_string()));
            return Ran { address, next: first, left, fault, row: None };
        }
    };
    let (seqs, events): (Vec<Seq>, Vec<Message>) =
        events.into_iter().map(|event| (event.seq, event.event)).unzip();
    if let Ok(change) = projection.update(key, before.as_ref(), &events).await {
        let row = change.into_row(group, key);
        return Ran { address, next: last, left: 0, fault: None, row };
    }
    let mut row = Change::None;
    let mut left = events.len();
    for (seq, event) in seqs.into_iter().zip(events) {
        let now = match &row {
            Change::None => before.as_ref(),
            Change::Put(row) => Some(&row.message),
            Change::Delete => None,
        };
        match projection.update(key, now, &[event]).await {
            Ok(Change::None) => left -= 1,
            Ok(change) => {
                left -= 1;
                row = change;
            }
            Err(fault) => {
                let row = row.into_row(group, key);
                return Ran { address, next: seq, left, fault: Some(fault), row };
            }
        }
    }
    Ran { row: row.into_row(group, key), address, next: last, left: 0, fault: None }
}

/// What becomes of a row.
enum Change {
    None,
    Put(NewRow),
    Delete,
}

impl Change {
    fn into_row(self, view: &str, key: &str) -> Option<RowChange> {
        let row = match self {
            Change::None => return None,
            Change::Put(row) => Some(row),
            Change::Delete => None,
        };
        Some(RowChange { view: view.to_owned(), key: key.to_owned(), row })
    }
}

impl Projection {
    /// What events make of a row. An error says why they cannot be understood.
    async fn update(
        &self,
        key: &str,
        row: Option<&Message>,
        events: &[Message],
    ) -> Result<Change, String> {
        let Some(view) = &self.service.view else { return Err("it is no view any more".into()) };
        let deadline = clock::now() + limits::CONSUME_CALL_MAX;
        let change = self.pool.update(deadline, key, row, events).await;
        match change.map_err(|error| error.to_string())?? {
            StateChange::None => Ok(Change::None),
            StateChange::Delete => Ok(Change::Delete),
            StateChange::Update(message) => {
                let row_type = view.row.full_name();
                if *message.type_name != *row_type {
                    return Err(format!("the row is a {}, not a {row_type}", message.type_name));
                }
                let index = view.index_values(&message.data)?;
                let index = index.into_iter().map(|(name, value)| (name.to_string(), value));
                Ok(Change::Put(NewRow { index: index.collect(), message }))
            }
        }
    }
}
