//! What became of a batch whose answer was lost.
//!
//! The statement may still be on its way. Stepping the epochs of its shards settles that: it waits for the
//! statement if that holds the rows, and fences it out if it comes later. Only then is it known whether the
//! rows are there.
//!
//! The node still owns the shards then, but does not hold them any more: who keeps watch over ownership finds
//! the new epochs in the store, and grants them unless the node's life is over or it has given them away.
//!
//! Of a shard that may have had another owner since, a row that is missing says nothing, unless it is an event
//! and none was forgotten there: that owner may have delivered the effect or fired the timer. Unless something else tells, it is
//! unknown then what became of that shard's part.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::append::Lane;
use crate::journal::postgres::draft::{Draft, Evidence, Want};
use crate::journal::postgres::{Inner, backoff};
use crate::journal::store::Fence;
use crate::words::limits::STORE_COMMIT_MAX;
use crate::words::{Epoch, Shard};

/// What was found out about a batch.
struct Findings {
    /// Of shards that nobody else has owned since, under later epochs.
    kept: HashSet<Fence>,
    /// For each want: whether it was stored, if its evidence is certain.
    stored: Vec<Option<bool>>,
}

/// What became of a shard's part of a batch.
enum Fate {
    Stored,
    Fenced,
    Unknown,
}

impl Inner {
    /// Tries for as long as it takes: until then nobody may be told anything about the batch, and nothing
    /// else may be written to its shards.
    pub async fn reconcile(
        &self,
        lane: &mut Lane,
        draft: &Draft<'_>,
        reason: &str,
    ) -> Result<Vec<Fence>, StoreError> {
        tracing::warn!(
            reason,
            store = self.place.name,
            "lost the answer to a commit, looking it up"
        );
        self.metrics.commits_reconciled.inc();
        let mut stepped = HashSet::new();
        let mut attempt = 0;
        loop {
            self.refuse_if_closed()?;
            match self.connect().await {
                Ok(mut connection) => {
                    let find = self.find_out(&mut connection, lane, draft, &mut stepped);
                    match timeout(STORE_COMMIT_MAX, find).await {
                        Ok(Ok(findings)) => {
                            lane.put_back(connection);
                            return self.conclude(draft, &findings, reason);
                        }
                        Ok(Err(error)) => tracing::warn!(%error, "cannot look up a commit yet"),
                        Err(_) => tracing::warn!("looking up a commit takes too long"),
                    }
                }
                Err(error) => tracing::debug!(%error, "cannot look up a commit yet"),
            }
            tokio::time::sleep(backoff(attempt)).await;
            attempt += 1;
        }
    }

    /// `stepped` has the fences whose epochs this or an earlier attempt has stepped.
    async fn find_out(
        &self,
        connection: &mut PgConnection,
        lane: &mut Lane,
        draft: &Draft<'_>,
        stepped: &mut HashSet<Fence>,
    ) -> Result<Findings, sqlx::Error> {
        self.step(connection, draft, stepped).await?;
        let shards: Vec<Shard> = draft.wants.iter().map(|want| want.fence.shard).collect();
        self.halt_if_behind(connection, lane, &shards).await?;
        let mut found = Vec::new();
        for want in &draft.wants {
            found.push(find(connection, want.fence, &want.evidence).await?);
        }
        // Asked last: who owns a shard later has not taken anything away before it was looked for.
        let kept = kept(connection, stepped).await?;
        let certain = |(want, found): (&Want<'_>, Option<bool>)| {
            let is_event = matches!(want.evidence, Evidence::Event(..));
            found.filter(|is_there| *is_there || is_event || kept.contains(&want.fence))
        };
        let stored = draft.wants.iter().zip(found).map(certain).collect();
        Ok(Findings { kept, stored })
    }

    /// Steps the epochs of the shards that are still owned under those of the batch.
    async fn step(
        &self,
        connection: &mut PgConnection,
        draft: &Draft<'_>,
        stepped: &mut HashSet<Fence>,
    ) -> Result<(), sqlx::Error> {
        let (shards, epochs) = columns(draft.wants.iter().map(|want| &want.fence));
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "UPDATE shard s SET epoch = s.epoch + 1 \
             FROM unnest($1::int[], $2::bigint[]) AS w (shard_id, epoch) \
             WHERE s.shard_id = w.shard_id AND s.epoch = w.epoch AND s.owner IS NOT NULL \
             RETURNING s.shard_id, s.epoch",
        )
        .bind(shards)
        .bind(epochs)
        .fetch_all(connection)
        .await?;
        for fence in rows.into_iter().map(before) {
            self.holdings.lose(fence.shard, fence.epoch);
            stepped.insert(fence);
        }
        Ok(())
    }

    fn conclude(
        &self,
        draft: &Draft<'_>,
        findings: &Findings,
        reason: &str,
    ) -> Result<Vec<Fence>, StoreError> {
        for want in &draft.wants {
            self.holdings.lose(want.fence.shard, want.fence.epoch);
        }
        let was_carried_out = findings.was_carried_out(draft);
        match was_carried_out {
            Some(true) => tracing::info!("the commit had been carried out"),
            Some(false) => {
                tracing::warn!("the commit was not carried out");
                return Err(StoreError::Unavailable { reason: Arc::from(reason) });
            }
            None => tracing::debug!("the store does not tell what became of the whole commit"),
        }
        let (mut fenced, mut unknown) = (Vec::new(), Vec::new());
        for (want, stored) in draft.wants.iter().zip(&findings.stored) {
            match findings.fate(want, *stored, was_carried_out) {
                Fate::Stored => {}
                Fate::Fenced => fenced.push(want.fence),
                Fate::Unknown => unknown.push(want.fence),
            }
        }
        let fenced = self.stored(draft, fenced)?;
        match unknown.is_empty() {
            true => Ok(fenced),
            false => Err(StoreError::InDoubt { fenced, unknown, reason: Arc::from(reason) }),
        }
    }

    /// Halts shards that have fewer events than this process saw acknowledged: the database was restored
    /// from a copy that lacks them.
    pub async fn halt_if_behind(
        &self,
        connection: &mut PgConnection,
        lane: &mut Lane,
        shards: &[Shard],
    ) -> Result<(), sqlx::Error> {
        let numbers: Vec<i32> = shards.iter().map(|shard| shard.0 as i32).collect();
        let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
            "SELECT shard_id, epoch, next_off FROM shard WHERE shard_id = ANY($1::int[])",
        )
        .bind(&numbers)
        .fetch_all(&mut *connection)
        .await?;
        for (number, epoch, next_off) in rows {
            let shard = Shard(number as u32);
            let known = lane.known(shard);
            if next_off >= known {
                continue;
            }
            let reason = format!(
                "events {next_off} to {} were acknowledged and are missing: the database lost them",
                known - 1
            );
            tracing::error!(%shard, reason, store = self.place.name, "halting a shard");
            sqlx::query(
                "UPDATE shard SET halted = $2, owner = NULL, owner_inc = NULL, epoch = epoch + 1 \
                 WHERE shard_id = $1 AND next_off < $3 AND halted IS NULL",
            )
            .bind(number)
            .bind(&reason)
            .bind(known)
            .execute(&mut *connection)
            .await?;
            self.metrics.shards_halted.inc();
            lane.forget(shard);
            if let Some(held) = self.holdings.epoch(shard)
                && held.0 <= epoch as u64
            {
                self.holdings.lose(shard, held);
            }
        }
        Ok(())
    }
}

impl Findings {
    /// None if nobody can tell.
    fn was_carried_out(&self, draft: &Draft<'_>) -> Option<bool> {
        if self.stored.contains(&Some(true)) {
            return Some(true);
        }
        // Nothing but the lack of the whole batch explains what a shard lacks that was never anybody else's.
        let mut wants = draft.wants.iter().zip(&self.stored);
        let is_missing =
            wants.any(|(want, stored)| *stored == Some(false) && self.kept.contains(&want.fence));
        is_missing.then_some(false)
    }

    fn fate(&self, want: &Want<'_>, stored: Option<bool>, was_carried_out: Option<bool>) -> Fate {
        let is_kept = self.kept.contains(&want.fence);
        let is_missed = want.evidence != Evidence::Nothing;
        match stored {
            Some(true) => Fate::Stored,
            Some(false) => Fate::Fenced,
            // If the shard was still owned before its epoch was stepped, it was when the others were stored.
            None if is_kept && (was_carried_out == Some(true) || !is_missed) => Fate::Stored,
            None if is_missed => Fate::Unknown,
            None => Fate::Fenced,
        }
    }
}

/// Numbers of shards, and their epochs.
fn columns<'a>(fences: impl Iterator<Item = &'a Fence>) -> (Vec<i32>, Vec<i64>) {
    fences.map(|fence| (fence.shard.0 as i32, fence.epoch.0 as i64)).unzip()
}

/// The fence of a shard whose epoch was stepped once since.
fn before((shard, epoch): (i32, i64)) -> Fence {
    Fence { shard: Shard(shard as u32), epoch: Epoch(epoch as u64 - 1) }
}

/// Those whose shards have not changed hands since their epochs were stepped.
async fn kept(
    connection: &mut PgConnection,
    stepped: &HashSet<Fence>,
) -> Result<HashSet<Fence>, sqlx::Error> {
    let (shards, epochs) = columns(stepped.iter());
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "SELECT s.shard_id, s.epoch FROM unnest($1::int[], $2::bigint[]) AS w (shard_id, epoch) \
         JOIN shard s ON s.shard_id = w.shard_id AND s.epoch = w.epoch + 1 AND s.owner IS NOT NULL",
    )
    .bind(shards)
    .bind(epochs)
    .fetch_all(connection)
    .await?;
    Ok(rows.into_iter().map(before).collect())
}

/// Whether an evidence is there; none if it cannot be, or may have been forgotten.
pub async fn find(
    connection: &mut PgConnection,
    fence: Fence,
    evidence: &Evidence<'_>,
) -> Result<Option<bool>, sqlx::Error> {
    let query = match evidence {
        Evidence::Event(address, seq) => sqlx::query_scalar(
            "SELECT CASE WHEN EXISTS (SELECT 1 FROM journal WHERE shard_id = $1 AND journal = $2 \
                AND id = $3 AND seq = $4 AND epoch = $5) THEN TRUE \
             WHEN EXISTS (SELECT 1 FROM forgotten WHERE shard_id = $1 AND journal = $2 AND id = $3 \
                AND before > $4) THEN NULL ELSE FALSE END",
        )
        .bind(fence.shard.0 as i32)
        .bind(address.journal.as_str().as_bytes())
        .bind(address.id.as_str().as_bytes())
        .bind(seq.0 as i64)
        .bind(fence.epoch.0 as i64),
        Evidence::Receipt(address, receipt) => sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM receipt WHERE shard_id = $1 AND journal = $2 AND id = $3 \
             AND key = $4 AND request_hash = $5 AND expires_at_ms = $6)",
        )
        .bind(fence.shard.0 as i32)
        .bind(address.journal.as_str().as_bytes())
        .bind(address.id.as_str().as_bytes())
        .bind(receipt.key.as_bytes())
        .bind(&receipt.request_hash[..])
        .bind(receipt.expires_at_ms as i64),
        Evidence::Effect(id) => sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM outbox WHERE shard_id = $1 AND effect = $2)",
        )
        .bind(fence.shard.0 as i32)
        .bind(id.0.to_vec()),
        Evidence::Timer(address, name, token) => sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM timer WHERE shard_id = $1 AND journal = $2 AND id = $3 \
             AND name = $4 AND token = $5)",
        )
        .bind(fence.shard.0 as i32)
        .bind(address.journal.as_str().as_bytes())
        .bind(address.id.as_str().as_bytes())
        .bind(name.as_bytes())
        .bind(&token[..]),
        Evidence::Cancelled | Evidence::Chores | Evidence::Nothing => return Ok(None),
    };
    query.fetch_one(connection).await
}
