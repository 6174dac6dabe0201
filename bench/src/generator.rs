//! Streams made from code.

use crate::{
    case::{Case, Quantity, Row},
    polling::{Number, Ready, drain, runtime},
};
use async_fn_stream::fn_stream;
use async_stream::stream;
use futures::{Stream, StreamExt};
use std::{future::poll_fn, hint::black_box, io, thread};
use stopcock::{
    CancellationToken, blocking_iter, generator, run_blocking, spawn_generator, try_generator,
};
use tokio::{
    sync::{mpsc, oneshot},
    task::spawn_blocking,
};

trait Numbers: Default {
    fn numbers(&self) -> impl Stream<Item: Number>;
}

const EACH: &[(Quantity, f64)] = &[(Quantity::Instructions, 50.0), (Quantity::Ratio, 1.0)];
const MADE: &[(Quantity, f64)] = &[
    (Quantity::Instructions, 240.0),
    (Quantity::Allocations, 0.0),
];

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            work: "generator, per `u64`".to_owned(),
            has_bare: false,
            counted: Some([10_240, 30_720]),
            timed: 300_000,
            cases: vec![
                Case::new("async-stream", each_item::<AsyncStream>),
                Case::new("hand-written (the limit)", each_item::<HandWritten>),
                Case::new("**ours**, with a token", each_item::<Generator>).bars(EACH),
                Case::new("**ours**, `try_generator`", each_item::<TryGenerator>),
                Case::new("async-fn-stream", each_item::<AsyncFnStream>),
                Case::new("tokio `mpsc`, spawned", channel_each),
            ],
        },
        Row {
            work: "generator made, one item, dropped".to_owned(),
            has_bare: false,
            counted: Some([5_000, 15_000]),
            timed: 50_000,
            cases: vec![
                Case::new("async-stream", made_and_dropped::<AsyncStream>),
                Case::new("hand-written (the limit)", made_and_dropped::<HandWritten>),
                Case::new("**ours**, with a token", made_and_dropped::<Generator>).bars(MADE),
                Case::new(
                    "**ours**, `try_generator`",
                    made_and_dropped::<TryGenerator>,
                ),
                Case::new(
                    "**ours**, and the body asks for its token",
                    made_and_dropped::<AskingGenerator>,
                ),
                Case::new("async-fn-stream", made_and_dropped::<AsyncFnStream>),
                Case::new("tokio `mpsc`, spawned", channel_made),
            ],
        },
        Row {
            work: "spawned generator, 16 ahead, per `u64`".to_owned(),
            has_bare: false,
            counted: Some([10_240, 30_720]),
            timed: 100_000,
            cases: vec![
                Case::new("tokio `mpsc`, spawned", channel_each),
                Case::new("**ours**, with a token", spawned_each)
                    .bars(&[(Quantity::Instructions, 450.0)]),
                Case::new(
                    "async-stream (does nothing ahead)",
                    each_item::<AsyncStream>,
                ),
            ],
        },
        Row {
            work: "spawned generator made, one item, dropped".to_owned(),
            has_bare: false,
            counted: Some([5_000, 15_000]),
            timed: 30_000,
            cases: vec![
                Case::new("tokio `mpsc`, spawned", channel_made),
                Case::new("**ours**, with a token", spawned_made).bars(&[
                    (Quantity::Instructions, 11_996.0),
                    (Quantity::Allocations, 5.0),
                ]),
            ],
        },
        Row {
            work: "blocking generator, 16 ahead, per `u64`".to_owned(),
            has_bare: false,
            counted: None,
            timed: 100_000,
            cases: vec![
                Case::new("tokio `mpsc`, a thread", thread_each),
                Case::new("**ours**, with a token", blocking_each),
            ],
        },
        Row {
            work: "call that blocks, answered at once".to_owned(),
            has_bare: false,
            counted: None,
            timed: 10_000,
            cases: vec![
                Case::new("tokio `spawn_blocking`", pooled_calls),
                Case::new("`std::thread`, a oneshot", threaded_calls),
                Case::new("**ours**, with a token", our_calls),
            ],
        },
    ]
}

#[inline(never)]
fn each_item<G: Numbers>(n: u64) {
    elsewhere::<G>();
    drain(G::default().numbers(), n);
}

/// The second caller of the same type.
#[inline(never)]
fn elsewhere<G: Numbers>() {
    drain(G::default().numbers(), black_box(2));
}

#[inline(never)]
fn made_and_dropped<G: Numbers>(n: u64) {
    elsewhere::<G>();
    let generator = G::default();
    for _ in 0..n {
        drain(black_box(&generator).numbers(), 1);
    }
}

#[derive(Default)]
struct HandWritten;

impl Numbers for HandWritten {
    fn numbers(&self) -> impl Stream<Item: Number> {
        Ready::default()
    }
}

#[derive(Default)]
struct Generator(CancellationToken);

impl Numbers for Generator {
    fn numbers(&self) -> impl Stream<Item: Number> {
        generator(&self.0, async |mut y| {
            let mut next = 0;
            loop {
                y.yield_item(next).await;
                next += 1;
            }
        })
    }
}

#[derive(Default)]
struct TryGenerator(CancellationToken);

impl Numbers for TryGenerator {
    fn numbers(&self) -> impl Stream<Item: Number> {
        try_generator(&self.0, async |mut y| -> io::Result<()> {
            let mut next = 0_u64;
            loop {
                y.yield_item(next).await;
                next = u64::try_from(black_box(next as i64 + 1)).map_err(io::Error::other)?;
            }
        })
    }
}

#[derive(Default)]
struct AskingGenerator(CancellationToken);

impl Numbers for AskingGenerator {
    fn numbers(&self) -> impl Stream<Item: Number> {
        generator(&self.0, async |mut y| {
            let _token = y.token();
            let mut next = 0;
            loop {
                y.yield_item(next).await;
                next += 1;
            }
        })
    }
}

#[derive(Default)]
struct AsyncStream;

impl Numbers for AsyncStream {
    fn numbers(&self) -> impl Stream<Item: Number> {
        stream! {
            let mut next = 0;
            loop {
                yield next;
                next += 1;
            }
        }
    }
}

#[derive(Default)]
struct AsyncFnStream;

impl Numbers for AsyncFnStream {
    fn numbers(&self) -> impl Stream<Item: Number> {
        fn_stream(async |emitter| {
            let mut next = 0;
            loop {
                emitter.emit(next).await;
                next += 1;
            }
        })
    }
}

/// Spawns a task that sends numbers until the receiver is dropped.
fn channel() -> mpsc::Receiver<u64> {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(async move {
        let mut next = 0;
        while sender.send(next).await.is_ok() {
            next += 1;
        }
    });
    receiver
}

async fn receive(mut receiver: mpsc::Receiver<u64>, n: u64) {
    for _ in 0..n {
        black_box(poll_fn(|cx| black_box(&mut receiver).poll_recv(cx)).await);
    }
}

#[inline(never)]
fn channel_each(n: u64) {
    runtime().block_on(async { receive(channel(), n).await });
}

#[inline(never)]
fn channel_made(n: u64) {
    runtime().block_on(async {
        for _ in 0..n {
            receive(channel(), 1).await;
        }
    });
}

fn spawned(token: &CancellationToken) -> impl Stream<Item = u64> + Unpin + use<> {
    spawn_generator(token, 16, |tx| async move {
        for n in 0.. {
            tx.send(n).await?;
        }
        Ok(())
    })
}

async fn take(mut numbers: impl Stream<Item = u64> + Unpin, n: u64) {
    for _ in 0..n {
        black_box(black_box(&mut numbers).next().await);
    }
}

#[inline(never)]
fn spawned_each(n: u64) {
    runtime().block_on(async { take(spawned(&CancellationToken::new()), n).await });
}

#[inline(never)]
fn spawned_made(n: u64) {
    let token = CancellationToken::new();
    runtime().block_on(async {
        for _ in 0..n {
            take(spawned(&token), 1).await;
        }
    });
}

#[inline(never)]
fn blocking_each(n: u64) {
    runtime().block_on(async { take(blocking_iter(CancellationToken::new(), 16, 0..), n).await });
}

#[inline(never)]
fn thread_each(n: u64) {
    let (sender, receiver) = mpsc::channel(16);
    thread::spawn(move || {
        let mut next = 0;
        while sender.blocking_send(next).is_ok() {
            next += 1;
        }
    });
    runtime().block_on(async { receive(receiver, n).await });
}

#[inline(never)]
fn pooled_calls(n: u64) {
    runtime().block_on(async {
        for n in 0..n {
            black_box(spawn_blocking(move || n).await.is_ok());
        }
    });
}

#[inline(never)]
fn threaded_calls(n: u64) {
    runtime().block_on(async {
        for n in 0..n {
            let (answer, answered) = oneshot::channel();
            thread::spawn(move || answer.send(n));
            black_box(answered.await.is_ok());
        }
    });
}

#[inline(never)]
fn our_calls(n: u64) {
    let token = CancellationToken::new();
    runtime().block_on(async {
        for n in 0..n {
            black_box(run_blocking(&token, move || n).await.is_ok());
        }
    });
}
