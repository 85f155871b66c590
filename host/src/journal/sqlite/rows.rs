//! Changes of many rows, with as few statements as possible, and few texts of them, so that they stay
//! prepared.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

use crate::words::limits::{
    JOURNAL_INSERT_ROWS_LARGE as LARGE, JOURNAL_INSERT_ROWS_SMALL as SMALL,
};

/// What is done with rows, in the order in which a transaction does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    MessageType,
    Entity,
    Journal,
    Segment,
    /// Entities, and before which number their segments go.
    SegmentGone,
    Snapshot,
    Receipt,
    Outbox,
    OutboxChanged,
    OutboxGone,
    Timer,
    TimerGone,
    TimerLater,
    Forgotten,
    Position,
    Laggard,
    LaggardGone,
    ViewRow,
    ViewRowGone,
    /// Keys of rows whose values go, or are about to be replaced.
    ViewValueGone,
    ViewValue,
}

/// A statement: what is before its rows, how many columns they have, and what is after them.
type Parts = (&'static str, usize, &'static str);

impl Table {
    pub const ALL: [Table; 21] = [
        Table::MessageType,
        Table::Entity,
        Table::Journal,
        Table::Segment,
        Table::SegmentGone,
        Table::Snapshot,
        Table::Receipt,
        Table::Outbox,
        Table::OutboxChanged,
        Table::OutboxGone,
        Table::Timer,
        Table::TimerGone,
        Table::TimerLater,
        Table::Forgotten,
        Table::Position,
        Table::Laggard,
        Table::LaggardGone,
        Table::ViewRow,
        Table::ViewRowGone,
        Table::ViewValueGone,
        Table::ViewValue,
    ];

    fn parts(self) -> Parts {
        match self {
            Table::MessageType => ("INSERT INTO message_type (no, name) VALUES ", 2, ""),
            Table::Entity => ("INSERT INTO entity (no, journal, id) VALUES ", 3, ""),
            Table::Journal => {
                ("INSERT INTO journal (off, entity, seq, at_ms, type, data) VALUES ", 6, "")
            }
            Table::Segment => (
                "INSERT OR REPLACE INTO segment (entity, seq_first, seq_last, data) VALUES ",
                4,
                "",
            ),
            Table::SegmentGone => (
                "DELETE FROM segment WHERE (entity, seq_first) IN \
                 (SELECT s.entity, s.seq_first FROM (VALUES ",
                2,
                ") v CROSS JOIN segment s ON s.entity = v.column1 \
                 AND s.seq_first < v.column2 AND s.seq_last < v.column2)",
            ),
            Table::Snapshot => {
                ("INSERT OR REPLACE INTO snapshot (entity, seq, type, data) VALUES ", 4, "")
            }
            Table::Receipt => (
                "INSERT OR REPLACE INTO receipt (entity, key, request_hash, reply, expires_at_ms) VALUES ",
                5,
                "",
            ),
            Table::Outbox => (
                "INSERT OR IGNORE INTO outbox (id, shard, entity, call, tries, due_ms, error, parked) \
                 SELECT column1, column2, column3, column4, 0, 0, '', 0 FROM (VALUES ",
                4,
                ")",
            ),
            Table::OutboxChanged => (
                "UPDATE outbox SET tries = v.column2, due_ms = v.column3, error = v.column4, \
                 parked = v.column5 FROM (VALUES ",
                5,
                ") v WHERE outbox.id = v.column1",
            ),
            Table::OutboxGone => ("DELETE FROM outbox WHERE id IN (VALUES ", 1, ")"),
            Table::Timer => (
                "INSERT OR REPLACE INTO timer (entity, name, shard, due_ms, every_ms, method, payload, \
                 token, tries, error) SELECT column1, column2, column3, column4, column5, column6, \
                 column7, column8, 0, '' FROM (VALUES ",
                8,
                ")",
            ),
            Table::TimerGone => (
                "DELETE FROM timer WHERE (entity, name) IN (SELECT t.entity, t.name FROM (VALUES ",
                2,
                ") v CROSS JOIN timer t ON t.entity = v.column1 AND t.name = v.column2)",
            ),
            Table::TimerLater => (
                "UPDATE timer SET due_ms = v.column5, tries = v.column6, error = v.column7 FROM (VALUES ",
                7,
                ") v WHERE timer.entity = \
                 (SELECT no FROM entity e WHERE e.journal = v.column1 AND e.id = v.column2) \
                 AND timer.name = v.column3 AND timer.token = v.column4",
            ),
            Table::Forgotten => (
                "INSERT INTO forgotten (entity, before) VALUES ",
                2,
                " ON CONFLICT (entity) DO UPDATE SET before = max(before, excluded.before)",
            ),
            Table::Position => ("INSERT OR REPLACE INTO position (grp, part, off) VALUES ", 3, ""),
            Table::Laggard => (
                "INSERT OR REPLACE INTO laggard (grp, part, journal, id, seq, tries, due_ms, error, \
                 parked) VALUES ",
                9,
                "",
            ),
            Table::LaggardGone => (
                "DELETE FROM laggard WHERE (grp, part, journal, id) IN \
                 (SELECT l.grp, l.part, l.journal, l.id FROM (VALUES ",
                4,
                ") v CROSS JOIN laggard l ON l.grp = v.column1 AND l.part = v.column2 \
                 AND l.journal = v.column3 AND l.id = v.column4)",
            ),
            Table::ViewRow => {
                ("INSERT OR REPLACE INTO view_row (view, key, type, data) VALUES ", 4, "")
            }
            Table::ViewRowGone => (
                "DELETE FROM view_row WHERE (view, key) IN (SELECT r.view, r.key FROM (VALUES ",
                2,
                ") v CROSS JOIN view_row r ON r.view = v.column1 AND r.key = v.column2)",
            ),
            Table::ViewValueGone => (
                "DELETE FROM view_value WHERE (view, key, field) IN \
                 (SELECT o.view, o.key, o.field FROM (VALUES ",
                2,
                ") v CROSS JOIN view_value o ON o.view = v.column1 AND o.key = v.column2)",
            ),
            Table::ViewValue => {
                ("INSERT OR REPLACE INTO view_value (view, key, field, value) VALUES ", 4, "")
            }
        }
    }
}

/// The values of one row at a time, for one table.
pub struct Rows {
    table: Table,
    columns: usize,
    values: Vec<Value>,
}

pub enum Value {
    Int(i64),
    Text(Arc<str>),
    Blob(Vec<u8>),
    Null,
}

impl From<u64> for Value {
    /// The database's numbers end at 2⁶³ - 1.
    fn from(number: u64) -> Self {
        Value::Int(i64::try_from(number).unwrap_or(i64::MAX))
    }
}

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Value::Text(text.into())
    }
}

impl Rows {
    pub fn new(table: Table) -> Self {
        Self { table, columns: table.parts().1, values: Vec::new() }
    }

    pub fn push<const N: usize>(&mut self, row: [Value; N]) {
        debug_assert_eq!(N, self.columns);
        self.values.extend(row);
    }

    pub fn is_empty(&self) -> bool {
        self.values.is_empty()
    }
}

#[derive(Clone, Copy, PartialEq, Eq, Hash)]
struct Shape {
    table: Table,
    rows: usize,
    first: bool,
    last: bool,
}

/// The texts of statements.
#[derive(Default)]
pub struct Statements(HashMap<Shape, Arc<str>>);

impl Statements {
    fn text(&mut self, shape: Shape) -> Arc<str> {
        let text = self.0.entry(shape).or_insert_with(|| {
            let (before, columns, after) = shape.table.parts();
            let row = format!("({})", vec!["?"; columns].join(","));
            let begin = if shape.first { "BEGIN IMMEDIATE;" } else { "" };
            let commit = if shape.last { ";COMMIT" } else { "" };
            format!("{begin}{before}{}{after}{commit}", vec![row; shape.rows].join(",")).into()
        });
        text.clone()
    }

    /// Does everything in one transaction. BEGIN and COMMIT ride along with the first and the last
    /// statement, since each call is a trip to the connection's thread. After an error the caller
    /// must end the transaction.
    pub async fn change_all(
        &mut self,
        connection: &mut SqliteConnection,
        tables: Vec<Rows>,
    ) -> Result<(), sqlx::Error> {
        let mut calls = Vec::new();
        for rows in tables {
            let mut left = rows.values.len() / rows.columns;
            let mut values = rows.values.into_iter();
            while left > 0 {
                let count = if left >= LARGE { LARGE } else { left.min(SMALL) };
                let mut arguments = SqliteArguments::default();
                arguments.reserve(count * rows.columns, 0);
                for value in values.by_ref().take(count * rows.columns) {
                    value.bind(&mut arguments)?;
                }
                calls.push((rows.table, count, arguments));
                left -= count;
            }
        }
        let last = calls.len();
        for (number, (table, rows, arguments)) in calls.into_iter().enumerate() {
            let shape = Shape { table, rows, first: number == 0, last: number + 1 == last };
            let text = AssertSqlSafe(self.text(shape));
            sqlx::query_with(text, arguments).execute(&mut *connection).await?;
        }
        Ok(())
    }
}

impl Value {
    fn bind(self, arguments: &mut SqliteArguments) -> Result<(), sqlx::Error> {
        fn add<T: Type<Sqlite> + for<'q> Encode<'q, Sqlite>>(
            arguments: &mut SqliteArguments,
            value: T,
        ) -> Result<(), sqlx::Error> {
            arguments.add(value).map_err(sqlx::Error::Encode)
        }
        match self {
            Value::Int(number) => add(arguments, number),
            Value::Text(text) => add(arguments, text),
            Value::Blob(bytes) => add(arguments, bytes),
            Value::Null => add(arguments, None::<i64>),
        }
    }
}

#[cfg(test)]
mod tests {
    use sqlx::{Connection, Row};

    use super::*;

    /// However full the tables are.
    #[tokio::test]
    async fn no_statement_scans_a_table() {
        let mut connection = SqliteConnection::connect(":memory:").await.unwrap();
        let migrations = sqlx::migrate!("migrations/sqlite");
        migrations.run_direct(None, &mut connection, false).await.unwrap();
        for table in Table::ALL {
            let shape = Shape { table, rows: 2, first: false, last: false };
            let text = format!("EXPLAIN QUERY PLAN {}", Statements::default().text(shape));
            let mut arguments = SqliteArguments::default();
            for _ in 0..2 * table.parts().1 {
                Value::Int(1).bind(&mut arguments).unwrap();
            }
            let plan = sqlx::query_with(AssertSqlSafe(text), arguments);
            for row in plan.fetch_all(&mut connection).await.unwrap() {
                let step: String = row.get("detail");
                let names =
                    ["timer", "outbox", "entity", "segment", "laggard", "view_", "position"];
                let scans = names.iter().any(|name| step.starts_with(&format!("SCAN {name}")));
                assert!(!scans, "{table:?}: {step}");
            }
        }
    }
}
