//! Calls of other functions, and what their metadata tells the host.

use std::time::Duration;

use crate::kind::Violation;
use crate::wasm::{self, Call};
use crate::words::limits;

/// What one try may take, in milliseconds.
const TIMEOUT: &str = "stead-timeout-ms";
/// The result of the first try comes back with this token.
const RESULT_TO: &str = "stead-result-to";
/// Calls of the same source with the same key happen once in effect.
const KEY: &str = "stead-idempotency-key";

/// Metadata with this prefix is the host's and does not reach the function.
pub const RESERVED: &str = "stead-";

/// A call that is made after the command's events are durable.
#[derive(Clone, Debug)]
pub struct Effect {
    /// Without the host's options.
    pub call: Call,
    pub synchronous: bool,
    pub timeout: Duration,
    pub result: Option<ResultTo>,
}

/// Where the result of an effect goes back to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResultTo {
    pub token: String,
    /// The same for all effects that are to happen once in effect.
    pub key: Option<String>,
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
    let result = result_to(&call, may_ask_for_result)?;
    strip(&mut call);
    Ok(Effect { call, synchronous, timeout, result })
}

fn result_to(call: &Call, may_ask_for_result: bool) -> Result<Option<ResultTo>, Violation> {
    for name in [RESULT_TO, KEY] {
        let Some(text) = option(call, name) else { continue };
        if !may_ask_for_result {
            let only_for = "the effects of a workflow";
            return Err(Violation::OptionNotAllowed { option: name, only_for });
        }
        if text.is_empty() || text.len() > limits::RESULT_TOKEN_BYTES_MAX {
            return Err(malformed(name, text, "a text of 1 to 256 bytes"));
        }
    }
    let key = option(call, KEY).map(str::to_owned);
    Ok(option(call, RESULT_TO).map(|token| ResultTo { token: token.to_owned(), key }))
}

pub(super) fn forward(mut call: Call) -> Result<Call, Violation> {
    for option_name in [TIMEOUT, RESULT_TO, KEY] {
        if option(&call, option_name).is_some() {
            return Err(Violation::OptionNotAllowed { option: option_name, only_for: "effects" });
        }
    }
    strip(&mut call);
    Ok(call)
}

fn option<'a>(call: &'a Call, name: &str) -> Option<&'a str> {
    call.metadata.iter().find(|(found, _)| found == name).map(|(_, value)| value.as_str())
}

fn strip(call: &mut Call) {
    call.metadata.retain(|(name, _)| !name.starts_with(RESERVED));
}

fn malformed(option: &'static str, found: &str, must_be: &'static str) -> Violation {
    let end = found.floor_char_boundary(limits::RESULT_TOKEN_BYTES_MAX);
    Violation::OptionMalformed { option, found: found[..end].to_owned(), must_be }
}
