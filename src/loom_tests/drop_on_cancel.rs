//! The source of a `drop_on_cancel` stream between its consumer and a canceller.

#[path = "../http/body_signal.rs"]
mod body_signal;

use super::{CountingWaker, long_model, model};
use crate::{
    CancelStreamExt, CancellationToken, DropOnCancel, IntoSignal, TakeUntilCancelled,
    stream::HasValve,
};
use body_signal::BodySignal;
use futures_core::Stream;
use loom::{
    cell::UnsafeCell,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// Yields `items` items, and is pending then. Loom detects two threads that access it at once, or one after the other
/// without synchronisation.
struct Source {
    items: usize,
    access: UnsafeCell<()>,
    drops: Arc<AtomicUsize>,
}

impl Source {
    fn new(items: usize) -> (Self, Arc<AtomicUsize>) {
        let drops = Arc::new(AtomicUsize::new(0));
        let source = Self {
            items,
            access: UnsafeCell::new(()),
            drops: Arc::clone(&drops),
        };
        (source, drops)
    }

    fn drop_on_cancel(items: usize, token: &CancellationToken) -> (Consumed, Arc<AtomicUsize>) {
        let (source, drops) = Self::new(items);
        (source.take_until_cancelled(token).drop_on_cancel(), drops)
    }
}

type Consumed = DropOnCancel<TakeUntilCancelled<Source>>;

impl Stream for Source {
    type Item = ();

    fn poll_next(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<()>> {
        self.access.with_mut(|_| thread::yield_now());
        match self.items {
            0 => Poll::Pending,
            _ => {
                self.items -= 1;
                Poll::Ready(Some(()))
            }
        }
    }
}

impl Drop for Source {
    fn drop(&mut self) {
        self.access.with_mut(|_| thread::yield_now());
        self.drops.fetch_add(1, Ordering::Relaxed);
    }
}

fn poll<S: Stream<Item = ()> + Unpin>(
    stream: &mut S,
    flag: &Arc<CountingWaker>,
) -> Poll<Option<()>> {
    let waker = Waker::from(Arc::clone(flag));
    Pin::new(stream).poll_next(&mut Context::from_waker(&waker))
}

/// Checks a stream at the end of a model: woken if it was pending, over at the next poll, and its waker is dropped.
fn check_consumer(last_poll: Poll<Option<()>>, mut stream: Consumed, flag: &Arc<CountingWaker>) {
    if last_poll.is_pending() {
        assert!(flag.wakes() > 0, "a pending stream is woken");
    }
    assert_eq!(poll(&mut stream, &CountingWaker::new()), Poll::Ready(None));
    assert!(stream.stop_reason().is_some());
    assert_eq!(Arc::strong_count(flag), 1, "the waker is dropped");
}

#[test]
fn a_pending_stream_is_woken_and_its_source_dropped_once() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(0, &token);
        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        let last_poll = poll(&mut stream, &flag);
        canceller.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        check_consumer(last_poll, stream, &flag);
        assert_eq!(drops.load(Ordering::Relaxed), 1);
    });
}

/// The same with the canceller on the thread that runs first: with the same number of preemptions it gets further.
#[test]
fn a_stream_whose_source_is_with_the_canceller_is_woken_when_it_is_done() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(0, &token);
        let consumer = thread::spawn(move || {
            let flag = CountingWaker::new();
            let last_poll = poll(&mut stream, &flag);
            (last_poll, stream, flag)
        });
        token.cancel();
        let (last_poll, stream, flag) = consumer.join().unwrap();
        assert!(drops_are(&drops, 1));
        check_consumer(last_poll, stream, &flag);
    });
}

#[test]
fn a_stream_that_is_moved_to_another_task_during_a_cancel_is_woken_there() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(0, &token);
        let canceller = thread::spawn(move || token.cancel());
        let first_poll = poll(&mut stream, &CountingWaker::new());
        let flag = CountingWaker::new();
        let last_poll = match first_poll {
            Poll::Pending => poll(&mut stream, &flag),
            over => over,
        };
        canceller.join().unwrap();
        assert_eq!(drops.load(Ordering::Relaxed), 1);
        check_consumer(last_poll, stream, &flag);
    });
}

#[test]
fn an_item_that_is_taken_during_a_cancel_is_passed_on_and_the_source_dropped_by_then() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(1, &token);
        let canceller = thread::spawn({
            let token = token.clone();
            move || token.cancel()
        });
        let polled = poll(&mut stream, &CountingWaker::new());
        assert!(polled == Poll::Ready(Some(())) || token.is_cancelled());
        canceller.join().unwrap();
        // Both threads are done with the source, whichever had to drop it.
        assert!(drops_are(&drops, 1));
        assert_eq!(poll(&mut stream, &CountingWaker::new()), Poll::Ready(None));
    });
}

fn drops_are(drops: &AtomicUsize, expected: usize) -> bool {
    drops.load(Ordering::Relaxed) == expected
}

#[test]
fn a_stream_that_is_dropped_during_a_cancel_leaks_no_source() {
    model(|| {
        let token = CancellationToken::new();
        let (stream, drops) = Source::drop_on_cancel(0, &token);
        let canceller = thread::spawn(move || token.cancel());
        drop(stream);
        canceller.join().unwrap();
        assert!(drops_are(&drops, 1));
    });
}

#[test]
fn a_stream_that_is_polled_and_dropped_during_a_cancel_leaks_nothing() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(0, &token);
        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        let _ = poll(&mut stream, &flag);
        drop(stream);
        canceller.join().unwrap();
        assert!(drops_are(&drops, 1));
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn an_accessor_of_the_stream_does_not_keep_its_source() {
    model(|| {
        let token = CancellationToken::new();
        let (stream, drops) = Source::drop_on_cancel(0, &token);
        let canceller = thread::spawn(move || token.cancel());
        let _ = stream.size_hint();
        canceller.join().unwrap();
        assert!(drops_are(&drops, 1), "its last user has closed it");
        drop(stream);
    });
}

#[test]
fn of_two_cancellers_one_drops_the_source() {
    long_model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let (mut stream, drops) = Source::drop_on_cancel(0, &child);
        let of_root = thread::spawn(move || root.cancel());
        let of_child = thread::spawn(move || child.cancel());
        let flag = CountingWaker::new();
        let last_poll = poll(&mut stream, &flag);
        of_root.join().unwrap();
        of_child.join().unwrap();
        assert!(drops_are(&drops, 1));
        check_consumer(last_poll, stream, &flag);
    });
}

#[test]
fn the_token_may_be_cancelled_while_the_stream_is_made() {
    model(|| {
        let token = CancellationToken::new();
        let canceller = thread::spawn({
            let token = token.clone();
            move || token.cancel()
        });
        let (stream, drops) = Source::drop_on_cancel(0, &token);
        canceller.join().unwrap();
        assert!(drops_are(&drops, 1));
        check_consumer(Poll::Ready(None), stream, &CountingWaker::new());
    });
}

#[test]
fn at_a_deadline_the_source_is_dropped_once_by_a_poll_or_by_the_task() {
    model(|| {
        let token = CancellationToken::new();
        let (mut stream, drops) = Source::drop_on_cancel(0, &token);
        let deferred = token.cancel_as_a_timer("the reason");
        assert!(drops_are(&drops, 0), "not by the timer");
        let task = thread::spawn(move || drop(deferred));
        let flag = CountingWaker::new();
        let last_poll = poll(&mut stream, &flag);
        task.join().unwrap();
        assert!(drops_are(&drops, 1));
        check_consumer(last_poll, stream, &flag);
    });
}

#[test]
fn at_a_deadline_a_stream_that_is_dropped_before_the_task_runs_leaks_nothing() {
    model(|| {
        let token = CancellationToken::new();
        let (stream, drops) = Source::drop_on_cancel(0, &token);
        let deferred = token.cancel_as_a_timer("the reason");
        let task = thread::spawn(move || drop(deferred));
        drop(stream);
        task.join().unwrap();
        assert!(drops_are(&drops, 1));
    });
}

/// As the body of a response does once it is complete: see `BodySignal`.
#[test]
fn a_stream_that_is_released_during_a_cancel_is_stopped_or_never_will_be() {
    long_model(|| {
        let token = CancellationToken::new();
        let (source, drops) = Source::new(1);
        let signal = BodySignal::Armed((&token).into_signal());
        let mut stream = source.take_until_cancelled(signal).drop_on_cancel();
        let canceller = thread::spawn({
            let token = token.clone();
            move || token.cancel()
        });
        stream.release(|adapter| {
            let signal = adapter.valve_mut().signal_pin_mut();
            signal
                .into_iter()
                .for_each(|signal| signal.get_mut().release());
        });
        let flag = CountingWaker::new();
        let first_poll = poll(&mut stream, &flag);
        canceller.join().unwrap();
        if first_poll.is_pending() {
            assert!(flag.wakes() > 0, "a pending stream is woken");
        }
        let settled = Pin::new(&mut token.settled()).poll(&mut Context::from_waker(Waker::noop()));
        assert!(settled.is_ready());

        let last_poll = poll(&mut stream, &CountingWaker::new());
        match stream.stop_reason() {
            Some(_) => {
                assert_eq!(last_poll, Poll::Ready(None));
                assert!(drops_are(&drops, 1));
            }
            None => {
                assert_eq!(
                    (first_poll, last_poll),
                    (Poll::Ready(Some(())), Poll::Pending)
                );
                assert!(drops_are(&drops, 0));
            }
        }
        drop(stream);
        assert!(drops_are(&drops, 1));
    });
}
