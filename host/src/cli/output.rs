//! What a command prints: data to stdout, words and progress to stderr.
//!
//! In JSON, stdout holds one document and stderr at most one line, an error. A closed pipe ends the
//! output, not the command.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use clap::builder::styling::{AnsiColor, Style};
use comfy_table::{ContentArrangement, Table};

use crate::cli::failed::Failed;

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people.
    #[default]
    Text,
    /// For programs; the fields are stable.
    Json,
}

const TABLE_WIDTH_MIN: u16 = 40;

#[derive(Clone, Copy, Debug)]
pub struct Output {
    pub format: Format,
    colour_out: bool,
    colour_err: bool,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            format,
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
        }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Data, as text.
    pub fn text(&self, text: &str) {
        write_line(&mut io::stdout().lock(), text);
    }

    /// Data, as JSON: on one line where a program reads it, indented for a person.
    pub fn json(&self, value: &serde_json::Value) {
        let text =
            if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
        self.text(&text);
    }

    /// The JSON of an answer that is data in both formats.
    pub fn answer(&self, value: &serde_json::Value) {
        let text = if self.is_json() { value.to_string() } else { format!("{value:#}") };
        self.text(&text);
    }

    /// Words for a person; silent in JSON.
    pub fn say(&self, text: &str) {
        if !self.is_json() {
            write_line(&mut io::stderr().lock(), text);
        }
    }

    /// Something that a person must see although the command goes on; silent in JSON.
    pub fn warn(&self, text: &str) {
        let label = paint(self.colour_err, Tone::Warn, "warning:");
        self.say(&format!("{label} {text}"));
    }

    /// The end of a command that failed.
    pub fn fail(&self, failed: &Failed) {
        let text = if self.is_json() {
            failed.to_json().to_string()
        } else {
            format!("{} {failed}", paint(self.colour_err, Tone::Fail, "error:"))
        };
        write_line(&mut io::stderr().lock(), &text);
    }

    pub fn paint(&self, tone: Tone, text: &str) -> String {
        paint(self.colour_out, tone, text)
    }

    /// Rows under a header, as wide as the terminal at most.
    pub fn table<const N: usize>(&self, header: [&str; N], rows: Vec<[String; N]>) {
        let width = if io::stdout().is_terminal() { terminal_width() } else { None };
        self.text(&render_table(header, rows, width));
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Tone {
    Good,
    Warn,
    Fail,
    Quiet,
}

fn paint(colour: bool, tone: Tone, text: &str) -> String {
    if !colour {
        return text.into();
    }
    let style = match tone {
        Tone::Good => AnsiColor::Green.on_default(),
        Tone::Warn => AnsiColor::Yellow.on_default().bold(),
        Tone::Fail => AnsiColor::Red.on_default().bold(),
        Tone::Quiet => Style::new().dimmed(),
    };
    format!("{style}{text}{style:#}")
}

/// Columns are aligned and two spaces apart; without a width nothing wraps.
pub fn render_table<const N: usize>(
    header: [&str; N],
    rows: Vec<[String; N]>,
    width: Option<u16>,
) -> String {
    let mut table = Table::new();
    table.load_style(comfy_table::presets::NOTHING).set_header(header);
    match width {
        Some(width) => {
            table.set_width(width.max(TABLE_WIDTH_MIN));
            table.set_content_arrangement(ContentArrangement::Dynamic);
        }
        None => {
            table.set_content_arrangement(ContentArrangement::Disabled);
        }
    }
    // What comes from a host may hold control characters; a terminal must not obey them.
    table.add_rows(rows.into_iter().map(|row| row.map(|cell| printable(&cell))));
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    table.trim_fmt()
}

/// The text with control characters made visible.
pub fn printable(text: &str) -> String {
    text.chars()
        .map(|c| if c.is_control() { c.escape_default().to_string() } else { c.to_string() })
        .collect()
}

fn terminal_width() -> Option<u16> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|&w| w > 0)
}

fn write_line(to: &mut impl Write, text: &str) {
    // The reader may have gone (`stead versions | head -1`): nothing is left to say to it.
    let _ = writeln!(to, "{text}").and_then(|()| to.flush());
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(cells: [&str; 2]) -> [String; 2] {
        cells.map(String::from)
    }

    #[test]
    fn tables_have_no_borders_and_aligned_columns() {
        let rows = vec![row(["shop.Cart", "3"]), row(["chat.Room", "12"])];
        let table = render_table(["SERVICE", "METHODS"], rows, None);
        assert_eq!(table, "SERVICE    METHODS\nshop.Cart  3\nchat.Room  12");
    }

    #[test]
    fn tables_fit_the_terminal() {
        let rows = vec![row(["shop.Cart", &"long words ".repeat(20)])];
        let table = render_table(["SERVICE", "NOTE"], rows, Some(60));
        assert!(table.lines().all(|line| line.chars().count() <= 60), "{table}");
    }

    #[test]
    fn control_characters_do_not_reach_the_terminal() {
        let table = render_table(["ID", "HOT"], vec![row(["a\x1b[2Jb\n", "yes"])], None);
        assert!(!table.contains('\x1b'), "{table}");
        assert!(table.contains("a\\u{1b}[2Jb\\n"), "{table}");
    }

    #[test]
    fn nothing_is_painted_without_a_terminal() {
        assert_eq!(paint(false, Tone::Fail, "error:"), "error:");
        assert_eq!(paint(true, Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
