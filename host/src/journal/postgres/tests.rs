//! The store against real servers: a private one for this process, and some of their own for tests that
//! kill them.

use sqlx::Executor;

use super::server::Server;
use super::*;
use crate::words::Epoch;

/// A store, and what it was opened with.
pub struct Opened {
    pub url: Secret,
    pub holdings: Holdings,
    pub metrics: Metrics,
    pub store: PgStore,
}

/// A new database of the shared server whose shards are all owned at epoch 1.
pub async fn open(shards: u32) -> Opened {
    open_at(Server::shared().database(), shards).await
}

async fn open_at(url: String, shards: u32) -> Opened {
    let url = Secret::new(url);
    let record = prepare(&url, shards).await.unwrap();
    assert_eq!(record.shards, shards);
    let holdings = Holdings::of_member(shards);
    let metrics = Metrics::default();
    let store = PgStore::open(&url, holdings.clone(), metrics.clone()).await.unwrap();
    let mut connection = store.connection().await.unwrap();
    connection.execute("UPDATE shard SET owner = 'me', owner_inc = 1, epoch = 1").await.unwrap();
    for shard in 0..shards {
        holdings.grant(Shard(shard), Epoch(1));
    }
    Opened { url, holdings, metrics, store }
}
