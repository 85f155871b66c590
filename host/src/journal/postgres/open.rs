//! Connecting to a cluster's database, and bringing its schema up to date.
//!
//! Several nodes may start at once. Who finds an older schema takes the lock on a row and brings it up to
//! date in one transaction; the others wait, and then find nothing to do.

use std::str::FromStr;
use std::sync::LazyLock;
use std::time::Duration;

use sqlx::migrate::{MigrateError, Migrator};
use sqlx::postgres::{PgConnectOptions, PgPoolOptions};
use sqlx::{ConnectOptions, Connection, PgConnection, PgPool};
use tokio::time::timeout;

use crate::journal::error::OpenError;
use crate::journal::postgres::fault::{self, Fault};
use crate::journal::postgres::{ClusterRecord, backoff};
use crate::words::clock;
use crate::words::config::Secret;
use crate::words::limits::{
    JOURNAL_STATEMENTS_KEPT, STORE_CONNECT_MAX, STORE_OPEN_MAX, STORE_READ_MAX, STORE_STATEMENT_MAX,
};

static MIGRATIONS: LazyLock<Migrator> = LazyLock::new(|| {
    let mut migrations = sqlx::migrate!("migrations/postgres");
    // Its lock is one that distributed databases do not have.
    migrations.set_locking(false);
    migrations
});

/// Preferences that not every database of this kind knows.
const SETTINGS: [&str; 8] = [
    "SET default_transaction_isolation = 'read committed'",
    // Plans are made once: the arrays of a batch tell them nothing.
    "SET plan_cache_mode = 'force_generic_plan'",
    // Nor does a table that is still empty: every statement has an index to go by.
    "SET enable_seqscan = off",
    // A scan that cannot be avoided then looks so dear that the server would compile it, anew each time: that
    // takes a hundred times as long as the scan. Nor shall it start processes to share it.
    "SET jit = off",
    "SET max_parallel_workers_per_gather = 0",
    "SELECT set_config('synchronous_commit', 'on', false) \
     WHERE current_setting('synchronous_commit') IN ('off', 'local')",
    // The server, too, has to notice that a node is gone: its locks must not stay.
    "SET tcp_keepalives_idle = 5",
    "SET tcp_user_timeout = 10000",
];

/// Where the database is, without its credentials.
#[derive(Clone)]
pub struct Place {
    pub options: PgConnectOptions,
    /// Host, port and database, for people.
    pub name: String,
}

impl Place {
    pub fn parse(url: &Secret) -> Result<Self, OpenError> {
        let options = PgConnectOptions::from_str(url.expose());
        // Neither is the error shown as it is: it may repeat the URL.
        let options = options.map_err(|error| {
            let reason = match error {
                sqlx::Error::Configuration(error) => error.to_string(),
                _ => "it cannot be read".into(),
            };
            OpenError::StoreUrl { reason: reason.replace(url.expose(), "(the URL)") }
        })?;
        let options = options
            .application_name("stead")
            .statement_cache_capacity(JOURNAL_STATEMENTS_KEPT)
            .disable_statement_logging();
        let host = match options.get_socket() {
            Some(socket) => socket.display().to_string(),
            None => format!("{}:{}", options.get_host(), options.get_port()),
        };
        let database = options.get_database().unwrap_or(options.get_username());
        let name = format!("{database} on {host}");
        Ok(Self { options, name })
    }

    /// A connection with this host's settings.
    pub async fn connect(&self) -> Result<PgConnection, sqlx::Error> {
        let connect = async {
            let mut connection = self.options.connect().await?;
            set_up(&mut connection).await?;
            Ok(connection)
        };
        let result = timeout(STORE_CONNECT_MAX, connect).await;
        result.unwrap_or_else(|_| Err(sqlx::Error::Io(std::io::ErrorKind::TimedOut.into())))
    }

    pub fn pool(&self, connections: u32) -> PgPool {
        PgPoolOptions::new()
            .max_connections(connections)
            .acquire_timeout(STORE_READ_MAX)
            .after_connect(|connection, _| Box::pin(set_up(connection)))
            .connect_lazy_with(self.options.clone())
    }

    pub fn failed(&self, error: sqlx::Error) -> OpenError {
        self.refused(fault::problem(&error))
    }

    pub fn refused(&self, problem: impl Into<String>) -> OpenError {
        OpenError::Database { store: self.name.clone(), problem: problem.into() }
    }
}

async fn set_up(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let statement_max = format!("SET statement_timeout = {}", STORE_STATEMENT_MAX.as_millis());
    sqlx::raw_sql(sqlx::AssertSqlSafe(statement_max)).execute(&mut *connection).await?;
    for setting in SETTINGS {
        let result = sqlx::raw_sql(setting).execute(&mut *connection).await;
        if let Err(error) = result
            && fault::of(&error) == Fault::Unknown
        {
            return Err(error);
        }
    }
    Ok(())
}

/// Connects, brings the schema up to date, and reads what the cluster is; creates it if there is none.
pub async fn prepare(url: &Secret, shards_if_new: u32) -> Result<ClusterRecord, OpenError> {
    let place = Place::parse(url)?;
    patiently(&place, async || prepare_once(&place, shards_if_new).await).await
}

/// Tries again for some time while the database may only be starting or busy.
async fn patiently<T>(
    place: &Place,
    step: impl AsyncFn() -> Result<T, Failure>,
) -> Result<T, OpenError> {
    let start = clock::now();
    let mut attempt = 0;
    loop {
        let error = match timeout(STORE_OPEN_MAX, step()).await {
            Ok(Ok(done)) => return Ok(done),
            Ok(Err(Failure::Refused(error))) => return Err(error),
            Ok(Err(Failure::Sql(error))) => error,
            Err(_) => sqlx::Error::Io(std::io::ErrorKind::TimedOut.into()),
        };
        if !is_passing(&error) || start.elapsed() > STORE_OPEN_MAX {
            return Err(place.failed(error));
        }
        tracing::warn!(store = place.name, %error, "the database is not ready, trying again");
        tokio::time::sleep(backoff(attempt)).await;
        attempt += 1;
    }
}

/// Refuses a node whose cluster key is not the cluster's. `key` and `previous` are derived from its keys. The
/// first node's key becomes the cluster's; another takes its place when a node knows both.
pub async fn admit(
    url: &Secret,
    key: &[u8; 32],
    previous: Option<&[u8; 32]>,
) -> Result<(), OpenError> {
    let place = Place::parse(url)?;
    let is_admitted = patiently(&place, async || {
        let mut connection = place.connect().await?;
        let known = sqlx::query(
            "UPDATE cluster SET key_check = $1 \
             WHERE key_check IS NULL OR key_check = $1 OR key_check = $2",
        )
        .bind(&key[..])
        .bind(previous.map(|previous| &previous[..]))
        .execute(&mut connection)
        .await?;
        // Whether it is closed politely is of no account.
        let _ = timeout(Duration::from_millis(100), connection.close()).await;
        Ok(known.rows_affected() > 0)
    });
    match is_admitted.await? {
        true => Ok(()),
        false => Err(OpenError::ClusterKey { store: place.name }),
    }
}

/// Whether the same may succeed a little later: another node changes the schema, or the server starts.
fn is_passing(error: &sqlx::Error) -> bool {
    let code = error.as_database_error().and_then(|error| error.code());
    match code.as_deref() {
        Some("57P01" | "57P02" | "57P03" | "40001" | "40P01" | "53300") => true,
        // Two nodes created the same table.
        Some("23505" | "42P07" | "42710" | "XX000") => true,
        Some(_) => false,
        None => matches!(error, sqlx::Error::Io(_)),
    }
}

enum Failure {
    Sql(sqlx::Error),
    Refused(OpenError),
}

impl From<sqlx::Error> for Failure {
    fn from(error: sqlx::Error) -> Self {
        Self::Sql(error)
    }
}

async fn prepare_once(place: &Place, shards_if_new: u32) -> Result<ClusterRecord, Failure> {
    let mut connection = place.connect().await?;
    warn_of_settings(&mut connection, place).await?;
    if schema(&mut connection, place).await? < newest() {
        migrate(&mut connection, place).await?;
    }
    let record = match read_cluster(&mut connection).await? {
        Some(record) => record,
        None => create_cluster(&mut connection, shards_if_new).await?,
    };
    // Whether it is closed politely is of no account.
    let _ = timeout(Duration::from_millis(100), connection.close()).await;
    Ok(record)
}

async fn warn_of_settings(connection: &mut PgConnection, place: &Place) -> Result<(), sqlx::Error> {
    let fsync: Option<String> = sqlx::query_scalar(
        "SELECT setting FROM pg_settings WHERE name = 'fsync' AND setting = 'off'",
    )
    .fetch_optional(connection)
    .await?;
    if fsync.is_some() {
        tracing::warn!(
            store = place.name,
            "the database runs with fsync=off: what it acknowledges does not survive a loss of power"
        );
    }
    Ok(())
}

fn newest() -> i64 {
    MIGRATIONS.iter().map(|migration| migration.version).max().unwrap_or(0)
}

/// The version of the schema, 0 if there is none.
async fn schema(connection: &mut PgConnection, place: &Place) -> Result<i64, Failure> {
    let exists: bool = sqlx::query_scalar(
        "SELECT EXISTS (SELECT 1 FROM information_schema.tables \
         WHERE table_name = '_sqlx_migrations' AND table_schema = current_schema())",
    )
    .fetch_one(&mut *connection)
    .await?;
    if !exists {
        return Ok(0);
    }
    let found: i64 = sqlx::query_scalar("SELECT coalesce(max(version), 0) FROM _sqlx_migrations")
        .fetch_one(connection)
        .await?;
    if found > newest() {
        let store = place.name.clone();
        return Err(Failure::Refused(OpenError::NewerStore { store, found, known: newest() }));
    }
    Ok(found)
}

async fn migrate(connection: &mut PgConnection, place: &Place) -> Result<(), Failure> {
    sqlx::raw_sql("CREATE TABLE IF NOT EXISTS schema_lock (one BOOLEAN PRIMARY KEY CHECK (one))")
        .execute(&mut *connection)
        .await?;
    sqlx::raw_sql("INSERT INTO schema_lock (one) VALUES (true) ON CONFLICT DO NOTHING")
        .execute(&mut *connection)
        .await?;
    let mut transaction = connection.begin().await?;
    sqlx::raw_sql("SELECT one FROM schema_lock FOR UPDATE").execute(&mut *transaction).await?;
    if schema(&mut transaction, place).await? < newest() {
        let run = MIGRATIONS.run_direct(None, &mut *transaction, false).await;
        run.map_err(|error| match error {
            MigrateError::Execute(error) | MigrateError::ExecuteMigration(error, _) => {
                Failure::Sql(error)
            }
            other => Failure::Refused(OpenError::Database {
                store: place.name.clone(),
                problem: format!("cannot be brought up to date ({other})"),
            }),
        })?;
        tracing::info!(store = place.name, schema = newest(), "brought the schema up to date");
    }
    transaction.commit().await?;
    Ok(())
}

async fn read_cluster(connection: &mut PgConnection) -> Result<Option<ClusterRecord>, sqlx::Error> {
    let row: Option<(Vec<u8>, i32)> =
        sqlx::query_as("SELECT cluster_id, shards FROM cluster").fetch_optional(connection).await?;
    let Some((id, shards)) = row else { return Ok(None) };
    match (id.try_into(), u32::try_from(shards)) {
        (Ok(cluster_id), Ok(shards)) => Ok(Some(ClusterRecord { cluster_id, shards })),
        _ => Err(sqlx::Error::Decode("the row of the cluster is damaged".into())),
    }
}

/// Creates the cluster and its shards, unless another node is first.
async fn create_cluster(
    connection: &mut PgConnection,
    shards: u32,
) -> Result<ClusterRecord, Failure> {
    let mut cluster_id = [0; 16];
    getrandom::fill(&mut cluster_id)
        .map_err(|error| sqlx::Error::Io(std::io::Error::other(error.to_string())))?;
    let mut transaction = connection.begin().await?;
    let created = sqlx::query(
        "INSERT INTO cluster (one, cluster_id, shards, created_at_ms) VALUES (true, $1, $2, $3) \
         ON CONFLICT DO NOTHING",
    )
    .bind(&cluster_id[..])
    .bind(shards as i32)
    .bind(clock::unix_ms() as i64)
    .execute(&mut *transaction)
    .await?;
    if created.rows_affected() == 1 {
        sqlx::query(
            "INSERT INTO shard (shard_id, epoch, next_off) \
             SELECT n::int, 0, 1 FROM generate_series(0, $1::bigint - 1) AS n",
        )
        .bind(i64::from(shards))
        .execute(&mut *transaction)
        .await?;
    }
    transaction.commit().await?;
    let record = read_cluster(connection).await?;
    record.ok_or_else(|| Failure::Sql(sqlx::Error::RowNotFound))
}
