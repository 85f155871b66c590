//! Opening a data directory: its lock, its file, its schema, and what is kept in memory.

use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::sqlite::{SqliteAutoVacuum, SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous};
use sqlx::{ConnectOptions, SqliteConnection};
use tokio::sync::Mutex;

use crate::journal::directory;
use crate::journal::error::OpenError;
use crate::journal::sqlite::fault::{self, Fault};
use crate::journal::sqlite::index::{Index, Row, Types};
use crate::journal::sqlite::readers::{Readers, give_back};
use crate::journal::sqlite::rows::Statements;
use crate::journal::sqlite::segment::CHECKSUM_BYTES;
use crate::journal::sqlite::writer::Writer;
use crate::journal::sqlite::{Inner, SqliteOptions};
use crate::words::limits::{
    JOURNAL_BUSY_WAIT_MAX, JOURNAL_LIST_READERS, JOURNAL_READERS, JOURNAL_SCAN_ROWS,
    JOURNAL_STATEMENTS_KEPT, KNOWN_ENTITIES_MAX, QUICK_CHECK_BYTES_MAX, WAL_CHECKPOINT_PAGES,
};

pub const FILE: &str = "stead.db";
const LOG: &str = "stead.db-wal";
/// What the node keeps of deployed modules, in the same directory.
const COMPILED: &str = "compiled";
const MAGIC: &[u8; 16] = b"SQLite format 3\0";

static MIGRATIONS: Migrator = sqlx::migrate!("migrations/sqlite");

pub async fn open(data_dir: &Path, options: SqliteOptions) -> Result<Inner, OpenError> {
    let lock = directory::lock(data_dir)?;
    let path = data_dir.join(FILE);
    let is_small = check_header(&path)?;
    refuse_if_emptied(data_dir, &path)?;
    let settings = SqliteConnectOptions::new()
        .filename(&path)
        .create_if_missing(true)
        .page_size(4096)
        .auto_vacuum(SqliteAutoVacuum::None)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        .foreign_keys(false)
        .pragma("wal_autocheckpoint", WAL_CHECKPOINT_PAGES.to_string())
        .statement_cache_capacity(JOURNAL_STATEMENTS_KEPT)
        .busy_timeout(JOURNAL_BUSY_WAIT_MAX)
        .disable_statement_logging();
    let failed = |error| open_error(&path, error);
    let mut connection = settings.connect().await.map_err(failed)?;
    if is_small {
        quick_check(&mut connection, &path).await?;
    }
    migrate(&mut connection, &path).await?;
    let types = read_types(&mut connection).await.map_err(failed)?;
    let (index, next_off) = scan_tail(&mut connection, &options, &path).await?;
    let newest: i64 = sqlx::query_scalar("SELECT coalesce(max(no), 0) FROM entity")
        .fetch_one(&mut connection)
        .await
        .map_err(failed)?;
    let settings = settings.create_if_missing(false);
    let readers = Readers::new(settings.clone(), JOURNAL_READERS);
    // One that cannot be had is known at the start.
    give_back(readers.take().await.map_err(failed)?);
    let listers = Readers::new(settings, JOURNAL_LIST_READERS);
    let writer = Writer {
        connection: Some(connection),
        statements: Statements::default(),
        next_off,
        next_entity: newest + 1,
    };
    Ok(Inner::new(options, Mutex::new(writer), readers, listers, index, types, lock))
}

/// True if the file is small enough to be checked as a whole.
fn check_header(path: &Path) -> Result<bool, OpenError> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(false),
        Err(error) => {
            return Err(OpenError::Other { path: path.into(), reason: error.to_string() });
        }
    };
    let other =
        |error: std::io::Error| OpenError::Other { path: path.into(), reason: error.to_string() };
    let bytes = file.metadata().map_err(other)?.len();
    let mut header = Vec::new();
    file.take(MAGIC.len() as u64).read_to_end(&mut header).map_err(other)?;
    if bytes > 0 && header != MAGIC {
        return Err(corrupt(path, "it is not an SQLite database"));
    }
    Ok(bytes > 0 && bytes <= QUICK_CHECK_BYTES_MAX)
}

/// A new directory has nothing beside its database: SQLite writes a log once there is a database, and
/// modules are compiled once there is a journal. To take an emptied one as new would hide the loss.
fn refuse_if_emptied(data_dir: &Path, path: &Path) -> Result<(), OpenError> {
    let size = |path: &Path| std::fs::metadata(path).ok().map(|metadata| metadata.len());
    let bytes = size(path);
    if bytes.unwrap_or(0) > 0 {
        return Ok(());
    }
    if size(&data_dir.join(LOG)).is_some_and(|bytes| bytes > 0) {
        return Err(corrupt(path, &format!("it is empty or missing, but {LOG} is not")));
    }
    let entries = std::fs::read_dir(data_dir.join(COMPILED));
    let has_modules = entries.is_ok_and(|mut entries| entries.next().is_some());
    if bytes.is_some() && has_modules {
        return Err(corrupt(path, &format!("it is empty, but {COMPILED}/ is not")));
    }
    Ok(())
}

/// Looks at every page, so only in small files. In larger ones damage shows when it is read: pages
/// by their structure, events by their checksums.
async fn quick_check(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let answer: String = sqlx::query_scalar("PRAGMA quick_check(1)")
        .fetch_one(connection)
        .await
        .map_err(|error| open_error(path, error))?;
    if answer == "ok" { Ok(()) } else { Err(corrupt(path, &answer)) }
}

async fn migrate(connection: &mut SqliteConnection, path: &Path) -> Result<(), OpenError> {
    let failed = |error| open_error(path, error);
    let known = MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0);
    let has_schema: Option<i64> =
        sqlx::query_scalar("SELECT 1 FROM sqlite_master WHERE name = '_sqlx_migrations'")
            .fetch_optional(&mut *connection)
            .await
            .map_err(failed)?;
    if has_schema.is_some() {
        let found: i64 =
            sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
                .fetch_one(&mut *connection)
                .await
                .map_err(failed)?;
        if found > known {
            return Err(OpenError::NewerSchema { path: path.into(), found, known });
        }
    }
    MIGRATIONS.run_direct(None, connection, false).await.map_err(|error| match error {
        MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => failed(error),
        other => OpenError::Other { path: path.into(), reason: other.to_string() },
    })
}

async fn read_types(connection: &mut SqliteConnection) -> Result<Types, sqlx::Error> {
    let rows: Vec<(i64, String)> =
        sqlx::query_as("SELECT no, name FROM message_type").fetch_all(connection).await?;
    let mut types = Types::default();
    for (number, name) in rows {
        types.insert(name.into(), number);
    }
    Ok(types)
}

/// Where the unpacked events lie. Many rows come as one text: a row a trip would take too long.
async fn scan_tail(
    connection: &mut SqliteConnection,
    options: &SqliteOptions,
    path: &Path,
) -> Result<(Index, i64), OpenError> {
    let mut rows: Vec<(i64, Row)> = Vec::new();
    let mut last = 0;
    loop {
        let text: Option<String> = sqlx::query_scalar(
            "SELECT group_concat(off || ' ' || entity || ' ' || seq || ' ' || bytes, ';') FROM \
             (SELECT off, entity, seq, max(length(data) - ?, 0) bytes FROM journal WHERE off > ? \
              ORDER BY off LIMIT ? + 0)",
        )
        .bind(CHECKSUM_BYTES as i64)
        .bind(last)
        .bind(JOURNAL_SCAN_ROWS)
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| open_error(path, error))?;
        let Some(text) = text else { break };
        for row in text.split(';') {
            let row = parse_row(row).ok_or_else(|| corrupt(path, "a row of the journal"))?;
            last = last.max(row.1.off);
            rows.push(row);
        }
    }
    rows.sort_by_key(|(_, row)| row.off);
    let mut index = Index::new(KNOWN_ENTITIES_MAX, 2 * options.tail_bytes_max);
    for (no, row) in rows {
        if index.tail_head(no).is_some_and(|head| head + 1 != row.seq) {
            return Err(corrupt(
                path,
                &format!("event {} of entity {no} is out of order", row.seq),
            ));
        }
        index.append(no, row);
    }
    // Packed events had offsets too.
    let packed: Option<i64> = sqlx::query_scalar("SELECT max(off) FROM feed")
        .fetch_one(&mut *connection)
        .await
        .map_err(|error| open_error(path, error))?;
    Ok((index, last.max(packed.unwrap_or(0)) + 1))
}

fn parse_row(text: &str) -> Option<(i64, Row)> {
    let mut numbers = text.split(' ');
    let off = numbers.next()?.parse().ok()?;
    let no = numbers.next()?.parse().ok()?;
    let seq = numbers.next()?.parse().ok()?;
    let bytes = numbers.next()?.parse().ok()?;
    Some((no, Row { seq, off, bytes, event: None }))
}

fn corrupt(path: &Path, reason: &str) -> OpenError {
    OpenError::Corrupt { path: path.into(), reason: reason.into() }
}

fn open_error(path: &Path, error: sqlx::Error) -> OpenError {
    let (path, reason) = (PathBuf::from(path), error.to_string());
    match fault::of(&error) {
        Fault::Damaged => OpenError::Corrupt { path, reason },
        Fault::NotWritable | Fault::Full => OpenError::NotWritable { path, reason },
        Fault::Other => OpenError::Other { path, reason },
    }
}
