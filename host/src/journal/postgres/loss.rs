//! Losses that no write runs into: a database that was restored, or a standby that took over without the
//! newest events, shows them to whoever saw them stored.

use std::sync::Weak;

use tokio::time::timeout;

use crate::journal::postgres::Inner;
use crate::words::Shard;
use crate::words::limits::{STORE_COMMIT_MAX, STORE_LOSSES_LOOKED_FOR_EVERY, STORE_TRY_MAX};

/// Shards whose offsets are behind those that were read before.
const BEHIND: &str = "\
SELECT s.shard_id FROM shard s JOIN unnest($1::int[], $2::bigint[]) AS k (shard_id, known)
    ON k.shard_id = s.shard_id WHERE s.next_off < k.known ORDER BY s.shard_id";

/// Looks from time to time, for as long as there is the store.
pub async fn watch(store: Weak<Inner>) {
    loop {
        tokio::time::sleep(STORE_LOSSES_LOOKED_FOR_EVERY).await;
        let Some(store) = store.upgrade() else { return };
        if store.refuse_if_closed().is_err() {
            return;
        }
        match timeout(STORE_COMMIT_MAX, store.look_for_losses()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => tracing::debug!(%error, "cannot look for lost events"),
            Err(_) => tracing::debug!("looking for lost events takes too long"),
        }
    }
}

impl Inner {
    async fn look_for_losses(&self) -> Result<(), sqlx::Error> {
        let (mut shards, mut offsets) = (Vec::new(), Vec::new());
        for lane in &self.lanes {
            // One that is busy for so long looks for itself before it goes on.
            let Ok(lane) = timeout(STORE_TRY_MAX, lane.lock()).await else { continue };
            for (shard, known) in lane.all_known() {
                shards.push(shard.0 as i32);
                offsets.push(known);
            }
        }
        if shards.is_empty() {
            return Ok(());
        }
        let behind: Vec<i32> =
            sqlx::query_scalar(BEHIND).bind(shards).bind(offsets).fetch_all(&self.listers).await?;
        for shard in behind {
            let shard = Shard(shard as u32);
            let mut lane = self.lanes[shard.0 as usize % self.lanes.len()].lock().await;
            let mut connection = self.place.connect().await?;
            self.halt_if_behind(&mut connection, &mut lane, &[shard]).await?;
            lane.put_back(connection);
        }
        Ok(())
    }
}
