//! Reads of effects and timers.

use bytes::Bytes;
use sqlx::sqlite::SqliteRow;

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::draft::id_key;
use crate::journal::sqlite::fault::damaged;
use crate::journal::sqlite::read::{get, resolve};
use crate::journal::sqlite::readers::{Query, Readers};
use crate::journal::sqlite::segment::unseal;
use crate::journal::store::{DueTimer, EffectId, OutboxRow, StoredCall, Timer, TimerRow};
use crate::words::limits::ROWS_READ_BYTES_MAX;
use crate::words::{Address, Shard};

macro_rules! effects {
    ($rest:literal) => {
        concat!(
            "SELECT o.shard, e.journal, e.id, o.id, o.call, o.tries, o.due_ms, o.error, o.parked \
             FROM outbox o CROSS JOIN entity e ON e.no = o.entity WHERE ",
            $rest
        )
    };
}

pub async fn outbox(
    inner: &Inner,
    shards: &[Shard],
    after: Option<EffectId>,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let query = sqlx::query(effects!(
        "o.id > ? AND NOT o.parked AND o.shard IN (SELECT value FROM json_each(?)) ORDER BY o.id LIMIT ? + 0"
    ));
    let query = query.bind(first_bytes(after)).bind(list(shards)).bind(limit as i64);
    effects(&inner.readers, query).await
}

pub async fn dead_letters(
    inner: &Inner,
    after: Option<EffectId>,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let query = sqlx::query(effects!("o.id > ? AND o.parked ORDER BY o.id LIMIT ? + 0"));
    effects(&inner.listers, query.bind(first_bytes(after)).bind(limit as i64)).await
}

pub async fn effect(inner: &Inner, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
    let query = sqlx::query(effects!("o.id = ?")).bind(id.0.to_vec());
    let row = inner.readers.optional(query).await?;
    row.map(|row| effect_row(&row)).transpose()
}

pub async fn outbox_of(
    inner: &Inner,
    source: &Address,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let known = resolve(inner, source).await?;
    let query = sqlx::query(effects!("o.entity = ? ORDER BY o.id LIMIT ? + 0"));
    effects(&inner.listers, query.bind(known.no).bind(limit as i64)).await
}

/// Ids are bytes: nothing is before the empty ones.
fn first_bytes(after: Option<EffectId>) -> Vec<u8> {
    after.map_or(Vec::new(), |id| id.0.to_vec())
}

fn list(shards: &[Shard]) -> String {
    let numbers: Vec<String> = shards.iter().map(Shard::to_string).collect();
    format!("[{}]", numbers.join(","))
}

async fn effects(readers: &Readers, query: Query<'_>) -> Result<Vec<OutboxRow>, StoreError> {
    let mut effects: Vec<OutboxRow> = Vec::new();
    let take = |row: &SqliteRow| match effect_row(row) {
        Ok(effect) => {
            let bytes = effect.call.size();
            effects.push(effect);
            Ok(bytes)
        }
        // The others are delivered all the same.
        Err(error) => {
            tracing::error!(%error, "an effect is left aside");
            Ok(0)
        }
    };
    readers.some(query, ROWS_READ_BYTES_MAX, take).await?;
    Ok(effects)
}

fn effect_row(row: &SqliteRow) -> Result<OutboxRow, StoreError> {
    let id: [u8; 16] = get::<Vec<u8>>(row, 3)?
        .try_into()
        .map_err(|_| damaged("an effect's id is not 16 bytes"))?;
    let id = EffectId(id);
    let wrong = || damaged(format!("the call of effect {id}"));
    let call = unseal(&id_key(&id), get(row, 4)?).map_err(|_| wrong())?;
    Ok(OutboxRow {
        shard: Shard(get::<i64>(row, 0)? as u32),
        source: address(row, 1)?,
        id,
        call: StoredCall::decode(call).ok_or_else(wrong)?,
        tries: get::<i64>(row, 5)? as u32,
        due_ms: get::<i64>(row, 6)? as u64,
        error: get(row, 7)?,
        parked: get(row, 8)?,
    })
}

/// The journal's name, and in the next column the id.
pub fn address(row: &SqliteRow, column: usize) -> Result<Address, StoreError> {
    let id = String::from_utf8(get(row, column + 1)?).map_err(|_| damaged("an id is not UTF-8"))?;
    Ok(Address::new(get::<String>(row, column)?, id))
}

pub async fn timers(
    inner: &Inner,
    shards: &[Shard],
    until_ms: u64,
    limit: usize,
) -> Result<Vec<DueTimer>, StoreError> {
    let query = sqlx::query(
        "SELECT t.shard, e.journal, e.id, t.name, t.due_ms, t.token \
         FROM timer t CROSS JOIN entity e ON e.no = t.entity \
         WHERE t.due_ms <= ? AND t.shard IN (SELECT value FROM json_each(?)) ORDER BY t.due_ms LIMIT ? + 0",
    )
    .bind(i64::try_from(until_ms).unwrap_or(i64::MAX))
    .bind(list(shards))
    .bind(limit as i64);
    let rows = inner.listers.all(query).await?;
    let due = |row: &SqliteRow| {
        Ok(DueTimer {
            shard: Shard(get::<i64>(row, 0)? as u32),
            address: address(row, 1)?,
            name: get(row, 3)?,
            due_ms: get::<i64>(row, 4)? as u64,
            token: token(row, 5)?,
        })
    };
    rows.iter().map(due).collect()
}

const TIMERS: &str = "SELECT name, shard, due_ms, every_ms, method, payload, token, tries, error \
     FROM timer WHERE entity = ?1 AND (?2 IS NULL OR name = ?2) ORDER BY name LIMIT ?3 + 0";

const ALL_TIMERS: &str = "SELECT t.name, t.shard, t.due_ms, t.every_ms, t.method, t.payload, t.token, t.tries, \
     t.error, e.journal, e.id FROM entity e CROSS JOIN timer t ON t.entity = e.no \
     WHERE (e.journal, e.id) >= (?1, ?2) AND (?4 OR (e.journal, e.id, t.name) > (?1, ?2, ?3)) \
     ORDER BY e.journal, e.id, t.name LIMIT ?5 + 0";

/// Of every entity, in order of address and name.
pub async fn list_timers(
    inner: &Inner,
    after: Option<(&Address, &str)>,
    limit: usize,
) -> Result<Vec<TimerRow>, StoreError> {
    let (of, name) = after.unzip();
    let query = sqlx::query(ALL_TIMERS)
        .bind(of.map_or("", |of| of.journal.as_str()))
        .bind(of.map_or("", |of| of.id.as_str()).as_bytes())
        .bind(name.unwrap_or(""))
        .bind(after.is_none())
        .bind(limit as i64);
    timer_rows(&inner.listers, query, |row| timer_row(row, &address(row, 9)?)).await
}

pub async fn timers_of(
    inner: &Inner,
    of: &Address,
    name: Option<&str>,
    limit: usize,
) -> Result<Vec<TimerRow>, StoreError> {
    let known = resolve(inner, of).await?;
    let query = sqlx::query(TIMERS).bind(known.no).bind(name).bind(limit as i64);
    timer_rows(&inner.readers, query, |row| timer_row(row, of)).await
}

async fn timer_rows(
    readers: &Readers,
    query: Query<'_>,
    timer: impl Fn(&SqliteRow) -> Result<TimerRow, StoreError>,
) -> Result<Vec<TimerRow>, StoreError> {
    let mut timers: Vec<TimerRow> = Vec::new();
    let take = |row: &SqliteRow| {
        let timer = timer(row)?;
        let bytes = timer.timer.payload.len();
        timers.push(timer);
        Ok(bytes)
    };
    readers.some(query, ROWS_READ_BYTES_MAX, take).await?;
    Ok(timers)
}

fn timer_row(row: &SqliteRow, of: &Address) -> Result<TimerRow, StoreError> {
    let name: String = get(row, 0)?;
    let token = token(row, 6)?;
    let payload: Bytes = unseal(&id_key(&EffectId(token)), get(row, 5)?)
        .map_err(|_| damaged(format!("the timer {name} of {of}")))?;
    Ok(TimerRow {
        shard: Shard(get::<i64>(row, 1)? as u32),
        address: of.clone(),
        name,
        timer: Timer {
            due_ms: get::<i64>(row, 2)? as u64,
            every_ms: get::<Option<i64>>(row, 3)?.map(|every| every as u64),
            method: get(row, 4)?,
            payload,
            token,
        },
        tries: get::<i64>(row, 7)? as u32,
        error: get(row, 8)?,
    })
}

fn token(row: &SqliteRow, column: usize) -> Result<[u8; 16], StoreError> {
    let token: Vec<u8> = get(row, column)?;
    token.try_into().map_err(|_| damaged("a timer's token is not 16 bytes"))
}
