//! The one error that leaves the host: a gRPC status.

use std::fmt;

use crate::words::Message;

/// gRPC status codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
pub enum Code {
    Ok = 0,
    Cancelled = 1,
    Unknown = 2,
    InvalidArgument = 3,
    DeadlineExceeded = 4,
    NotFound = 5,
    AlreadyExists = 6,
    PermissionDenied = 7,
    ResourceExhausted = 8,
    FailedPrecondition = 9,
    Aborted = 10,
    OutOfRange = 11,
    Unimplemented = 12,
    Internal = 13,
    Unavailable = 14,
    DataLoss = 15,
    Unauthenticated = 16,
}

/// Every code with its name in lower case (as Connect writes it) and the HTTP status it maps to
/// (google.rpc.Code's mapping). The one table behind every rendering of an error.
const TABLE: [(Code, &str, u16); 17] = [
    (Code::Ok, "ok", 200),
    (Code::Cancelled, "canceled", 499),
    (Code::Unknown, "unknown", 500),
    (Code::InvalidArgument, "invalid_argument", 400),
    (Code::DeadlineExceeded, "deadline_exceeded", 504),
    (Code::NotFound, "not_found", 404),
    (Code::AlreadyExists, "already_exists", 409),
    (Code::PermissionDenied, "permission_denied", 403),
    (Code::ResourceExhausted, "resource_exhausted", 429),
    (Code::FailedPrecondition, "failed_precondition", 400),
    (Code::Aborted, "aborted", 409),
    (Code::OutOfRange, "out_of_range", 400),
    (Code::Unimplemented, "unimplemented", 501),
    (Code::Internal, "internal", 500),
    (Code::Unavailable, "unavailable", 503),
    (Code::DataLoss, "data_loss", 500),
    (Code::Unauthenticated, "unauthenticated", 401),
];

impl Code {
    /// How many there are; their numbers are 0 to `COUNT - 1`.
    pub const COUNT: usize = TABLE.len();

    pub fn from_u32(number: u32) -> Option<Self> {
        TABLE.get(number as usize).map(|row| row.0)
    }

    pub fn number(self) -> u32 {
        self as u32
    }

    pub fn name(self) -> &'static str {
        TABLE[self as usize].1
    }

    pub fn http(self) -> u16 {
        TABLE[self as usize].2
    }

    #[cfg(test)]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.1 == name).map(|row| row.0)
    }
}

/// An error as the caller sees it. The message is a sentence for people: what is wrong and what to
/// do about it, never the guest's or the host's internals.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Status {
    pub code: Code,
    pub message: String,
    /// As in `google.rpc.Status.details`.
    pub details: Vec<Message>,
    /// The HTTP status, where another than the code's own says it better (413, 415, 422, ..).
    pub http: Option<u16>,
}

impl Status {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), details: Vec::new(), http: None }
    }

    pub fn with_http(mut self, status: u16) -> Self {
        self.http = Some(status);
        self
    }

    pub fn http_status(&self) -> u16 {
        self.http.unwrap_or_else(|| self.code.http())
    }
}

macro_rules! constructors {
    ($($name:ident = $code:ident),* $(,)?) => {
        impl Status {
            $(pub fn $name(message: impl Into<String>) -> Self {
                Self::new(Code::$code, message)
            })*
        }
    };
}

constructors! {
    invalid_argument = InvalidArgument,
    deadline_exceeded = DeadlineExceeded,
    not_found = NotFound,
    already_exists = AlreadyExists,
    permission_denied = PermissionDenied,
    resource_exhausted = ResourceExhausted,
    failed_precondition = FailedPrecondition,
    aborted = Aborted,
    unimplemented = Unimplemented,
    internal = Internal,
    unavailable = Unavailable,
    data_loss = DataLoss,
    unauthenticated = Unauthenticated,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.name(), self.message)
    }
}

impl std::error::Error for Status {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_is_in_the_order_of_the_codes() {
        for (number, row) in TABLE.iter().enumerate() {
            assert_eq!(row.0.number() as usize, number);
            assert_eq!(Code::from_u32(number as u32), Some(row.0));
            assert_eq!(Code::from_name(row.1), Some(row.0));
        }
        assert_eq!(Code::from_u32(17), None);
    }
}
