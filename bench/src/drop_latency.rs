//! From a stop to the producer's drop, on another thread.

use crate::case::{bar, median};
use futures::{Stream, StreamExt};
use std::{
    pin::Pin,
    sync::mpsc::{Receiver, Sender, channel},
    task::{Context, Poll},
    thread::sleep,
    time::{Duration, Instant},
};
use stopcock::{CancelStreamExt, CancellationToken};
use tokio::runtime::{Builder, Runtime};

pub(crate) const WORK: &str = "cancel to producer's drop";

const RUNS: usize = 9;
const SAMPLES: usize = 500;

/// Long enough for the task to have returned from its poll, and its worker to have gone to sleep.
const PARKING: Duration = Duration::from_micros(200);

/// Never has an item. Tells that it is polled, and when it is dropped.
struct Probe {
    polled: Sender<()>,
    dropped: Sender<Instant>,
}

impl Stream for Probe {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        // Nobody listens any more once it has begun.
        let _ = self.polled.send(());
        Poll::Pending
    }
}

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.dropped.send(Instant::now());
    }
}

/// What is done to the task.
#[derive(Clone, Copy)]
enum Stop {
    Cancel,
    Abort,
}

fn sample(runtime: &Runtime, stop: Stop) -> f64 {
    let (polled, begun): (_, Receiver<()>) = channel();
    let (dropped, ended) = channel();
    let token = CancellationToken::new();
    let mut items = Probe { polled, dropped }.take_until_cancelled(&token);
    let task = runtime.spawn(async move { while items.next().await.is_some() {} });
    begun.recv().expect("a poll");
    sleep(PARKING);
    let start = Instant::now();
    match stop {
        Stop::Cancel => token.cancel(),
        Stop::Abort => task.abort(),
    }
    let end = ended.recv().expect("a drop");
    (end - start).as_nanos() as f64 / 1000.0
}

/// The 50th and the 99th percentile.
fn percentiles(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [
        samples[samples.len() / 2],
        samples[samples.len() * 99 / 100],
    ]
}

/// The lines of the table, in microseconds.
pub(crate) fn lines() -> Vec<String> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let runs: Vec<_> = (0..RUNS)
        .map(|_| {
            let (abort, cancel) = (0..SAMPLES)
                .map(|_| {
                    (
                        sample(&runtime, Stop::Abort),
                        sample(&runtime, Stop::Cancel),
                    )
                })
                .unzip();
            (percentiles(abort), percentiles(cancel))
        })
        .collect();

    let mut lines = Vec::new();
    for (index, name, limit) in [(0, "p50", 1.3), (1, "p99", 2.0)] {
        let abort = median(runs.iter().map(|run| run.0[index]));
        let cancel = median(runs.iter().map(|run| run.1[index]));
        let ratio = median(runs.iter().map(|run| run.1[index] / run.0[index]));
        let bar = bar(&format!("{limit} ×"), limit, Some(ratio));
        lines.push(format!(
            "| {WORK}, {name} | `JoinHandle::abort` | | 1.00 × ({abort:.1} µs) | | | |"
        ));
        lines.push(format!(
            "| {WORK}, {name} | **ours** | | {ratio:.2} × ({cancel:.1} µs) | | | {bar} |"
        ));
    }
    lines
}
