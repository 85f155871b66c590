//! The tables, and the section of the report.

use std::fmt::Write;
use std::time::Duration;

use crate::simulate::placement::SHARDS;
use crate::simulate::{CALM, Membership, PAUSE, Placement, QUIET, Simulated};

/// Starts the section, which goes on until the end of the report.
pub const HEADING: &str = "## Membership and placement, simulated\n";

const PLACEMENT: [(&str, usize); 7] = [
    ("nodes", 5),
    ("fair share", 10),
    ("a join moves", 12),
    ("worst join", 10),
    ("leaver had", 10),
    ("a leave moves", 13),
    ("worst leave", 11),
];

const MEMBERSHIP: [(&str, usize); 7] = [
    ("nodes", 5),
    ("loss", 4),
    ("one knows of a death", 20),
    ("all know of a death", 19),
    ("all know of a join", 18),
    ("messages/s", 10),
    ("wrongly down", 17),
];

pub fn placement_header() -> String {
    line(PLACEMENT.map(|(name, width)| (name.to_owned(), width)))
}

pub fn placement_row(row: &Placement) -> String {
    line(with_widths(PLACEMENT, placement_cells(row)))
}

pub fn membership_header() -> String {
    line(MEMBERSHIP.map(|(name, width)| (name.to_owned(), width)))
}

pub fn membership_row(row: &Membership) -> String {
    line(with_widths(MEMBERSHIP, membership_cells(row)))
}

fn placement_cells(row: &Placement) -> [String; 7] {
    [
        row.nodes.to_string(),
        format!("{:.1}", SHARDS as f64 / (row.nodes + 1) as f64),
        percentile(&row.by_join, 50).to_string(),
        percentile(&row.by_join, 100).to_string(),
        percentile(&row.leaver_had, 50).to_string(),
        percentile(&row.by_leave, 50).to_string(),
        percentile(&row.by_leave, 100).to_string(),
    ]
}

fn membership_cells(row: &Membership) -> [String; 7] {
    let pair = |times: &[Duration]| {
        let seconds = |percent| percentile(times, percent).as_secs_f64();
        format!("{:.2} / {:.2} s", seconds(50), seconds(99))
    };
    let minutes = row.simulated.as_secs_f64() / 60.0;
    [
        row.nodes.to_string(),
        format!("{} %", row.loss_percent),
        pair(&row.down_first),
        pair(&row.down_all),
        pair(&row.joined),
        format!("{:.1}", row.messages_per_second),
        format!("{} in {minutes:.0} min", row.wrongly_down),
    ]
}

/// Nearest rank.
pub fn percentile<T: Copy>(sorted: &[T], percent: usize) -> T {
    let rank = (sorted.len() * percent).div_ceil(100).clamp(1, sorted.len());
    sorted[rank - 1]
}

fn with_widths(columns: [(&str, usize); 7], cells: [String; 7]) -> [(String, usize); 7] {
    let mut widths = columns.into_iter().map(|(_, width)| width);
    cells.map(|cell| (cell, widths.next().unwrap_or_default()))
}

fn line(cells: [(String, usize); 7]) -> String {
    cells.map(|(cell, width)| format!("{cell:>width$}")).join("  ")
}

fn table(columns: [(&str, usize); 7], rows: impl Iterator<Item = [String; 7]>) -> String {
    let mut text =
        format!("| {} |\n|{}\n", columns.map(|(name, _)| name).join(" | "), "---:|".repeat(7));
    for row in rows {
        let _ = writeln!(text, "| {} |", row.join(" | "));
    }
    text
}

pub fn markdown(simulated: &Simulated) -> String {
    let Simulated { rounds, placements, memberships } = simulated;
    format!(
        "{HEADING}
Written by `cargo xtask bench --simulate`. These are numbers of the algorithms, not of a machine: the
host's own code runs under a simulated clock, and the same seeds give the same numbers anywhere.

{placements}
Placement of {SHARDS} shards on nodes of one capacity. From a cluster's first plan on, a node joins and then a
random one leaves, {rounds} times, each from the owners that the one before led to. Medians and worst cases are
over these rounds. The fair share is that with the newcomer. A leave cannot move less than what the leaver
had, and a join fills the newcomer up to 0.9 of its fair share, rounded down.

{memberships}
![Time until all know of a death and of a join, by number of nodes](membership.svg)

Membership with the default times (see [cluster.md](cluster.md#membership)) over a simulated network that
delays each message by 0.2 to 2 ms and loses none or 10 % of them. Nodes start 10 ms after each other; each
tells two others of itself, at once and every 5 s. When all have heard of all, {calm} s pass, and then {quiet} s in
which messages are counted: a node sends that many in a second, lost ones included. Then a random node is
killed and, when that is known, a new one is started, {rounds} times, with a pause of {pause} s. Times are the median
and the 99th percentile of these rounds, from the kill or the start until one or every other node does not
take the node for a member any more, or does. *Wrongly down* is how often a node that ran was called down, and
came back, in the simulated time of all rounds. One cluster for each line, with the seed 1,000 x nodes + loss
in percent. Sealing, sockets and the notes of members are left out.
",
        placements = table(PLACEMENT, placements.iter().map(placement_cells)),
        memberships = table(MEMBERSHIP, memberships.iter().map(membership_cells)),
        calm = CALM.as_secs(),
        quiet = QUIET.as_secs(),
        pause = PAUSE.as_secs(),
    )
}
