//! Tokens with timeouts.

use crate::{
    case::{Case, Quantity, Row, bar, median},
    cpu,
    polling::runtime,
};
use futures::{StreamExt as _, stream};
use std::{
    future::Future,
    hint::black_box,
    pin::pin,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Waker},
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken};
use tokio::{
    task::yield_now,
    time::{Instant, sleep, sleep_until},
};
use tokio_util::sync::CancellationToken as TokioToken;

pub(crate) const WORK: &str = "100,000 timeouts that fire";

const FAR: Duration = Duration::from_secs(3600);

pub(crate) fn rows() -> Vec<Row> {
    vec![Row {
        work: "child with a timeout, waited on once, dropped".to_owned(),
        has_bare: false,
        counted: Some([5_000, 15_000]),
        timed: 30_000,
        cases: vec![
            Case::new("tokio-util, a child and a task that sleeps", tokio),
            Case::new("**ours**", ours)
                .bars(&[(Quantity::Allocations, 4.0), (Quantity::Bytes, 450.0)]),
        ],
    }]
}

fn poll_once(future: impl Future) {
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    _ = black_box(black_box(pin!(future)).as_mut().poll(&mut cx));
}

#[inline(never)]
fn ours(n: u64) {
    let runtime = runtime();
    let _entered = runtime.enter();
    let root = CancellationToken::new();
    for _ in 0..n {
        let child = black_box(&root).child_with_timeout(FAR);
        poll_once(child.cancelled());
    }
}

#[inline(never)]
fn tokio(n: u64) {
    runtime().block_on(async {
        let root = TokioToken::new();
        for _ in 0..n {
            let child = black_box(&root).child_token();
            let guard = child.clone().drop_guard();
            let timer = child.clone();
            tokio::spawn(async move {
                // Ends with the token, so that the task does not outlive it.
                tokio::select! {
                    () = sleep(FAR) => timer.cancel(),
                    () = timer.cancelled() => {}
                }
            });
            yield_now().await;
            poll_once(child.cancelled());
            drop(guard);
        }
        yield_now().await;
    });
}

const ROUNDS: usize = 5;
const STREAMS: usize = 100_000;

/// Long enough to make all of them, unless the machine is busy.
const TIMEOUT: Duration = Duration::from_secs(2);

static ENDED: AtomicUsize = AtomicUsize::new(0);

/// Spawns a task for each stream. Returns the nanoseconds to make and poll a stream, and to end it.
fn fire<Fut: Future<Output = ()> + Send + 'static>(
    stream: impl Fn(&CancellationToken, Instant) -> Fut,
) -> [f64; 2] {
    runtime().block_on(async {
        let root = CancellationToken::new();
        let at = Instant::now() + TIMEOUT;
        ENDED.store(0, Ordering::Relaxed);
        let start = cpu::now();
        for _ in 0..STREAMS / 1_000 {
            for _ in 0..1_000 {
                let stream = stream(&root, at);
                tokio::spawn(async move {
                    stream.await;
                    ENDED.fetch_add(1, Ordering::Relaxed);
                });
            }
            // They have been polled.
            yield_now().await;
        }
        let made = cpu::now() - start;
        let start = cpu::now();
        while ENDED.load(Ordering::Relaxed) < STREAMS {
            sleep_until(at).await;
            yield_now().await;
        }
        let fired = cpu::now() - start;
        [made, fired].map(|time| time / STREAMS as f64)
    })
}

fn ours_fired() -> [f64; 2] {
    fire(|root, at| {
        let items = stream::pending::<u64>().take_until_cancelled(root.child_with_deadline(at));
        async move {
            let mut items = pin!(items);
            while items.next().await.is_some() {}
        }
    })
}

fn sleep_fired() -> [f64; 2] {
    fire(|_, at| {
        let items = stream::pending::<u64>().take_until(sleep_until(at));
        async move {
            let mut items = pin!(items);
            while items.next().await.is_some() {}
        }
    })
}

/// Prints the lines of the table, in CPU time. The two cases alternate.
pub(crate) fn lines() -> Vec<String> {
    let rounds: Vec<_> = (0..ROUNDS).map(|_| (sleep_fired(), ours_fired())).collect();
    let line = |(index, what): (usize, &str)| {
        let peers = median(rounds.iter().map(|(peer, _)| peer[index]));
        let ours = median(rounds.iter().map(|(_, ours)| ours[index]));
        let ratio = median(rounds.iter().map(|(peer, ours)| ours[index] / peer[index]));
        let target = match index {
            0 => String::new(),
            _ => bar("1 ×", 1.0, Some(ratio)),
        };
        [
            format!("| {WORK}, {what} | `take_until(sleep)` | | 1.00 × ({peers:.0} ns) | | | |"),
            format!("|  | **ours** | | {ratio:.2} × ({ours:.0} ns) | | | {target} |"),
        ]
    };
    let whats = ["CPU time to make a stream", "CPU time to end one"];
    whats.into_iter().enumerate().flat_map(line).collect()
}
