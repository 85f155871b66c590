//! Inserts of many rows, with as few statements as possible, and few texts of them, so that they stay
//! prepared.

use std::collections::HashMap;
use std::sync::Arc;

use sqlx::sqlite::SqliteArguments;
use sqlx::{Arguments, AssertSqlSafe, Encode, Sqlite, SqliteConnection, Type};

use crate::words::limits::{
    JOURNAL_INSERT_ROWS_LARGE as LARGE, JOURNAL_INSERT_ROWS_SMALL as SMALL,
};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Table {
    Entity,
    MessageType,
    Journal,
    Segment,
    Snapshot,
    Receipt,
}

impl Table {
    fn insert(self) -> (&'static str, usize) {
        match self {
            Table::Entity => ("INSERT INTO entity (no, journal, id) VALUES ", 3),
            Table::MessageType => ("INSERT INTO message_type (no, name) VALUES ", 2),
            Table::Journal => {
                ("INSERT INTO journal (off, entity, seq, at_ms, type, data) VALUES ", 6)
            }
            Table::Segment => {
                ("INSERT OR REPLACE INTO segment (entity, seq_first, seq_last, data) VALUES ", 4)
            }
            Table::Snapshot => {
                ("INSERT OR REPLACE INTO snapshot (entity, seq, type, data) VALUES ", 4)
            }
            Table::Receipt => (
                "INSERT OR REPLACE INTO receipt (entity, key, request_hash, reply, expires_at_ms) VALUES ",
                5,
            ),
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
}

impl Rows {
    pub fn new(table: Table) -> Self {
        Self { table, columns: table.insert().1, values: Vec::new() }
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
            let (insert, columns) = shape.table.insert();
            let row = format!("({})", vec!["?"; columns].join(","));
            let begin = if shape.first { "BEGIN IMMEDIATE;" } else { "" };
            let commit = if shape.last { ";COMMIT" } else { "" };
            format!("{begin}{insert}{}{commit}", vec![row; shape.rows].join(",")).into()
        });
        text.clone()
    }

    /// Inserts everything in one transaction. BEGIN and COMMIT ride along with the first and the last
    /// statement, since each call is a trip to the connection's thread. After an error the caller
    /// must end the transaction.
    pub async fn insert_all(
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
        }
    }
}
