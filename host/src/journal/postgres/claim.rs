//! Ownership of every shard for the time of a copy, in the name of a node that serves nothing.

use sqlx::{Connection, PgConnection};
use tokio::time::{sleep, timeout};
use tokio_util::task::AbortOnDropHandle;

use crate::journal::error::OpenError;
use crate::journal::postgres::open::Place;
use crate::words::config::Secret;
use crate::words::limits::{FAST_LEASE, FAST_LEASE_RENEW_EVERY};
use crate::words::{Epoch, Shard, clock};

/// All shards of a cluster without nodes. The lease of the node in whose name they are owned is renewed, so that a
/// node that starts meanwhile waits. If that does not succeed in time, it takes the shards. A copy to them is fenced
/// out then; one from them is not, but hears of it from [`release`](Claim::release).
pub struct Claim {
    place: Place,
    node: [u8; 16],
    shards: Vec<(Shard, Epoch)>,
    _renewal: AbortOnDropHandle<()>,
}

impl Claim {
    pub async fn take(url: &Secret) -> Result<Self, OpenError> {
        let place = Place::parse(url)?;
        let mut node = [0; 16];
        getrandom::fill(&mut node).map_err(|error| place.refused(error.to_string()))?;
        let failed = |error| place.failed(error);
        let mut connection = place.connect().await.map_err(failed)?;
        let Some(shards) = take(&mut connection, &node).await.map_err(failed)? else {
            return Err(OpenError::StoreInUse { store: place.name });
        };
        let renewal = tokio::spawn(renew(place.clone(), connection, node));
        Ok(Self { place, node, shards, _renewal: AbortOnDropHandle::new(renewal) })
    }

    pub fn shards(&self) -> &[(Shard, Epoch)] {
        &self.shards
    }

    /// Every shard is free again. False: not all of them stayed this claim's, so others may have written.
    pub async fn release(&self) -> Result<bool, OpenError> {
        let failed = |error| self.place.failed(error);
        let mut connection = self.place.connect().await.map_err(failed)?;
        let mut transaction = connection.begin().await.map_err(failed)?;
        // Nodes before shards, as everybody locks them: a node may be fencing this one just now.
        sqlx::query("DELETE FROM node WHERE node_id = $1")
            .bind(&self.node[..])
            .execute(&mut *transaction)
            .await
            .map_err(failed)?;
        let freed = sqlx::query(
            "UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1 WHERE owner = $1",
        )
        .bind(&self.node[..])
        .execute(&mut *transaction)
        .await
        .map_err(failed)?;
        transaction.commit().await.map_err(failed)?;
        // What is taken never comes back, so what was freed had stayed.
        Ok(freed.rows_affected() == self.shards.len() as u64)
    }
}

/// Without capacity, so that nobody gives shards to this node. None: there is another, and nothing was changed.
async fn take(
    connection: &mut PgConnection,
    node: &[u8],
) -> Result<Option<Vec<(Shard, Epoch)>>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query(
        "INSERT INTO node (node_id, incarnation, hb, state, process, place, peer_addr, zone, \
            capacity, version, revision, broken, started_at_ms) \
         VALUES ($1, 1, 0, 'active', $1, $1, '', '', 0, $2, 0, 'copies a store', $3)",
    )
    .bind(node)
    .bind(env!("CARGO_PKG_VERSION"))
    .bind(clock::unix_ms() as i64)
    .execute(&mut *transaction)
    .await?;
    let rows: Vec<(i32, i64)> = sqlx::query_as(
        "UPDATE shard SET owner = $1, owner_inc = 1, epoch = epoch + 1 \
         WHERE owner IS NULL AND halted IS NULL RETURNING shard_id, epoch",
    )
    .bind(node)
    .fetch_all(&mut *transaction)
    .await?;
    // Asked last: who comes later finds no shard that is free.
    let is_in_use: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM node WHERE node_id <> $1 AND state IN ('active', 'draining')) \
         OR EXISTS (SELECT 1 FROM shard WHERE owner <> $1)",
    )
    .bind(node)
    .fetch_one(&mut *transaction)
    .await?;
    if is_in_use {
        transaction.rollback().await?;
        return Ok(None);
    }
    transaction.commit().await?;
    let row = |(shard, epoch): (i32, i64)| (Shard(shard as u32), Epoch(epoch as u64));
    Ok(Some(rows.into_iter().map(row).collect()))
}

/// As often as a node with `--fast-failover` does: one may start. What fails is tried again.
async fn renew(place: Place, connection: PgConnection, node: [u8; 16]) {
    let mut connection = Some(connection);
    loop {
        sleep(FAST_LEASE_RENEW_EVERY).await;
        connection = renew_once(&place, connection, &node).await;
    }
}

/// Returns the connection if it still works.
async fn renew_once(
    place: &Place,
    connection: Option<PgConnection>,
    node: &[u8],
) -> Option<PgConnection> {
    let mut connection = match connection {
        Some(connection) => connection,
        None => place.connect().await.ok()?,
    };
    let renewal = sqlx::query(
        "UPDATE node SET hb = hb + 1 WHERE node_id = $1 AND state IN ('active', 'draining')",
    )
    .bind(node)
    .execute(&mut connection);
    timeout(FAST_LEASE, renewal).await.ok()?.ok()?;
    Some(connection)
}
