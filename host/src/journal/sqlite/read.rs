//! Reads, on connections of their own: they never wait for a commit.
//!
//! A read looks at the index in memory and at the database. Meanwhile the packer may move rows from
//! the tail into segments, so a read that finds the index changed in between starts again.

use sqlx::sqlite::SqliteRow;
use sqlx::{Row as _, SqliteConnection};

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::fault::{self, damaged};
use crate::journal::sqlite::index::{Known, Mark, Row};
use crate::journal::sqlite::readers::Query;
use crate::journal::sqlite::segment::{Packed, Segment, unseal};
use crate::journal::store::{
    EntityFilter, EntityPage, EntitySummary, EventPage, Loaded, Receipt, Snapshot, StoredEvent,
};
use crate::words::limits::{SEGMENTS_READ_FIRST, SEGMENTS_READ_NEXT, SNAPSHOTS_KEPT};
use crate::words::{Address, EntityId, JournalName, Message, Seq};

/// Greater than every id: no UTF-8 text has this byte.
const AFTER_ALL_IDS: u8 = 0xff;

/// The number of entity `e`, and that of its newest event in a segment.
macro_rules! head {
    () => {
        "e.no, coalesce((SELECT seq_last FROM segment WHERE entity = e.no \
         ORDER BY seq_first DESC LIMIT 1), 0)"
    };
}

const RESOLVE: &str =
    concat!("SELECT ", head!(), " FROM entity e WHERE e.journal = ? AND e.id = ?");

/// An entity that is activated is asked for all of this at once.
const LOAD: &str = concat!(
    "SELECT ",
    head!(),
    ", s.seq, s.type, s.data FROM entity e LEFT JOIN snapshot s ON s.entity = e.no AND s.seq <= ?3 \
     WHERE e.journal = ?1 AND e.id = ?2 ORDER BY s.seq DESC LIMIT ?4 + 0",
);

/// The number of an entity and of its newest event.
pub async fn resolve(inner: &Inner, address: &Address) -> Result<Known, StoreError> {
    loop {
        let mark = match known(inner, address) {
            Ok(known) => return Ok(known),
            Err(mark) => mark,
        };
        let found = found(inner.readers.optional(look_up(address)).await?.as_ref())?;
        // Each round means that the packer has finished a slice: this ends.
        if let Some(known) = inner.index().learn(address, mark, found) {
            return Ok(known);
        }
    }
}

/// The same, on the connection that writes: a commit must not wait for readers.
pub async fn resolve_on(
    connection: &mut SqliteConnection,
    inner: &Inner,
    address: &Address,
) -> Result<Known, StoreError> {
    loop {
        let mark = match known(inner, address) {
            Ok(known) => return Ok(known),
            Err(mark) => mark,
        };
        let row = look_up(address).fetch_optional(&mut *connection).await.map_err(fault::read)?;
        let found = found(row.as_ref())?;
        if let Some(known) = inner.index().learn(address, mark, found) {
            return Ok(known);
        }
    }
}

fn known(inner: &Inner, address: &Address) -> Result<Known, Mark> {
    let mut index = inner.index();
    index.known(address).ok_or_else(|| index.mark())
}

fn look_up(address: &Address) -> Query<'_> {
    sqlx::query(RESOLVE).bind(address.journal.as_str()).bind(address.id.as_str().as_bytes())
}

fn found(row: Option<&SqliteRow>) -> Result<Known, StoreError> {
    match row {
        Some(row) => Ok(Known { no: get(row, 0)?, seq: get::<i64>(row, 1)? as u64 }),
        None => Ok(Known::ABSENT),
    }
}

pub async fn load(inner: &Inner, address: &Address, at: Option<Seq>) -> Result<Loaded, StoreError> {
    let before = known(inner, address);
    if before.as_ref().is_ok_and(|known| known.is_absent()) {
        return Ok(Loaded::default());
    }
    let query = sqlx::query(LOAD)
        .bind(address.journal.as_str())
        .bind(address.id.as_str().as_bytes())
        .bind(at.map_or(i64::MAX, |at| at.0.min(i64::MAX as u64) as i64))
        .bind(SNAPSHOTS_KEPT as i64);
    let rows = inner.readers.all(query).await?;
    let known = match before {
        Ok(known) => known,
        Err(mark) => {
            let learned = inner.index().learn(address, mark, found(rows.first())?);
            match learned {
                Some(known) => known,
                None => resolve(inner, address).await?,
            }
        }
    };
    // A snapshot only saves time: the events tell the same.
    let intact = |row| match snapshot(inner, row) {
        Ok(snapshot) => snapshot.filter(|snapshot| snapshot.seq.0 <= known.seq),
        Err(error) => {
            tracing::error!(%address, %error, "a snapshot is left aside");
            None
        }
    };
    Ok(Loaded { snapshot: rows.iter().find_map(intact), seq: Seq(known.seq) })
}

fn snapshot(inner: &Inner, row: &SqliteRow) -> Result<Option<Snapshot>, StoreError> {
    let Some(seq) = get::<Option<i64>>(row, 2)? else { return Ok(None) };
    let (no, type_no): (i64, i64) = (get(row, 0)?, get(row, 3)?);
    let key = [no as u64, seq as u64, type_no as u64];
    let data = unseal(&key, get(row, 4)?)
        .map_err(|_| damaged(format!("snapshot {seq} of entity {no}")))?;
    let state = Message { type_name: type_name(inner, type_no)?, data };
    Ok(Some(Snapshot { seq: Seq(seq as u64), state }))
}

pub async fn events(
    inner: &Inner,
    address: &Address,
    from: Seq,
    limit: usize,
    bytes_max: usize,
) -> Result<EventPage, StoreError> {
    let known = resolve(inner, address).await?;
    let limit = limit.max(1);
    let mut from = from.0.max(1);
    loop {
        let mut page = Page { next: from, limit, bytes_left: bytes_max, events: Vec::new() };
        let (mark, head, first, tail) = {
            let index = inner.index();
            let head = index.tail_head(known.no).unwrap_or(0).max(known.seq);
            let tail = index.tail_rows(known.no, page.next, i64::MAX, limit, bytes_max);
            (index.mark(), head, index.tail_first(known.no), tail)
        };
        if page.next > head {
            return Ok(EventPage { events: Vec::new(), more: false });
        }
        if first.is_none_or(|first| page.next < first) {
            page.segments(inner, known.no, address).await?;
        }
        let tail_last = tail.last().map(|row| row.seq);
        page.tail(inner, known.no, tail).await?;
        // The rows of the tail were bounded too, so the page may end with them before it is full.
        let is_tail_done = tail_last.is_some_and(|last| page.next > last);
        if page.is_full() || is_tail_done || page.next > head {
            let more = page.next <= head;
            return Ok(EventPage { events: page.events, more });
        }
        if mark != inner.index().mark() {
            continue;
        }
        let missing = page.next;
        match first_kept(inner, known.no, missing).await? {
            // Forgotten since the page was begun: the next one starts behind the gap.
            Some(_) if !page.events.is_empty() => {
                return Ok(EventPage { events: page.events, more: true });
            }
            Some(kept) => from = kept,
            None if mark == inner.index().mark() => {
                return Err(damaged(format!("event {missing} of {address} is missing")));
            }
            None => {}
        }
    }
}

/// The first event after one that is missing, if that was forgotten.
async fn first_kept(inner: &Inner, no: i64, missing: u64) -> Result<Option<u64>, StoreError> {
    let query = sqlx::query(
        "SELECT before, (SELECT min(seq_first) FROM segment WHERE entity = ?1 AND seq_first > ?2) \
         FROM forgotten WHERE entity = ?1 AND before > ?2",
    )
    .bind(no)
    .bind(missing as i64);
    let row = inner.readers.optional(query).await?;
    let Some(row) = row else { return Ok(None) };
    let before = get::<i64>(&row, 0)? as u64;
    let packed = get::<Option<i64>>(&row, 1)?.map(|first| first as u64);
    let unpacked = inner.index().tail_first(no).filter(|first| *first > missing);
    let kept = packed.into_iter().chain(unpacked).min();
    Ok(kept.filter(|kept| *kept <= before))
}

/// Events as they are gathered.
struct Page {
    next: u64,
    limit: usize,
    bytes_left: usize,
    events: Vec<StoredEvent>,
}

impl Page {
    fn is_full(&self) -> bool {
        self.events.len() >= self.limit || self.bytes_left == 0 && !self.events.is_empty()
    }

    fn push(&mut self, event: StoredEvent) {
        self.next = event.seq.0 + 1;
        self.bytes_left = self.bytes_left.saturating_sub(event.event.size());
        self.events.push(event);
    }

    async fn segments(
        &mut self,
        inner: &Inner,
        no: i64,
        address: &Address,
    ) -> Result<(), StoreError> {
        let mut segments = SEGMENTS_READ_FIRST;
        while !self.is_full() {
            let query = sqlx::query(
                "SELECT seq_first, seq_last, data FROM segment WHERE entity = ?1 AND seq_first >= \
                 coalesce((SELECT max(seq_first) FROM segment WHERE entity = ?1 AND seq_first <= ?2), ?2) \
                 ORDER BY seq_first LIMIT ?3 + 0",
            )
            .bind(no)
            .bind(self.next as i64)
            .bind(std::mem::replace(&mut segments, SEGMENTS_READ_NEXT));
            let rows = inner.readers.all(query).await?;
            let before = self.next;
            for row in rows {
                let segment = Segment {
                    entity: no,
                    seq_first: get::<i64>(&row, 0)? as u64,
                    seq_last: get::<i64>(&row, 1)? as u64,
                    data: get(&row, 2)?,
                };
                self.segment(inner, segment, address)?;
            }
            if self.next == before {
                return Ok(());
            }
        }
        Ok(())
    }

    fn segment(
        &mut self,
        inner: &Inner,
        segment: Segment,
        address: &Address,
    ) -> Result<(), StoreError> {
        let first = segment.seq_first;
        if self.is_full() || segment.seq_last < self.next || first > self.next {
            return Ok(());
        }
        let events = segment
            .decode()
            .map_err(|_| damaged(format!("the events of {address} from number {first} on")))?;
        for (seq, event) in (first..).zip(events) {
            if seq == self.next && !self.is_full() {
                let type_name = type_name(inner, event.type_no)?;
                let event = StoredEvent {
                    seq: Seq(seq),
                    at_ms: event.at_ms,
                    event: Message { type_name, data: event.data },
                };
                self.push(event);
            }
        }
        Ok(())
    }

    /// Rows that are not in memory are read; one that is not there any more ends the page.
    async fn tail(&mut self, inner: &Inner, no: i64, rows: Vec<Row>) -> Result<(), StoreError> {
        let rows: Vec<Row> = rows.into_iter().filter(|row| row.seq >= self.next).collect();
        for event in tail_events(inner, no, rows).await? {
            if event.seq.0 != self.next || self.is_full() {
                return Ok(());
            }
            self.push(event);
        }
        Ok(())
    }
}

/// The events of rows of the tail, without those that have been deleted meanwhile.
pub async fn tail_events(
    inner: &Inner,
    no: i64,
    rows: Vec<Row>,
) -> Result<Vec<StoredEvent>, StoreError> {
    let missing: Vec<String> =
        rows.iter().filter(|row| row.event.is_none()).map(|row| row.off.to_string()).collect();
    let mut events: Vec<StoredEvent> = rows.into_iter().filter_map(|row| row.event).collect();
    if missing.is_empty() {
        return Ok(events);
    }
    let query = sqlx::query(
        "SELECT seq, at_ms, type, data, entity FROM journal \
         WHERE off IN (SELECT value FROM json_each(?))",
    )
    .bind(format!("[{}]", missing.join(",")));
    let read = inner.readers.all(query).await?;
    for row in read {
        let (seq, at_ms, type_no): (i64, i64, i64) = (get(&row, 0)?, get(&row, 1)?, get(&row, 2)?);
        let key = [get::<i64>(&row, 4)? as u64, seq as u64, at_ms as u64, type_no as u64];
        if key[0] != no as u64 {
            return Err(damaged(format!("a row of entity {no} became one of {}", key[0])));
        }
        let data = unseal(&key, get(&row, 3)?)
            .map_err(|_| damaged(format!("event {seq} of entity {no}")))?;
        let event = Message { type_name: type_name(inner, type_no)?, data };
        events.push(StoredEvent { seq: Seq(seq as u64), at_ms: at_ms as u64, event });
    }
    events.sort_by_key(|event| event.seq);
    Ok(events)
}

/// Events in the form of segments.
pub fn packed(inner: &Inner, events: Vec<StoredEvent>) -> Result<Vec<(u64, Packed)>, StoreError> {
    let types = inner.types();
    let pack = |stored: StoredEvent| {
        let type_no = types
            .number(&stored.event.type_name)
            .ok_or_else(|| damaged(format!("the type {} has no number", stored.event.type_name)))?;
        Ok((stored.seq.0, Packed { at_ms: stored.at_ms, type_no, data: stored.event.data }))
    };
    events.into_iter().map(pack).collect()
}

pub async fn receipt(
    inner: &Inner,
    address: &Address,
    key: &str,
    now_ms: u64,
) -> Result<Option<Receipt>, StoreError> {
    let known = resolve(inner, address).await?;
    let query = sqlx::query(
        "SELECT request_hash, reply, expires_at_ms FROM receipt \
         WHERE entity = ? AND key = ? AND expires_at_ms > ?",
    )
    .bind(known.no)
    .bind(key)
    .bind(now_ms as i64);
    let row = inner.readers.optional(query).await?;
    let Some(row) = row else { return Ok(None) };
    receipt_row(&row, known.no, key, address).map(Some)
}

fn receipt_row(
    row: &SqliteRow,
    no: i64,
    key: &str,
    address: &Address,
) -> Result<Receipt, StoreError> {
    let wrong = |_| damaged(format!("the record of the idempotency key {key} of {address}"));
    let request_hash = get::<Vec<u8>>(row, 0)?.try_into().map_err(wrong)?;
    let expires_at_ms = get::<i64>(row, 2)? as u64;
    let reply = unseal(&[no as u64, expires_at_ms], get(row, 1)?).map_err(|_| wrong(Vec::new()))?;
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
        "SELECT r.request_hash, r.reply, r.expires_at_ms, e.journal, e.id, r.key, e.no \
         FROM entity e JOIN receipt r ON r.entity = e.no WHERE r.expires_at_ms > ?1 \
         AND (?2 OR (e.journal, e.id, r.key) > (?3, ?4, ?5)) \
         ORDER BY e.journal, e.id, r.key LIMIT ?6 + 0",
    )
    .bind(i64::try_from(now_ms).unwrap_or(i64::MAX))
    .bind(after.is_none())
    .bind(address.map_or("", |address| address.journal.as_str()))
    .bind(address.map_or("", |address| address.id.as_str()).as_bytes())
    .bind(key.unwrap_or(""))
    .bind(limit as i64);
    let rows = inner.listers.all(query).await?;
    let found = |row: &SqliteRow| {
        let id = String::from_utf8(get(row, 4)?).map_err(|_| damaged("an id is not UTF-8"))?;
        let address = Address::new(get::<String>(row, 3)?, id);
        let receipt = receipt_row(row, get(row, 6)?, get(row, 5)?, &address)?;
        Ok((address, receipt))
    };
    rows.iter().map(found).collect()
}

pub async fn entities(inner: &Inner, filter: &EntityFilter) -> Result<EntityPage, StoreError> {
    let mut page = EntityPage::default();
    let mut after = filter.after.clone();
    loop {
        let wanted = filter.limit - page.entities.len() + 1;
        let found = entity_rows(inner, filter, after.as_ref(), wanted).await?;
        let last = found.len() < wanted;
        for entity in found {
            after = Some(Address { journal: entity.journal.clone(), id: entity.id.clone() });
            // It may have receipts, but it has no events.
            if entity.seq == Seq::ZERO {
                continue;
            }
            if page.entities.len() == filter.limit {
                page.more = true;
                return Ok(page);
            }
            page.entities.push(entity);
        }
        if last {
            return Ok(page);
        }
    }
}

async fn entity_rows(
    inner: &Inner,
    filter: &EntityFilter,
    after: Option<&Address>,
    limit: usize,
) -> Result<Vec<EntitySummary>, StoreError> {
    let prefix = filter.id_prefix.as_bytes();
    let mut from = after.map_or(Vec::new(), |after| successor(after.id.as_str().as_bytes()));
    let select = "SELECT no, journal, id, coalesce((SELECT seq_last FROM segment \
         WHERE entity = no ORDER BY seq_first DESC LIMIT 1), 0) FROM entity ";
    loop {
        let mark = inner.index().mark();
        let query = match &filter.journal {
            Some(journal) => {
                match after.map(|after| after.journal.cmp(journal)) {
                    Some(std::cmp::Ordering::Greater) => return Ok(Vec::new()),
                    Some(std::cmp::Ordering::Less) => from.clear(),
                    Some(std::cmp::Ordering::Equal) | None => {}
                }
                let text = format!(
                    "{select} WHERE journal = ? AND id >= ? AND id < ? ORDER BY journal, id LIMIT ? + 0"
                );
                sqlx::query(sqlx::AssertSqlSafe(text))
                    .bind(journal.as_str())
                    .bind(from.as_slice().max(prefix))
                    .bind(end_of_prefix(prefix))
                    .bind(limit as i64)
            }
            None => {
                let text = format!(
                    "{select} WHERE (journal, id) >= (?1, ?2) AND (?3 = 0 OR substr(id, 1, ?3) = ?4) \
                     ORDER BY journal, id LIMIT ?5 + 0"
                );
                sqlx::query(sqlx::AssertSqlSafe(text))
                    .bind(after.map_or("", |after| after.journal.as_str()))
                    .bind(&from)
                    .bind(prefix.len() as i64)
                    .bind(prefix)
                    .bind(limit as i64)
            }
        };
        let rows = inner.listers.all(query).await?;
        let index = inner.index();
        if mark != index.mark() {
            continue;
        }
        let summary = |row: &SqliteRow| {
            let head = index.tail_head(get(row, 0)?).unwrap_or(0);
            let id = String::from_utf8(get(row, 2)?).map_err(|_| damaged("an id is not UTF-8"))?;
            Ok(EntitySummary {
                journal: JournalName::from(get::<String>(row, 1)?),
                id: EntityId::from(id),
                seq: Seq(head.max(get::<i64>(row, 3)? as u64)),
            })
        };
        return rows.iter().map(summary).collect();
    }
}

/// The least bytes greater than these.
fn successor(bytes: &[u8]) -> Vec<u8> {
    [bytes, &[0]].concat()
}

/// The least bytes greater than all that start with these.
fn end_of_prefix(prefix: &[u8]) -> Vec<u8> {
    let mut end = prefix.to_vec();
    match end.last_mut() {
        // UTF-8 has no 0xff, so this cannot overflow.
        Some(last) => *last = last.saturating_add(1),
        None => end.push(AFTER_ALL_IDS),
    }
    end
}

pub fn type_name(inner: &Inner, number: i64) -> Result<std::sync::Arc<str>, StoreError> {
    inner.types().name(number).ok_or_else(|| damaged(format!("there is no message type {number}")))
}

pub fn get<'r, T>(row: &'r SqliteRow, column: usize) -> Result<T, StoreError>
where
    T: sqlx::Decode<'r, sqlx::Sqlite> + sqlx::Type<sqlx::Sqlite>,
{
    // A value of another type than the schema's is damage.
    row.try_get(column).map_err(|error| damaged(error.to_string()))
}
