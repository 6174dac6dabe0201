//! `get_ref`, `get_mut`, `get_pin_mut`, `into_inner`: the source of an adapter, until it is dropped.

use crate::support::poll;
use futures::{Stream, stream};
use std::{
    io,
    pin::{Pin, pin},
    task::Poll,
};
use stopcock::{
    CancelOnDrop, CancelStreamExt, CancelTryStreamExt, CancellationToken, TakeUntilCancelled,
    TryWithCancellation, WithCancellation,
};

type Source = stream::Iter<std::vec::IntoIter<io::Result<u8>>>;

fn source() -> Source {
    stream::iter(vec![Ok(1), Ok(2), Ok(3)])
}

/// What is left of it.
fn left(source: &Source) -> usize {
    source.size_hint().0
}

/// Each adapter over a source: there is no trait for these methods.
macro_rules! check {
    ($Adapter:ty, $make:expr) => {{
        let make: fn(&CancellationToken) -> $Adapter = $make;
        let token = CancellationToken::new();

        let mut stream = make(&token);
        assert!(poll(Pin::new(&mut stream)).is_ready());
        assert_eq!(stream.get_ref().map(left), Some(2));
        // The adapter does not see items that are taken from the source directly.
        assert!(poll(Pin::new(stream.get_mut().unwrap())).is_ready());
        assert!(poll(Pin::new(&mut stream).get_pin_mut().unwrap()).is_ready());
        let source = stream.into_inner().unwrap();
        assert_eq!(left(&source), 0);

        let mut stream = make(&token);
        while let Poll::Ready(Some(_)) = poll(Pin::new(&mut stream)) {}
        assert!(stream.get_ref().is_none());
        assert!(stream.get_mut().is_none());
        assert!(Pin::new(&mut stream).get_pin_mut().is_none());
        assert!(stream.into_inner().is_none());
    }};
}

#[test]
fn the_source_is_there_until_it_is_dropped() {
    check!(TakeUntilCancelled<Source>, |token| source()
        .take_until_cancelled(token));
    check!(WithCancellation<Source>, |token| source()
        .with_cancellation(token));
    check!(TryWithCancellation<Source>, |token| source()
        .try_with_cancellation(token));
    check!(CancelOnDrop<Source>, |token| source()
        .cancel_on_drop(token.clone()));
}

#[test]
fn at_a_stop_it_is_dropped_and_cannot_be_taken_back() {
    let token = CancellationToken::new();
    let mut stream = source().with_cancellation(&token);
    token.cancel();
    assert!(stream.get_ref().is_some(), "no poll has seen the stop");
    assert!(matches!(poll(pin!(&mut stream)), Poll::Ready(Some(Err(_)))));
    assert!(stream.get_ref().is_none());
    assert!(stream.into_inner().is_none());
}

#[test]
fn what_is_taken_back_keeps_the_token_from_settling_no_more() {
    let token = CancellationToken::new();
    let stream = source().take_until_cancelled(&token);
    let source = stream.into_inner();
    assert!(poll(pin!(futures::stream::once(token.cancel_and_settle()))).is_ready());
    assert!(source.is_some());
}

#[test]
fn a_target_is_not_cancelled_where_the_source_was_taken_back() {
    let token = CancellationToken::new();
    let source = source().cancel_on_drop(token.clone()).into_inner();
    drop(source);
    assert!(!token.is_cancelled());
}
