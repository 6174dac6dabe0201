//! Measures everything and prints it as Markdown.

use crate::{
    allocations, callgrind,
    case::{Case, Quantity, Row, bar, median},
    drop_latency, looks, stops, versions,
};
use std::time::{Duration, Instant};

const ROUNDS: usize = 9;

/// What came out for a case.
struct Measured {
    instructions: Option<f64>,
    ratio: f64,
    nanoseconds: f64,
    /// How many, and of how many bytes.
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

/// Of the rows whose work contains `word`.
pub(crate) fn print(rows: &[Row], word: &str) {
    let rows: Vec<&Row> = rows.iter().filter(|row| row.work.contains(word)).collect();
    // First what is timed, while nothing else runs.
    let times: Vec<_> = rows.iter().map(|row| times(row)).collect();
    let latency = drop_latency::WORK.contains(word).then(drop_latency::lines);
    let looks = looks::WORK.contains(word).then(looks::lines);
    let mut instructions = if callgrind::is_installed() {
        callgrind::instructions(&rows)
    } else {
        println!("Instructions are not counted: valgrind is not installed.\n");
        Vec::new()
    }
    .into_iter();

    println!("{}\n", versions::measured());
    println!("| work | | instructions | time | allocations | size over the source | target |");
    println!("|---|---|---|---|---|---|---|");
    for (row, times) in rows.iter().zip(times) {
        let counts: Vec<_> = row
            .cases
            .iter()
            .map(|_| instructions.next().flatten())
            .collect();
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
    for line in looks.into_iter().chain(latency).flatten() {
        println!("{line}");
    }
    if stops::WORK.contains(word) {
        stops::print();
    }
}

/// How long each case of a row takes, round by round, the cases in turns.
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
            let limit_told = match quantity {
                Quantity::Instructions => format!("{bare}{limit}"),
                Quantity::Ratio => format!("{limit} ×"),
                Quantity::Nanoseconds => format!("{limit} ns"),
                Quantity::Allocations => format!("{limit} allocations"),
                Quantity::Bytes | Quantity::Size => format!("{limit} B"),
            };
            let measured = measured.get(quantity).map(|measured| match quantity {
                // What an adapter does once in a thousand items is no instruction of an item.
                Quantity::Instructions => measured.round(),
                _ => measured,
            });
            bar(&limit_told, limit, measured)
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
    let told = format!("{value:.decimals$}");
    match told.strip_suffix(".0") {
        Some(whole) => whole.to_owned(),
        None => told,
    }
}
