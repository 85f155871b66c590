//! Keeps the house in order: what style can be checked by reading the source is checked here.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::path::{Path, PathBuf};

const LINES_MAX: usize = 700;

/// The floors of the host, from the ground up. A module names only its own floor or lower ones.
const FLOORS: &[(&str, u32)] = &[
    ("words", 0),
    ("journal", 1),
    ("wasm", 2),
    ("registry", 3),
    ("kind", 4),
    ("entity", 5),
    ("action", 5),
    ("cluster", 6),
    ("consumer", 6),
    ("router", 7),
    ("gateway", 8),
    ("node", 9),
    ("cli", 9),
];

/// What a host must not do where a guest or the network decides whether it happens.
const PANICS: &[&str] =
    &[".unwrap()", ".expect(", "panic!(", "unreachable!(", "todo!(", "unimplemented!("];

/// Panics that input cannot reach: file, words on the line, and why.
const PANICS_ALLOWED: &[(&str, &str, &str)] = &[
    ("journal/sqlite.rs", "self.0.pack(None).await.unwrap()", "behind cfg(test)"),
    ("journal/sqlite.rs", "sqlx::query(statement).execute(writer", "behind cfg(test)"),
    ("wasm/cache.rs", "HMAC takes keys of any length", "the length of the key is a constant"),
];

/// Only `words/clock.rs` asks what time it is, so that tests can stop it.
const CLOCKS: &[&str] = &["Instant::now()", "SystemTime::now()"];

/// Bounds that are not the host's to set: file, constant, and why it stays there.
const BOUNDS_ALLOWED: &[(&str, &str, &str)] = &[
    ("registry/shape.rs", "DEPTH_MAX", "protobuf's"),
    ("cli/examples.rs", "SERVICES_SHOWN_MAX", "what fits on a terminal"),
];

struct Source {
    /// Relative to the repository.
    path: String,
    text: String,
}

#[test]
fn floors_name_only_lower_floors() {
    let mut faults = String::new();
    for file in sources("host/src") {
        let Some(floor) = floor_of(module_of(&file.path)) else {
            continue;
        };
        // Joined, because an import group may go over several lines.
        let code: String = code_lines(&file.text).map(|(_, code)| code).collect();
        for name in crate_paths(&code) {
            if floor_of(&name).is_some_and(|named| named > floor) {
                let _ = writeln!(faults, "{}: names the higher floor {name}", file.path);
            }
        }
        for (line, code) in code_lines(&file.text) {
            if code.contains("super::super::") {
                let _ = writeln!(faults, "{}:{line}: write crate:: instead", file.path);
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn every_module_of_the_host_has_a_floor() {
    let unknown: BTreeSet<_> = sources("host/src")
        .iter()
        .map(|file| module_of(&file.path).to_owned())
        .filter(|module| floor_of(module).is_none() && !["lib", "main"].contains(&&**module))
        .collect();
    assert!(unknown.is_empty(), "on no floor: {unknown:?}");
}

#[test]
fn files_are_short_enough_to_have_one_job() {
    let mut faults = String::new();
    for file in all_sources() {
        let lines = file.text.lines().count();
        if lines > LINES_MAX {
            let _ = writeln!(faults, "{}: {lines} lines, at most {LINES_MAX}", file.path);
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn the_host_does_not_panic_where_input_decides() {
    let mut faults = String::new();
    for file in host_files_without_test_modules() {
        for (line, code) in code_lines(before_tests(&file.text)) {
            if !PANICS.iter().any(|panic| code.contains(panic)) {
                continue;
            }
            let allowed = PANICS_ALLOWED
                .iter()
                .any(|(path, words, _)| file.path.ends_with(path) && code.contains(words));
            if !allowed {
                let _ = writeln!(faults, "{}:{line}: {}", file.path, code.trim());
            }
        }
    }
    assert!(faults.is_empty(), "return an error, or say in PANICS_ALLOWED why not:\n{faults}");
}

#[test]
fn allowed_panics_are_still_there() {
    let files = sources("host/src");
    for (path, words, _) in PANICS_ALLOWED {
        let found = files.iter().any(|f| f.path.ends_with(path) && f.text.contains(words));
        assert!(found, "PANICS_ALLOWED names {words:?} in {path}, which is gone");
    }
}

#[test]
fn only_the_clock_asks_for_the_time() {
    let mut faults = String::new();
    for file in host_files_without_test_modules() {
        if file.path.ends_with("words/clock.rs") {
            continue;
        }
        for (line, code) in code_lines(before_tests(&file.text)) {
            if CLOCKS.iter().any(|clock| code.contains(clock)) {
                let _ = writeln!(faults, "{}:{line}: {}", file.path, code.trim());
            }
        }
    }
    assert!(faults.is_empty(), "use words::clock:\n{faults}");
}

#[test]
fn bounds_are_in_one_file() {
    let mut faults = String::new();
    let mut allowed = BTreeSet::new();
    for file in host_files_without_test_modules() {
        if file.path.ends_with("words/limits.rs") {
            continue;
        }
        for (line, code) in code_lines(before_tests(&file.text)) {
            let Some(name) = bound(code) else { continue };
            match BOUNDS_ALLOWED.iter().find(|(path, n, _)| file.path.ends_with(path) && *n == name)
            {
                Some(found) => {
                    allowed.insert(found);
                }
                None => {
                    let _ = writeln!(faults, "{}:{line}: {}", file.path, code.trim());
                }
            }
        }
    }
    assert!(faults.is_empty(), "move them to words/limits.rs:\n{faults}");
    for entry in BOUNDS_ALLOWED {
        assert!(allowed.contains(entry), "BOUNDS_ALLOWED names {entry:?}, which is gone");
    }
}

/// SQLite plans by the value of a LIMIT that is nothing but a parameter, so it compiles the statement anew each
/// time that another value may have been bound. An expression is left alone.
#[test]
fn sqlite_does_not_plan_by_the_value_of_a_limit() {
    let mut faults = String::new();
    for file in sources("host/src/journal") {
        if !file.path.contains("journal/sqlite") {
            continue;
        }
        for (line, code) in code_lines(&file.text) {
            let bound = code.split("LIMIT ?").skip(1);
            let mut after = bound.map(|rest| rest.trim_start_matches(|c: char| c.is_ascii_digit()));
            if after.any(|rest| !rest.starts_with(" + 0")) {
                let _ = writeln!(faults, "{}:{line}: {}", file.path, code.trim());
            }
        }
    }
    assert!(faults.is_empty(), "write LIMIT ? + 0:\n{faults}");
}

#[test]
fn nothing_is_left_for_later() {
    let mut faults = String::new();
    for file in all_sources() {
        if file.path == "tests/tidy.rs" {
            continue;
        }
        if file.path.ends_with("/mod.rs") {
            let _ = writeln!(faults, "{}: name the file after its module", file.path);
        }
        for (number, line) in file.text.lines().enumerate() {
            if ["TODO", "FIXME", "XXX", "HACK", "dbg!("].iter().any(|word| line.contains(word)) {
                let _ = writeln!(faults, "{}:{}: {}", file.path, number + 1, line.trim());
            }
        }
    }
    assert!(faults.is_empty(), "\n{faults}");
}

#[test]
fn bounds_are_known_by_name_and_type() {
    assert_eq!(bound("    pub(super) const ROWS_MAX: usize = 7;"), Some("ROWS_MAX"));
    assert_eq!(bound("const PATIENCE: Duration = Duration::from_secs(7);"), Some("PATIENCE"));
    assert_eq!(bound("const ROWS: usize = 7;"), None);
    assert_eq!(bound("const WHOLE_MAX: f64 = 7.0;"), None);
    assert_eq!(bound("pub const fn rows(rows_max: usize) -> u64 {"), None);
}

#[test]
fn paths_are_found_in_every_form_of_import() {
    let code = "use crate::{words::{Code, Status}, journal}; let x = crate::wasm::Engine::new();";
    let names: Vec<_> = crate_paths(code).into_iter().collect();
    assert_eq!(names, ["journal", "wasm", "words"]);
    assert!(crate_paths("stead_crate::gateway").is_empty());
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("tests/ has a parent").to_owned()
}

fn all_sources() -> Vec<Source> {
    ["host", "guest-sdk", "examples", "proto", "tests", "xtask"]
        .into_iter()
        .flat_map(sources)
        .collect()
}

fn sources(dir: &str) -> Vec<Source> {
    let mut found = Vec::new();
    let mut dirs = vec![root().join(dir)];
    while let Some(dir) = dirs.pop() {
        for entry in std::fs::read_dir(&dir).expect("a source directory").flatten() {
            let path = entry.path();
            let name = entry.file_name();
            if path.is_dir() && name != "target" && name != "node_modules" {
                dirs.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(root()).expect("inside the repository");
                found.push(Source { path: path.to_string_lossy().into_owned(), text });
            }
        }
    }
    assert!(!found.is_empty(), "no source in {dir}");
    found.sort_by(|a, b| a.path.cmp(&b.path));
    found
}

/// Without the modules, and what is below them, that their parent declares behind `#[cfg(test)]`.
fn host_files_without_test_modules() -> Vec<Source> {
    let files = sources("host/src");
    let mut tests = BTreeSet::new();
    for file in &files {
        let mut lines = file.text.lines();
        while let Some(line) = lines.next() {
            if line.trim() != "#[cfg(test)]" {
                continue;
            }
            let declared = lines.next().unwrap_or_default().trim();
            let declared = declared.trim_start_matches("pub(crate) ").trim_start_matches("pub ");
            if let Some(name) = declared.strip_prefix("mod ").and_then(|l| l.strip_suffix(';')) {
                tests.insert(format!("{}/{name}", file.path.trim_end_matches(".rs")));
            }
        }
    }
    let is_test = |path: &str| {
        let module = path.trim_end_matches(".rs");
        tests.iter().any(|test| module == test || module.starts_with(&format!("{test}/")))
    };
    files.into_iter().filter(|file| !is_test(&file.path)).collect()
}

/// By convention, a file's test module is its last item.
fn before_tests(text: &str) -> &str {
    match text.find("\n#[cfg(test)]\nmod tests {") {
        Some(end) => &text[..end],
        None => text,
    }
}

/// Lines with their numbers, without comments.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines()
        .enumerate()
        .map(|(number, line)| (number + 1, line.split("//").next().unwrap_or_default()))
        .filter(|(_, code)| !code.trim().is_empty())
}

/// The name of a constant that bounds something: a time, or a number that is called a maximum.
fn bound(code: &str) -> Option<&str> {
    let (name, rest) = code.split_once("const ")?.1.split_once(": ")?;
    let kind = rest.split([' ', ';']).next()?;
    let is_number = ["usize", "u64", "u32", "u16", "u8", "i64", "i32"].contains(&kind);
    let is_name = name.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_');
    (is_name && (kind == "Duration" || is_number && name.ends_with("_MAX"))).then_some(name)
}

/// `entity` for `host/src/entity/turn.rs` and `host/src/entity.rs`.
fn module_of(path: &str) -> &str {
    let inside = path.strip_prefix("host/src/").unwrap_or(path);
    inside.split(['/', '.']).next().unwrap_or_default()
}

fn floor_of(module: &str) -> Option<u32> {
    FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
}

/// The modules that a line names after `crate::`, in groups too.
fn crate_paths(code: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for (at, found) in code.match_indices("crate::") {
        if code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_' || c == '$') {
            continue;
        }
        let rest = &code[at + found.len()..];
        match rest.strip_prefix('{') {
            Some(group) => names.extend(group_heads(group)),
            None => names.extend(head(rest)),
        }
    }
    names
}

/// The first names of the entries of an import group.
fn group_heads(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let mut depth = 1;
    let mut entry = String::new();
    for c in group.chars() {
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            ',' if depth == 1 => {
                heads.extend(head(entry.trim()));
                entry.clear();
                continue;
            }
            _ => {}
        }
        if depth == 0 {
            break;
        }
        entry.push(c);
    }
    heads.extend(head(entry.trim()));
    heads
}

fn head(path: &str) -> Option<String> {
    let name: String = path.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}
