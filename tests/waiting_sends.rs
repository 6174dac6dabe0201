//! Many waiting senders, dropped in any order: the cost does not grow with the square of their number.
//!
//! A program of its own, as it reads the clock. The margin is large: it takes a tenth of a second, and a
//! square would take minutes.
#![cfg(feature = "tokio")]

use futures::{FutureExt, channel::oneshot};
use std::{
    future::pending,
    time::{Duration, Instant},
};
use stopcock::{Sender, signal, spawn_generator};

/// Large enough that it matters how often it is moved.
type Item = [u8; 256];

const ITEM: Item = [0; 256];

const SENDS: usize = if cfg!(miri) { 100 } else { 100_000 };

const LIMIT: Duration = Duration::from_secs(10);

/// The index of the one that is dropped as the `i`-th of `n`.
type Order = fn(n: usize, i: usize) -> usize;

async fn check(order: Order) {
    let (hand_out, handed_out) = oneshot::channel::<Sender<Item>>();
    let stream = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(ITEM).await?;
        assert!(hand_out.send(tx.clone()).is_ok());
        pending().await
    });
    let tx = handed_out.await.unwrap();
    let mut sends: Vec<_> = (0..SENDS)
        .map(|_| {
            let mut send = Box::pin(tx.send(ITEM));
            assert!((&mut send).now_or_never().is_none());
            Some(send)
        })
        .collect();
    let start = Instant::now();
    for i in 0..SENDS {
        assert!(sends[order(SENDS, i)].take().is_some());
        assert!(start.elapsed() < LIMIT, "only {i} have been dropped by now");
    }
    drop(stream);
}

#[tokio::test]
async fn the_first_first() {
    check(|_, i| i).await;
}

#[tokio::test]
async fn the_last_first() {
    check(|n, i| n - 1 - i).await;
}

#[tokio::test]
async fn from_the_middle() {
    check(|n, i| match i % 2 {
        0 => n / 2 + i / 2,
        _ => n / 2 - 1 - i / 2,
    })
    .await;
}

#[tokio::test]
async fn here_and_there() {
    // They have no common divisor.
    check(|n, i| i * 389 % n).await;
}
