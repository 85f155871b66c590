//! The one connection that writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};

use crate::journal::changes::{Changes, Step};
use crate::journal::error::StoreError;
use crate::journal::sqlite::fault::{self, Fault};
use crate::journal::sqlite::index::Known;
use crate::journal::sqlite::rows::{Rows, Statements, Table, Value};
use crate::journal::sqlite::segment::Segment;
use crate::journal::sqlite::{Inner, read};
use crate::journal::store::{Chore, EffectId, Receipt, Write};
use crate::words::Address;

pub struct Writer {
    /// None when it is closed.
    pub connection: Option<SqliteConnection>,
    pub statements: Statements,
    pub next_off: i64,
    pub next_entity: i64,
}

/// What is there if, and only if, a batch was stored.
struct Trace<'a> {
    first_off: i64,
    receipt: Option<(&'a Write, &'a Receipt)>,
    effect: Option<EffectId>,
}

impl<'a> Trace<'a> {
    fn of(batch: &'a [Write], first_off: i64) -> Self {
        let receipt = batch.iter().find_map(|write| Some((write, write.receipt.as_ref()?)));
        let effect = batch.iter().find_map(|write| Some(write.effects.first()?.id));
        Self { first_off, receipt, effect }
    }
}

impl Inner {
    /// `is_import`: entities may begin at any number.
    pub async fn commit(
        &self,
        batch: &[Write],
        chores: &[Chore],
        is_import: bool,
    ) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.refuse_if_poisoned()?;
        let Some(connection) = &mut writer.connection else { return Err(self.closed()) };
        let heads = self.check(connection, batch, is_import).await?;
        self.check_types(batch)?;
        let changes = Changes::of(batch, chores)?;
        check_steps(connection, &changes.steps).await?;
        let first_off = writer.next_off;
        let mut draft = self.draft(&mut writer, batch, heads);
        draft.changes(&changes);
        let tables: Vec<Rows> = draft.tables.into_iter().filter(|rows| !rows.is_empty()).collect();
        let Writer { connection, statements, .. } = &mut *writer;
        let Some(connection) = connection else { return Err(self.closed()) };
        if let Err(error) = statements.change_all(connection, tables).await {
            let trace = Trace::of(batch, first_off);
            return Err(self.undo(connection, error, Some(trace)).await);
        }
        if !draft.types.is_empty() {
            self.add_types(draft.types);
        }
        let mut index = self.index();
        for (no, row) in draft.tail {
            index.append(no, row);
        }
        for (address, known) in draft.heads {
            index.publish(address, known);
        }
        if index.rows() >= self.options.tail_rows_max
            || index.event_bytes() >= self.options.tail_bytes_max
        {
            self.wake.notify_one();
        }
        Ok(())
    }

    /// The entities of a batch, if every write follows what is stored and what is before it.
    async fn check(
        &self,
        connection: &mut SqliteConnection,
        batch: &[Write],
        is_import: bool,
    ) -> Result<HashMap<Address, Known>, StoreError> {
        let mut heads = HashMap::with_capacity(batch.len());
        for write in batch {
            let head = match heads.get_mut(&write.address) {
                Some(head) => head,
                None => {
                    let known = read::resolve_on(connection, self, &write.address).await;
                    let mut known = known.map_err(|error| refused(write, error))?;
                    if is_import && known.seq == 0 && write.is_beginning() {
                        known.seq = write.after.0;
                    }
                    heads.entry(write.address.clone()).or_insert(known)
                }
            };
            if head.seq != write.after.0 {
                let address = Box::new(write.address.clone());
                return Err(StoreError::Conflict { address, expected: write.after });
            }
            head.seq += write.events.len() as u64;
        }
        Ok(heads)
    }

    /// Every name stays in memory, and is chosen by guests.
    fn check_types(&self, batch: &[Write]) -> Result<(), StoreError> {
        let types = self.types();
        let names = batch.iter().map(|write| write.events.len() + 1).sum::<usize>();
        if types.len() + names <= self.options.message_types_max {
            return Ok(());
        }
        let mut new = HashSet::new();
        for write in batch {
            for message in write.events.iter().chain(&write.snapshot) {
                let name = &*message.type_name;
                let is_new = types.number(name).is_none() && new.insert(name);
                if is_new && types.len() + new.len() > self.options.message_types_max {
                    let max = self.options.message_types_max;
                    let reason =
                        format!("{name} would be one more than the {max} message types of a store");
                    return Err(refusal(write, reason.into()));
                }
            }
        }
        Ok(())
    }

    /// Writes packed events, between two commits, and deletes those of entities before a number.
    pub async fn write_segments(
        &self,
        segments: &[Segment],
        forgotten: &[(i64, u64)],
    ) -> Result<(), StoreError> {
        let mut rows = Rows::new(Table::Segment);
        let mut gone = Rows::new(Table::SegmentGone);
        for (entity, before) in forgotten {
            gone.push([Value::Int(*entity), Value::from(*before)]);
        }
        for segment in segments {
            rows.push([
                Value::Int(segment.entity),
                Value::Int(segment.seq_first as i64),
                Value::Int(segment.seq_last as i64),
                Value::Blob(segment.data.clone()),
            ]);
        }
        let mut writer = self.writer.lock().await;
        self.refuse_if_poisoned()?;
        let Writer { connection, statements, .. } = &mut *writer;
        let Some(connection) = connection else { return Err(self.closed()) };
        match statements.change_all(connection, vec![rows, gone]).await {
            Ok(()) => Ok(()),
            // Whether it was stored does not matter: it can be written again.
            Err(error) => Err(self.undo(connection, error, None).await),
        }
    }

    /// Runs one statement, a transaction of its own. Returns how many rows it changed.
    pub async fn write_one(
        &self,
        query: sqlx::query::Query<'_, sqlx::Sqlite, sqlx::sqlite::SqliteArguments>,
    ) -> Result<u64, StoreError> {
        let mut writer = self.writer.lock().await;
        self.refuse_if_poisoned()?;
        let Some(connection) = &mut writer.connection else { return Err(self.closed()) };
        match query.execute(&mut *connection).await {
            Ok(done) => Ok(done.rows_affected()),
            Err(error) => Err(self.undo(connection, error, None).await),
        }
    }

    /// After a failed write: if the disk is full and it is certain that nothing was stored, the store
    /// goes on. Whatever else happened, nobody can tell what is on the disk: never again.
    async fn undo(
        &self,
        connection: &mut SqliteConnection,
        error: sqlx::Error,
        batch: Option<Trace<'_>>,
    ) -> StoreError {
        let reason: Arc<str> = error.to_string().into();
        // Fails if SQLite has rolled back already. That is asked again below: a transaction that is
        // still open lets no other begin.
        let _ = sqlx::query("ROLLBACK").execute(&mut *connection).await;
        if fault::of(&error) == Fault::Full && self.is_absent(connection, batch).await == Ok(true) {
            return StoreError::Full { reason };
        }
        self.poison(reason)
    }

    async fn is_absent(
        &self,
        connection: &mut SqliteConnection,
        batch: Option<Trace<'_>>,
    ) -> Result<bool, ()> {
        let mut transaction = connection.begin().await.map_err(drop)?;
        let Some(batch) = batch else { return Ok(true) };
        let newest: Option<i64> = sqlx::query_scalar("SELECT max(off) FROM journal")
            .fetch_one(&mut *transaction)
            .await
            .map_err(drop)?;
        if newest.unwrap_or(0) >= batch.first_off {
            return Ok(false);
        }
        // A batch may consist of effects only, or of receipts.
        if let Some(id) = batch.effect {
            let same: Option<i64> = sqlx::query_scalar("SELECT 1 FROM outbox WHERE id = ?")
                .bind(&id.0[..])
                .fetch_optional(&mut *transaction)
                .await
                .map_err(drop)?;
            if same.is_some() {
                return Ok(false);
            }
        }
        let Some((write, receipt)) = batch.receipt else { return Ok(true) };
        let same: Option<i64> = sqlx::query_scalar(
            "SELECT 1 FROM receipt r JOIN entity e ON e.no = r.entity \
             WHERE e.journal = ? AND e.id = ? AND r.key = ? AND r.request_hash = ? \
             AND r.expires_at_ms = ?",
        )
        .bind(write.address.journal.as_str())
        .bind(write.address.id.as_str().as_bytes())
        .bind(&receipt.key)
        .bind(&receipt.request_hash[..])
        .bind(receipt.expires_at_ms as i64)
        .fetch_optional(&mut *transaction)
        .await
        .map_err(drop)?;
        Ok(same.is_none())
    }
}

/// Whether every step follows its group's position.
async fn check_steps(
    connection: &mut SqliteConnection,
    steps: &[Step<'_>],
) -> Result<(), StoreError> {
    for step in steps {
        let off: Option<i64> =
            sqlx::query_scalar("SELECT off FROM position WHERE grp = ? AND part = ?")
                .bind(step.place.group)
                .bind(i64::from(step.place.partition.0))
                .fetch_optional(&mut *connection)
                .await
                .map_err(fault::read)?;
        if off.unwrap_or(0) as u64 != step.expected_off {
            return Err(step.moved());
        }
    }
    Ok(())
}

fn refusal(write: &Write, reason: Arc<str>) -> StoreError {
    StoreError::Refused { address: Box::new(write.address.clone()), after: write.after, reason }
}

/// Damage where an entity lies refuses its writes only.
fn refused(write: &Write, error: StoreError) -> StoreError {
    match error {
        StoreError::Corrupt { reason } => refusal(write, reason),
        other => other,
    }
}
