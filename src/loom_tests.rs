//! Loom models: the token under all interleavings of two or three threads, with one question per model.
//!
//! Run with `RUSTFLAGS="--cfg stopcock_loom" cargo test --lib --release --no-default-features`. The `Arc`s are those of
//! `std`, which loom does not model. Threads report what they have found in return values, so that only the token and
//! the wakers synchronise them.

mod adapter;
mod callbacks;
mod channel;
mod counts;
mod drop_on_cancel;
mod links;
mod outcomes;
mod run_blocking;
mod settling;
mod waiters;

use crate::{CancellationToken, CancelledOwned};
use loom::{
    model::Builder,
    sync::atomic::{AtomicUsize, Ordering},
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// Counts how often it is woken.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl CountingWaker {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it has been woken, as a task checks before a poll: the writes before the wake-up are visible after that.
    fn is_woken(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll(cancelled: &mut CancelledOwned, flag: &Arc<CountingWaker>) -> Poll<()> {
    let waker = Waker::from(Arc::clone(flag));
    let poll = Pin::new(&mut *cancelled).poll(&mut Context::from_waker(&waker));
    if poll.is_ready() {
        assert!(cancelled.token().is_cancelled(), "ready means cancelled");
    }
    poll
}

/// Checks a waiter at the end of a model: woken once if it was pending, at most once if not, and its waker is dropped.
fn check_waiter(first_poll: Poll<()>, mut cancelled: CancelledOwned, flag: &Arc<CountingWaker>) {
    match first_poll {
        Poll::Pending => assert_eq!(flag.wakes(), 1, "a pending waiter is woken once"),
        Poll::Ready(()) => assert!(flag.wakes() <= 1, "no waiter is woken twice"),
    }
    assert!(poll(&mut cancelled, &CountingWaker::new()).is_ready());
    drop(cancelled);
    assert_eq!(Arc::strong_count(flag), 1, "the waker is dropped");
}

fn reason(token: &CancellationToken) -> String {
    token
        .stop_reason()
        .expect("it is cancelled, so it has a reason")
        .to_string()
}

/// root, middle, leaf.
fn chain() -> [CancellationToken; 3] {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    [root, middle, leaf]
}

/// Checks all interleavings of up to three preemptions. A fourth takes minutes, and found no more of the bugs that were
/// put in on trial.
fn model(model: impl Fn() + Send + Sync + 'static) {
    up_to(3, model);
}

/// The same with up to two preemptions, for models in which three preemptions take minutes.
fn long_model(model: impl Fn() + Send + Sync + 'static) {
    up_to(2, model);
}

fn up_to(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(model);
}
