//! How a command ends: its exit code, and the sentence that goes with it.

use std::fmt;

use crate::words::Code;

/// Stable: scripts depend on the numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Exit {
    Failed = 1,
    Usage = 2,
    Refused = 3,
    Unreachable = 4,
}

impl Exit {
    pub fn number(self) -> u8 {
        self as u8
    }

    /// The word in JSON.
    pub fn name(self) -> &'static str {
        match self {
            Exit::Failed => "failed",
            Exit::Usage => "usage",
            Exit::Refused => "refused",
            Exit::Unreachable => "unreachable",
        }
    }
}

/// Why a command did not do what it was asked to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failed {
    pub exit: Exit,
    /// The gRPC status, where a host answered with one.
    pub code: Option<Code>,
    /// What is wrong and what to do about it. May have several lines, one a fault.
    pub message: String,
}

impl Failed {
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self { exit, code: None, message: message.into() }
    }

    /// Something on this machine went wrong.
    pub fn local(message: impl Into<String>) -> Self {
        Self::new(Exit::Failed, message)
    }

    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    pub fn refused(message: impl Into<String>) -> Self {
        Self::new(Exit::Refused, message)
    }

    pub fn unreachable(message: impl Into<String>) -> Self {
        Self::new(Exit::Unreachable, message)
    }

    /// A host answered, with an error.
    pub fn status(code: Code, message: impl Into<String>) -> Self {
        Self { exit: Exit::Refused, code: Some(code), message: message.into() }
    }

    /// One line of JSON: `{"error":{"exit":"refused","code":"not_found","message":".."}}`.
    pub fn to_json(&self) -> serde_json::Value {
        serde_json::json!({
            "error": {
                "exit": self.exit.name(),
                "exit_code": self.exit.number(),
                "code": self.code.map(Code::name),
                "message": self.message,
            }
        })
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.code {
            Some(code) => write!(f, "{}: {}", code.name(), self.message),
            None => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failed {}

/// An error of this machine: the chain of reasons, in one sentence.
impl From<anyhow::Error> for Failed {
    fn from(error: anyhow::Error) -> Self {
        Self::local(format!("{error:#}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_are_the_documented_ones() {
        let numbers = [Exit::Failed, Exit::Usage, Exit::Refused, Exit::Unreachable]
            .map(|exit| (exit.name(), exit.number()));
        assert_eq!(numbers, [("failed", 1), ("usage", 2), ("refused", 3), ("unreachable", 4)]);
    }

    #[test]
    fn an_answer_of_the_host_is_refused_and_keeps_its_code() {
        let failed = Failed::status(Code::NotFound, "there is no cart ada");
        assert_eq!(failed.exit, Exit::Refused);
        assert_eq!(failed.to_string(), "not_found: there is no cart ada");
        assert_eq!(failed.to_json()["error"]["code"], "not_found");
        assert_eq!(failed.to_json()["error"]["exit_code"], 3);
    }

    #[test]
    fn a_chain_of_reasons_becomes_one_sentence() {
        let error = anyhow::anyhow!("permission denied").context("cannot write cart.wasm");
        let failed = Failed::from(error);
        assert_eq!(failed.to_string(), "cannot write cart.wasm: permission denied");
        assert_eq!(failed.exit, Exit::Failed);
    }
}
