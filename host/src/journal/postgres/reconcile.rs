//! What became of a batch whose answer was lost.
//!
//! The statement may still be on its way. Stepping the epochs of its shards settles that: it waits for the
//! statement if that holds the rows, and fences it out if it comes later. Only then is it known whether the
//! rows are there.
//!
//! The node still owns the shards then, but does not hold them any more: who keeps watch over ownership finds
//! the new epochs in the store, and grants them unless the node's life is over or it has given them away.

use std::collections::HashSet;
use std::sync::Arc;

use sqlx::PgConnection;
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::append::Lane;
use crate::journal::postgres::draft::{Draft, Evidence};
use crate::journal::postgres::{Inner, backoff};
use crate::journal::store::Fence;
use crate::words::limits::STORE_COMMIT_MAX;
use crate::words::{Epoch, Shard};

/// What was found out about a batch.
struct Findings {
    /// Of shards that are still owned, under later epochs.
    stepped: HashSet<Fence>,
    /// For each want: whether its evidence is there, if there can be any.
    evidence: Vec<Option<bool>>,
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
        let mut attempt = 0;
        loop {
            self.refuse_if_closed()?;
            match self.connect().await {
                Ok(mut connection) => {
                    let find = self.find_out(&mut connection, lane, draft);
                    match timeout(STORE_COMMIT_MAX, find).await {
                        Ok(Ok(findings)) => {
                            lane.put_back(connection);
                            return self.conclude(draft, findings, reason);
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

    async fn find_out(
        &self,
        connection: &mut PgConnection,
        lane: &mut Lane,
        draft: &Draft<'_>,
    ) -> Result<Findings, sqlx::Error> {
        let shards: Vec<i32> = draft.wants.iter().map(|w| w.fence.shard.0 as i32).collect();
        let epochs: Vec<i64> = draft.wants.iter().map(|w| w.fence.epoch.0 as i64).collect();
        let rows: Vec<(i32, i64)> = sqlx::query_as(
            "UPDATE shard s SET epoch = s.epoch + 1 \
             FROM unnest($1::int[], $2::bigint[]) AS w (shard_id, epoch) \
             WHERE s.shard_id = w.shard_id AND s.epoch = w.epoch AND s.owner IS NOT NULL \
             RETURNING s.shard_id, s.epoch",
        )
        .bind(&shards)
        .bind(&epochs)
        .fetch_all(&mut *connection)
        .await?;
        let mut stepped = HashSet::new();
        for (shard, epoch) in rows {
            let fence = Fence { shard: Shard(shard as u32), epoch: Epoch(epoch as u64 - 1) };
            self.holdings.lose(fence.shard, fence.epoch);
            stepped.insert(fence);
        }
        let shards: Vec<Shard> = draft.wants.iter().map(|want| want.fence.shard).collect();
        let halted = self.halt_if_behind(connection, lane, &shards).await?;
        stepped.retain(|fence| !halted.contains(&fence.shard));
        let mut evidence = Vec::new();
        for want in &draft.wants {
            evidence.push(find(connection, want.fence, &want.evidence).await?);
        }
        Ok(Findings { stepped, evidence })
    }

    fn conclude(
        &self,
        draft: &Draft<'_>,
        findings: Findings,
        reason: &str,
    ) -> Result<Vec<Fence>, StoreError> {
        let is_stored = findings.evidence.contains(&Some(true));
        // What leaves no trace alone leaves it open; it is fenced out by now, so that it cannot come after
        // what is written later.
        let is_open = draft.wants.iter().any(|want| leaves_no_trace(&want.evidence));
        for want in &draft.wants {
            if !findings.stepped.contains(&want.fence) {
                self.holdings.lose(want.fence.shard, want.fence.epoch);
            }
        }
        if !is_stored && (is_open || findings.evidence.contains(&Some(false))) {
            tracing::warn!("the commit was not carried out");
            return Err(StoreError::Unavailable { reason: Arc::from(reason) });
        }
        tracing::info!("the commit had been carried out");
        let wants = draft.wants.iter().zip(&findings.evidence);
        let fenced = wants.filter(|(want, evidence)| match want.evidence {
            // If the shard was still owned before its epoch was stepped, it was when the others were stored.
            Evidence::Cancelled | Evidence::Chores => !findings.stepped.contains(&want.fence),
            _ => **evidence == Some(false),
        });
        self.stored(draft, fenced.map(|(want, _)| want.fence).collect())
    }

    /// Halts shards that have fewer events than this process saw acknowledged: the database was restored
    /// from a copy that lacks them. Returns those shards.
    pub async fn halt_if_behind(
        &self,
        connection: &mut PgConnection,
        lane: &mut Lane,
        shards: &[Shard],
    ) -> Result<Vec<Shard>, sqlx::Error> {
        let numbers: Vec<i32> = shards.iter().map(|shard| shard.0 as i32).collect();
        let rows: Vec<(i32, i64, i64)> = sqlx::query_as(
            "SELECT shard_id, epoch, next_off FROM shard WHERE shard_id = ANY($1::int[])",
        )
        .bind(&numbers)
        .fetch_all(&mut *connection)
        .await?;
        let mut halted = Vec::new();
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
            halted.push(shard);
        }
        Ok(halted)
    }
}

fn leaves_no_trace(evidence: &Evidence<'_>) -> bool {
    matches!(evidence, Evidence::Cancelled | Evidence::Chores)
}

/// Whether an evidence is there, if there can be any.
pub async fn find(
    connection: &mut PgConnection,
    fence: Fence,
    evidence: &Evidence<'_>,
) -> Result<Option<bool>, sqlx::Error> {
    let query = match evidence {
        Evidence::Event(address, seq) => sqlx::query_scalar(
            "SELECT EXISTS (SELECT 1 FROM journal WHERE shard_id = $1 AND journal = $2 AND id = $3 \
             AND seq = $4 AND epoch = $5)",
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
    query.fetch_one(connection).await.map(Some)
}
