//! The statement that stores a batch.

use std::collections::HashMap;
use std::sync::OnceLock;

use sqlx::{Connection, PgConnection};
use tokio::time::{Instant, timeout};

use crate::journal::error::StoreError;
use crate::journal::postgres::aside::{Aside, Sections};
use crate::journal::postgres::draft::{Draft, conflict};
use crate::journal::postgres::fault::{self, Fault};
use crate::journal::postgres::sweep::Superfluous;
use crate::journal::postgres::{Inner, aside, backoff};
use crate::journal::store::{Chore, Fence, Write};
use crate::words::limits::{
    STORE_COMMIT_MAX, STORE_IDLE_TRIED_AFTER, STORE_RETRIES_MAX, STORE_TRY_MAX,
};
use crate::words::{Epoch, Seq, Shard, clock};

/// The rows of a shard are stored if `fence` could take its row; nothing is stored if an entity is not at
/// the number that its write comes after. The fence is an UPDATE, which waits for whoever changes the row
/// and then looks at it again; a check without a lock would let two writers pass.
///
/// What stands in braces is nothing for a batch of events, snapshots and receipts alone.
const APPEND: &str = "\
WITH want AS (
    SELECT * FROM unnest($1::int[], $2::bigint[], $3::bigint[], $4::bigint[])
        AS t (shard_id, epoch, events, known)
), head AS (
    SELECT * FROM unnest($5::int[], $6::bigint[], $7::bytea[], $8::bytea[], $9::bigint[])
        WITH ORDINALITY AS t (shard_id, epoch, journal, id, seq, place)
), wrong AS (
    SELECT h.place FROM head h
    JOIN shard s ON s.shard_id = h.shard_id AND s.epoch = h.epoch AND s.owner IS NOT NULL
        AND s.shard_id = ANY($1)
    WHERE h.seq <> coalesce((
        SELECT j.seq FROM journal j
        WHERE j.shard_id = h.shard_id AND j.journal = h.journal AND j.id = h.id
        ORDER BY j.seq DESC LIMIT 1), 0)
){MOVED}, fence AS (
    UPDATE shard s SET next_off = s.next_off + w.events FROM want w
    WHERE s.shard_id = ANY($1) AND s.shard_id = w.shard_id AND s.epoch = w.epoch
        AND s.owner IS NOT NULL AND s.next_off >= w.known AND NOT EXISTS (SELECT 1 FROM wrong){UNLESS}
    RETURNING s.shard_id, s.epoch, s.next_off, s.next_off - w.events AS base
), events AS (
    INSERT INTO journal (shard_id, journal, id, seq, off, epoch, at_ms, type, data)
    SELECT e.shard_id, e.journal, e.id, e.seq, f.base + e.place, e.epoch, e.at_ms, e.type, e.data
    FROM unnest($10::int[], $11::bigint[], $12::bytea[], $13::bytea[], $14::bigint[], $15::bigint[],
            $16::bigint[], $17::bytea[], $18::bytea[])
        AS e (shard_id, epoch, journal, id, place, seq, at_ms, type, data)
    JOIN fence f ON f.shard_id = e.shard_id AND f.epoch = e.epoch
), firsts AS (
    INSERT INTO entity (journal, id, shard_id)
    SELECT e.journal, e.id, e.shard_id
    FROM unnest($19::int[], $20::bigint[], $21::bytea[], $22::bytea[])
        AS e (shard_id, epoch, journal, id)
    JOIN fence f ON f.shard_id = e.shard_id AND f.epoch = e.epoch
    ON CONFLICT (journal, id) DO NOTHING
), snapshots AS (
    INSERT INTO snapshot (shard_id, journal, id, seq, type, data)
    SELECT e.shard_id, e.journal, e.id, e.seq, e.type, e.data
    FROM unnest($23::int[], $24::bigint[], $25::bytea[], $26::bytea[], $27::bigint[], $28::bytea[],
            $29::bytea[])
        AS e (shard_id, epoch, journal, id, seq, type, data)
    JOIN fence f ON f.shard_id = e.shard_id AND f.epoch = e.epoch
    ON CONFLICT (shard_id, journal, id, seq) DO UPDATE SET type = excluded.type, data = excluded.data
), receipts AS (
    INSERT INTO receipt (shard_id, journal, id, key, request_hash, reply, expires_at_ms)
    SELECT e.shard_id, e.journal, e.id, e.key, e.request_hash, e.reply, e.expires_at_ms
    FROM unnest($30::int[], $31::bigint[], $32::bytea[], $33::bytea[], $34::bytea[], $35::bytea[],
            $36::bytea[], $37::bigint[])
        AS e (shard_id, epoch, journal, id, key, request_hash, reply, expires_at_ms)
    JOIN fence f ON f.shard_id = e.shard_id AND f.epoch = e.epoch
    ON CONFLICT (shard_id, journal, id, key) DO UPDATE SET request_hash = excluded.request_hash,
        reply = excluded.reply, expires_at_ms = excluded.expires_at_ms
){PARTS}
SELECT TRUE, f.shard_id::bigint, f.epoch, f.next_off FROM fence f
UNION ALL SELECT FALSE, w.place, 0, 0 FROM wrong w{ANSWER}";

/// The parameters of [`APPEND`] itself.
const APPEND_PARAMETERS: usize = 37;

/// The statement with these sections of what is stored beside events. Nothing is stored if a group is not at the
/// place that a step of it begins at.
pub fn text(sections: Sections) -> &'static str {
    static TEXTS: [OnceLock<String>; Sections::COMBINATIONS] =
        [const { OnceLock::new() }; Sections::COMBINATIONS];
    TEXTS[sections.0].get_or_init(|| {
        let parts = aside::parts(sections, APPEND_PARAMETERS);
        let (moved, unless, answer) = match &parts.moved {
            Some(moved) => (
                moved.as_str(),
                " AND NOT EXISTS (SELECT 1 FROM moved)",
                " UNION ALL SELECT FALSE, -m.place, 0, 0 FROM moved m",
            ),
            None => ("", "", ""),
        };
        APPEND
            .replace("{MOVED}", moved)
            .replace("{UNLESS}", unless)
            .replace("{PARTS}", &parts.text)
            .replace("{ANSWER}", answer)
    })
}

/// A connection that only commits, and what was acknowledged through it.
#[derive(Default)]
pub struct Lane {
    connection: Option<PgConnection>,
    used: Option<Instant>,
    /// The offset after the newest event of each shard that this process has seen stored.
    known: HashMap<Shard, i64>,
}

impl Lane {
    /// Taken out for each statement: a connection whose statement was abandoned is never used again.
    fn take(&mut self) -> Option<PgConnection> {
        self.connection.take()
    }

    pub fn put_back(&mut self, connection: PgConnection) {
        self.connection = Some(connection);
        self.used = Some(clock::now());
    }

    pub fn known(&self, shard: Shard) -> i64 {
        self.known.get(&shard).copied().unwrap_or(0)
    }

    pub fn all_known(&self) -> impl Iterator<Item = (Shard, i64)> {
        self.known.iter().map(|(shard, known)| (*shard, *known))
    }

    pub fn learn(&mut self, shard: Shard, next_off: i64) {
        let known = self.known.entry(shard).or_insert(next_off);
        *known = next_off.max(*known);
    }

    /// After a loss that was noted in the database, offsets begin where they are.
    pub fn forget(&mut self, shard: Shard) {
        self.known.remove(&shard);
    }

    pub async fn close(&mut self) {
        if let Some(connection) = self.take() {
            // The server notices by itself if this fails.
            let _ = connection.close().await;
        }
    }

    /// The connection, if it is there and works.
    async fn tried(&mut self) -> Option<PgConnection> {
        let mut connection = self.take()?;
        let idle = self.used.map(|used| used.elapsed()).unwrap_or_default();
        if idle < STORE_IDLE_TRIED_AFTER {
            return Some(connection);
        }
        let answer = timeout(STORE_TRY_MAX, connection.ping()).await;
        matches!(answer, Ok(Ok(()))).then_some(connection)
    }
}

/// What the statement says.
struct Answer {
    stored: Vec<(Fence, i64)>,
    /// Of an entity that is at another number.
    wrong: Option<usize>,
    /// Of a group that is at another place.
    moved: Option<usize>,
}

impl Inner {
    /// `is_import`: entities may begin at any number.
    pub async fn commit(
        &self,
        batch: &[Write],
        chores: &[Chore],
        is_import: bool,
    ) -> Result<Vec<Fence>, StoreError> {
        self.refuse_if_closed()?;
        let draft = Draft::of(batch, chores, is_import)?;
        let Some(first) = draft.wants.first() else { return Ok(Vec::new()) };
        let lane = first.fence.shard.0 as usize % self.lanes.len();
        let mut lane = self.lanes[lane].lock().await;
        let mut attempt = 0;
        loop {
            let mut connection = match lane.tried().await {
                Some(connection) => connection,
                // Nothing was sent.
                None => self.connect().await?,
            };
            let sent = timeout(STORE_COMMIT_MAX, append(&mut connection, &lane, &draft)).await;
            let Ok(result) = sent else {
                drop(connection);
                return self.reconcile(&mut lane, &draft, "the database did not answer").await;
            };
            let error = match result {
                Ok(answer) => {
                    return self.settle(&mut lane, connection, &draft, answer).await;
                }
                Err(error) => error,
            };
            let reason = error.to_string();
            match fault::of(&error) {
                Fault::Unknown => {
                    drop(connection);
                    return self.reconcile(&mut lane, &draft, &reason).await;
                }
                Fault::Retry if attempt < STORE_RETRIES_MAX => {
                    tracing::debug!(reason, "the database ended a commit, sending it again");
                    lane.put_back(connection);
                    tokio::time::sleep(backoff(attempt)).await;
                    attempt += 1;
                }
                Fault::Duplicate => return self.duplicate(&mut lane, connection, &draft).await,
                Fault::Full => {
                    lane.put_back(connection);
                    return Err(StoreError::Full { reason: reason.into() });
                }
                Fault::Damaged => return Err(StoreError::Corrupt { reason: reason.into() }),
                // The next commit connects again: another server may be the primary by then.
                Fault::Retry | Fault::Unavailable => {
                    return Err(StoreError::Unavailable { reason: reason.into() });
                }
            }
        }
    }

    pub async fn connect(&self) -> Result<PgConnection, StoreError> {
        self.place
            .connect()
            .await
            .map_err(|error| StoreError::Unavailable { reason: fault::problem(&error).into() })
    }

    /// Takes note of what was stored, and looks closer at what was not.
    async fn settle(
        &self,
        lane: &mut Lane,
        mut connection: PgConnection,
        draft: &Draft<'_>,
        answer: Answer,
    ) -> Result<Vec<Fence>, StoreError> {
        if let Some(wrong) = answer.wrong {
            lane.put_back(connection);
            return Err(wrong_head(draft, wrong));
        }
        if let Some(step) = answer.moved {
            lane.put_back(connection);
            return Err(match draft.changes.steps.get(step) {
                Some(step) => step.moved(),
                None => fault::damaged("the database named a group that is not in the batch"),
            });
        }
        for (fence, next_off) in &answer.stored {
            lane.learn(fence.shard, *next_off);
        }
        let is_stored = |fence: &Fence| answer.stored.iter().any(|(stored, _)| stored == fence);
        let missing = draft.wants.iter().map(|want| want.fence).filter(|fence| !is_stored(fence));
        let fenced: Vec<Fence> = missing.collect();
        if !fenced.is_empty() {
            // The batch is settled whatever comes of this.
            let shards = fenced.iter().map(|fence| fence.shard).collect::<Vec<_>>();
            let check = self.halt_if_behind(&mut connection, lane, &shards);
            match timeout(STORE_COMMIT_MAX, check).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => {
                    tracing::warn!(%error, "cannot tell why shards are fenced");
                    return self.stored(draft, fenced);
                }
                Err(_) => return self.stored(draft, fenced),
            }
        }
        lane.put_back(connection);
        self.stored(draft, fenced)
    }

    /// Queues the deletion of snapshots and events that a batch has made superfluous.
    pub fn stored(&self, draft: &Draft<'_>, fenced: Vec<Fence>) -> Result<Vec<Fence>, StoreError> {
        for address in &draft.snapshot_addresses {
            // A full queue leaves it to the entity's next snapshot.
            let _ = self.prune.try_send(Superfluous::Snapshots((*address).clone()));
        }
        for (write, _) in &draft.changes.forgotten {
            // And of events to the next time that some are forgotten.
            let _ = self.prune.try_send(Superfluous::Events(write.address.clone()));
        }
        Ok(fenced)
    }

    /// Two writers under one epoch: this must not be. Nothing was stored; finds out whose number it is.
    async fn duplicate(
        &self,
        lane: &mut Lane,
        mut connection: PgConnection,
        draft: &Draft<'_>,
    ) -> Result<Vec<Fence>, StoreError> {
        let heads = timeout(STORE_COMMIT_MAX, heads(&mut connection, draft)).await;
        let Ok(heads) = heads else { return Err(fault::timed_out()) };
        let heads = heads.map_err(fault::read)?;
        lane.put_back(connection);
        let wrong = draft.head_seqs.iter().zip(&heads).position(|(seq, head)| seq != head);
        match wrong {
            Some(wrong) => Err(wrong_head(draft, wrong)),
            None => {
                let reason = "an offset was handed out twice: restore the database from a backup";
                tracing::error!(reason);
                Err(fault::damaged(reason))
            }
        }
    }
}

fn wrong_head(draft: &Draft<'_>, place: usize) -> StoreError {
    let Some(address) = draft.head_addresses.get(place) else {
        return fault::damaged("the database named an entity that is not in the batch");
    };
    tracing::error!(%address, "an entity that this node owns is not at the number it should be at");
    conflict(address, Seq(draft.head_seqs[place] as u64))
}

async fn append(
    connection: &mut PgConnection,
    lane: &Lane,
    draft: &Draft<'_>,
) -> Result<Answer, sqlx::Error> {
    let wants = &draft.wants;
    let want_shards: Vec<i32> = wants.iter().map(|want| want.fence.shard.0 as i32).collect();
    let want_epochs: Vec<i64> = wants.iter().map(|want| want.fence.epoch.0 as i64).collect();
    let want_events: Vec<i64> = wants.iter().map(|want| want.events).collect();
    let want_known: Vec<i64> = wants.iter().map(|want| lane.known(want.fence.shard)).collect();
    let sections = draft.aside.as_ref().map_or(Sections::default(), Aside::sections);
    let mut query = sqlx::query_as::<_, (bool, i64, i64, i64)>(text(sections))
        .bind(want_shards)
        .bind(want_epochs)
        .bind(want_events)
        .bind(want_known);
    macro_rules! bind {
        ($keys:expr $(, $column:expr)*) => {
            query = query
                .bind(&$keys.shards)
                .bind(&$keys.epochs)
                .bind(&$keys.journals)
                .bind(&$keys.ids)
                $(.bind(&$column))*;
        };
    }
    bind!(draft.heads, draft.head_seqs);
    bind!(
        draft.events,
        draft.event_places,
        draft.event_seqs,
        draft.event_times,
        draft.event_types,
        draft.event_data
    );
    bind!(draft.firsts);
    bind!(draft.snapshots, draft.snapshot_seqs, draft.snapshot_types, draft.snapshot_data);
    bind!(
        draft.receipts,
        draft.receipt_keys,
        draft.receipt_hashes,
        draft.receipt_replies,
        draft.receipt_expiries
    );
    if let Some(aside) = &draft.aside {
        query = aside.bind(query);
    }
    let mut answer = Answer { stored: Vec::new(), wrong: None, moved: None };
    for (is_stored, number, epoch, next_off) in query.fetch_all(connection).await? {
        if is_stored {
            let fence = Fence { shard: Shard(number as u32), epoch: Epoch(epoch as u64) };
            answer.stored.push((fence, next_off));
        } else if number < 0 {
            // Counted from 1, as below.
            answer.moved = Some(number.unsigned_abs() as usize - 1);
        } else {
            answer.wrong = Some(number.max(1) as usize - 1);
        }
    }
    Ok(answer)
}

/// The newest number of each entity of a batch, in order.
async fn heads(connection: &mut PgConnection, draft: &Draft<'_>) -> Result<Vec<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "SELECT coalesce((SELECT j.seq FROM journal j \
            WHERE j.shard_id = h.shard_id AND j.journal = h.journal AND j.id = h.id \
            ORDER BY j.seq DESC LIMIT 1), 0) \
         FROM unnest($1::int[], $2::bytea[], $3::bytea[]) WITH ORDINALITY \
            AS h (shard_id, journal, id, place) ORDER BY h.place",
    )
    .bind(&draft.heads.shards)
    .bind(&draft.heads.journals)
    .bind(&draft.heads.ids)
    .fetch_all(connection)
    .await
}
