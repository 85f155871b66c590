//! What is deleted behind the hot path: snapshots that newer ones replace, and receipts that have expired.
//! Any node may delete any of them.

use std::collections::HashSet;

use sqlx::PgPool;
use tokio::sync::mpsc;
use tokio::time::interval;

use crate::journal::holdings::Holdings;
use crate::words::limits::{
    RECEIPT_SWEEP_EVERY, RECEIPT_SWEEP_ROWS, SNAPSHOTS_KEPT, STORE_PRUNE_AT_ONCE_MAX,
};
use crate::words::{Address, clock};

/// Ends with the store.
pub async fn keep(pool: PgPool, holdings: Holdings, mut pruned: mpsc::Receiver<Address>) {
    let mut sweep = interval(RECEIPT_SWEEP_EVERY);
    let mut addresses = Vec::new();
    loop {
        tokio::select! {
            count = pruned.recv_many(&mut addresses, STORE_PRUNE_AT_ONCE_MAX) => {
                if count == 0 || pool.is_closed() {
                    return;
                }
                let done = prune(&pool, &holdings, addresses.drain(..).collect()).await;
                tell(done, "old snapshots were not deleted");
            }
            _ = sweep.tick() => {
                if pool.is_closed() {
                    return;
                }
                tell(forget_receipts(&pool).await, "expired idempotency keys were not deleted");
            }
        }
    }
}

/// Nothing is wrong with the journal, it is only larger than it could be.
fn tell(done: Result<(), sqlx::Error>, what: &str) {
    if let Err(error) = done {
        tracing::warn!(%error, "{what}");
    }
}

async fn prune(
    pool: &PgPool,
    holdings: &Holdings,
    addresses: HashSet<Address>,
) -> Result<(), sqlx::Error> {
    let shards: Vec<i32> = addresses.iter().map(|a| holdings.shard_of(a).0 as i32).collect();
    let journals: Vec<&[u8]> = addresses.iter().map(|a| a.journal.as_str().as_bytes()).collect();
    let ids: Vec<&[u8]> = addresses.iter().map(|a| a.id.as_str().as_bytes()).collect();
    sqlx::query(
        "DELETE FROM snapshot s USING unnest($1::int[], $2::bytea[], $3::bytea[]) \
            AS e (shard_id, journal, id) \
         WHERE s.shard_id = e.shard_id AND s.journal = e.journal AND s.id = e.id AND s.seq < ( \
            SELECT k.seq FROM snapshot k \
            WHERE k.shard_id = e.shard_id AND k.journal = e.journal AND k.id = e.id \
            ORDER BY k.seq DESC LIMIT 1 OFFSET $4)",
    )
    .bind(&shards)
    .bind(&journals)
    .bind(&ids)
    .bind(SNAPSHOTS_KEPT as i64 - 1)
    .execute(pool)
    .await
    .map(drop)
}

async fn forget_receipts(pool: &PgPool) -> Result<(), sqlx::Error> {
    loop {
        let deleted = sqlx::query(
            "DELETE FROM receipt WHERE (shard_id, journal, id, key) IN ( \
                SELECT shard_id, journal, id, key FROM receipt WHERE expires_at_ms <= $1 \
                LIMIT $2 FOR UPDATE SKIP LOCKED)",
        )
        .bind(clock::unix_ms() as i64)
        .bind(RECEIPT_SWEEP_ROWS)
        .execute(pool)
        .await?;
        if deleted.rows_affected() < RECEIPT_SWEEP_ROWS as u64 {
            return Ok(());
        }
    }
}
