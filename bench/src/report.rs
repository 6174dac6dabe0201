//! Measures everything and prints it as Markdown.

use crate::{
    allocations, callgrind,
    case::{Case, Quantity, Row, bar, median},
    check_latency, churn, code_size, drop_latency, stops, timeouts, versions,
};
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;

/// The result of a case.
struct Measured {
    instructions: Option<f64>,
    ratio: f64,
    nanoseconds: f64,
    /// The number of allocations, and their bytes.
    allocations: Option<[f64; 2]>,
    size: Option<f64>,
}

impl Measured {
    fn get(&self, quantity: Quantity) -> Option<f64> {
        match quantity {
            Quantity::Instructions => self.instructions,
            Quantity::Ratio => Some(self.ratio),
            Quantity::Nanoseconds => Some(self.nanoseconds),
            Quantity::Allocations => self.allocations.map(|[count, _]| count),
            Quantity::Bytes => self.allocations.map(|[_, bytes]| bytes),
            Quantity::Size => self.size,
        }
    }
}

/// Prints the rows whose work contains `word`, each as soon as it is measured.
pub(crate) fn print(rows: &[Row], word: &str) {
    let counts = callgrind::is_installed();
    if !counts {
        println!("Instructions are not counted: valgrind is not installed.\n");
    }
    println!("{}\n", versions::measured());
    println!("| work | | instructions | time | allocations | size over the source | target |");
    println!("|---|---|---|---|---|---|---|");
    for row in rows.iter().filter(|row| row.work.contains(word)) {
        print_row(row, counts);
    }
    for (work, lines) in [
        (
            check_latency::WORK,
            check_latency::lines as fn() -> Vec<String>,
        ),
        (churn::WORK, churn::lines),
        (timeouts::WORK, timeouts::lines),
        (drop_latency::WORK, drop_latency::lines),
    ] {
        if work.contains(word) {
            lines().iter().for_each(|line| println!("{line}"));
        }
    }
    if code_size::WORK.contains(word) {
        code_size::print();
    }
    if stops::WORK.contains(word) {
        stops::print();
    }
}

fn print_row(row: &Row, counts: bool) {
    // The times first, while nothing else runs.
    let times = times(row);
    let counts = match counts {
        true => callgrind::instructions(row),
        false => vec![None; row.cases.len()],
    };
    let mut work = row.work.as_str();
    for ((case, time), count) in row.cases.iter().zip(&times).zip(&counts) {
        let bare = if row.has_bare && case.name != "bare" {
            counts[0]
        } else {
            None
        };
        let measured = measure(row, case, time, &times[0], *count, bare);
        println!("{}", line(work, case, &measured, bare.is_some()));
        work = "";
    }
}

/// The times of the cases of a row, which alternate, round by round.
fn times(row: &Row) -> Vec<Vec<f64>> {
    let mut times = vec![Vec::new(); row.cases.len()];
    for _ in 0..ROUNDS {
        for (case, times) in row.cases.iter().zip(&mut times) {
            times.push(nanoseconds(timed(|| (case.run)(row.timed))) / row.timed as f64);
        }
    }
    times
}

fn timed(work: impl FnOnce()) -> Duration {
    let start = Instant::now();
    work();
    start.elapsed()
}

fn nanoseconds(time: Duration) -> f64 {
    time.as_nanos() as f64
}

fn measure(
    row: &Row,
    case: &Case,
    times: &[f64],
    reference: &[f64],
    count: Option<f64>,
    bare: Option<f64>,
) -> Measured {
    Measured {
        instructions: count.map(|count| count - bare.unwrap_or(0.0)),
        ratio: median(times.iter().zip(reference).map(|(time, of)| time / of)),
        nanoseconds: median(times.iter().copied()),
        allocations: row.per_operation(|n| allocations::of(|| (case.run)(n))),
        size: case.size.map(|size| size() as f64),
    }
}

fn line(work: &str, case: &Case, measured: &Measured, over_bare: bool) -> String {
    let bare = if over_bare { "bare+" } else { "" };
    let instructions = match measured.instructions {
        Some(count) => format!("{bare}{}", rounded(count)),
        None => "-".to_owned(),
    };
    let allocations = match measured.allocations.map(|counts| counts.map(rounded)) {
        None => "-".to_owned(),
        Some([count, _]) if count == "0" => count,
        Some([count, bytes]) => format!("{count} ({bytes} B)"),
    };
    let size = match measured.size {
        Some(size) => format!("{size} B"),
        None => String::new(),
    };
    let bars: Vec<_> = case
        .bars
        .iter()
        .map(|&(quantity, limit)| {
            let limit_text = match quantity {
                Quantity::Instructions => format!("{bare}{limit}"),
                Quantity::Ratio => format!("{limit} ×"),
                Quantity::Nanoseconds => format!("{limit} ns"),
                Quantity::Allocations => format!("{limit} allocations"),
                Quantity::Bytes | Quantity::Size => format!("{limit} B"),
            };
            bar(&limit_text, limit, measured.get(quantity))
        })
        .collect();
    format!(
        "| {work} | {} | {instructions} | {:.2} × ({:.2} ns) | {allocations} | {size} | {} |",
        case.name,
        measured.ratio,
        measured.nanoseconds,
        bars.join(", "),
    )
}

fn rounded(value: f64) -> String {
    let decimals = if value.abs() < 100.0 { 1 } else { 0 };
    let reported = format!("{value:.decimals$}");
    match reported.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => reported,
    }
}
