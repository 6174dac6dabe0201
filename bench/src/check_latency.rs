//! How long `is_cancelled` takes while another thread cancels.
//!
//! This needs two idle cores. Where the limit is not a fraction of a microsecond, the longest times are the scheduler's.

use crate::{
    cancel::{ours, tokio},
    case::median,
};
use std::{
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

pub(crate) const WORK: &str = "longest `is_cancelled` during a cancel";

const ROUNDS: usize = 9;

/// The longest check of one thread during a cancel, and the mean, each with a read of the clock, in microseconds.
struct Checks {
    longest: f64,
    mean: f64,
}

/// This thread cancels, another one checks again and again.
fn checks(cancel: impl FnOnce(), check: impl Fn() -> bool + Sync) -> Checks {
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let checks = scope.spawn(|| {
            black_box(check());
            let start = Instant::now();
            has_begun.store(true, SeqCst);
            let (mut count, mut last, mut longest) = (0_u32, start, Duration::ZERO);
            while count == 0 || !is_over.load(SeqCst) {
                black_box(check());
                let now = Instant::now();
                longest = longest.max(now - last);
                last = now;
                count += 1;
            }
            Checks {
                longest: microseconds(longest),
                mean: microseconds(last - start) / f64::from(count),
            }
        });
        while !has_begun.load(SeqCst) {
            spin_loop();
        }
        cancel();
        is_over.store(true, SeqCst);
        checks.join().expect("a thread that checks")
    })
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// The medians of the longest and of the mean times.
fn medians(checks: &[Checks]) -> Checks {
    Checks {
        longest: median(checks.iter().map(|checks| checks.longest)),
        mean: median(checks.iter().map(|checks| checks.mean)),
    }
}

type Case = (&'static str, fn(usize) -> Checks);

/// Prints the lines of the table: the medians, over several cancels, of the longest check and of the mean one.
pub(crate) fn lines() -> Vec<String> {
    let limit: Case = ("no check (the limit)", |n| {
        ours::with_waiting_children(n, |root, _| checks(|| root.cancel(), || false))
    });
    let token: [Case; 3] = [
        ("tokio-util", |n| {
            tokio::with_waiting_children(n, |root, _| {
                checks(|| root.cancel(), || root.is_cancelled())
            })
        }),
        ("**ours**", |n| {
            ours::with_waiting_children(n, |root, _| {
                checks(|| root.cancel(), || root.is_cancelled())
            })
        }),
        limit,
    ];
    let child: [Case; 3] = [
        ("tokio-util", |n| {
            tokio::with_waiting_children(n, |root, children| {
                let child = &children[children.len() / 2];
                checks(|| root.cancel(), || child.is_cancelled())
            })
        }),
        ("**ours**", |n| {
            ours::with_waiting_children(n, |root, children| {
                let child = &children[children.len() / 2];
                checks(|| root.cancel(), || child.is_cancelled())
            })
        }),
        limit,
    ];

    let mut lines = Vec::new();
    for (of, cases) in [("the token", token), ("a child", child)] {
        for (children, reported, cancels) in [
            (1, "1 waiting child", 300),
            (1_000, "1,000 waiting children", 30),
            (1_000_000, "1,000,000 waiting children", 1),
        ] {
            let work = format!("{WORK}, of {of}, {reported}");
            lines.extend(compare(&work, &cases, children, cancels));
        }
    }
    lines
}

fn compare(work: &str, cases: &[Case], children: usize, cancels: usize) -> Vec<String> {
    let mut rounds: Vec<_> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, check), rounds) in cases.iter().zip(&mut rounds) {
            let checks: Vec<_> = (0..cancels).map(|_| check(children)).collect();
            rounds.push(medians(&checks));
        }
    }
    let line = |(index, (name, _)): (usize, &Case)| {
        let work = if index == 0 { work } else { "" };
        let pairs = rounds[index].iter().zip(&rounds[0]);
        let ratio = median(pairs.map(|(checks, first)| checks.longest / first.longest));
        let Checks { longest, mean } = medians(&rounds[index]);
        format!("| {work} | {name} | | {ratio:.2} × ({longest:.2} µs, mean {mean:.3} µs) | | | |")
    };
    cases.iter().enumerate().map(line).collect()
}
