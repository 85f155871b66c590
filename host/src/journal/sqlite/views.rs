//! Rows of views.

use std::ops::Bound;

use sqlx::sqlite::{SqliteArguments, SqliteRow};
use sqlx::{Arguments, AssertSqlSafe};

use crate::journal::error::StoreError;
use crate::journal::sqlite::Inner;
use crate::journal::sqlite::fault::{self, damaged};
use crate::journal::sqlite::read::get;
use crate::journal::sqlite::segment::unseal;
use crate::journal::store::views::indexed;
use crate::journal::store::{NewRow, RowChange, ViewQuery, ViewRow};
use crate::words::Message;
use crate::words::limits::{ROWS_READ_BYTES_MAX, VIEW_DELETE_ROWS};

pub async fn row(inner: &Inner, view: &str, key: &str) -> Result<Option<ViewRow>, StoreError> {
    let query = sqlx::query("SELECT key, x'', type, data FROM view_row WHERE view = ? AND key = ?")
        .bind(view)
        .bind(key);
    let row = inner.readers.optional(query).await?;
    row.map(|row| view_row(&row, view)).transpose()
}

fn view_row(row: &SqliteRow, view: &str) -> Result<ViewRow, StoreError> {
    let key: String = get(row, 0)?;
    let data = unseal(&[], get(row, 3)?)
        .map_err(|_| damaged(format!("the row {key} of the view {view}")))?;
    let message = Message::new(get::<String>(row, 2)?, data);
    Ok(ViewRow { key, message, value: get(row, 1)? })
}

pub async fn rows(
    inner: &Inner,
    view: &str,
    query: &ViewQuery,
) -> Result<Vec<ViewRow>, StoreError> {
    let (text, arguments) =
        statement(view, query).map_err(sqlx::Error::Encode).map_err(fault::read)?;
    let mut found: Vec<ViewRow> = Vec::new();
    let take = |row: &SqliteRow| {
        let row = view_row(row, view)?;
        let bytes = row.message.size();
        found.push(row);
        Ok(bytes)
    };
    let query = sqlx::query_with(AssertSqlSafe(text), arguments);
    inner.listers.some(query, ROWS_READ_BYTES_MAX, take).await?;
    Ok(found)
}

/// The statement that lists rows. What is asked for comes as arguments only.
fn statement(
    view: &str,
    query: &ViewQuery,
) -> Result<(String, SqliteArguments), sqlx::error::BoxDynError> {
    let mut arguments = SqliteArguments::default();
    let (direction, beyond) = if query.descending { ("DESC", "<") } else { ("ASC", ">") };
    let mut text: String;
    arguments.add(view.to_owned())?;
    if let Some((field, range)) = &query.index {
        text = "SELECT v.key, v.value, r.type, r.data FROM view_value v CROSS JOIN view_row r \
            ON r.view = v.view AND r.key = v.key WHERE v.view = ? AND v.field = ?"
            .into();
        arguments.add(field.clone())?;
        for (bound, included, excluded) in [
            (&range.from, " AND v.value >= ?", " AND v.value > ?"),
            (&range.to, " AND v.value <= ?", " AND v.value < ?"),
        ] {
            let (condition, value) = match bound {
                Bound::Included(value) => (included, value),
                Bound::Excluded(value) => (excluded, value),
                Bound::Unbounded => continue,
            };
            text += condition;
            arguments.add(indexed(value).to_vec())?;
        }
        if let Some((value, key)) = &query.after {
            text += &format!(" AND (v.value, v.key) {beyond} (?, ?)");
            arguments.add(indexed(value).to_vec())?;
            arguments.add(key.clone())?;
        }
        text += &format!(" ORDER BY v.value {direction}, v.key {direction} LIMIT ? + 0");
    } else {
        text = "SELECT key, x'', type, data FROM view_row WHERE view = ?".into();
        if let Some((_, key)) = &query.after {
            text += &format!(" AND key {beyond} ?");
            arguments.add(key.clone())?;
        }
        text += &format!(" ORDER BY key {direction} LIMIT ? + 0");
    }
    arguments.add(i64::try_from(query.limit).unwrap_or(i64::MAX))?;
    Ok((text, arguments))
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
    let mut listed = Vec::new();
    for ViewRow { key, message, .. } in rows(inner, view, &query).await? {
        let query = sqlx::query(
            "SELECT field, value FROM view_value WHERE view = ? AND key = ? ORDER BY field",
        );
        let values = inner.listers.all(query.bind(view).bind(&key)).await?;
        let value = |row: &SqliteRow| Ok((get(row, 0)?, get(row, 1)?));
        let index = values.iter().map(value).collect::<Result<_, StoreError>>()?;
        listed.push(RowChange { view: view.into(), key, row: Some(NewRow { message, index }) });
    }
    Ok(listed)
}

/// Names are few, rows are many: each name is found by itself.
pub async fn names(
    inner: &Inner,
    after: Option<&str>,
    limit: usize,
) -> Result<Vec<String>, StoreError> {
    let mut names: Vec<String> = Vec::new();
    let mut after = after.map(str::to_owned);
    while names.len() < limit {
        let query = sqlx::query("SELECT min(view) FROM view_row WHERE view > ?");
        let query = query.bind(after.as_deref().unwrap_or_default());
        let next: Option<String> = get(&inner.listers.one(query).await?, 0)?;
        let Some(name) = next else { break };
        after = Some(name.clone());
        names.push(name);
    }
    Ok(names)
}

pub async fn delete(inner: &Inner, view: &str) -> Result<(), StoreError> {
    // The rows last: as long as there are any, the view is named.
    for slice in [
        "DELETE FROM view_value WHERE (view, key, field) IN \
         (SELECT view, key, field FROM view_value WHERE view = ? LIMIT ? + 0)",
        "DELETE FROM view_row WHERE (view, key) IN (SELECT view, key FROM view_row WHERE view = ? LIMIT ? + 0)",
    ] {
        let delete = || sqlx::query(slice).bind(view).bind(VIEW_DELETE_ROWS);
        while inner.write_one(delete()).await? == VIEW_DELETE_ROWS as u64 {}
    }
    Ok(())
}
