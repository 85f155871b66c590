//! Reads of effects and timers.

use sqlx::PgPool;
use sqlx::postgres::{PgArguments, PgRow};

use crate::journal::error::StoreError;
use crate::journal::postgres::Inner;
use crate::journal::postgres::fault::damaged;
use crate::journal::postgres::read::{get, number, rows, text};
use crate::journal::store::{DueTimer, EffectId, OutboxRow, StoredCall, Timer, TimerRow};
use crate::words::limits::{ROWS_READ_BYTES_MAX, STORE_READ_MAX};
use crate::words::{Address, Shard};

type Query<'q> = sqlx::query::Query<'q, sqlx::Postgres, PgArguments>;

/// Of the rows that `$page` finds, by `shard_id` and `effect`, those that fit into one read of `$n` bytes. The
/// database adds up the bytes: what does not belong to the page never leaves it.
macro_rules! effects {
    ($page:literal, $bytes:literal) => {
        concat!(
            "SELECT o.shard_id, o.journal, o.id, o.effect, o.call, o.tries, o.due_ms, o.error, o.parked \
             FROM (SELECT shard_id, effect, sum(bytes) OVER (ORDER BY effect \
                ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM (",
            $page,
            ") found) page JOIN outbox o ON o.shard_id = page.shard_id AND o.effect = page.effect \
             WHERE page.before IS NULL OR page.before < ",
            $bytes,
            " ORDER BY o.effect"
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
        "SELECT r.* FROM unnest($1::int[]) AS s (shard_id), LATERAL ( \
            SELECT b.shard_id, b.effect, octet_length(b.call) AS bytes FROM outbox b \
            WHERE b.shard_id = s.shard_id AND b.effect > $2 AND NOT b.parked \
            ORDER BY b.effect LIMIT $3) r \
         ORDER BY r.effect LIMIT $3",
        "$4"
    ));
    let query = query.bind(numbers(shards)).bind(first_bytes(after)).bind(number(limit as u64));
    effects(&inner.readers, query.bind(number(ROWS_READ_BYTES_MAX as u64))).await
}

pub async fn dead_letters(
    inner: &Inner,
    after: Option<EffectId>,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let query = sqlx::query(effects!(
        "SELECT b.shard_id, b.effect, octet_length(b.call) AS bytes FROM outbox b \
         WHERE b.parked AND b.effect > $1 ORDER BY b.effect LIMIT $2",
        "$3"
    ));
    let query = query.bind(first_bytes(after)).bind(number(limit as u64));
    effects(&inner.listers, query.bind(number(ROWS_READ_BYTES_MAX as u64))).await
}

/// An effect does not tell its shard: each is asked.
pub async fn effect(inner: &Inner, id: EffectId) -> Result<Option<OutboxRow>, StoreError> {
    let query = sqlx::query(
        "SELECT o.shard_id, o.journal, o.id, o.effect, o.call, o.tries, o.due_ms, o.error, o.parked \
         FROM shard s JOIN outbox o ON o.shard_id = s.shard_id AND o.effect = $1",
    );
    let rows = rows(&inner.readers, query.bind(id.0.to_vec()), STORE_READ_MAX).await?;
    rows.first().map(effect_row).transpose()
}

pub async fn outbox_of(
    inner: &Inner,
    source: &Address,
    limit: usize,
) -> Result<Vec<OutboxRow>, StoreError> {
    let query = sqlx::query(effects!(
        "SELECT b.shard_id, b.effect, octet_length(b.call) AS bytes FROM outbox b \
         WHERE b.shard_id = $1 AND b.journal = $2 AND b.id = $3 ORDER BY b.effect LIMIT $4",
        "$5"
    ));
    let query = query
        .bind(inner.holdings.shard_of(source).0 as i32)
        .bind(source.journal.as_str().as_bytes())
        .bind(source.id.as_str().as_bytes())
        .bind(number(limit as u64))
        .bind(number(ROWS_READ_BYTES_MAX as u64));
    effects(&inner.listers, query).await
}

pub fn numbers(shards: &[Shard]) -> Vec<i32> {
    shards.iter().map(|shard| shard.0 as i32).collect()
}

/// Ids are bytes: nothing is before the empty ones.
fn first_bytes(after: Option<EffectId>) -> Vec<u8> {
    after.map_or(Vec::new(), |id| id.0.to_vec())
}

async fn effects(pool: &PgPool, query: Query<'_>) -> Result<Vec<OutboxRow>, StoreError> {
    let found = rows(pool, query, STORE_READ_MAX).await?;
    let mut effects = Vec::with_capacity(found.len());
    for row in &found {
        match effect_row(row) {
            Ok(effect) => effects.push(effect),
            // The others are delivered all the same.
            Err(error) => tracing::error!(%error, "an effect is left aside"),
        }
    }
    Ok(effects)
}

fn effect_row(row: &PgRow) -> Result<OutboxRow, StoreError> {
    let id: [u8; 16] = get::<Vec<u8>>(row, 3)?
        .try_into()
        .map_err(|_| damaged("an effect's id is not 16 bytes"))?;
    let id = EffectId(id);
    let call = StoredCall::decode(get::<Vec<u8>>(row, 4)?.into());
    Ok(OutboxRow {
        shard: Shard(get::<i32>(row, 0)? as u32),
        source: Address::new(text(row, 1)?, text(row, 2)?),
        id,
        call: call.ok_or_else(|| damaged(format!("the call of effect {id}")))?,
        tries: get::<i32>(row, 5)? as u32,
        due_ms: get::<i64>(row, 6)? as u64,
        error: text(row, 7)?.into(),
        parked: get(row, 8)?,
    })
}

pub async fn timers(
    inner: &Inner,
    shards: &[Shard],
    until_ms: u64,
    limit: usize,
) -> Result<Vec<DueTimer>, StoreError> {
    let query = sqlx::query(
        "SELECT t.* FROM unnest($1::int[]) AS s (shard_id), LATERAL ( \
            SELECT r.shard_id, r.journal, r.id, r.name, r.due_ms, r.token FROM timer r \
            WHERE r.shard_id = s.shard_id AND r.due_ms <= $2 ORDER BY r.due_ms LIMIT $3) t \
         ORDER BY t.due_ms LIMIT $3",
    );
    let query = query.bind(numbers(shards)).bind(number(until_ms)).bind(number(limit as u64));
    let found = rows(&inner.listers, query, STORE_READ_MAX).await?;
    let due = |row: &PgRow| {
        Ok(DueTimer {
            shard: Shard(get::<i32>(row, 0)? as u32),
            address: Address::new(text(row, 1)?, text(row, 2)?),
            name: text(row, 3)?.into(),
            due_ms: get::<i64>(row, 4)? as u64,
            token: token(row, 5)?,
        })
    };
    found.iter().map(due).collect()
}

/// Of an entity; of one name, if it is given.
pub async fn timers_of(
    inner: &Inner,
    of: &Address,
    name: Option<&str>,
    limit: usize,
) -> Result<Vec<TimerRow>, StoreError> {
    let query = sqlx::query(
        "SELECT p.shard_id, p.name, p.due_ms, p.every_ms, p.method, p.payload, p.token, p.tries, p.error \
         FROM (SELECT t.*, sum(octet_length(t.payload)) OVER (ORDER BY t.name \
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM timer t \
            WHERE t.shard_id = $1 AND t.journal = $2 AND t.id = $3 AND t.name >= $4 \
            AND ($5 OR t.name = $4) ORDER BY t.name LIMIT $6) p \
         WHERE p.before IS NULL OR p.before < $7 ORDER BY p.name",
    )
    .bind(inner.holdings.shard_of(of).0 as i32)
    .bind(of.journal.as_str().as_bytes())
    .bind(of.id.as_str().as_bytes())
    .bind(name.unwrap_or_default().as_bytes())
    .bind(name.is_none())
    .bind(number(limit as u64))
    .bind(number(ROWS_READ_BYTES_MAX as u64));
    let found = rows(&inner.readers, query, STORE_READ_MAX).await?;
    found.iter().map(|row| timer_row(row, of)).collect()
}

/// Of every entity, in order of address and name.
pub async fn list_timers(
    inner: &Inner,
    after: Option<(&Address, &str)>,
    limit: usize,
) -> Result<Vec<TimerRow>, StoreError> {
    let (of, name) = after.unzip();
    let query = sqlx::query(
        "SELECT p.shard_id, p.name, p.due_ms, p.every_ms, p.method, p.payload, p.token, p.tries, p.error, \
         p.journal, p.id FROM (SELECT t.*, sum(octet_length(t.payload)) OVER ( \
            ORDER BY t.journal, t.id, t.name ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
            FROM timer t WHERE $1 OR (t.journal, t.id, t.name) > ($2, $3, $4) \
            ORDER BY t.journal, t.id, t.name LIMIT $5) p \
         WHERE p.before IS NULL OR p.before < $6 ORDER BY p.journal, p.id, p.name",
    )
    .bind(after.is_none())
    .bind(of.map_or("", |of| of.journal.as_str()).as_bytes())
    .bind(of.map_or("", |of| of.id.as_str()).as_bytes())
    .bind(name.unwrap_or("").as_bytes())
    .bind(number(limit as u64))
    .bind(number(ROWS_READ_BYTES_MAX as u64));
    let found = rows(&inner.listers, query, STORE_READ_MAX).await?;
    let timer = |row: &PgRow| timer_row(row, &Address::new(text(row, 9)?, text(row, 10)?));
    found.iter().map(timer).collect()
}

fn timer_row(row: &PgRow, of: &Address) -> Result<TimerRow, StoreError> {
    Ok(TimerRow {
        shard: Shard(get::<i32>(row, 0)? as u32),
        address: of.clone(),
        name: text(row, 1)?.into(),
        timer: Timer {
            due_ms: get::<i64>(row, 2)? as u64,
            every_ms: get::<Option<i64>>(row, 3)?.map(|every| every as u64),
            method: text(row, 4)?.into(),
            payload: get::<Vec<u8>>(row, 5)?.into(),
            token: token(row, 6)?,
        },
        tries: get::<i32>(row, 7)? as u32,
        error: text(row, 8)?.into(),
    })
}

fn token(row: &PgRow, column: usize) -> Result<[u8; 16], StoreError> {
    let token: Vec<u8> = get(row, column)?;
    token.try_into().map_err(|_| damaged("a timer's token is not 16 bytes"))
}
