//! The time from a stop to the drop of the producer on another thread.

use crate::case::{bar, median};
use futures::{Stream, StreamExt};
use std::{
    any::Any,
    future::pending,
    pin::Pin,
    sync::mpsc::{Receiver, Sender, channel},
    task::{Context, Poll},
    thread::sleep,
    time::{Duration, Instant},
};
use stopcock::{CancelStreamExt, CancellationToken, spawn_generator};
use tokio::{
    runtime::{Builder, Runtime},
    sync::mpsc,
};

pub(crate) const WORK: &str = "cancel to producer's drop";

const RUNS: usize = 9;
const SAMPLES: usize = 500;

/// Long enough for the task to return from its poll, and for its worker to go to sleep.
const PARKING: Duration = Duration::from_micros(200);

/// How many items a producer may be ahead of its consumer.
const CAPACITY: usize = 16;

/// Sends the time of its drop.
struct Probe(Sender<Instant>);

impl Drop for Probe {
    fn drop(&mut self) {
        let _ = self.0.send(Instant::now());
    }
}

/// Never has an item. Reports its first poll.
struct Idle {
    polled: Sender<()>,
    _probe: Probe,
}

impl Stream for Idle {
    type Item = u64;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        // The receiver is dropped after the first poll.
        let _ = self.polled.send(());
        Poll::Pending
    }
}

/// A running producer.
struct Running {
    stop: Box<dyn FnOnce()>,
    /// Dropped after the producer.
    _kept: Box<dyn Any>,
}

type Start = fn(&Runtime, Sender<()>, Probe) -> Running;

/// The work, and how it is started: to be stopped by aborting its task, and in our way.
const CASES: [(&str, Start, Start); 3] = [
    ("adapter, pending", adapter::<Abort>, adapter::<Cancel>),
    ("spawned, consumer draining", naive::<true>, ours::<true>),
    ("spawned, channel full", naive::<false>, ours::<false>),
];

struct Cancel;
struct Abort;

trait Stop {
    fn stop(token: CancellationToken, task: tokio::task::AbortHandle) -> Box<dyn FnOnce()>;
}

impl Stop for Cancel {
    fn stop(token: CancellationToken, _: tokio::task::AbortHandle) -> Box<dyn FnOnce()> {
        Box::new(move || token.cancel())
    }
}

impl Stop for Abort {
    fn stop(_: CancellationToken, task: tokio::task::AbortHandle) -> Box<dyn FnOnce()> {
        Box::new(move || task.abort())
    }
}

fn adapter<S: Stop>(runtime: &Runtime, polled: Sender<()>, probe: Probe) -> Running {
    let token = CancellationToken::new();
    let source = Idle {
        polled,
        _probe: probe,
    };
    let mut items = source.take_until_cancelled(&token);
    let task = runtime.spawn(async move { while items.next().await.is_some() {} });
    Running {
        stop: S::stop(token, task.abort_handle()),
        _kept: Box::new(()),
    }
}

fn ours<const DRAINS: bool>(runtime: &Runtime, begun: Sender<()>, probe: Probe) -> Running {
    let token = CancellationToken::new();
    let _context = runtime.enter();
    let mut items = spawn_generator(&token, CAPACITY, |tx| async move {
        let _probe = probe;
        let _ = begun.send(());
        for n in 0_u64.. {
            tx.send(n).await?;
        }
        Ok(())
    });
    let consumer = runtime.spawn(async move {
        match DRAINS {
            true => while items.next().await.is_some() {},
            false => pending().await,
        }
    });
    Running {
        stop: Box::new(move || token.cancel()),
        _kept: Box::new(AbortOnDrop(consumer)),
    }
}

/// A task that feeds a channel.
fn naive<const DRAINS: bool>(runtime: &Runtime, begun: Sender<()>, probe: Probe) -> Running {
    let (tx, mut items) = mpsc::channel(CAPACITY);
    let producer = runtime.spawn(async move {
        let _probe = probe;
        let _ = begun.send(());
        for n in 0_u64.. {
            if tx.send(n).await.is_err() {
                break;
            }
        }
    });
    let consumer = runtime.spawn(async move {
        match DRAINS {
            true => while items.recv().await.is_some() {},
            false => pending().await,
        }
    });
    Running {
        stop: Box::new(move || producer.abort()),
        _kept: Box::new(AbortOnDrop(consumer)),
    }
}

/// The consumer, which is not measured.
struct AbortOnDrop(tokio::task::JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// The time from the stop to the drop, in microseconds.
fn sample(runtime: &Runtime, start: Start) -> f64 {
    let (begun, has_begun): (_, Receiver<()>) = channel();
    let (dropped, ended) = channel();
    let running = start(runtime, begun, Probe(dropped));
    has_begun.recv().expect("a poll");
    sleep(PARKING);
    let stopped_at = Instant::now();
    (running.stop)();
    let end = ended.recv().expect("a drop");
    (end - stopped_at).as_nanos() as f64 / 1000.0
}

/// The 50th and the 99th percentile.
fn percentiles(mut samples: Vec<f64>) -> [f64; 2] {
    samples.sort_by(f64::total_cmp);
    [
        samples[samples.len() / 2],
        samples[samples.len() * 99 / 100],
    ]
}

/// Prints the lines of the table, in microseconds.
pub(crate) fn lines() -> Vec<String> {
    let runtime = Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .expect("a runtime");
    let lines = CASES.map(|(name, abort, ours)| case(&runtime, name, abort, ours));
    lines.into_iter().flatten().collect()
}

fn case(runtime: &Runtime, name: &str, abort: Start, ours: Start) -> Vec<String> {
    let runs: Vec<_> = (0..RUNS)
        .map(|_| {
            let samples = (0..SAMPLES).map(|_| (sample(runtime, abort), sample(runtime, ours)));
            let (abort, ours) = samples.unzip();
            (percentiles(abort), percentiles(ours))
        })
        .collect();

    let mut lines = Vec::new();
    for (index, percentile, limit) in [(0, "p50", 1.3), (1, "p99", 2.0)] {
        let abort = median(runs.iter().map(|run| run.0[index]));
        let ours = median(runs.iter().map(|run| run.1[index]));
        let ratio = median(runs.iter().map(|run| run.1[index] / run.0[index]));
        let bar = bar(&format!("{limit} ×"), limit, Some(ratio));
        let work = format!("{WORK}, {name}, {percentile}");
        lines.push(format!(
            "| {work} | `JoinHandle::abort` | | 1.00 × ({abort:.1} µs) | | | |"
        ));
        lines.push(format!(
            "| {work} | **ours** | | {ratio:.2} × ({ours:.1} µs) | | | {bar} |"
        ));
    }
    lines
}
