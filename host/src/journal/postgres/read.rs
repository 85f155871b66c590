//! Reads, on connections of their own: they never wait for a commit.

use std::time::Duration;

use bytes::Bytes;
use sqlx::pool::PoolConnection;
use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{PgPool, Postgres, Row};
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::Inner;
use crate::journal::postgres::fault::{self, damaged};
use crate::journal::store::{
    EntityFilter, EntityPage, EntitySummary, EventPage, Loaded, Receipt, Snapshot, StoredEvent,
};
use crate::words::limits::{SNAPSHOTS_KEPT, STORE_READ_MAX};
use crate::words::{Address, EntityId, JournalName, Message, Seq};

/// Greater than every id: no UTF-8 text has this byte.
const AFTER_ALL_IDS: u8 = 0xff;

/// What a scalar subquery tells of the newest event; the row before it is `e`.
macro_rules! head {
    () => {
        "coalesce((SELECT j.seq FROM journal j WHERE j.shard_id = e.shard_id \
         AND j.journal = e.journal AND j.id = e.id ORDER BY j.seq DESC LIMIT 1), 0)"
    };
}

/// The first event from `$4` on, if that number was forgotten; else the number. The entity is `n`.
macro_rules! first {
    () => {
        "coalesce((SELECT (SELECT m.seq FROM journal m WHERE m.shard_id = n.shard_id \
         AND m.journal = n.journal AND m.id = n.id AND m.seq >= $4 ORDER BY m.seq LIMIT 1) \
         FROM forgotten f WHERE f.shard_id = n.shard_id AND f.journal = n.journal AND f.id = n.id \
         AND f.before > $4), $4)"
    };
}

pub async fn load(inner: &Inner, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
    // Snapshots that are to be deleted do not count any more.
    let query = sqlx::query(concat!(
        "SELECT ",
        head!(),
        ", s.seq, s.type, s.data FROM (SELECT $1::int AS shard_id, $2::bytea AS journal, \
         $3::bytea AS id) e LEFT JOIN LATERAL (SELECT k.seq, k.type, k.data FROM ( \
            SELECT * FROM snapshot n WHERE n.shard_id = e.shard_id AND n.journal = e.journal \
            AND n.id = e.id ORDER BY n.seq DESC LIMIT $5) k \
         WHERE k.seq <= $4 ORDER BY k.seq DESC LIMIT 1) s ON TRUE",
    ))
    .bind(inner.holdings.shard_of(address).0 as i32)
    .bind(address.journal.as_str().as_bytes())
    .bind(address.id.as_str().as_bytes())
    .bind(at.map_or(i64::MAX, |at| number(at.0)))
    .bind(SNAPSHOTS_KEPT as i64);
    let rows = rows(&inner.readers, query, STORE_READ_MAX).await?;
    let row = rows.first().ok_or_else(|| damaged("a row that is always there"))?;
    let seq = Seq(get::<i64>(row, 0)? as u64);
    let Some(snapshot) = get::<Option<i64>>(row, 1)? else {
        return Ok(Loaded { snapshot: None, seq });
    };
    let state = message(row, 2)?;
    Ok(Loaded { snapshot: Some(Snapshot { seq: Seq(snapshot as u64), state }), seq })
}

pub async fn events(
    inner: &Inner,
    address: &Address,
    from: Seq,
    limit: usize,
    bytes_max: usize,
) -> Result<EventPage, StoreError> {
    let from = from.0.max(1);
    // The database adds up the bytes: what does not belong to the page never leaves it.
    let query = sqlx::query(concat!(
        "SELECT p.seq, p.at_ms, p.type, p.data, ",
        head!(),
        ", e.first FROM (SELECT n.*, ",
        first!(),
        " AS first FROM (SELECT $1::int AS shard_id, $2::bytea AS journal, $3::bytea AS id) n) e, \
         LATERAL (SELECT seq, at_ms, type, data, sum(octet_length(type) + octet_length(data)) \
            OVER (ORDER BY seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before \
            FROM journal r WHERE r.shard_id = e.shard_id AND r.journal = e.journal \
            AND r.id = e.id AND r.seq >= e.first ORDER BY r.seq LIMIT $5) p \
         WHERE p.before IS NULL OR p.before < $6 ORDER BY p.seq",
    ))
    .bind(inner.holdings.shard_of(address).0 as i32)
    .bind(address.journal.as_str().as_bytes())
    .bind(address.id.as_str().as_bytes())
    .bind(number(from))
    .bind(number(limit.max(1) as u64))
    .bind(number(bytes_max as u64));
    let rows = rows(&inner.readers, query, STORE_READ_MAX).await?;
    let mut page = EventPage { events: Vec::with_capacity(rows.len()), more: false };
    let first = rows.first().map_or(Ok(0), |row| get::<i64>(row, 5))? as u64;
    for (next, row) in (first..).zip(rows) {
        let seq = get::<i64>(&row, 0)? as u64;
        if seq != next {
            return Err(damaged(format!("event {next} of {address} is missing")));
        }
        let at_ms = get::<i64>(&row, 1)? as u64;
        page.events.push(StoredEvent { seq: Seq(seq), at_ms, event: message(&row, 2)? });
        page.more = seq < get::<i64>(&row, 4)? as u64;
    }
    Ok(page)
}

pub async fn receipt(
    inner: &Inner,
    address: &Address,
    key: &str,
    now_ms: u64,
) -> Result<Option<Receipt>, StoreError> {
    let query = sqlx::query(
        "SELECT request_hash, reply, expires_at_ms FROM receipt WHERE shard_id = $1 \
         AND journal = $2 AND id = $3 AND key = $4 AND expires_at_ms > $5",
    )
    .bind(inner.holdings.shard_of(address).0 as i32)
    .bind(address.journal.as_str().as_bytes())
    .bind(address.id.as_str().as_bytes())
    .bind(key.as_bytes())
    .bind(number(now_ms));
    let rows = rows(&inner.readers, query, STORE_READ_MAX).await?;
    let Some(row) = rows.first() else { return Ok(None) };
    receipt_row(row, key, address).map(Some)
}

fn receipt_row(row: &PgRow, key: &str, address: &Address) -> Result<Receipt, StoreError> {
    let request_hash = get::<Vec<u8>>(row, 0)?
        .try_into()
        .map_err(|_| damaged(format!("the record of the idempotency key {key} of {address}")))?;
    let reply = Bytes::from(get::<Vec<u8>>(row, 1)?);
    let expires_at_ms = get::<i64>(row, 2)? as u64;
    Ok(Receipt { key: key.into(), request_hash, reply, expires_at_ms })
}

/// Of every entity, in order of address and key.
pub async fn receipts(
    inner: &Inner,
    after: Option<(&Address, &str)>,
    now_ms: u64,
    limit: usize,
) -> Result<Vec<(Address, Receipt)>, StoreError> {
    let (address, key) = after.unzip();
    let query = sqlx::query(
        "SELECT request_hash, reply, expires_at_ms, journal, id, key FROM receipt \
         WHERE expires_at_ms > $1 AND ($2 OR (journal, id, key) > ($3, $4, $5)) \
         ORDER BY journal, id, key LIMIT $6",
    )
    .bind(number(now_ms))
    .bind(after.is_none())
    .bind(address.map_or("", |address| address.journal.as_str()).as_bytes())
    .bind(address.map_or("", |address| address.id.as_str()).as_bytes())
    .bind(key.unwrap_or("").as_bytes())
    .bind(number(limit as u64));
    let rows = rows(&inner.listers, query, STORE_READ_MAX).await?;
    let found = |row: &PgRow| {
        let address = Address::new(text(row, 3)?, text(row, 4)?);
        let receipt = receipt_row(row, text(row, 5)?, &address)?;
        Ok((address, receipt))
    };
    rows.iter().map(found).collect()
}

pub async fn entities(inner: &Inner, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
    let prefix = filter.id_prefix.as_bytes();
    let mut from = Vec::new();
    if let Some(after) = &filter.after {
        from.extend_from_slice(after.id.as_str().as_bytes());
        // The least text that is greater.
        from.push(0);
    }
    let limit = number(filter.limit as u64).saturating_add(1);
    let query = match &filter.journal {
        Some(journal) => {
            match filter.after.as_ref().map(|after| after.journal.cmp(journal)) {
                Some(std::cmp::Ordering::Greater) => return Ok(EntityPage::default()),
                Some(std::cmp::Ordering::Less) => from.clear(),
                Some(std::cmp::Ordering::Equal) | None => {}
            }
            let mut end = prefix.to_vec();
            end.push(AFTER_ALL_IDS);
            sqlx::query(concat!(
                "SELECT e.journal, e.id, ",
                head!(),
                " FROM entity e WHERE e.journal = $1 AND e.id >= $2 AND e.id < $3 \
                 ORDER BY e.journal, e.id LIMIT $4"
            ))
            .bind(journal.as_str().as_bytes())
            .bind(if &from[..] > prefix { from } else { prefix.to_vec() })
            .bind(end)
            .bind(limit)
        }
        None => sqlx::query(concat!(
            "SELECT e.journal, e.id, ",
            head!(),
            " FROM entity e WHERE (e.journal, e.id) >= ($1, $2) \
             AND ($3 = 0 OR substring(e.id, 1, $3) = $4) ORDER BY e.journal, e.id LIMIT $5"
        ))
        .bind(filter.after.as_ref().map_or("", |after| after.journal.as_str()).as_bytes())
        .bind(from)
        .bind(prefix.len() as i32)
        .bind(prefix)
        .bind(limit),
    };
    let rows = rows(&inner.listers, query, STORE_READ_MAX).await?;
    let more = rows.len() > filter.limit;
    let entities = rows.iter().take(filter.limit).map(summary).collect::<Result<_, _>>()?;
    Ok(EntityPage { entities, more })
}

pub async fn count_entities(
    inner: &Inner,
    journal: &JournalName,
    limit: usize,
) -> Result<usize, StoreError> {
    let query = sqlx::query(
        "SELECT count(*) FROM (SELECT 1 FROM entity WHERE journal = $1 LIMIT $2) AS counted",
    )
    .bind(journal.as_str().as_bytes())
    .bind(number(limit as u64));
    let rows = rows(&inner.listers, query, STORE_READ_MAX).await?;
    rows.first().map_or(Ok(0), |row| Ok(get::<i64>(row, 0)? as usize))
}

fn summary(row: &PgRow) -> Result<EntitySummary, StoreError> {
    Ok(EntitySummary {
        journal: JournalName::from(text(row, 0)?),
        id: EntityId::from(text(row, 1)?),
        seq: Seq(get::<i64>(row, 2)? as u64),
    })
}

/// A type's name, and in the next column the bytes.
pub fn message(row: &PgRow, column: usize) -> Result<Message, StoreError> {
    let data: Vec<u8> = get(row, column + 1)?;
    Ok(Message { type_name: text(row, column)?.into(), data: data.into() })
}

pub fn text(row: &PgRow, column: usize) -> Result<&str, StoreError> {
    std::str::from_utf8(get(row, column)?).map_err(|_| damaged("a name is not UTF-8"))
}

pub fn get<'r, T>(row: &'r PgRow, column: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
{
    row.try_get(column).map_err(fault::read)
}

/// The database's numbers end at 2⁶³ - 1.
pub fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// The rows of a query, which is given up if it takes longer than `most`.
pub async fn rows(
    pool: &PgPool,
    query: sqlx::query::Query<'_, Postgres, PgArguments>,
    most: Duration,
) -> Result<Vec<PgRow>, StoreError> {
    let read = async {
        let mut connection = Borrowed(Some(pool.acquire().await?));
        connection.rows(query).await
    };
    timeout(most, read).await.map_err(|_| fault::timed_out())?.map_err(fault::read)
}

/// A connection of a pool for one query. Given up halfway, it is closed: back in the pool it would keep
/// its place for as long as a dead network does not answer.
struct Borrowed(Option<PoolConnection<Postgres>>);

impl Borrowed {
    async fn rows(
        &mut self,
        query: sqlx::query::Query<'_, Postgres, PgArguments>,
    ) -> Result<Vec<PgRow>, sqlx::Error> {
        let connection = self.0.as_mut().ok_or(sqlx::Error::PoolClosed)?;
        let rows = query.fetch_all(&mut **connection).await?;
        drop(self.0.take());
        Ok(rows)
    }
}

impl Drop for Borrowed {
    fn drop(&mut self) {
        if let Some(connection) = self.0.take() {
            drop(connection.detach());
        }
    }
}
