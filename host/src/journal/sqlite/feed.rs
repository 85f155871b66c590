//! The feed of all events, and how far groups have come in it.
//!
//! Of an event that is not packed yet the table `journal` knows the place; of one that is packed, `feed` does, and
//! a segment has the event itself.

use std::collections::{BTreeMap, HashMap};

use sqlx::sqlite::SqliteRow;

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::outbox::address;
use crate::journal::sqlite::read::{get, type_name};
use crate::journal::sqlite::segment::{Packed, Segment, unseal};
use crate::journal::store::{FeedEntry, FeedPage, GroupPosition, Laggard, Partition};
use crate::words::limits::FEED_SEGMENTS_AT_ONCE;
use crate::words::{Address, Message, Seq};

/// The inner select takes no bytes of events along: what does not belong to the page is never read.
const FEED: &str = "\
SELECT u.off, u.entity, u.seq, e.journal, e.id, j.at_ms, j.type, j.data FROM (
    SELECT off, entity, seq FROM feed WHERE off >= ?1
    UNION ALL
    SELECT off, entity, seq FROM journal WHERE off >= ?1
    ORDER BY off LIMIT ?2 + 0
) u CROSS JOIN entity e ON e.no = u.entity LEFT JOIN journal j ON j.off = u.off";

struct Found {
    off: u64,
    no: i64,
    seq: u64,
    address: Address,
    /// None if it is packed.
    event: Option<Packed>,
}

pub async fn feed(
    inner: &Inner,
    from_off: u64,
    limit: usize,
    bytes_max: usize,
) -> Result<FeedPage, StoreError> {
    let from = from_off.max(1);
    let found = find(inner, from, limit.max(1), bytes_max).await?;
    let mut page = FeedPage { entries: Vec::new(), next_off: from };
    let mut bytes = 0;
    let mut rest = found.into_iter().peekable();
    while rest.peek().is_some() {
        let some: Vec<Found> = rest.by_ref().take(FEED_SEGMENTS_AT_ONCE).collect();
        let mut packed = packed(inner, &some).await?;
        for found in some {
            if bytes >= bytes_max && !page.entries.is_empty() {
                return Ok(page);
            }
            page.next_off = found.off + 1;
            let event = found.event.or_else(|| packed.remove(&(found.no, found.seq)));
            let Some(event) = event else { continue };
            let event_type = type_name(inner, event.type_no)?;
            let message = Message { type_name: event_type, data: event.data };
            bytes += message.size();
            page.entries.push(FeedEntry {
                off: found.off,
                address: found.address,
                seq: Seq(found.seq),
                at_ms: event.at_ms,
                event: message,
            });
        }
    }
    Ok(page)
}

async fn find(
    inner: &Inner,
    from: u64,
    limit: usize,
    bytes_max: usize,
) -> Result<Vec<Found>, StoreError> {
    let query = sqlx::query(FEED).bind(i64::try_from(from).unwrap_or(i64::MAX)).bind(limit as i64);
    let mut found: Vec<Found> = Vec::new();
    let take = |row: &SqliteRow| {
        let entry = entry(row)?;
        let bytes = entry.event.as_ref().map_or(0, |event| event.data.len());
        found.push(entry);
        Ok(bytes)
    };
    inner.listers.some(query, bytes_max, take).await?;
    Ok(found)
}

fn entry(row: &SqliteRow) -> Result<Found, StoreError> {
    let (no, seq): (i64, i64) = (get(row, 1)?, get(row, 2)?);
    let event = match get::<Option<i64>>(row, 5)? {
        Some(at_ms) => {
            let type_no: i64 = get(row, 6)?;
            let key = [no as u64, seq as u64, at_ms as u64, type_no as u64];
            match unseal(&key, get(row, 7)?) {
                Ok(data) => Some(Packed { at_ms: at_ms as u64, type_no, data }),
                // One damaged event must not keep all others from being consumed.
                Err(_) => {
                    tracing::error!(entity = no, seq, "a damaged event is left out of the feed");
                    None
                }
            }
        }
        None => None,
    };
    let off = get::<i64>(row, 0)? as u64;
    Ok(Found { off, no, seq: seq as u64, address: address(row, 3)?, event })
}

/// Those events of these that are in segments.
async fn packed(inner: &Inner, found: &[Found]) -> Result<HashMap<(i64, u64), Packed>, StoreError> {
    let mut wanted: BTreeMap<i64, (u64, u64)> = BTreeMap::new();
    for found in found.iter().filter(|found| found.event.is_none()) {
        let (first, last) = wanted.entry(found.no).or_insert((found.seq, found.seq));
        *first = found.seq.min(*first);
        *last = found.seq.max(*last);
    }
    let mut events = HashMap::new();
    if wanted.is_empty() {
        return Ok(events);
    }
    let list: Vec<String> =
        wanted.iter().map(|(no, (first, last))| format!("[{no},{first},{last}]")).collect();
    let query = sqlx::query(
        "SELECT s.entity, s.seq_first, s.seq_last, s.data FROM ( \
            SELECT value->>0 no, value->>1 first, value->>2 last FROM json_each(?)) w \
         CROSS JOIN segment s ON s.entity = w.no AND s.seq_first <= w.last AND s.seq_first >= \
            coalesce((SELECT max(seq_first) FROM segment WHERE entity = w.no AND seq_first <= w.first), 0)",
    )
    .bind(format!("[{}]", list.join(",")));
    let rows = inner.listers.all(query).await?;
    for row in rows {
        let segment = Segment {
            entity: get(&row, 0)?,
            seq_first: get::<i64>(&row, 1)? as u64,
            seq_last: get::<i64>(&row, 2)? as u64,
            data: get(&row, 3)?,
        };
        let (no, seq_first) = (segment.entity, segment.seq_first);
        match segment.decode() {
            Ok(decoded) => {
                let numbered = (seq_first..).zip(decoded);
                events.extend(numbered.map(|(seq, event)| ((no, seq), event)));
            }
            Err(_) => {
                tracing::error!(entity = no, seq_first, "damaged events are left out of the feed");
            }
        }
    }
    Ok(events)
}

pub async fn end(inner: &Inner) -> Result<GroupPosition, StoreError> {
    let query = sqlx::query(
        "SELECT max(coalesce((SELECT max(off) FROM journal), 0), coalesce((SELECT max(off) FROM feed), 0))",
    );
    let newest: i64 = get(&inner.readers.one(query).await?, 0)?;
    Ok(GroupPosition { partition: Partition(0), off: newest as u64 + 1 })
}

pub async fn groups(
    inner: &Inner,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let query = sqlx::query(
        "SELECT DISTINCT grp FROM position WHERE ?1 IS NULL OR grp > ?1 ORDER BY grp LIMIT ?2 + 0",
    );
    let rows = inner.readers.all(query.bind(after).bind(limit as i64)).await?;
    rows.iter().map(|row| get(row, 0)).collect()
}

pub async fn positions(inner: &Inner, group: &str) -> Result<Vec<GroupPosition>, StoreError> {
    let query =
        sqlx::query("SELECT part, off FROM position WHERE grp = ? ORDER BY part").bind(group);
    let rows = inner.readers.all(query).await?;
    let position = |row: &SqliteRow| {
        let partition = Partition(get::<i64>(row, 0)? as u32);
        Ok(GroupPosition { partition, off: get::<i64>(row, 1)? as u64 })
    };
    rows.iter().map(position).collect()
}

pub async fn laggards(
    inner: &Inner,
    group: &str,
    partitions: &[Partition],
    limit: usize,
) -> Result<Vec<Laggard>, StoreError> {
    let list: Vec<String> = partitions.iter().map(Partition::to_string).collect();
    let query = sqlx::query(
        "SELECT part, journal, id, seq, tries, due_ms, error, parked FROM laggard WHERE grp = ? \
         AND part IN (SELECT value FROM json_each(?)) ORDER BY parked, due_ms, journal, id LIMIT ? + 0",
    )
    .bind(group)
    .bind(format!("[{}]", list.join(",")))
    .bind(limit as i64);
    let rows = inner.listers.all(query).await?;
    let laggard = |row: &SqliteRow| {
        Ok(Laggard {
            partition: Partition(get::<i64>(row, 0)? as u32),
            address: address(row, 1)?,
            next: Seq(get::<i64>(row, 3)? as u64),
            tries: get::<i64>(row, 4)? as u32,
            due_ms: get::<i64>(row, 5)? as u64,
            error: get(row, 6)?,
            parked: get(row, 7)?,
        })
    };
    rows.iter().map(laggard).collect::<Result<_, StoreError>>()
}

pub async fn delete_group(inner: &Inner, group: &str) -> Result<(), StoreError> {
    let delete = sqlx::query(
        "BEGIN IMMEDIATE; DELETE FROM laggard WHERE grp = ?; DELETE FROM position WHERE grp = ?; COMMIT",
    );
    inner.write_one(delete.bind(group).bind(group)).await.map(drop)
}
