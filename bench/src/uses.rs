//! A program that uses one way to make a stream that can be stopped, several times, each with its own types.
//!
//! Built with `--cfg work="…"` and `--cfg many`: `code_size.rs` compares the sizes with few and with many uses.
#![allow(dead_code, reason = "a generator is not made of a `Source`")]
#![allow(
    unexpected_cfgs,
    reason = "`code_size.rs` sets them, for this program alone"
)]

use futures::{Stream, StreamExt};
use std::{
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// Counts from `N`, and is pending once before each number.
struct Source<const N: u64> {
    next: u64,
    has_halted: bool,
    /// Something to drop.
    _name: String,
}

fn source<const N: u64>() -> Source<N> {
    Source {
        next: N,
        has_halted: false,
        _name: black_box(String::new()),
    }
}

impl<const N: u64> Stream for Source<N> {
    type Item = u64;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.has_halted = !self.has_halted;
        if self.has_halted {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.next += 1;
        Poll::Ready((self.next < N + 100).then_some(self.next))
    }
}

#[cfg(not(any(
    work = "adapter",
    work = "take_until",
    work = "generator",
    work = "async-stream",
    work = "spawned",
    work = "mpsc"
)))]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    source::<N>()
}

#[cfg(work = "adapter")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    use stopcock::{CancelStreamExt, CancellationToken};
    source::<N>().take_until_cancelled(black_box(CancellationToken::new()))
}

#[cfg(work = "take_until")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    use tokio_util::sync::CancellationToken;
    source::<N>().take_until(black_box(CancellationToken::new()).cancelled_owned())
}

#[cfg(work = "generator")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    use stopcock::{CancellationToken, generator};
    generator(black_box(CancellationToken::new()), async |mut y| {
        for n in N..N + 100 {
            y.yield_item(n).await;
        }
    })
}

#[cfg(work = "async-stream")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    async_stream::stream! {
        for n in N..N + 100 {
            yield n;
        }
    }
}

#[cfg(work = "spawned")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    use stopcock::{CancellationToken, spawn_generator};
    spawn_generator(black_box(CancellationToken::new()), 16, |tx| async move {
        for n in N..N + 100 {
            tx.send(n).await?;
        }
        Ok(())
    })
}

#[cfg(work = "mpsc")]
fn stream<const N: u64>() -> impl Stream<Item = u64> {
    let (sender, receiver) = tokio::sync::mpsc::channel(16);
    tokio::spawn(async move {
        for n in N..N + 100 {
            if sender.send(n).await.is_err() {
                break;
            }
        }
    });
    tokio_stream::wrappers::ReceiverStream::new(receiver)
}

/// What a program does with such a stream.
#[inline(never)]
async fn consume<const N: u64>() {
    let mut numbers = pin!(stream::<N>());
    while let Some(number) = numbers.next().await {
        black_box(number);
    }
}

type Use = fn() -> Pin<Box<dyn Future<Output = ()>>>;

fn use_of<const N: u64>() -> Pin<Box<dyn Future<Output = ()>>> {
    Box::pin(consume::<N>())
}

macro_rules! uses {
    ($($n:literal)*) => {
        [$(use_of::<$n> as Use),*]
    };
}

const FEW: [Use; 8] = uses!(1 2 3 4 5 6 7 8);

#[cfg(many)]
const MORE: [Use; 16] = uses!(11 12 13 14 15 16 17 18 21 22 23 24 25 26 27 28);

#[cfg(not(many))]
const MORE: [Use; 0] = [];

fn main() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .expect("a runtime");
    runtime.block_on(async {
        for consume in FEW.iter().chain(&MORE) {
            consume().await;
        }
    });
}
