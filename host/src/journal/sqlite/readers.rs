//! Connections that read.
//!
//! sqlx's own pool asks each connection that comes back whether it still works. Here that would be one more trip
//! to the connection's thread, which takes as long as a small query does, and a file that is open stays open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt;
use scopeguard::ScopeGuard;
use sqlx::sqlite::{SqliteArguments, SqliteConnectOptions, SqliteRow};
use sqlx::{ConnectOptions, Connection, Sqlite, SqliteConnection};
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::sqlite::fault;
use crate::words::limits::JOURNAL_READER_WAIT_MAX;

pub type Query<'q> = sqlx::query::Query<'q, Sqlite, SqliteArguments>;

/// Made when they are needed, and kept.
pub struct Readers {
    settings: SqliteConnectOptions,
    count: u32,
    free: Arc<Semaphore>,
    idle: Arc<Idle>,
}

type Idle = Mutex<Vec<SqliteConnection>>;

/// A connection that is in use. One that is dropped, because its query failed or nobody waits for it any more,
/// is closed, and counts until its query has ended.
pub type Reader = ScopeGuard<Held, fn(Held)>;

pub struct Held {
    pub connection: SqliteConnection,
    idle: Arc<Idle>,
    free: OwnedSemaphorePermit,
}

fn close(held: Held) {
    // Without a runtime, the process ends.
    if let Ok(runtime) = Handle::try_current() {
        runtime.spawn(async move {
            let Held { connection, free, .. } = held;
            // It has changed nothing.
            let _ = connection.close().await;
            drop(free);
        });
    }
}

/// To those that it is of.
pub fn give_back(reader: Reader) {
    let Held { connection, idle, free: _free } = ScopeGuard::into_inner(reader);
    idle.lock().unwrap_or_else(PoisonError::into_inner).push(connection);
}

impl Readers {
    pub fn new(settings: SqliteConnectOptions, count: u32) -> Self {
        let free = Arc::new(Semaphore::new(count as usize));
        Self { settings, count, free, idle: Arc::default() }
    }

    pub async fn get(&self) -> Result<Reader, StoreError> {
        let reader = timeout(JOURNAL_READER_WAIT_MAX, self.take()).await;
        reader.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(fault::read)
    }

    /// Waits for as long as it takes.
    pub async fn take(&self) -> Result<Reader, sqlx::Error> {
        let free = self.free.clone().acquire_owned().await;
        let free = free.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.settings.connect().await?,
        };
        let held = Held { connection, idle: self.idle.clone(), free };
        Ok(scopeguard::guard(held, close as fn(Held)))
    }

    pub async fn all(&self, query: Query<'_>) -> Result<Vec<SqliteRow>, StoreError> {
        let mut reader = self.get().await?;
        let rows = query.fetch_all(&mut reader.connection).await.map_err(fault::read)?;
        give_back(reader);
        Ok(rows)
    }

    pub async fn optional(&self, query: Query<'_>) -> Result<Option<SqliteRow>, StoreError> {
        let mut reader = self.get().await?;
        let row = query.fetch_optional(&mut reader.connection).await.map_err(fault::read)?;
        give_back(reader);
        Ok(row)
    }

    pub async fn one(&self, query: Query<'_>) -> Result<SqliteRow, StoreError> {
        self.optional(query).await?.ok_or_else(|| fault::damaged("a row that is always there"))
    }

    /// Has rows taken one by one, until those that were taken have so many bytes; one at least if there is one.
    pub async fn some(
        &self,
        query: Query<'_>,
        bytes_max: usize,
        mut take: impl FnMut(&SqliteRow) -> Result<usize, StoreError>,
    ) -> Result<(), StoreError> {
        let mut reader = self.get().await?;
        let mut rows = query.fetch(&mut reader.connection);
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(fault::read)? {
            bytes += take(&row)?;
            if bytes >= bytes_max {
                break;
            }
        }
        drop(rows);
        give_back(reader);
        Ok(())
    }

    /// Waits for those that are in use.
    pub async fn close(&self) {
        let all = self.free.acquire_many(self.count).await;
        self.free.close();
        drop(all);
        let idle = std::mem::take(&mut *self.idle());
        for connection in idle {
            // It has changed nothing.
            let _ = connection.close().await;
        }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<SqliteConnection>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
