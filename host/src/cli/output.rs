//! What a command prints: data to stdout, words and progress to stderr.
//!
//! In JSON, stdout holds one document and stderr at most one line, an error. A closed pipe ends the
//! output, not the command. What comes from a host or a guest may hold control characters; a
//! terminal must not obey them.

use std::io::{self, ErrorKind, IsTerminal, Write};
use std::sync::OnceLock;

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

#[derive(Debug)]
pub struct Output {
    pub format: Format,
    /// Why data did not reach stdout.
    lost: OnceLock<String>,
    colour_out: bool,
    colour_err: bool,
}

impl Output {
    pub fn new(format: Format) -> Self {
        let wanted = std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty())
            && std::env::var_os("TERM").is_none_or(|term| term != "dumb");
        Self {
            format,
            lost: OnceLock::new(),
            colour_out: wanted && io::stdout().is_terminal(),
            colour_err: wanted && io::stderr().is_terminal(),
        }
    }

    pub fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Data, as text.
    pub fn text(&self, text: &str) {
        self.data(&mut io::stdout().lock(), text);
    }

    fn data(&self, to: &mut impl Write, text: &str) {
        if let Err(error) = write_line(to, text) {
            let _ = self.lost.set(error.to_string());
        }
    }

    /// Whether all data got to where it should.
    pub fn finish(&self) -> Result<(), Failed> {
        match self.lost.get() {
            None => Ok(()),
            Some(reason) => Err(Failed::local(format!(
                "the command did its work, but stdout cannot be written: {reason}"
            ))),
        }
    }

    /// Data, as JSON: on one line where a program reads it, indented for a person.
    pub fn json(&self, value: &serde_json::Value) {
        let text =
            if io::stdout().is_terminal() { format!("{value:#}") } else { value.to_string() };
        self.text(&printable_json(&text));
    }

    /// The JSON of an answer that is data in both formats.
    pub fn answer(&self, value: &serde_json::Value) {
        let text = if self.is_json() { value.to_string() } else { format!("{value:#}") };
        self.text(&printable_json(&text));
    }

    /// Words for a person; silent in JSON.
    pub fn say(&self, text: &str) {
        self.say_as("", text);
    }

    fn say_as(&self, label: &str, text: &str) {
        if !self.is_json() {
            let _ = write_line(&mut io::stderr().lock(), &format!("{label}{}", paragraph(text)));
        }
    }

    /// Something that a person must see although the command goes on; silent in JSON.
    pub fn warn(&self, text: &str) {
        let label = paint(self.colour_err, Tone::Warn, "warning:");
        self.say_as(&format!("{label} "), text);
    }

    /// The end of a command that failed.
    pub fn fail(&self, failed: &Failed) {
        let text = if self.is_json() {
            printable_json(&failed.to_json().to_string())
        } else {
            let label = paint(self.colour_err, Tone::Fail, "error:");
            format!("{label} {}", paragraph(&failed.to_string()))
        };
        let _ = write_line(&mut io::stderr().lock(), &text);
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

/// Columns are aligned and two spaces apart; without a width nothing wraps. Cells are not painted:
/// the codes would count as text.
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

/// Printable, too, but in lines. All but the first are indented, so that none passes for a line of
/// its own; a blank one at either end is ours.
fn paragraph(text: &str) -> String {
    let body = text.trim_start_matches('\n');
    let mut shown = "\n".repeat(text.len() - body.len());
    for (at, line) in body.split('\n').enumerate() {
        if at > 0 {
            shown.push('\n');
            if !line.is_empty() && !line.starts_with("  ") {
                shown.push_str("  ");
            }
        }
        shown.push_str(&printable(line));
    }
    shown
}

/// JSON leaves DEL and the C1 controls as they are, and some terminals obey those.
fn printable_json(json: &str) -> String {
    let mut shown = String::with_capacity(json.len());
    for c in json.chars() {
        match c {
            '\u{7f}'..='\u{9f}' => shown.push_str(&format!("\\u{:04x}", u32::from(c))),
            _ => shown.push(c),
        }
    }
    shown
}

fn terminal_width() -> Option<u16> {
    rustix::termios::tcgetwinsize(io::stdout()).ok().map(|size| size.ws_col).filter(|&w| w > 0)
}

fn write_line(to: &mut impl Write, text: &str) -> io::Result<()> {
    match writeln!(to, "{text}").and_then(|()| to.flush()) {
        // The reader has gone (`stead versions | head -1`): nothing is left to say to it.
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        result => result,
    }
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
        let rows = vec![row(["a\x1b[2Jb\n", "yes"])];
        let table = render_table(["ID", "HOT"], rows, None);
        assert!(!table.contains('\x1b'), "{table}");
        assert!(table.contains("a\\u{1b}[2Jb\\n"), "{table}");
    }

    #[test]
    fn words_of_others_cannot_forge_a_line() {
        let text = paragraph("internal: no\x1b[2J\r\nerror: all is lost\n  as listed");
        assert_eq!(text, "internal: no\\u{1b}[2J\\r\n  error: all is lost\n  as listed");
        assert_eq!(paragraph("\nrevision 2 is live\n"), "\nrevision 2 is live\n");
    }

    #[test]
    fn json_is_safe_to_show_and_still_the_same() {
        let value = serde_json::json!({ "a": "\u{1b}\u{7f}\u{9b}\u{e9}" });
        let text = printable_json(&value.to_string());
        assert!(!text.contains(char::is_control), "{text}");
        assert_eq!(serde_json::from_str::<serde_json::Value>(&text).unwrap(), value);
    }

    #[test]
    fn lost_data_is_a_failure_and_a_reader_that_left_is_none() {
        struct Broken(ErrorKind);
        impl Write for Broken {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(self.0.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let out = Output::new(Format::Text);
        out.data(&mut Broken(ErrorKind::BrokenPipe), "row");
        assert_eq!(out.finish(), Ok(()));
        out.data(&mut Broken(ErrorKind::StorageFull), "row");
        let failed = out.finish().unwrap_err();
        assert_eq!(failed.exit, crate::cli::failed::Exit::Failed);
        assert!(failed.message.contains("stdout cannot be written"), "{failed}");
    }

    #[test]
    fn nothing_is_painted_without_a_terminal() {
        assert_eq!(paint(false, Tone::Fail, "error:"), "error:");
        assert_eq!(paint(true, Tone::Good, "ok"), "\u{1b}[32mok\u{1b}[0m");
    }
}
