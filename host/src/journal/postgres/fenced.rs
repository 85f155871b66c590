//! Whether shards are still owned: questions of many callers become one statement.

use std::collections::HashSet;

use sqlx::postgres::PgRow;
use sqlx::{PgPool, Row};
use tokio::sync::{mpsc, oneshot};
use tokio::time::sleep;

use crate::journal::error::StoreError;
use crate::journal::postgres::fault;
use crate::journal::postgres::read::rows;
use crate::journal::store::Fence;
use crate::words::limits::{STORE_FENCE_GATHER, STORE_FENCES_AT_ONCE_MAX, STORE_READ_MAX};
use crate::words::{Epoch, Shard};

pub struct Question {
    fences: Vec<Fence>,
    answer: oneshot::Sender<Result<Vec<Shard>, StoreError>>,
}

/// Which of these are not the shards' present owner and epoch. The database is asked after this is called.
pub async fn ask(
    questions: &mpsc::Sender<Question>,
    fences: &[Fence],
) -> Result<Vec<Shard>, StoreError> {
    if fences.is_empty() {
        return Ok(Vec::new());
    }
    let (answer, answered) = oneshot::channel();
    let closed = || StoreError::Read { reason: "the store is closed".into() };
    questions.send(Question { fences: fences.to_vec(), answer }).await.map_err(|_| closed())?;
    answered.await.unwrap_or_else(|_| Err(closed()))
}

/// Ends with the store.
pub async fn answer(readers: PgPool, mut asked: mpsc::Receiver<Question>) {
    while let Some(first) = asked.recv().await {
        sleep(STORE_FENCE_GATHER).await;
        let mut questions = vec![first];
        while questions.len() < STORE_FENCES_AT_ONCE_MAX
            && let Ok(question) = asked.try_recv()
        {
            questions.push(question);
        }
        let readers = readers.clone();
        // The next ones do not wait for the answer to these.
        tokio::spawn(async move {
            let all: HashSet<Fence> = questions.iter().flat_map(|q| q.fences.clone()).collect();
            let present = present(&readers, all).await;
            for Question { fences, answer } in questions {
                let fenced = present.as_ref().map_err(Clone::clone).map(|present| {
                    let fenced = fences.iter().filter(|fence| !present.contains(fence));
                    fenced.map(|fence| fence.shard).collect()
                });
                // Who asked may have left.
                let _ = answer.send(fenced);
            }
        });
    }
}

async fn present(readers: &PgPool, fences: HashSet<Fence>) -> Result<HashSet<Fence>, StoreError> {
    let shards: Vec<i32> = fences.iter().map(|fence| fence.shard.0 as i32).collect();
    let query = sqlx::query(
        "SELECT shard_id, epoch FROM shard WHERE shard_id = ANY($1::int[]) AND owner IS NOT NULL",
    );
    let rows = rows(readers, query.bind(shards), STORE_READ_MAX).await?;
    let fence = |row: &PgRow| {
        let shard = Shard(row.try_get::<i32, _>(0)? as u32);
        Ok(Fence { shard, epoch: Epoch(row.try_get::<i64, _>(1)? as u64) })
    };
    rows.iter().map(fence).collect::<Result<_, _>>().map_err(fault::read)
}
