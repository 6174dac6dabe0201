//! When a stream that is always ready is stopped, on a current-thread runtime.

use crate::polling::{Ready, runtime};
use async_stream::stream;
use futures::{Stream, StreamExt as _, stream as streams};
use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll},
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken, generator};
use stream_cancel::{StreamExt as _, Tripwire};
use tokio::{
    select,
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken as TokioToken;

pub(crate) const WORK: &str = "stops an always-ready stream";

const STOP: Duration = Duration::from_millis(50);

/// When the source ends by itself, so that the next stream can be measured.
const PATIENCE: Duration = Duration::from_secs(1);

/// The number of items between two reads of the clock.
const UNTIMED: u32 = 4096;

/// Always ready, until `PATIENCE` is over.
struct Endless {
    numbers: Ready,
    until: Instant,
    untimed: u32,
}

impl Endless {
    fn new() -> Self {
        Self {
            numbers: Ready::default(),
            until: Instant::now() + PATIENCE,
            untimed: UNTIMED,
        }
    }
}

impl Stream for Endless {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.untimed -= 1;
        if self.untimed == 0 {
            if Instant::now() >= self.until {
                return Poll::Ready(None);
            }
            self.untimed = UNTIMED;
        }
        Pin::new(&mut self.numbers).poll_next(cx)
    }
}

async fn drain(stream: impl Stream) {
    let mut stream = pin!(stream);
    while futures::StreamExt::next(&mut stream).await.is_some() {}
}

/// Spawns a task that stops the stream once it runs.
fn sibling(stop: impl FnOnce() + Send + 'static) {
    tokio::spawn(async {
        sleep(STOP).await;
        stop();
    });
}

async fn take_until_cancelled() {
    let token = CancellationToken::new();
    let items = Endless::new().take_until_cancelled(&token);
    sibling(move || token.cancel());
    drain(items).await;
}

async fn generator_with_token() {
    let token = CancellationToken::new();
    let items = generator(&token, async |mut y| {
        let mut numbers = Endless::new();
        while let Some(number) = futures::StreamExt::next(&mut numbers).await {
            y.yield_item(number).await;
        }
    });
    sibling(move || token.cancel());
    drain(items).await;
}

async fn with_deadline() {
    drain(Endless::new().with_timeout(STOP)).await;
}

async fn take_until_token() {
    let token = TokioToken::new();
    let items = Endless::new().take_until(token.clone().cancelled_owned());
    sibling(move || token.cancel());
    drain(items).await;
}

async fn take_until_sleep() {
    drain(Endless::new().take_until(sleep(STOP))).await;
}

async fn timeout_around() {
    // The result does not matter: the time is measured.
    _ = timeout(STOP, drain(Endless::new())).await;
}

async fn stream_timeout() {
    let items = tokio_stream::StreamExt::timeout(Endless::new(), STOP);
    drain(futures::StreamExt::take_while(items, |item| {
        std::future::ready(item.is_ok())
    }))
    .await;
}

async fn select_pinned_sleep() {
    let mut sleep = pin!(sleep(STOP));
    let mut source = Endless::new();
    loop {
        select! {
            biased;
            () = &mut sleep => break,
            item = futures::StreamExt::next(&mut source) => if item.is_none() { break },
        }
    }
}

async fn select_fresh_sleep() {
    let mut source = Endless::new();
    loop {
        select! {
            biased;
            () = sleep(STOP) => break,
            item = futures::StreamExt::next(&mut source) => if item.is_none() { break },
        }
    }
}

async fn select_token() {
    let token = TokioToken::new();
    let stopped = token.clone();
    sibling(move || token.cancel());
    let mut source = Endless::new();
    loop {
        select! {
            biased;
            () = stopped.cancelled() => break,
            item = futures::StreamExt::next(&mut source) => if item.is_none() { break },
        }
    }
}

async fn abortable() {
    let (items, handle) = streams::abortable(Endless::new());
    sibling(move || handle.abort());
    drain(items).await;
}

async fn abort_task() {
    let task = tokio::spawn(drain(Endless::new()));
    let handle = task.abort_handle();
    sibling(move || handle.abort());
    // The result does not matter: the time is measured.
    _ = task.await;
}

async fn tripwire() {
    let (trigger, tripwire) = Tripwire::new();
    let items = Endless::new().take_until_if(tripwire);
    sibling(move || trigger.cancel());
    drain(items).await;
}

async fn async_stream_token() {
    let token = TokioToken::new();
    let stopped = token.clone();
    sibling(move || token.cancel());
    drain(stream! {
        let mut numbers = Endless::new();
        while let Some(number) = futures::StreamExt::next(&mut numbers).await {
            if stopped.is_cancelled() {
                break;
            }
            yield number;
        }
    })
    .await;
}

pub(crate) fn print() {
    println!("\n| {WORK} after {STOP:?}, on one thread | stops after |");
    println!("|---|---|");
    line(
        "**ours**, `take_until_cancelled`, a sibling task cancels",
        take_until_cancelled(),
    );
    line(
        "**ours**, `generator`, a sibling task cancels",
        generator_with_token(),
    );
    line("**ours**, `with_timeout`", with_deadline());
    line(
        "`take_until(token)`, a sibling task cancels",
        take_until_token(),
    );
    line("`take_until(sleep)`", take_until_sleep());
    line("`tokio::time::timeout` around the loop", timeout_around());
    line(
        "tokio-stream `timeout` (between two items)",
        stream_timeout(),
    );
    line(
        "`select!`, biased, pinned `sleep` first",
        select_pinned_sleep(),
    );
    line(
        "`select!`, biased, fresh `sleep` first",
        select_fresh_sleep(),
    );
    line(
        "`select!`, biased, fresh `cancelled()` first, a sibling task cancels",
        select_token(),
    );
    line("`abortable`, a sibling task aborts", abortable());
    line(
        "`JoinHandle::abort` of the task, by a sibling task",
        abort_task(),
    );
    line("stream-cancel, a sibling task cancels", tripwire());
    line(
        "async-stream that asks a token, a sibling task cancels",
        async_stream_token(),
    );
}

fn line(name: &str, stopped: impl Future<Output = ()>) {
    let runtime = runtime();
    let start = Instant::now();
    runtime.block_on(stopped);
    let took = start.elapsed();
    let reported = if took < PATIENCE {
        format!("{} ms", took.as_millis())
    } else {
        "not within a second".to_owned()
    };
    println!("| {name} | {reported} |");
}
