//! What an error of PostgreSQL means for the journal.

use std::sync::Arc;

use sqlx::postgres::{PgDatabaseError, PgSeverity};

use crate::journal::error::StoreError;

/// What became of a statement that was sent on its own, and what to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A row of the same key is there. Nothing was stored.
    Duplicate,
    /// The database ended it for the sake of another. Nothing was stored; it may be sent again.
    Retry,
    Full,
    Damaged,
    /// The database takes no writes, or not now. Nothing was stored.
    Unavailable,
    /// The connection is of no use any more: the statement may or may not have been carried out.
    Unknown,
}

/// Source: <https://www.postgresql.org/docs/current/errcodes-appendix.html>.
pub fn of(error: &sqlx::Error) -> Fault {
    let Some(error) = error.as_database_error() else { return Fault::Unknown };
    let severity = error.try_downcast_ref::<PgDatabaseError>().map(PgDatabaseError::severity);
    // Anything worse than an error ends the session, and a commit may have come before it.
    let is_over = matches!(severity, Some(PgSeverity::Fatal | PgSeverity::Panic) | None);
    of_code(&error.code().unwrap_or_default(), is_over)
}

fn of_code(code: &str, is_over: bool) -> Fault {
    match code {
        // Said by distributed databases, of a commit whose answer was lost inside.
        "40003" | "08007" => Fault::Unknown,
        _ if is_over => Fault::Unknown,
        "23505" => Fault::Duplicate,
        "40001" | "40P01" => Fault::Retry,
        "53100" => Fault::Full,
        "XX001" | "XX002" => Fault::Damaged,
        // Shutting down, or a lost connection that the server noticed first.
        _ if code.starts_with("57P") || code.starts_with("08") => Fault::Unknown,
        _ => Fault::Unavailable,
    }
}

/// The error of a read, or of a write that may be repeated.
pub fn read(error: sqlx::Error) -> StoreError {
    let reason = Arc::from(error.to_string());
    match of(&error) {
        Fault::Damaged => StoreError::Corrupt { reason },
        Fault::Full => StoreError::Full { reason },
        Fault::Duplicate | Fault::Retry | Fault::Unavailable | Fault::Unknown => match error {
            sqlx::Error::ColumnDecode { .. } | sqlx::Error::PoolClosed => {
                StoreError::Read { reason }
            }
            _ => StoreError::Unavailable { reason },
        },
    }
}

pub fn damaged(what: impl Into<Arc<str>>) -> StoreError {
    StoreError::Corrupt { reason: what.into() }
}

pub fn timed_out() -> StoreError {
    StoreError::Unavailable { reason: "the database did not answer in time".into() }
}

/// Why a database cannot be used, for the sentence `the database .. {problem}`.
pub fn problem(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code()).unwrap_or_default();
    let advice = match &*code {
        "28P01" | "28000" => "refuses the user: check user and password in the store's URL",
        "3D000" => "does not exist: create it, for example with `createdb`",
        "42501" => "does not allow this user to create tables: grant it CREATE on the schema",
        "53300" => "has no connection left: raise its max_connections",
        "25006" => "takes no writes: it is a standby; name the primary in the store's URL",
        "57P03" => "is starting or shutting down: try again",
        _ if error.as_database_error().is_some() => "cannot be used",
        _ => "cannot be reached: check the store's URL, and that PostgreSQL runs there",
    };
    match error.as_database_error() {
        // Without the place in the server's source, which sqlx adds.
        Some(error) => format!("{advice} ({})", error.message()),
        None => format!("{advice} ({error})"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_of_the_statement_is_certain_and_the_end_of_a_session_is_not() {
        for (code, is_over, expected) in [
            ("23505", false, Fault::Duplicate),
            ("40001", false, Fault::Retry),
            ("40P01", false, Fault::Retry),
            ("40003", false, Fault::Unknown),
            ("53100", false, Fault::Full),
            ("53100", true, Fault::Unknown),
            ("53300", false, Fault::Unavailable),
            ("25006", false, Fault::Unavailable),
            ("57014", false, Fault::Unavailable),
            ("57P01", true, Fault::Unknown),
            ("57P01", false, Fault::Unknown),
            ("57P02", true, Fault::Unknown),
            ("57P03", true, Fault::Unknown),
            ("08006", false, Fault::Unknown),
            ("42P01", false, Fault::Unavailable),
            ("XX001", false, Fault::Damaged),
            ("XX000", true, Fault::Unknown),
        ] {
            assert_eq!(of_code(code, is_over), expected, "{code}, over: {is_over}");
        }
    }

    #[test]
    fn a_connection_that_broke_leaves_the_outcome_unknown() {
        let broken = std::io::Error::from(std::io::ErrorKind::ConnectionReset);
        assert_eq!(of(&sqlx::Error::Io(broken)), Fault::Unknown);
        assert!(matches!(read(sqlx::Error::PoolTimedOut), StoreError::Unavailable { .. }));
        assert!(matches!(read(sqlx::Error::PoolClosed), StoreError::Read { .. }));
    }
}
