//! How long `is_cancelled` takes while another thread cancels.
//!
//! It takes two idle cores. Where the limit is no fraction of a microsecond, the longest are the scheduler's.

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

/// Of one thread, from before a cancel until it is over. Each with its look at the clock, in microseconds.
pub(crate) struct Looks {
    longest: f64,
    mean: f64,
}

/// This thread cancels, another one looks again and again.
pub(crate) fn looks(cancel: impl FnOnce(), look: impl Fn() -> bool + Sync) -> Looks {
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        let looks = scope.spawn(|| {
            black_box(look());
            let start = Instant::now();
            has_begun.store(true, SeqCst);
            let (mut count, mut last, mut longest) = (0_u32, start, Duration::ZERO);
            while count == 0 || !is_over.load(SeqCst) {
                black_box(look());
                let now = Instant::now();
                longest = longest.max(now - last);
                last = now;
                count += 1;
            }
            Looks {
                longest: microseconds(longest),
                mean: microseconds(last - start) / f64::from(count),
            }
        });
        while !has_begun.load(SeqCst) {
            spin_loop();
        }
        cancel();
        is_over.store(true, SeqCst);
        looks.join().expect("a thread that looks")
    })
}

fn microseconds(time: Duration) -> f64 {
    time.as_nanos() as f64 / 1000.0
}

/// The median of the longest, and of the means.
fn medians(looks: &[Looks]) -> Looks {
    Looks {
        longest: median(looks.iter().map(|looks| looks.longest)),
        mean: median(looks.iter().map(|looks| looks.mean)),
    }
}

type Case = (&'static str, fn(usize) -> Looks);

/// The lines of the table: the longest look of a cancel and the mean one, of several cancels the median.
pub(crate) fn lines() -> Vec<String> {
    let limit: Case = ("no check (the limit)", |n| {
        ours::looks_during(n, |_, _| false)
    });
    let token: [Case; 3] = [
        ("tokio-util", |n| {
            tokio::looks_during(n, |token, _| token.is_cancelled())
        }),
        ("**ours**", |n| {
            ours::looks_during(n, |token, _| token.is_cancelled())
        }),
        limit,
    ];
    let child: [Case; 3] = [
        ("tokio-util", |n| {
            tokio::looks_during(n, |_, children| children[children.len() / 2].is_cancelled())
        }),
        ("**ours**", |n| {
            ours::looks_during(n, |_, children| children[children.len() / 2].is_cancelled())
        }),
        limit,
    ];

    let mut lines = Vec::new();
    for (of, cases) in [("the token", token), ("a child", child)] {
        for (children, told, cancels) in [
            (1, "1 waiting child", 300),
            (1_000, "1,000 waiting children", 30),
            (1_000_000, "1,000,000 waiting children", 1),
        ] {
            let work = format!("{WORK}, of {of}, {told}");
            lines.extend(compare(&work, &cases, children, cancels));
        }
    }
    lines
}

fn compare(work: &str, cases: &[Case], children: usize, cancels: usize) -> Vec<String> {
    let mut rounds: Vec<_> = cases.iter().map(|_| Vec::new()).collect();
    for _ in 0..ROUNDS {
        for ((_, look), rounds) in cases.iter().zip(&mut rounds) {
            let looks: Vec<_> = (0..cancels).map(|_| look(children)).collect();
            rounds.push(medians(&looks));
        }
    }
    let line = |(index, (name, _)): (usize, &Case)| {
        let work = if index == 0 { work } else { "" };
        let pairs = rounds[index].iter().zip(&rounds[0]);
        let ratio = median(pairs.map(|(looks, first)| looks.longest / first.longest));
        let Looks { longest, mean } = medians(&rounds[index]);
        format!("| {work} | {name} | | {ratio:.2} × ({longest:.2} µs, mean {mean:.3} µs) | | | |")
    };
    cases.iter().enumerate().map(line).collect()
}
