//! The sources, and the one loop that polls them all.

use futures::Stream;
use std::{
    future::{Future, poll_fn},
    hint::black_box,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
};
use tokio::runtime::{Builder, Runtime};

/// Counts, and always has the next number.
#[derive(Default)]
pub(crate) struct Ready {
    next: u64,
}

impl Stream for Ready {
    type Item = u64;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<u64>> {
        let item = self.next;
        self.next += 1;
        Poll::Ready(Some(item))
    }
}

/// Counts, and is pending once before each number.
#[derive(Default)]
pub(crate) struct Halting {
    next: u64,
    has_halted: bool,
}

impl Stream for Halting {
    type Item = u64;

    #[inline]
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<u64>> {
        self.has_halted = !self.has_halted;
        if self.has_halted {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let item = self.next;
        self.next += 1;
        Poll::Ready(Some(item))
    }
}

/// Gets the number out of an item.
pub(crate) trait Number {
    fn number(self) -> u64;
}

impl Number for u64 {
    #[inline]
    fn number(self) -> u64 {
        self
    }
}

impl<E> Number for Result<u64, E> {
    #[inline]
    fn number(self) -> u64 {
        self.unwrap_or_else(|_| panic!("nothing is stopped here"))
    }
}

/// The loop is inlined, so only the stream's own attributes decide whether the stream is inlined into it.
#[inline(always)]
fn take<S: Stream<Item: Number>>(
    mut stream: Pin<&mut S>,
    cx: &mut Context<'_>,
    left: &mut u64,
) -> Poll<()> {
    while *left > 0 {
        match black_box(stream.as_mut()).poll_next(cx) {
            Poll::Ready(Some(item)) => {
                black_box(item.number());
                *left -= 1;
            }
            Poll::Ready(None) => panic!("the sources are endless"),
            Poll::Pending => return Poll::Pending,
        }
    }
    Poll::Ready(())
}

/// Takes `n` items by hand: polls again and again, woken or not.
#[inline]
pub(crate) fn drain<S: Stream<Item: Number>>(stream: S, n: u64) {
    let mut stream = pin!(stream);
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    let mut left = n;
    while take(stream.as_mut(), &mut cx, &mut left).is_pending() {}
}

/// Takes `n` items in a task, which is polled when it is woken.
pub(crate) async fn drain_in_task<S: Stream<Item: Number>>(stream: S, n: u64) {
    let mut stream = pin!(stream);
    let mut left = n;
    poll_fn(|cx| take(stream.as_mut(), cx, &mut left)).await;
}

/// Polls again and again, woken or not.
#[inline]
pub(crate) fn poll_by_hand(future: impl Future<Output = ()>) {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    while future.as_mut().poll(&mut cx).is_pending() {}
}

/// A runtime of this thread, with a timer.
pub(crate) fn runtime() -> Runtime {
    Builder::new_current_thread()
        .enable_time()
        .build()
        .expect("a runtime")
}
