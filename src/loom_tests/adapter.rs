//! An adapter whose source stays pending, between polls with one waker and a cancel.
//!
//! After the first poll it does not check again whether the token was cancelled during the poll: the registered waker
//! is enough.

use super::{CountingWaker, model};
use crate::{CancelStreamExt, CancellationToken, TakeUntilCancelled};
use futures_core::Stream;
use loom::thread;
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Never has an item, and yields before it returns that.
struct Silent;

impl Stream for Silent {
    type Item = ();

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        thread::yield_now();
        Poll::Pending
    }
}

type Adapter = TakeUntilCancelled<Silent>;

fn poll(adapter: &mut Adapter, flag: &Arc<CountingWaker>) -> Poll<Option<()>> {
    let waker = Waker::from(Arc::clone(flag));
    Pin::new(adapter).poll_next(&mut Context::from_waker(&waker))
}

/// Polls it once before anything happens, and once more while `cancelled` is cancelled.
fn check(of: impl Fn(&CancellationToken) -> CancellationToken + Send + Sync + 'static) {
    model(move || {
        let root = CancellationToken::new();
        let token = of(&root);
        let mut adapter = Silent.take_until_cancelled(&token);
        let flag = CountingWaker::new();
        assert!(poll(&mut adapter, &flag).is_pending());

        let canceller = thread::spawn(move || root.cancel());
        let again = poll(&mut adapter, &flag);
        canceller.join().unwrap();
        if again.is_pending() {
            assert_eq!(flag.wakes(), 1, "a pending stream is woken once");
        }
        assert_eq!(poll(&mut adapter, &flag), Poll::Ready(None));
        assert!(adapter.stop_reason().is_some());
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn a_stream_that_is_polled_again_with_the_same_waker_is_woken_or_stopped() {
    check(CancellationToken::clone);
}

#[test]
fn a_stream_under_a_child_that_is_polled_again_with_the_same_waker_is_woken_or_stopped() {
    check(CancellationToken::child_token);
}

#[test]
fn a_stream_under_a_grandchild_that_is_polled_again_with_the_same_waker_is_woken_or_stopped() {
    check(|root| root.child_token().child_token());
}

/// If the wake-up came before a poll, that poll must see the cancel: there is no further wake-up.
#[test]
fn a_stream_that_was_woken_before_its_poll_is_stopped() {
    model(|| {
        let root = CancellationToken::new();
        let mut adapter = Silent.take_until_cancelled(root.child_token());
        let flag = CountingWaker::new();
        assert!(poll(&mut adapter, &flag).is_pending());

        let canceller = thread::spawn(move || root.cancel());
        let was_woken = flag.is_woken();
        let again = poll(&mut adapter, &flag);
        assert!(!was_woken || again.is_ready());
        canceller.join().unwrap();
        assert!(again.is_ready() || flag.wakes() == 1);
    });
}

/// The second poll has another waker: a wake-up of the first one does not count.
#[test]
fn a_stream_that_is_polled_again_with_another_waker_is_woken_by_it_or_stopped() {
    model(|| {
        let token = CancellationToken::new();
        let mut adapter = Silent.take_until_cancelled(&token);
        assert!(poll(&mut adapter, &CountingWaker::new()).is_pending());

        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        let again = poll(&mut adapter, &flag);
        canceller.join().unwrap();
        assert!(again.is_ready() || flag.wakes() == 1);
    });
}
