//! What `take_until_cancelled` does in addition to the laws of all streams.

use crate::support::{Wakes, poll};
use futures::{Stream, StreamExt, executor::block_on, stream};
use std::{cell::RefCell, pin::pin, rc::Rc, task::Poll};
use stopcock::{
    CancelStreamExt, CancellationToken, signal,
    testing::{Moment, Source},
};

#[test]
fn a_borrowed_stream_can_be_read_after_the_stop() {
    let token = CancellationToken::new();
    let mut numbers = stream::iter(1..=4);
    let mut lent = (&mut numbers).take_until_cancelled(&token);
    assert_eq!(block_on(lent.next()), Some(1));
    token.cancel();
    assert_eq!(block_on(lent.next()), None);
    assert_eq!(block_on(numbers.collect::<Vec<_>>()), [2, 3, 4]);
}

#[test]
fn the_reason_is_the_one_of_the_token_and_stays() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let mut stream = stream::iter(1..).take_until_cancelled(&child);
    assert!(token.cancel_with("first"));
    assert!(!child.cancel_with("second"));
    assert!(stream.stop_reason().is_none());
    assert_eq!(block_on(stream.next()), None);
    assert_eq!(stream.stop_reason().unwrap().to_string(), "first");
}

#[test]
fn adapters_nest_and_each_has_its_own_reason() {
    let (inner, outer) = (CancellationToken::new(), CancellationToken::new());
    let source = Source::new("abc");
    let record = source.record();
    let mut stream = source
        .take_until_cancelled(&inner)
        .take_until_cancelled(&outer);
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some('a')));
    outer.cancel_with("outer");
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(None));
    assert!(record.is_dropped());
    assert!(!inner.is_cancelled());
    assert_eq!(stream.stop_reason().unwrap().to_string(), "outer");
}

#[test]
fn streams_that_borrow_are_not_send_or_are_dyn_can_be_stopped() {
    let token = CancellationToken::new();
    let text = String::from("ab");
    let seen = Rc::new(RefCell::new(Vec::new()));

    let borrowed = stream::iter(text.chars()).take_until_cancelled(&token);
    let not_send = borrowed.inspect(|item| seen.borrow_mut().push(*item));
    let not_send = not_send.take_until_cancelled(&token);
    let boxed = not_send.boxed_local().take_until_cancelled(signal::never());
    assert_eq!(block_on(boxed.collect::<String>()), "ab");
    assert_eq!(*seen.borrow(), ['a', 'b']);
}

#[test]
fn a_stream_that_is_not_unpin_is_stopped_where_it_is_pinned() {
    let token = CancellationToken::new();
    let source = stream::unfold(0, async |n| Some((n, n + 1)));
    let mut stream = pin!(source.take_until_cancelled(&token));
    assert_eq!(block_on(stream.next()), Some(0));
    token.cancel();
    assert_eq!(block_on(stream.next()), None);
}

#[test]
fn a_stop_after_a_full_run_needs_no_yield_before_it() {
    let token = CancellationToken::new();
    let mut stream = stream::repeat('a').take_until_cancelled(&token);
    for _ in 0..1024 {
        assert_eq!(poll(pin!(&mut stream)), Poll::Ready(Some('a')));
    }
    token.cancel();
    assert_eq!(poll(pin!(&mut stream)), Poll::Ready(None));
}

#[test]
fn the_upper_bound_is_the_one_of_the_source() {
    let token = CancellationToken::new();
    assert_eq!(
        stream::iter(0..4).take_until_cancelled(&token).size_hint(),
        (0, Some(4))
    );
}

#[test]
fn the_source_is_dropped_before_the_signal() {
    // A source that cancels in its drop finds the stream still registered.
    let token = CancellationToken::new();
    let source = Source::new("-").by_hand().with_hook({
        let token = token.clone();
        move |moment| {
            if moment == Moment::Drop {
                token.cancel();
            }
        }
    });
    let wakes = Wakes::new();
    let mut stream = source.take_until_cancelled(&token);
    assert_eq!(wakes.poll(pin!(&mut stream)), Poll::Pending);
    drop(stream);
    assert_eq!(wakes.count(), 1);
}
