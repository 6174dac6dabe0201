//! By how much one more use of a type enlarges a program.
//!
//! Builds small programs with few uses and with many, in cargo's release profile. The figure is the difference of their
//! loaded sections, per use.

use crate::case::bar;
use std::{env, fs, path::PathBuf, process::Command};

pub(crate) const WORK: &str = "code per distinct use";

/// The number of uses that `--cfg many` adds.
const MORE: u64 = 16;

struct Case {
    name: &'static str,
    /// The `work` of `uses.rs`.
    work: &'static str,
    limit: Option<u64>,
}

const fn case(name: &'static str, work: &'static str, limit: Option<u64>) -> Case {
    Case { name, work, limit }
}

const CASES: [(&str, &[Case]); 3] = [
    (
        "an adapter",
        &[
            case("bare", "bare", None),
            case("**ours**", "adapter", Some(2_300)),
            case("`take_until(token)`", "take_until", None),
        ],
    ),
    (
        "a generator",
        &[
            case("async-stream", "async-stream", None),
            case("**ours**", "generator", Some(2_800)),
        ],
    ),
    (
        "a spawned generator",
        &[
            case("tokio `mpsc`, spawned", "mpsc", None),
            case("**ours**", "spawned", Some(13_000)),
        ],
    ),
];

/// Prints the lines of the table, each as soon as it is measured.
pub(crate) fn print() {
    for (of, cases) in CASES {
        for case in cases {
            let Some(size) = size_of_use(case.work) else {
                println!(
                    "| {WORK}, {of} | {} | | cannot be built here | | | |",
                    case.name
                );
                continue;
            };
            let bar = case
                .limit
                .map(|limit| bar(&format!("{limit} B"), limit as f64, Some(size as f64)))
                .unwrap_or_default();
            println!("| {WORK}, {of} | {} | | {size} B | | | {bar} |", case.name);
        }
    }
}

fn size_of_use(work: &str) -> Option<u64> {
    let few = code_size(&build(work, &[])?);
    let many = code_size(&build(work, &["--cfg", "many"])?);
    Some((many - few) / MORE)
}

/// Builds the program, and returns its path.
fn build(work: &str, cfg: &[&str]) -> Option<PathBuf> {
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["rustc", "--release", "--quiet", "-p", "stopcock-bench"])
        .args([
            "--features",
            "uses",
            "--bin",
            "uses",
            "--",
            "--cfg",
            &format!("work=\"{work}\""),
        ])
        .args(cfg)
        .status();
    if !status.ok()?.success() {
        return None;
    }
    Some(env::current_exe().ok()?.with_file_name("uses"))
}

/// The size of the loaded sections of an ELF file: code, unwinding tables, data. For any other file, the size of the
/// file.
fn code_size(program: &PathBuf) -> u64 {
    const LOADED: u64 = 2;
    let file = fs::read(program).expect("the program");
    if file.get(..5) != Some(b"\x7fELF\x02") {
        return file.len() as u64;
    }
    let number = |at: usize, len: usize| {
        let bytes = file[at..at + len].iter().rev();
        bytes.fold(0, |number, byte| number << 8 | u64::from(*byte))
    };
    let (sections, size, count) = (number(0x28, 8), number(0x3a, 2), number(0x3c, 2));
    (0..count)
        .map(|section| (sections + section * size) as usize)
        .filter(|section| number(section + 8, 8) & LOADED != 0)
        .map(|section| number(section + 32, 8))
        .sum()
}
