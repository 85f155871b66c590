//! Packing: events that lie in commit order are gathered by entity, behind the hot path.
//!
//! A round goes entity by entity, in slices: it writes segments (between two commits), then forgets
//! the rows in memory, and when all are in segments it deletes the rows. A crash between any two
//! steps leaves events both in a segment and in the tail; readers take them once, and the next round
//! skips those that have a segment.

use std::collections::{BTreeSet, HashMap};

use sqlx::Row as _;

use crate::journal::error::StoreError;
use crate::journal::sqlite::fault::damaged;
use crate::journal::sqlite::read::{get, packed, tail_events};
use crate::journal::sqlite::segment::{Encoder, Packed, Segment};
use crate::journal::sqlite::{Inner, SqliteOptions};
use crate::words::clock::{self, Instant};
use crate::words::limits::{
    FEED_SWEPT_SLICES, PACK_DELETE_ROWS, SEGMENT_MERGE_EVENTS_MAX, SEGMENT_SMALL_BYTES,
    TAIL_ROWS_MAX,
};

/// What is left of a round.
pub struct Round {
    entities: BTreeSet<i64>,
    /// Up to where the entity at the front is done, if it was begun.
    begun: u64,
    /// Rows up to this offset belong to the round.
    cut: i64,
}

/// The newest segment of an entity; without its bytes, if it stays as it is.
struct Newest {
    segment: Segment,
    bytes: usize,
}

impl Inner {
    /// Packs everything that is in the tail now. Ends early at the deadline, between two steps.
    pub async fn pack(&self, deadline: Option<Instant>) -> Result<(), StoreError> {
        let mut swept = self.packing.lock().await;
        let start = clock::now();
        let mut round = self.round();
        let late = || deadline.is_some_and(|deadline| clock::now() >= deadline);
        let stop = || late() || deadline.is_none() && self.is_closing();
        let mut slices = 0;
        while !stop() && self.pack_slice(&mut round).await? {
            slices += 1;
        }
        while !stop() && round.entities.is_empty() && self.delete_slice(&round).await? {}
        for _ in 0..FEED_SWEPT_SLICES {
            if stop() || !self.sweep_feed_slice(&mut swept).await? {
                break;
            }
        }
        tracing::debug!(slices, seconds = start.elapsed().as_secs_f64(), "packed the journal");
        Ok(())
    }

    pub fn round(&self) -> Round {
        let (entities, cut) = self.index().unpacked();
        Round { entities, begun: 0, cut }
    }

    /// One transaction of segments. False if there was nothing left to do.
    pub async fn pack_slice(&self, round: &mut Round) -> Result<bool, StoreError> {
        let slice = self.take_slice(round);
        if slice.is_empty() {
            return Ok(false);
        }
        let newest = self.newest_segments(slice.keys().copied()).await?;
        let forgotten = self.forgotten(slice.keys().copied()).await?;
        let mut segments = Vec::new();
        let mut gone = Vec::new();
        let mut done = Vec::new();
        for (no, rows) in slice {
            let before = forgotten.get(&no).copied().unwrap_or(0);
            match self.pack_entity(no, newest.get(&no), before, rows).await {
                Ok((last, new)) => {
                    done.push((no, last));
                    segments.extend(new);
                    gone.extend((before > 0).then_some((no, before)));
                }
                // The others are packed all the same, and its rows stay where they are.
                Err(StoreError::Corrupt { reason }) => {
                    tracing::error!(entity = no, %reason, "a damaged entity cannot be packed");
                    round.forget(no);
                    self.index().set_aside(no);
                }
                Err(error) => return Err(error),
            }
        }
        if !segments.is_empty() || !gone.is_empty() {
            self.write_segments(&segments, &gone).await?;
        }
        let mut index = self.index();
        for (no, last) in done {
            index.packed(no, last);
        }
        Ok(true)
    }

    /// The segments that hold these rows, but for events before a number, and the number of the last event.
    async fn pack_entity(
        &self,
        no: i64,
        newest: Option<&Newest>,
        before: u64,
        rows: Vec<super::index::Row>,
    ) -> Result<(u64, Vec<Segment>), StoreError> {
        let events = packed(self, tail_events(self, no, rows).await?)?;
        let Some(last) = events.last().map(|(seq, _)| *seq) else {
            return Err(damaged(format!("the rows of entity {no} are gone")));
        };
        Ok((last, join(&self.options, no, newest, before, events)?))
    }

    fn take_slice(&self, round: &mut Round) -> HashMap<i64, Vec<super::index::Row>> {
        let index = self.index();
        let mut slice = HashMap::new();
        let mut bytes = self.options.pack_slice_bytes;
        while let Some(no) = round.entities.first().copied() {
            if bytes == 0 || slice.len() >= self.options.pack_slice_entities {
                break;
            }
            let rows = index.tail_rows(no, round.begun + 1, round.cut, TAIL_ROWS_MAX, bytes);
            let Some(last) = rows.last() else {
                round.entities.pop_first();
                round.begun = 0;
                continue;
            };
            round.begun = last.seq;
            // Some bytes a row too, lest empty events come without end.
            let taken: usize = rows.iter().map(|row| row.bytes + 16).sum();
            bytes = bytes.saturating_sub(taken);
            slice.entry(no).or_insert_with(Vec::new).extend(rows);
        }
        slice
    }

    async fn newest_segments(
        &self,
        entities: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, Newest>, StoreError> {
        let list: Vec<String> = entities.map(|no| no.to_string()).collect();
        let query = sqlx::query(
            "SELECT s.entity, s.seq_first, s.seq_last, length(s.data), \
                CASE WHEN length(s.data) <= ?1 THEN s.data ELSE x'' END \
             FROM json_each(?2) e CROSS JOIN segment s ON s.entity = e.value AND s.seq_first = \
                (SELECT max(seq_first) FROM segment WHERE entity = e.value)",
        )
        .bind(self.options.segment_merge_bytes_max as i64)
        .bind(format!("[{}]", list.join(",")));
        let rows = self.readers.all(query).await?;
        let mut newest = HashMap::with_capacity(rows.len());
        for row in rows {
            let segment = Segment {
                entity: get(&row, 0)?,
                seq_first: get::<i64>(&row, 1)? as u64,
                seq_last: get::<i64>(&row, 2)? as u64,
                data: row.try_get(4).map_err(|error| damaged(error.to_string()))?,
            };
            let bytes = get::<i64>(&row, 3)? as usize;
            newest.insert(segment.entity, Newest { segment, bytes });
        }
        Ok(newest)
    }

    /// Before which numbers events are not needed any more.
    async fn forgotten(
        &self,
        entities: impl Iterator<Item = i64>,
    ) -> Result<HashMap<i64, u64>, StoreError> {
        let list: Vec<String> = entities.map(|no| no.to_string()).collect();
        let query = sqlx::query(
            "SELECT f.entity, f.before FROM json_each(?) e CROSS JOIN forgotten f ON f.entity = e.value",
        )
        .bind(format!("[{}]", list.join(",")));
        let rows = self.readers.all(query).await?;
        rows.iter().map(|row| Ok((get(row, 0)?, get::<i64>(row, 1)? as u64))).collect()
    }

    /// Deletes some rows of a round whose events are all in segments. False if there are none left.
    pub async fn delete_slice(&self, round: &Round) -> Result<bool, StoreError> {
        let spared: Vec<String> =
            self.index().all_set_aside().iter().map(|no| no.to_string()).collect();
        let spared = format!("[{}]", spared.join(","));
        let oldest = sqlx::query(
            "SELECT off FROM journal WHERE entity NOT IN (SELECT value FROM json_each(?)) \
             ORDER BY off LIMIT 1",
        );
        let oldest = self.readers.optional(oldest.bind(&spared)).await?;
        let oldest: Option<i64> = oldest.map(|row| get(&row, 0)).transpose()?;
        let Some(oldest) = oldest.filter(|oldest| *oldest <= round.cut) else { return Ok(false) };
        let end = round.cut.min(oldest.saturating_add(PACK_DELETE_ROWS - 1));
        // In which order they were stored is not known from their segments.
        let delete = sqlx::query(
            "BEGIN IMMEDIATE; \
             INSERT OR IGNORE INTO feed (off, entity, seq) SELECT j.off, j.entity, j.seq FROM journal j \
             LEFT JOIN forgotten f ON f.entity = j.entity WHERE j.off <= ? \
             AND j.entity NOT IN (SELECT value FROM json_each(?)) AND j.seq >= coalesce(f.before, 0); \
             DELETE FROM journal WHERE off <= ? AND entity NOT IN (SELECT value FROM json_each(?)); \
             COMMIT",
        );
        self.write_one(delete.bind(end).bind(&spared).bind(end).bind(&spared)).await?;
        Ok(true)
    }
}

impl Round {
    fn forget(&mut self, no: i64) {
        if self.entities.first() == Some(&no) {
            self.begun = 0;
        }
        self.entities.remove(&no);
    }
}

/// The segments that hold these events from a number on, joined with the newest one where that is cheap.
fn join(
    options: &SqliteOptions,
    no: i64,
    newest: Option<&Newest>,
    before: u64,
    events: Vec<(u64, Packed)>,
) -> Result<Vec<Segment>, StoreError> {
    // One that ends before that number goes.
    let newest = newest.filter(|newest| newest.segment.seq_last >= before);
    let stored = newest.map_or(before.saturating_sub(1), |newest| newest.segment.seq_last);
    let events = following(no, stored, events)?;
    if events.is_empty() {
        return Ok(Vec::new());
    }
    let bytes: usize = events.iter().map(|event| event.data.len() + 8).sum();
    let mut encoder = Encoder::new(no, stored + 1);
    if let Some(newest) = newest.filter(|newest| is_joined(options, newest, bytes)) {
        encoder = Encoder::new(no, newest.segment.seq_first);
        let old = newest.segment.clone().decode();
        let old = old.map_err(|_| damaged(format!("the newest segment of entity {no}")))?;
        old.iter().for_each(|event| encoder.push(event));
    }
    let mut segments = Vec::new();
    for (seq, event) in (stored + 1..).zip(events) {
        let bytes = encoder.bytes() + event.data.len();
        if encoder.count() > 0 && bytes > options.segment_bytes_max {
            segments.push(std::mem::replace(&mut encoder, Encoder::new(no, seq)).finish());
        }
        encoder.push(&event);
    }
    segments.push(encoder.finish());
    Ok(segments)
}

/// Those that have no segment yet, if they follow what is stored, and one another.
fn following(no: i64, stored: u64, events: Vec<(u64, Packed)>) -> Result<Vec<Packed>, StoreError> {
    let mut following = Vec::with_capacity(events.len());
    for (seq, event) in events.into_iter().filter(|(seq, _)| *seq > stored) {
        let expected = stored + 1 + following.len() as u64;
        if seq != expected {
            return Err(damaged(format!("event {expected} of entity {no} is missing")));
        }
        following.push(event);
    }
    Ok(following)
}

fn is_joined(options: &SqliteOptions, newest: &Newest, new_bytes: usize) -> bool {
    let events = newest.segment.seq_last - newest.segment.seq_first + 1;
    let is_mergeable =
        newest.bytes <= options.segment_merge_bytes_max && events < SEGMENT_MERGE_EVENTS_MAX;
    is_mergeable && (newest.bytes <= SEGMENT_SMALL_BYTES || newest.bytes <= 2 * new_bytes)
}
