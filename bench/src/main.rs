//! stopcock beside its peers, measured in the same run, with the targets.
//!
//! ```text
//! cargo run --release -p stopcock-bench              # everything: the tables of BENCHMARKS.md
//! cargo run --release -p stopcock-bench -- deadline  # the work whose name contains that word
//! cargo run --release -p stopcock-bench -- laws      # which streams break which laws: the table of LAWS.md
//! cargo run --release -p stopcock-bench -- laws NAME # how, by the streams whose name contains that
//! ```
//!
//! Instructions are counted by callgrind, where valgrind is installed.

mod adapter;
mod allocations;
mod callgrind;
mod cancel;
mod case;
mod check_latency;
mod churn;
mod code_size;
mod cpu;
mod deadline;
mod drop_latency;
mod generator;
mod polling;
mod report;
mod request;
mod stops;
mod threads;
mod timeouts;
mod token;
mod versions;

use case::Row;
use std::{
    env,
    process::{Command, exit},
};

#[global_allocator]
static ALLOCATOR: allocations::Counting = allocations::Counting;

fn main() {
    let rows: Vec<Row> = [
        adapter::rows(),
        deadline::rows(),
        generator::rows(),
        token::rows(),
        timeouts::rows(),
        threads::rows(),
        cancel::rows(),
        request::rows(),
    ]
    .into_iter()
    .flatten()
    .collect();

    let arguments: Vec<String> = env::args().skip(1).collect();
    match arguments.as_slice() {
        [command, names @ ..] if command == "laws" => laws(names),
        [] => report::print(&rows, ""),
        [word] => report::print(&rows, word),
        // The program calls itself like this under callgrind.
        [command, row, case, n] if command == "run" => {
            (case::find(&rows, row, case).run)(n.parse().expect("a number of operations"));
        }
        _ => panic!("usage: stopcock-bench [word], or stopcock-bench laws [name]"),
    }
}

/// Runs the other program of this package, which is built with features that must not be enabled in the measurements.
fn laws(names: &[String]) {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["run", "--release", "--quiet", "-p", "stopcock-bench"])
        .args(["--features", "laws", "--bin", "laws", "--"])
        .args(names)
        .status()
        .expect("cargo");
    exit(status.code().unwrap_or(1));
}
