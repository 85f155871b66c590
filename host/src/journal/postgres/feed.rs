//! The feed of all events, a part for each shard, and how far groups have come in it.

use sqlx::Connection;
use sqlx::postgres::PgRow;
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::Inner;
use crate::journal::postgres::fault;
use crate::journal::postgres::read::{get, message, number, rows, text};
use crate::journal::store::{FeedEntry, FeedPage, GroupPosition, Laggard, Partition};
use crate::words::limits::STORE_READ_MAX;
use crate::words::{Address, Seq};

/// What is behind the newest event comes from the same view of the database as the events: an offset below it
/// that is not there now will never be.
const FEED: &str = "\
SELECT s.next_off, p.off, p.journal, p.id, p.seq, p.at_ms, p.type, p.data
FROM shard s LEFT JOIN LATERAL (
    SELECT r.*, sum(octet_length(r.type) + octet_length(r.data))
        OVER (ORDER BY r.off ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before
    FROM journal r WHERE r.shard_id = s.shard_id AND r.off >= $2 ORDER BY r.off LIMIT $3
) p ON p.before IS NULL OR p.before < $4
WHERE s.shard_id = $1 ORDER BY p.off";

pub async fn feed(
    inner: &Inner,
    partition: Partition,
    from_off: u64,
    limit: usize,
    bytes_max: usize,
) -> Result<FeedPage, StoreError> {
    let (from, limit) = (from_off.max(1), limit.max(1));
    let query = sqlx::query(FEED)
        .bind(partition.0 as i32)
        .bind(number(from))
        .bind(number(limit as u64))
        .bind(number(bytes_max as u64));
    let rows = rows(&inner.feeders, query, STORE_READ_MAX).await?;
    let mut page = FeedPage { entries: Vec::with_capacity(rows.len()), next_off: from };
    let mut bytes = 0;
    let mut end = from;
    for row in &rows {
        end = get::<i64>(row, 0)? as u64;
        let Some(off) = get::<Option<i64>>(row, 1)? else { continue };
        let event = message(row, 6)?;
        bytes += event.size();
        page.next_off = off as u64 + 1;
        page.entries.push(FeedEntry {
            off: off as u64,
            address: Address::new(text(row, 2)?, text(row, 3)?),
            seq: Seq(get::<i64>(row, 4)? as u64),
            at_ms: get::<i64>(row, 5)? as u64,
            event,
        });
    }
    let is_all = page.entries.len() < limit && (bytes < bytes_max || page.entries.is_empty());
    if is_all {
        page.next_off = end.max(from);
    }
    Ok(page)
}

pub async fn ends(inner: &Inner) -> Result<Vec<GroupPosition>, StoreError> {
    let query = sqlx::query("SELECT shard_id, next_off FROM shard ORDER BY shard_id");
    let rows = rows(&inner.listers, query, STORE_READ_MAX).await?;
    rows.iter().map(position).collect()
}

fn position(row: &PgRow) -> Result<GroupPosition, StoreError> {
    let partition = Partition(get::<i32>(row, 0)? as u32);
    Ok(GroupPosition { partition, off: get::<i64>(row, 1)? as u64 })
}

pub async fn groups(
    inner: &Inner,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let query =
        sqlx::query("SELECT DISTINCT grp FROM consumed WHERE $1 OR grp > $2 ORDER BY grp LIMIT $3")
            .bind(after.is_none())
            .bind(after.unwrap_or_default().as_bytes())
            .bind(number(limit as u64));
    let rows = rows(&inner.listers, query, STORE_READ_MAX).await?;
    rows.iter().map(|row| Ok(text(row, 0)?.into())).collect()
}

pub async fn positions(inner: &Inner, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
    let query = sqlx::query("SELECT shard_id, off FROM consumed WHERE grp = $1 ORDER BY shard_id");
    let rows = rows(&inner.feeders, query.bind(group.as_bytes()), STORE_READ_MAX).await?;
    rows.iter().map(position).collect()
}

pub async fn laggards(
    inner: &Inner,
    group: &str,
    partitions: &[Partition],
    limit: usize,
) -> Result<Vec<Laggard>, StoreError> {
    let numbers: Vec<i32> = partitions.iter().map(|partition| partition.0 as i32).collect();
    let query = sqlx::query(
        "SELECT shard_id, journal, id, seq, tries, due_ms, error, parked FROM laggard \
         WHERE grp = $1 AND shard_id = ANY($2::int[]) \
         ORDER BY parked, due_ms, shard_id, journal, id LIMIT $3",
    )
    .bind(group.as_bytes())
    .bind(numbers)
    .bind(number(limit as u64));
    let rows = rows(&inner.feeders, query, STORE_READ_MAX).await?;
    let laggard = |row: &PgRow| {
        Ok(Laggard {
            partition: Partition(get::<i32>(row, 0)? as u32),
            address: Address::new(text(row, 1)?, text(row, 2)?),
            next: Seq(get::<i64>(row, 3)? as u64),
            tries: get::<i32>(row, 4)? as u32,
            due_ms: get::<i64>(row, 5)? as u64,
            error: text(row, 6)?.into(),
            parked: get(row, 7)?,
        })
    };
    rows.iter().map(laggard).collect()
}

pub async fn delete_group(inner: &Inner, group: &str) -> Result<(), StoreError> {
    let delete = async {
        let mut connection = inner.listers.acquire().await?;
        let mut transaction = connection.begin().await?;
        for delete in ["DELETE FROM laggard WHERE grp = $1", "DELETE FROM consumed WHERE grp = $1"]
        {
            sqlx::query(delete).bind(group.as_bytes()).execute(&mut *transaction).await?;
        }
        transaction.commit().await
    };
    let done = timeout(STORE_READ_MAX, delete).await;
    done.map_err(|_| fault::timed_out())?.map_err(fault::read)
}
