//! The one connection that writes.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::{Connection, SqliteConnection};

use crate::journal::error::StoreError;
use crate::journal::sqlite::fault::{self, Fault};
use crate::journal::sqlite::index::{Known, Row};
use crate::journal::sqlite::rows::{Rows, Statements, Table, Value};
use crate::journal::sqlite::segment::{Segment, seal};
use crate::journal::sqlite::{Inner, read};
use crate::journal::store::{Receipt, StoredEvent, Write};
use crate::words::{Address, Message, Seq};

pub struct Writer {
    /// None when it is closed.
    pub connection: Option<SqliteConnection>,
    pub statements: Statements,
    pub next_off: i64,
    pub next_entity: i64,
}

/// A batch turned into rows, and what it makes true once they are stored.
struct Draft {
    tables: [Rows; 5],
    heads: HashMap<Address, Known>,
    tail: Vec<(i64, Row)>,
    types: Vec<(Arc<str>, i64)>,
    new_types: HashMap<Arc<str>, i64>,
}

const TYPES: usize = 0;
const ENTITIES: usize = 1;
const EVENTS: usize = 2;
const SNAPSHOTS: usize = 3;
const RECEIPTS: usize = 4;

impl Inner {
    pub async fn commit(&self, batch: &[Write]) -> Result<(), StoreError> {
        let mut writer = self.writer.lock().await;
        self.refuse_if_poisoned()?;
        let Some(connection) = &mut writer.connection else { return Err(self.closed()) };
        let heads = self.check(connection, batch).await?;
        self.check_types(batch)?;
        let first_off = writer.next_off;
        let draft = self.draft(&mut writer, batch, heads);
        let tables: Vec<Rows> = draft.tables.into_iter().filter(|rows| !rows.is_empty()).collect();
        let Writer { connection, statements, .. } = &mut *writer;
        let Some(connection) = connection else { return Err(self.closed()) };
        if let Err(error) = statements.insert_all(connection, tables).await {
            let receipt = batch.iter().find_map(|write| Some((write, write.receipt.as_ref()?)));
            return Err(self.undo(connection, error, Some((first_off, receipt))).await);
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
    ) -> Result<HashMap<Address, Known>, StoreError> {
        let mut heads = HashMap::with_capacity(batch.len());
        for write in batch {
            let head = match heads.get_mut(&write.address) {
                Some(head) => head,
                None => {
                    let known = read::resolve_on(connection, self, &write.address).await;
                    let known = known.map_err(|error| refused(write, error))?;
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

    fn draft(
        &self,
        writer: &mut Writer,
        batch: &[Write],
        mut heads: HashMap<Address, Known>,
    ) -> Draft {
        let mut draft = Draft {
            tables: [
                Rows::new(Table::MessageType),
                Rows::new(Table::Entity),
                Rows::new(Table::Journal),
                Rows::new(Table::Snapshot),
                Rows::new(Table::Receipt),
            ],
            heads: HashMap::new(),
            tail: Vec::new(),
            types: Vec::new(),
            new_types: HashMap::new(),
        };
        for write in batch {
            let Some(head) = heads.get_mut(&write.address) else { continue };
            if head.is_absent() {
                head.no = writer.next_entity;
                writer.next_entity += 1;
                draft.tables[ENTITIES].push([
                    Value::Int(head.no),
                    Value::Text(write.address.journal.as_str().into()),
                    Value::Blob(write.address.id.as_str().as_bytes().to_vec()),
                ]);
            }
            let no = head.no;
            for (seq, event) in (write.after.0 + 1..).zip(&write.events) {
                let type_no = self.type_number(&mut draft, &event.type_name);
                let off = writer.next_off;
                writer.next_off += 1;
                draft.event(no, seq, off, type_no, write.at_ms, event);
            }
            let seq = write.after.plus(write.events.len());
            if let Some(state) = &write.snapshot {
                let type_no = self.type_number(&mut draft, &state.type_name);
                let key = [no as u64, seq.0, type_no as u64];
                draft.tables[SNAPSHOTS].push([
                    Value::Int(no),
                    Value::Int(seq.0 as i64),
                    Value::Int(type_no),
                    Value::Blob(seal(&key, &state.data)),
                ]);
            }
            if let Some(receipt) = &write.receipt {
                draft.tables[RECEIPTS].push([
                    Value::Int(no),
                    Value::Text(receipt.key.as_str().into()),
                    Value::Blob(receipt.request_hash.to_vec()),
                    Value::Blob(seal(&[no as u64, receipt.expires_at_ms], &receipt.reply)),
                    Value::Int(receipt.expires_at_ms as i64),
                ]);
            }
        }
        draft.heads = heads;
        draft
    }

    fn type_number(&self, draft: &mut Draft, name: &Arc<str>) -> i64 {
        let types = self.types();
        if let Some(number) = types.number(name).or_else(|| draft.new_types.get(name).copied()) {
            return number;
        }
        let number = types.next_number() + draft.types.len() as i64;
        draft.types.push((name.clone(), number));
        draft.new_types.insert(name.clone(), number);
        draft.tables[TYPES].push([Value::Int(number), Value::Text(name.clone())]);
        number
    }

    /// Writes packed events, between two commits.
    pub async fn write_segments(&self, segments: &[Segment]) -> Result<(), StoreError> {
        let mut rows = Rows::new(Table::Segment);
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
        match statements.insert_all(connection, vec![rows]).await {
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
        batch: Option<(i64, Option<(&Write, &Receipt)>)>,
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
        batch: Option<(i64, Option<(&Write, &Receipt)>)>,
    ) -> Result<bool, ()> {
        let mut transaction = connection.begin().await.map_err(drop)?;
        let Some((first_off, receipt)) = batch else { return Ok(true) };
        let newest: Option<i64> = sqlx::query_scalar("SELECT max(off) FROM journal")
            .fetch_one(&mut *transaction)
            .await
            .map_err(drop)?;
        let Some((write, receipt)) = receipt else { return Ok(newest.unwrap_or(0) < first_off) };
        // A batch may consist of receipts only.
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
        Ok(newest.unwrap_or(0) < first_off && same.is_none())
    }
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

impl Draft {
    fn event(&mut self, no: i64, seq: u64, off: i64, type_no: i64, at_ms: u64, event: &Message) {
        let sealed = seal(&[no as u64, seq, at_ms, type_no as u64], &event.data);
        // A copy: the guest's buffer may be much larger than the event.
        let data = bytes::Bytes::copy_from_slice(&event.data);
        self.tables[EVENTS].push([
            Value::Int(off),
            Value::Int(no),
            Value::Int(seq as i64),
            Value::Int(at_ms as i64),
            Value::Int(type_no),
            Value::Blob(sealed),
        ]);
        let event = Message { type_name: event.type_name.clone(), data };
        let bytes = event.data.len();
        let event = Some(StoredEvent { seq: Seq(seq), at_ms, event });
        self.tail.push((no, Row { seq, off, bytes, event }));
    }
}
