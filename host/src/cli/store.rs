//! `stead store copy`: moves a journal from a node's directory into a cluster's database, or back.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Duration;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde_json::json;

use crate::cli::args::StoreCopyArgs;
use crate::cli::failed::{Exit, Failed};
use crate::cli::output::Output;
use crate::journal::copy::{self, CopyError, Counts, Step};
use crate::journal::postgres::{self, Claim, PgStore};
use crate::journal::sqlite::{self, SqliteOptions, SqliteStore};
use crate::journal::{Fence, Holdings, OpenError, Store, StoreError};
use crate::words::config::Secret;
use crate::words::telemetry::Metrics;
use crate::words::{Epoch, Shard, clock};

const NOT_EMPTY: &str =
    "the target holds data already, perhaps of a copy that was interrupted; copy into a new one";

/// A store as it is named on the command line.
enum Place {
    Directory(PathBuf),
    Database(Secret),
}

impl Place {
    fn parse(flag: &str, text: &str) -> Result<Self, Failed> {
        if let Some(dir) = text.strip_prefix("sqlite:").filter(|dir| !dir.is_empty()) {
            return Ok(Self::Directory(dir.into()));
        }
        if text.starts_with("postgres://") || text.starts_with("postgresql://") {
            return Ok(Self::Database(Secret::new(text)));
        }
        // Not shown: it may contain a password.
        Err(Failed::usage(format!("{flag} must be sqlite:DIR or postgres://user@host/database")))
    }
}

pub async fn copy(args: StoreCopyArgs, out: &Output) -> Result<(), Failed> {
    if args.from == args.to {
        return Err(Failed::usage("--from and --to are the same store"));
    }
    let from = Place::parse("--from", &args.from)?;
    let to = Place::parse("--to", &args.to)?;
    let counts = match from {
        Place::Directory(dir) => {
            let source = open_existing(dir).await?;
            let done = copy_to(&source, to, &args, out).await;
            source.close().await;
            done?
        }
        Place::Database(url) => {
            let cluster = Cluster::open(&url, args.shards).await?;
            let done = copy_to(&cluster.store, to, &args, out).await;
            cluster.close(done).await?
        }
    };
    if out.is_json() {
        out.json(&json!({
            "entities": counts.entities,
            "events": counts.events,
            "snapshots": counts.snapshots,
            "receipts": counts.receipts,
            "effects": counts.effects,
            "timers": counts.timers,
            "groups": counts.groups,
            "view_rows": counts.view_rows,
            "modules": counts.modules,
            "revisions": counts.revisions,
        }));
    } else {
        out.text(&format!(
            "copied and compared {} entities with {} events, {} snapshots, {} idempotency keys, {} \
             effects, {} timers, {} consumer groups, {} rows of views, {} modules and {} revisions",
            counts.entities,
            counts.events,
            counts.snapshots,
            counts.receipts,
            counts.effects,
            counts.timers,
            counts.groups,
            counts.view_rows,
            counts.modules,
            counts.revisions,
        ));
    }
    Ok(())
}

async fn open_existing(dir: PathBuf) -> Result<SqliteStore, Failed> {
    if !dir.join(sqlite::FILE).exists() {
        let file = dir.join(sqlite::FILE);
        return Err(Failed::local(format!("there is no {}", file.display())));
    }
    // Packing would drop events that nobody needs any more while they are copied.
    let options = SqliteOptions { tail_rows_max: usize::MAX, ..SqliteOptions::default() };
    SqliteStore::open_with(&dir, options).await.map_err(not_opened)
}

async fn copy_to(
    source: &impl Store,
    to: Place,
    args: &StoreCopyArgs,
    out: &Output,
) -> Result<Counts, Failed> {
    match to {
        Place::Directory(dir) => {
            let target = SqliteStore::open(&dir).await.map_err(not_opened)?;
            let fence = |shard| Fence { shard, epoch: Epoch(0) };
            let done = run(source, &target, fence, !args.without_consumers, out).await;
            target.close().await;
            done
        }
        Place::Database(url) => {
            let cluster = Cluster::open(&url, args.shards).await?;
            let holdings = cluster.holdings.clone();
            let fence = |shard| {
                // No shard has the epoch 0 while it is owned.
                Fence { shard, epoch: holdings.epoch(shard).unwrap_or(Epoch(0)) }
            };
            let done = run(source, &cluster.store, fence, !args.without_consumers, out).await;
            cluster.close(done).await
        }
    }
}

/// A cluster's database without nodes, whose shards are all owned by this command.
struct Cluster {
    store: PgStore,
    holdings: Holdings,
    claim: Claim,
}

impl Cluster {
    async fn open(url: &Secret, shards: u32) -> Result<Self, Failed> {
        let record = postgres::prepare(url, shards).await.map_err(not_opened)?;
        let holdings = Holdings::of_member(record.shards);
        let claim = Claim::take(url).await.map_err(not_opened)?;
        for (shard, epoch) in claim.shards() {
            holdings.grant(*shard, *epoch);
        }
        let store = PgStore::open(url, holdings.clone(), Metrics::default()).await;
        match store {
            Ok(store) => Ok(Self { store, holdings, claim }),
            Err(error) => {
                // The first error is the one to tell.
                let _ = claim.release().await;
                Err(not_opened(error))
            }
        }
    }

    async fn close(self, done: Result<Counts, Failed>) -> Result<Counts, Failed> {
        self.store.close().await;
        let released = self.claim.release().await;
        let counts = done?;
        match released.map_err(not_opened)? {
            true => Ok(counts),
            false => Err(taken(self.store.name())),
        }
    }
}

async fn run<S: Store, T: Store>(
    source: &S,
    target: &T,
    fence: impl Fn(Shard) -> Fence,
    consumers: bool,
    out: &Output,
) -> Result<Counts, Failed> {
    let unreadable = |error: StoreError| Failed::local(error.to_string());
    if !copy::is_empty(target).await.map_err(unreadable)? {
        return Err(Failed::refused(NOT_EMPTY));
    }
    let entities = copy::count_entities(source).await.map_err(unreadable)?;
    let bar = progress(entities, out);
    let told = |step| {
        bar.set_message(match step {
            Step::Copying => "copying",
            Step::Verifying => "comparing",
        });
        bar.inc(1);
    };
    let copied = copy::copy(source, target, fence, consumers, clock::unix_ms(), told).await;
    bar.finish_and_clear();
    copied.map_err(|error| match error {
        CopyError::Fenced | CopyError::Behind { .. } => Failed::refused(error.to_string()),
        CopyError::Source(_) | CopyError::Target(_) | CopyError::Different { .. } => {
            Failed::local(format!("{error}; what is in the target is not complete"))
        }
    })
}

/// A bar on a terminal, a line elsewhere, nothing in JSON.
fn progress(entities: u64, out: &Output) -> ProgressBar {
    if out.is_json() || !std::io::stderr().is_terminal() {
        out.say(&format!("copying {entities} entities, then comparing them"));
        return ProgressBar::hidden();
    }
    // Each entity is copied, and later compared.
    let bar = ProgressBar::with_draw_target(Some(2 * entities), ProgressDrawTarget::stderr());
    let template = "{spinner} {msg} [{bar:30}] {percent} % {elapsed}, {eta} left";
    if let Ok(style) = ProgressStyle::with_template(template) {
        bar.set_style(style.progress_chars("=> "));
    }
    bar.enable_steady_tick(Duration::from_millis(100));
    bar
}

/// `store`: whose shards did not stay this command's.
fn taken(store: &str) -> Failed {
    Failed::refused(format!(
        "a node took shards of the database {store} while this command copied, and may have stored something \
         there: the copy is not complete; stop every node, and copy again into an empty store"
    ))
}

fn not_opened(error: OpenError) -> Failed {
    let exit = match error {
        OpenError::InUse { .. }
        | OpenError::StoreInUse { .. }
        | OpenError::NewerSchema { .. }
        | OpenError::NewerStore { .. }
        | OpenError::ClusterKey { .. } => Exit::Refused,
        OpenError::StoreUrl { .. } => Exit::Usage,
        OpenError::Database { .. } => Exit::Unreachable,
        OpenError::NotWritable { .. } | OpenError::Corrupt { .. } | OpenError::Other { .. } => {
            Exit::Failed
        }
    };
    Failed::new(exit, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::postgres::server::Server;

    /// The end of a copy that went well, after this was done to the database.
    async fn closed_after(meanwhile: &str) -> Result<Counts, Failed> {
        let server = Server::shared();
        let url = server.database();
        let cluster = Cluster::open(&Secret::new(url.as_str()), 4).await?;
        server.sql(url.rsplit('/').next().unwrap(), meanwhile);
        cluster.close(Ok(Counts { entities: 1, ..Counts::default() })).await
    }

    #[tokio::test]
    async fn a_copy_of_which_a_node_took_shards_is_no_success() {
        let taken = "UPDATE shard SET owner = 'a node', epoch = epoch + 1 WHERE shard_id = 3";
        let fenced = "UPDATE node SET state = 'fenced', incarnation = incarnation + 1; \
                      UPDATE shard SET owner = NULL, owner_inc = NULL, epoch = epoch + 1";
        for meanwhile in [taken, fenced] {
            let failed = closed_after(meanwhile).await.unwrap_err();
            assert_eq!(failed.exit, Exit::Refused);
            assert!(failed.message.contains("the copy is not complete; stop every"), "{failed}");
        }
    }

    #[tokio::test]
    async fn a_copy_that_kept_its_shards_is_told() {
        assert_eq!(closed_after("SELECT 1").await.unwrap().entities, 1);
    }
}
