//! `yield_every`: how long a run of ready items may be.

use crate::support::Wakes;
use futures::{Stream, StreamExt, stream};
use std::{io, pin::pin, task::Poll};
use stopcock::{CancelStreamExt, CancelTryStreamExt, CancellationToken, signal};

/// The lengths of the first runs, each of which ends with a wake-up of its own.
fn rows(stream: impl Stream, polls: usize) -> Vec<usize> {
    let mut stream = pin!(stream);
    let mut rows = vec![0];
    for _ in 0..polls {
        let wakes = Wakes::new();
        match wakes.poll(stream.as_mut()) {
            Poll::Ready(Some(_)) => *rows.last_mut().unwrap() += 1,
            Poll::Ready(None) => unreachable!("it is endless"),
            Poll::Pending => {
                assert_eq!(wakes.count(), 1);
                rows.push(0);
            }
        }
    }
    rows
}

#[test]
fn a_run_has_the_configured_length() {
    for items in [
        1, 2, 7, 64, 1000, 1023, 1024, 1025, 2000, 2048, 5000, 70_000,
    ] {
        let token = CancellationToken::new();
        let silent = stream::repeat('a')
            .take_until_cancelled(&token)
            .yield_every(items);
        assert_eq!(rows(silent, 2 * items + 3), [items, items, 1], "{items}");
        let with_an_error = stream::repeat('a')
            .with_cancellation(signal::never())
            .yield_every(items);
        assert_eq!(
            rows(with_an_error, 2 * items + 3),
            [items, items, 1],
            "{items}"
        );
        let among_errors = stream::repeat('a')
            .map(io::Result::Ok)
            .try_with_cancellation(&token)
            .yield_every(items);
        assert_eq!(
            rows(among_errors, 2 * items + 3),
            [items, items, 1],
            "{items}"
        );
    }
}

#[test]
fn none_turns_it_off() {
    let token = CancellationToken::new();
    let stream = stream::repeat('a')
        .take_until_cancelled(&token)
        .yield_every(0);
    assert_eq!(rows(stream, 200_000), [200_000]);
}

#[test]
fn a_pending_begins_a_new_run() {
    let mut polls = 0;
    let source = stream::poll_fn(move |cx| {
        polls += 1;
        match polls {
            3 => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            _ => Poll::Ready(Some('a')),
        }
    });
    let token = CancellationToken::new();
    let stream = source.take_until_cancelled(&token).yield_every(4);
    assert_eq!(rows(stream, 13), [2, 4, 4, 0]);
}

#[test]
fn a_stop_is_seen_before_each_item_all_the_same() {
    let token = CancellationToken::new();
    let mut stream = pin!(
        stream::repeat('a')
            .take_until_cancelled(&token)
            .yield_every(0)
    );
    let wakes = Wakes::new();
    for _ in 0..5000 {
        assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(Some('a')));
    }
    token.cancel();
    assert_eq!(wakes.poll(stream.as_mut()), Poll::Ready(None));
}

#[test]
fn a_stream_that_was_polled_before_begins_a_new_run() {
    let token = CancellationToken::new();
    let mut stream = stream::repeat('a').take_until_cancelled(&token);
    for _ in 0..5 {
        assert_eq!(Wakes::new().poll(pin!(&mut stream)), Poll::Ready(Some('a')));
    }
    assert_eq!(rows(stream.yield_every(2), 8), [2, 2, 2]);
}
