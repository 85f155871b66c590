//! What an error of SQLite means for the journal.

use std::sync::Arc;

use crate::journal::error::StoreError;

const READONLY: u32 = 8;
const CORRUPT: u32 = 11;
const FULL: u32 = 13;
const CANTOPEN: u32 = 14;
const NOTADB: u32 = 26;
/// The index of the write-ahead log could not be enlarged: there is no space for it.
const IOERR_SHMSIZE: u32 = 4874;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    Full,
    Damaged,
    NotWritable,
    Other,
}

/// Source: <https://www.sqlite.org/rescode.html>; the low byte is the primary code.
pub fn of(error: &sqlx::Error) -> Fault {
    let code = error.as_database_error().and_then(|e| e.code()).and_then(|c| c.parse().ok());
    match code.unwrap_or(0u32) {
        IOERR_SHMSIZE => Fault::Full,
        code => match code & 0xff {
            FULL => Fault::Full,
            CORRUPT | NOTADB => Fault::Damaged,
            READONLY | CANTOPEN => Fault::NotWritable,
            _ => Fault::Other,
        },
    }
}

/// The error of a read.
pub fn read(error: sqlx::Error) -> StoreError {
    let reason = Arc::from(error.to_string());
    match of(&error) {
        Fault::Damaged => StoreError::Corrupt { reason },
        Fault::Full | Fault::NotWritable | Fault::Other => StoreError::Read { reason },
    }
}

pub fn damaged(what: impl Into<Arc<str>>) -> StoreError {
    StoreError::Corrupt { reason: what.into() }
}
