//! What SQLite can do alone: one row of an event's size a commit, with the host's settings.

use std::path::Path;
use std::time::{Duration, Instant};

use sqlx::sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, Connection};

/// About what an ItemAdded of the cart takes in the journal.
const ROW_BYTES: usize = 100;
const WAL_AUTOCHECKPOINT_PAGES: &str = "4000";

/// Commits a second, of one row each, into a file in this directory.
pub async fn single_row_commits(dir: &Path, time: Duration) -> anyhow::Result<f64> {
    let options = SqliteConnectOptions::new()
        .filename(dir.join("single-row.db"))
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .pragma("wal_autocheckpoint", WAL_AUTOCHECKPOINT_PAGES);
    let mut connection = options.connect().await?;
    sqlx::query("create table if not exists rows (position integer primary key, data blob)")
        .execute(&mut connection)
        .await?;
    let row = [7u8; ROW_BYTES];
    let start = Instant::now();
    let mut commits = 0u64;
    while start.elapsed() < time {
        sqlx::query("insert into rows (data) values (?)")
            .bind(&row[..])
            .execute(&mut connection)
            .await?;
        commits += 1;
    }
    let rate = commits as f64 / start.elapsed().as_secs_f64();
    connection.close().await?;
    Ok(rate)
}
