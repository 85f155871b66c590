//! A question before what cannot be undone.

use std::io::{BufRead, IsTerminal, Write};

use crate::cli::failed::Failed;

/// Asks whether to go on. Without a terminal the answer is no.
///
/// `what`: what happens, as a clause. `instead`: what else one can do.
pub fn confirm(what: &str, instead: &str) -> Result<(), Failed> {
    if !std::io::stdin().is_terminal() || !std::io::stderr().is_terminal() {
        return Err(Failed::usage(format!(
            "{what}; pass --yes if you mean it, or {instead}; nothing was changed"
        )));
    }
    let mut stderr = std::io::stderr().lock();
    let _ = write!(stderr, "{what}; go on? [y/N] ").and_then(|()| stderr.flush());
    let mut answer = String::new();
    let _ = std::io::stdin().lock().read_line(&mut answer);
    match answer.trim().to_lowercase().as_str() {
        "y" | "yes" => Ok(()),
        _ => Err(Failed::local("nothing was changed")),
    }
}
