//! Connections that read.
//!
//! sqlx's own pool asks each connection that comes back whether it still works. Here that would be one more trip
//! to the connection's thread, which takes as long as a small query does, and a file that is open stays open.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::TryStreamExt;
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
    idle: Mutex<Vec<SqliteConnection>>,
}

/// A connection that is in use. One that is dropped, because its query failed or nobody waits for it any more,
/// is closed, and counts until its query has ended.
pub struct Reader<'a> {
    readers: &'a Readers,
    /// None when it was given back.
    held: Option<(SqliteConnection, OwnedSemaphorePermit)>,
}

impl Reader<'_> {
    /// Gives it back.
    pub fn done(mut self) {
        if let Some((connection, _free)) = self.held.take() {
            self.readers.idle().push(connection);
        }
    }

    pub fn connection(&mut self) -> Result<&mut SqliteConnection, StoreError> {
        match &mut self.held {
            Some((connection, _)) => Ok(connection),
            None => Err(fault::read(sqlx::Error::PoolClosed)),
        }
    }
}

impl Drop for Reader<'_> {
    fn drop(&mut self) {
        if let Some((connection, free)) = self.held.take()
            && let Ok(runtime) = Handle::try_current()
        {
            runtime.spawn(async move {
                // It has changed nothing.
                let _ = connection.close().await;
                drop(free);
            });
        }
    }
}

impl Readers {
    pub fn new(settings: SqliteConnectOptions, count: u32) -> Self {
        let free = Arc::new(Semaphore::new(count as usize));
        Self { settings, count, free, idle: Mutex::default() }
    }

    pub async fn get(&self) -> Result<Reader<'_>, StoreError> {
        let reader = timeout(JOURNAL_READER_WAIT_MAX, self.take()).await;
        reader.unwrap_or(Err(sqlx::Error::PoolTimedOut)).map_err(fault::read)
    }

    /// Waits for as long as it takes.
    pub async fn take(&self) -> Result<Reader<'_>, sqlx::Error> {
        let free = self.free.clone().acquire_owned().await;
        let free = free.map_err(|_| sqlx::Error::PoolClosed)?;
        let idle = self.idle().pop();
        let connection = match idle {
            Some(connection) => connection,
            None => self.settings.connect().await?,
        };
        Ok(Reader { readers: self, held: Some((connection, free)) })
    }

    pub async fn all(&self, query: Query<'_>) -> Result<Vec<SqliteRow>, StoreError> {
        let mut reader = self.get().await?;
        let rows = query.fetch_all(reader.connection()?).await.map_err(fault::read)?;
        reader.done();
        Ok(rows)
    }

    pub async fn optional(&self, query: Query<'_>) -> Result<Option<SqliteRow>, StoreError> {
        let mut reader = self.get().await?;
        let row = query.fetch_optional(reader.connection()?).await.map_err(fault::read)?;
        reader.done();
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
        let mut rows = query.fetch(reader.connection()?);
        let mut bytes = 0;
        while let Some(row) = rows.try_next().await.map_err(fault::read)? {
            bytes += take(&row)?;
            if bytes >= bytes_max {
                break;
            }
        }
        drop(rows);
        reader.done();
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
