//! How soon all know of a death and of a join, drawn by hand: two panels with one scale.

use std::fmt::Write;
use std::time::Duration;

use crate::simulate::report::percentile;
use crate::simulate::{LOSSES, Membership, SIZES, Simulated};

const COLORS: [&str; 2] = ["#2b7bba", "#d9731a"];
const PERCENTILES: [(usize, &str); 2] = [(50, "none"), (99, "6 4")];
/// Pixels: where panels begin and how large they are.
const LEFT: [f64; 2] = [56.0, 416.0];
const TOP: f64 = 84.0;
const WIDTH: f64 = 320.0;
const HEIGHT: f64 = 240.0;

/// What a panel shows of each row.
type Of = fn(&Membership) -> &[Duration];

pub fn plot(simulated: &Simulated) -> String {
    let rows = &simulated.memberships;
    let panels: [(&str, Of); 2] = [
        ("until all know of a death", |row| &row.down_all),
        ("until all know of a join", |row| &row.joined),
    ];
    let longest = |times: &[Duration]| percentile(times, 99).as_secs_f64();
    let top = rows.iter().flat_map(|row| [longest(&row.down_all), longest(&row.joined)]);
    let top = (top.fold(1.0, f64::max) / 2.0).ceil() * 2.0;
    // A background of its own: pages are light or dark.
    let mut svg = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 760 384\" width=\"760\" height=\"384\" \
         font-family=\"Helvetica, Arial, sans-serif\" font-size=\"13\" fill=\"#333\">\n\
         <title>How soon all nodes know of a death and of a join</title>\n\
         <rect width=\"760\" height=\"384\" fill=\"#fff\"/>\n",
    );
    legend(&mut svg);
    for ((name, times), left) in panels.into_iter().zip(LEFT) {
        axes(&mut svg, name, left, top);
        for (loss, color) in LOSSES.iter().zip(COLORS) {
            for (percent, dash) in PERCENTILES {
                let of_loss = rows.iter().filter(|row| row.loss_percent == *loss);
                let points: Vec<_> = of_loss
                    .map(|row| {
                        (x(left, row.nodes), y(percentile(times(row), percent).as_secs_f64(), top))
                    })
                    .collect();
                curve(&mut svg, &points, color, dash);
            }
        }
    }
    svg + "</svg>\n"
}

fn x(left: f64, nodes: usize) -> f64 {
    left + WIDTH * nodes as f64 / (SIZES[SIZES.len() - 1] as f64 * 1.05)
}

fn y(seconds: f64, top: f64) -> f64 {
    TOP + HEIGHT * (1.0 - seconds / top)
}

fn legend(svg: &mut String) {
    let mut left = LEFT[0];
    for (loss, color) in LOSSES.iter().zip(COLORS) {
        for (percent, dash) in PERCENTILES {
            let _ = writeln!(
                svg,
                "<line x1=\"{left}\" x2=\"{}\" y1=\"24\" y2=\"24\" stroke=\"{color}\" stroke-width=\"2\" \
                 stroke-dasharray=\"{dash}\"/>\n<text x=\"{}\" y=\"28\">p{percent}, {loss} % lost</text>",
                left + 30.0,
                left + 38.0,
            );
            left += 168.0;
        }
    }
}

fn axes(svg: &mut String, name: &str, left: f64, top: f64) {
    let bottom = TOP + HEIGHT;
    let _ = writeln!(
        svg,
        "<text x=\"{left}\" y=\"{}\" font-weight=\"bold\">Seconds {name}</text>",
        TOP - 18.0
    );
    for seconds in (0..=top as usize).step_by(2) {
        let at = y(seconds as f64, top);
        let _ = writeln!(
            svg,
            "<line x1=\"{left}\" x2=\"{}\" y1=\"{at:.1}\" y2=\"{at:.1}\" stroke=\"#ddd\"/>\n\
             <text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{seconds}</text>",
            left + WIDTH,
            left - 8.0,
            at + 4.5,
        );
    }
    for nodes in SIZES {
        let at = x(left, nodes);
        let _ = writeln!(
            svg,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"{bottom}\" y2=\"{}\" stroke=\"#888\"/>\n\
             <text x=\"{at:.1}\" y=\"{}\" text-anchor=\"middle\">{nodes}</text>",
            bottom + 5.0,
            bottom + 20.0,
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{left}\" x2=\"{}\" y1=\"{bottom}\" y2=\"{bottom}\" stroke=\"#888\"/>\n\
         <text x=\"{}\" y=\"{}\" text-anchor=\"middle\">nodes</text>",
        left + WIDTH,
        left + WIDTH / 2.0,
        bottom + 42.0,
    );
}

fn curve(svg: &mut String, points: &[(f64, f64)], color: &str, dash: &str) {
    let line: Vec<_> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
    let _ = writeln!(
        svg,
        "<polyline points=\"{}\" fill=\"none\" stroke=\"{color}\" stroke-width=\"2\" \
         stroke-dasharray=\"{dash}\"/>",
        line.join(" "),
    );
    for (x, y) in points {
        let _ = writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{color}\"/>");
    }
}
