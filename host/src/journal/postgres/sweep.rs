//! What is deleted behind the hot path: snapshots that newer ones replace, events that were forgotten, and
//! receipts that have expired.
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

/// What an entity has more of than it needs.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Superfluous {
    Snapshots(Address),
    Events(Address),
}

/// Ends with the store.
pub async fn keep(pool: PgPool, holdings: Holdings, mut pruned: mpsc::Receiver<Superfluous>) {
    let mut sweep = interval(RECEIPT_SWEEP_EVERY);
    let mut some = Vec::new();
    loop {
        tokio::select! {
            count = pruned.recv_many(&mut some, STORE_PRUNE_AT_ONCE_MAX) => {
                if count == 0 || pool.is_closed() {
                    return;
                }
                let (mut snapshots, mut events) = (HashSet::new(), HashSet::new());
                for superfluous in some.drain(..) {
                    match superfluous {
                        Superfluous::Snapshots(of) => snapshots.insert(of),
                        Superfluous::Events(of) => events.insert(of),
                    };
                }
                let done = prune(&pool, &holdings, (SNAPSHOTS, SNAPSHOTS_KEPT as i64 - 1), snapshots).await;
                tell(done, "old snapshots were not deleted");
                let done = prune(&pool, &holdings, (EVENTS, 0), events).await;
                tell(done, "forgotten events were not deleted");
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

/// All but the newest few.
const SNAPSHOTS: &str = "DELETE FROM snapshot s USING unnest($1::int[], $2::bytea[], $3::bytea[]) \
        AS e (shard_id, journal, id) \
     WHERE s.shard_id = e.shard_id AND s.journal = e.journal AND s.id = e.id AND s.seq < ( \
        SELECT k.seq FROM snapshot k \
        WHERE k.shard_id = e.shard_id AND k.journal = e.journal AND k.id = e.id \
        ORDER BY k.seq DESC LIMIT 1 OFFSET $4)";

/// The newest stays, whatever is forgotten: it tells the number of the next.
const EVENTS: &str = "DELETE FROM journal j USING unnest($1::int[], $2::bytea[], $3::bytea[]) \
        AS e (shard_id, journal, id) JOIN forgotten f ON f.shard_id = e.shard_id \
        AND f.journal = e.journal AND f.id = e.id \
     WHERE j.shard_id = e.shard_id AND j.journal = e.journal AND j.id = e.id AND j.seq < f.before \
     AND j.seq < (SELECT k.seq FROM journal k \
        WHERE k.shard_id = e.shard_id AND k.journal = e.journal AND k.id = e.id \
        ORDER BY k.seq DESC LIMIT 1 OFFSET $4)";

async fn prune(
    pool: &PgPool,
    holdings: &Holdings,
    (delete, spared): (&'static str, i64),
    addresses: HashSet<Address>,
) -> Result<(), sqlx::Error> {
    if addresses.is_empty() {
        return Ok(());
    }
    let shards: Vec<i32> = addresses.iter().map(|a| holdings.shard_of(a).0 as i32).collect();
    let journals: Vec<&[u8]> = addresses.iter().map(|a| a.journal.as_str().as_bytes()).collect();
    let ids: Vec<&[u8]> = addresses.iter().map(|a| a.id.as_str().as_bytes()).collect();
    let delete = sqlx::query(delete).bind(&shards).bind(&journals).bind(&ids).bind(spared);
    delete.execute(pool).await.map(drop)
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
