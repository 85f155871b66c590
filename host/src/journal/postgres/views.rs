//! Rows of views.

use std::collections::HashMap;
use std::ops::Bound;

use sqlx::postgres::{PgArguments, PgRow};
use sqlx::{Arguments, AssertSqlSafe};
use tokio::time::timeout;

use crate::journal::error::StoreError;
use crate::journal::postgres::Inner;
use crate::journal::postgres::fault;
use crate::journal::postgres::read::{get, message, number, rows as fetch, text};
use crate::journal::store::views::indexed;
use crate::journal::store::{NewRow, RowChange, ViewQuery, ViewRow};
use crate::words::limits::{ROWS_READ_BYTES_MAX, STORE_READ_MAX, VIEW_DELETE_ROWS};

pub async fn row(inner: &Inner, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
    let query =
        sqlx::query("SELECT key, ''::bytea, type, data FROM view_row WHERE view = $1 AND key = $2");
    let query = query.bind(view.as_bytes()).bind(key.as_bytes());
    let rows = fetch(&inner.readers, query, STORE_READ_MAX).await?;
    rows.first().map(view_row).transpose()
}

fn view_row(row: &PgRow) -> Result<ViewRow, StoreError> {
    Ok(ViewRow { key: text(row, 0)?.into(), value: get(row, 1)?, message: message(row, 2)? })
}

pub async fn rows(
    inner: &Inner,
    view: &str,
    query: &ViewQuery,
) -> Result<Vec<ViewRow>, StoreError> {
    let (sql, arguments) =
        statement(view, query).map_err(sqlx::Error::Encode).map_err(fault::read)?;
    let query = sqlx::query_with(AssertSqlSafe(sql), arguments);
    let rows = fetch(&inner.feeders, query, STORE_READ_MAX).await?;
    rows.iter().map(view_row).collect()
}

/// A statement that is put together: what is asked for comes as arguments only.
struct Text {
    sql: String,
    arguments: PgArguments,
}

impl Text {
    /// Adds words, with `?` for an argument.
    fn add<T>(&mut self, words: &str, argument: T) -> Result<(), sqlx::error::BoxDynError>
    where
        T: for<'q> sqlx::Encode<'q, sqlx::Postgres> + sqlx::Type<sqlx::Postgres>,
    {
        self.arguments.add(argument)?;
        self.sql += &words.replace('?', &format!("${}", self.arguments.len()));
        Ok(())
    }
}

/// The database adds up the bytes: what does not belong to the page never leaves it.
fn statement(
    view: &str,
    query: &ViewQuery,
) -> Result<(String, PgArguments), sqlx::error::BoxDynError> {
    let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    let order = format!("o.value {direction}, o.key {direction}");
    let mut text = Text { sql: String::new(), arguments: PgArguments::default() };
    text.sql += &format!(
        "SELECT p.key, p.value, p.type, p.data FROM (SELECT o.key, o.value, r.type, r.data, \
         sum(octet_length(r.type) + octet_length(r.data)) OVER (ORDER BY {order} \
            ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS before FROM ("
    );
    match &query.index {
        Some((field, range)) => {
            text.add("SELECT view, key, value FROM view_value WHERE view = ?", bytes(view))?;
            text.add(" AND field = ?", bytes(field))?;
            for (bound, included, excluded) in [
                (&range.from, " AND value >= ?", " AND value > ?"),
                (&range.to, " AND value <= ?", " AND value < ?"),
            ] {
                match bound {
                    Bound::Included(value) => text.add(included, indexed(value).to_vec())?,
                    Bound::Excluded(value) => text.add(excluded, indexed(value).to_vec())?,
                    Bound::Unbounded => {}
                }
            }
            if let Some((value, key)) = &query.after {
                text.add(&format!(" AND (value, key) {beyond} (?, "), indexed(value).to_vec())?;
                text.add("?)", bytes(key))?;
            }
            text.sql += &format!(" ORDER BY value {direction}, key {direction}");
        }
        None => {
            let select = "SELECT view, key, ''::bytea AS value FROM view_row WHERE view = ?";
            text.add(select, bytes(view))?;
            if let Some((_, key)) = &query.after {
                text.add(&format!(" AND key {beyond} ?"), bytes(key))?;
            }
            text.sql += &format!(" ORDER BY key {direction}");
        }
    }
    text.add(" LIMIT ?", number(query.limit as u64))?;
    text.add(
        ") o JOIN view_row r ON r.view = o.view AND r.key = o.key) p \
         WHERE p.before IS NULL OR p.before < ?",
        number(ROWS_READ_BYTES_MAX as u64),
    )?;
    text.sql += &format!(" ORDER BY p.value {direction}, p.key {direction}");
    Ok((text.sql, text.arguments))
}

fn bytes(text: &str) -> Vec<u8> {
    text.as_bytes().to_vec()
}

/// Rows with all of their values.
pub async fn list(
    inner: &Inner,
    view: &str,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<RowChange>, StoreError> {
    let after = after.map(|key| (Vec::new(), key.to_owned()));
    let query = ViewQuery { after, limit, ..ViewQuery::default() };
    let found = rows(inner, view, &query).await?;
    let keys: Vec<Vec<u8>> = found.iter().map(|row| bytes(&row.key)).collect();
    let select = sqlx::query(
        "SELECT v.key, v.field, v.value FROM unnest($2::bytea[]) AS k (key) \
         JOIN view_value v ON v.view = $1 AND v.key = k.key ORDER BY v.key, v.field",
    );
    let select = select.bind(bytes(view)).bind(keys);
    let mut values: HashMap<String, Vec<(String, Vec<u8>)>> = HashMap::new();
    for row in fetch(&inner.listers, select, STORE_READ_MAX).await? {
        let of = values.entry(text(&row, 0)?.into()).or_default();
        of.push((text(&row, 1)?.into(), get(&row, 2)?));
    }
    let listed = |row: ViewRow| {
        let index = values.remove(&row.key).unwrap_or_default();
        let content = NewRow { message: row.message, index };
        RowChange { view: view.into(), key: row.key, row: Some(content) }
    };
    Ok(found.into_iter().map(listed).collect())
}

/// Names are few, rows are many: each name is found by itself.
pub async fn names(
    inner: &Inner,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = Vec::new();
    let mut after = after.unwrap_or_default().to_owned();
    while names.len() < limit {
        let query = sqlx::query("SELECT view FROM view_row WHERE view > $1 ORDER BY view LIMIT 1");
        let rows = fetch(&inner.listers, query.bind(after.as_bytes()), STORE_READ_MAX).await?;
        let Some(row) = rows.first() else { break };
        after = text(row, 0)?.into();
        names.push(after.clone());
    }
    Ok(names)
}

pub async fn delete(inner: &Inner, view: &str) -> Result<(), StoreError> {
    // The rows last: as long as there are any, the view is named.
    for slice in [
        "DELETE FROM view_value WHERE (view, key, field) IN \
         (SELECT view, key, field FROM view_value WHERE view = $1 LIMIT $2)",
        "DELETE FROM view_row WHERE (view, key) IN \
         (SELECT view, key FROM view_row WHERE view = $1 LIMIT $2)",
    ] {
        loop {
            let delete = sqlx::query(slice).bind(view.as_bytes()).bind(VIEW_DELETE_ROWS);
            let done = timeout(STORE_READ_MAX, delete.execute(&inner.listers)).await;
            let done = done.map_err(|_| fault::timed_out())?.map_err(fault::read)?;
            if done.rows_affected() < VIEW_DELETE_ROWS as u64 {
                break;
            }
        }
    }
    Ok(())
}
