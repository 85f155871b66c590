//! Query strings.

use crate::gateway::template;
use crate::words::Status;

/// Decoded names and values, in order. `+` is a space.
pub fn pairs(query: &str) -> impl Iterator<Item = Result<(String, String), Status>> {
    query.split('&').filter(|pair| !pair.is_empty()).map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let decode = |text: &str| {
            let spaced = match text.contains('+') {
                true => std::borrow::Cow::Owned(text.replace('+', " ")),
                false => text.into(),
            };
            template::decode(&spaced).map_err(|fault| {
                let name: String = name.chars().take(100).collect();
                Status::invalid_argument(format!("query parameter {name}: {fault}"))
            })
        };
        Ok((decode(name)?, decode(value)?))
    })
}
