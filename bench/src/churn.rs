//! A ready item under a child token, while another thread makes and drops tokens and adapters.
//!
//! Measures CPU time of the thread that takes the items. This needs two idle cores: threads that share a core do not
//! disturb each other.

use crate::{
    case::{bar, median},
    cpu,
    polling::{Ready, drain},
};
use futures::stream;
use std::{
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicBool, Ordering::SeqCst},
    task::{Context, Waker},
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken};

pub(crate) const WORK: &str = "ready item under churn";

const ROUNDS: usize = 9;
const ITEMS: u64 = 3_000_000;

/// What the other thread does with a root.
type Churn = fn(&CancellationToken);

const CHURNS: [(&str, Option<f64>, Churn); 4] = [
    ("adapters made and dropped", Some(1.2), use_adapter),
    ("children made and dropped", Some(1.2), |root| {
        drop(black_box(root.child_token()));
    }),
    (
        "child made, used by an adapter, cancelled",
        Some(1.2),
        |root| {
            let child = root.child_token();
            use_adapter(&child);
            child.cancel();
        },
    ),
    // Cancels a token that has a child, which counts as a cancel of the tree. There is no target for this one.
    ("child and its child made, cancelled", None, |root| {
        let child = root.child_token();
        let grandchild = child.child_token();
        use_adapter(&grandchild);
        child.cancel();
    }),
];

fn use_adapter(token: &CancellationToken) {
    let mut adapter = pin!(stream::pending::<u64>().take_until_cancelled(token));
    let mut cx = Context::from_waker(Waker::noop());
    _ = black_box(futures::Stream::poll_next(
        black_box(adapter.as_mut()),
        &mut cx,
    ));
}

/// The time per item.
fn nanoseconds(token: &CancellationToken, disturb: impl Fn() + Sync) -> f64 {
    let (has_begun, is_over) = (AtomicBool::new(false), AtomicBool::new(false));
    thread::scope(|scope| {
        scope.spawn(|| {
            while !is_over.load(SeqCst) {
                (0..100).for_each(|_| disturb());
                has_begun.store(true, SeqCst);
            }
        });
        while !has_begun.load(SeqCst) {
            thread::yield_now();
        }
        let items = Ready::default().take_until_cancelled(token);
        let took = cpu::nanoseconds(|| drain(items, ITEMS));
        is_over.store(true, SeqCst);
        took / ITEMS as f64
    })
}

fn at_depth(root: &CancellationToken, depth: usize) -> CancellationToken {
    (0..depth).fold(root.clone(), |token, _| token.child_token())
}

/// Prints the lines of the table. The cases alternate, round by round.
pub(crate) fn lines() -> Vec<String> {
    let mut lines = Vec::new();
    for (depth, of) in [(0, "a root"), (1, "a child"), (2, "a grandchild")] {
        lines.extend(lines_at(depth, of));
    }
    lines
}

fn lines_at(depth: usize, of: &str) -> Vec<String> {
    let mut undisturbed = Vec::new();
    let mut rounds = vec![[Vec::new(), Vec::new()]; CHURNS.len()];
    for _ in 0..ROUNDS {
        let (root, other) = (CancellationToken::new(), CancellationToken::new());
        let token = at_depth(&root, depth);
        undisturbed.push(nanoseconds(&token, || {
            black_box(0);
        }));
        for ((_, _, churn), rounds) in CHURNS.iter().zip(&mut rounds) {
            for (root, times) in [&root, &other].into_iter().zip(rounds) {
                times.push(nanoseconds(&token, || churn(root)));
            }
        }
    }
    let work = format!("{WORK}, of {of}");
    let mut lines = vec![format!(
        "| {work} | undisturbed | | 1.00 × ({:.2} ns) | | | |",
        median(undisturbed.iter().copied())
    )];
    for ((name, limit, _), rounds) in CHURNS.iter().zip(&rounds) {
        for (times, root) in rounds.iter().zip(["the same root", "another root"]) {
            let ratio = median(times.iter().zip(&undisturbed).map(|(time, of)| time / of));
            let time = median(times.iter().copied());
            let target = match limit {
                Some(limit) if depth == 1 => bar(&format!("{limit} ×"), *limit, Some(ratio)),
                _ => String::new(),
            };
            lines.push(format!(
                "|  | {name}, under {root} | | {ratio:.2} × ({time:.2} ns) | | | {target} |"
            ));
        }
    }
    lines
}
