//! Calls of other functions, and what their metadata tells the host.

use std::time::Duration;

use crate::kind::Violation;
use crate::wasm::{self, Call};
use crate::words::limits;

/// What one try may take, in milliseconds.
const TIMEOUT: &str = "stead-timeout-ms";
/// The result of the first try comes back with this token.
const RESULT_TO: &str = "stead-result-to";
/// Of calls of one source with the same key, an entity runs one.
pub const KEY: &str = "stead-idempotency-key";

/// Metadata with this prefix is the host's and does not reach the function.
pub const RESERVED: &str = "stead-";

/// A call that is made after the command's events are durable.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Without the host's options.
    pub call: Call,
    pub synchronous: bool,
    pub timeout: Duration,
    /// The same for all calls of this source that are to count once.
    pub key: Option<String>,
    /// The token with which the result goes back to the source.
    pub result_to: Option<String>,
}

pub(super) fn effect(effect: wasm::Effect, may_ask_for_result: bool) -> Result<Effect, Violation> {
    let wasm::Effect { mut call, synchronous } = effect;
    let timeout = match option(&call, TIMEOUT) {
        None => limits::EFFECT_TIMEOUT_DEFAULT,
        Some(text) => {
            let max = limits::CALL_DEADLINE_MAX.as_millis() as u64;
            let ms = text.parse().ok().filter(|ms| (1..=max).contains(ms));
            let must_be = "a number of milliseconds from 1 to the longest deadline of a call";
            Duration::from_millis(ms.ok_or_else(|| malformed(TIMEOUT, text, must_be))?)
        }
    };
    let key = text(&call, KEY)?;
    let result_to = text(&call, RESULT_TO)?;
    if result_to.is_some() && !may_ask_for_result {
        let only_for = "the effects of a workflow";
        return Err(Violation::OptionNotAllowed { option: RESULT_TO, only_for });
    }
    call.metadata.retain(|(name, _)| !name.starts_with(RESERVED));
    Ok(Effect { call, synchronous, timeout, key, result_to })
}

/// Keeps its key.
pub(super) fn forward(mut call: Call) -> Result<Call, Violation> {
    for name in [TIMEOUT, RESULT_TO] {
        if option(&call, name).is_some() {
            return Err(Violation::OptionNotAllowed { option: name, only_for: "effects" });
        }
    }
    text(&call, KEY)?;
    call.metadata.retain(|(name, _)| !name.starts_with(RESERVED) || name == KEY);
    Ok(call)
}

fn text(call: &Call, name: &'static str) -> Result<Option<String>, Violation> {
    match option(call, name) {
        Some(text) if text.is_empty() || text.len() > limits::RESULT_TOKEN_BYTES_MAX => {
            Err(malformed(name, text, "a text of 1 to 256 bytes"))
        }
        text => Ok(text.map(str::to_owned)),
    }
}

fn option<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.metadata.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn malformed(option: &'static str, found: &str, must_be: &'static str) -> Violation {
    let end = found.floor_char_boundary(limits::RESULT_TOKEN_BYTES_MAX);
    Violation::OptionMalformed { option, found: found[..end].to_owned(), must_be }
}
