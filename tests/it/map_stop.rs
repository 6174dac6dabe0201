//! `map_stop`: errors that no reason converts into.

use crate::support::{panic_of, poll};
use futures::{Stream, StreamExt, stream};
use std::{
    cell::Cell,
    io,
    pin::{Pin, pin},
    rc::Rc,
    sync::Arc,
    task::Poll,
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, MapStop, StopReason,
    TryWithCancellation, signal,
};

/// An error of another crate, into which no reason converts.
#[derive(Debug, PartialEq)]
struct Status(String);

impl Status {
    fn of(reason: StopReason) -> Self {
        Self(reason.to_string())
    }
}

fn endless() -> impl Stream<Item = Result<u8, Status>> {
    stream::repeat_with(|| Ok(1))
}

/// Reads one item, then stops the stream, and returns the error.
fn check<S, E: PartialEq<Status>>(stream: S, stop: impl FnOnce())
where
    S: Stream<Item = Result<u8, E>>,
{
    let mut stream = pin!(stream);
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(Some(Ok(1)))));
    stop();
    let Poll::Ready(Some(Err(error))) = poll(stream.as_mut()) else {
        panic!("a stop was not reported");
    };
    assert!(error == Status("enough".to_owned()));
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(None)));
}

#[test]
fn the_error_of_a_stop_is_what_was_made_of_its_reason() {
    let token = CancellationToken::new();
    let cancel = |token: CancellationToken| move || assert!(token.cancel_with("enough"));
    check(
        endless().try_with_cancellation(&token).map_stop(Status::of),
        cancel(token.clone()),
    );
    let token = CancellationToken::new();
    check(
        stream::repeat(1)
            .with_cancellation(&token)
            .map_stop(Status::of),
        cancel(token.clone()),
    );
}

#[test]
fn it_is_refined_as_any_other() {
    let token = CancellationToken::new();
    let stream = endless().try_with_cancellation(&token);
    let stream = stream.map_stop(Status::of).yield_every(0).drop_on_cancel();
    let stop = token.clone();
    check(stream, move || assert!(stop.cancel_with("enough")));

    let token = CancellationToken::new();
    let stream = stream::repeat(1).with_cancellation(&token).yield_every(0);
    let stop = token.clone();
    check(stream.map_stop(Status::of).drop_on_cancel(), move || {
        assert!(stop.cancel_with("enough"));
    });
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn the_timed_forms_have_it_as_well() {
    use std::time::Duration;

    const SECOND: Duration = Duration::from_secs(1);

    fn silent() -> impl Stream<Item = Result<u8, Status>> {
        stream::pending()
    }

    async fn error_of<T, S: Stream<Item = Result<T, Status>>>(stream: S) -> String {
        let mut stream = pin!(stream);
        let Some(Err(status)) = stream.next().await else {
            panic!("a stop was not reported");
        };
        assert!(stream.next().await.is_none());
        status.0
    }
    let at = tokio::time::Instant::now() + SECOND;
    let exceeded = "deadline exceeded";
    assert_eq!(
        error_of(silent().with_deadline(at).map_stop(Status::of)).await,
        exceeded
    );
    assert_eq!(
        error_of(silent().with_timeout(SECOND).map_stop(Status::of)).await,
        exceeded
    );
    assert_eq!(
        error_of(silent().try_with_deadline(at).map_stop(Status::of)).await,
        exceeded
    );
    assert_eq!(
        error_of(silent().try_with_timeout(SECOND).map_stop(Status::of)).await,
        exceeded
    );
    let idle = "idle for too long";
    assert_eq!(
        error_of(silent().with_idle_timeout(SECOND).map_stop(Status::of)).await,
        idle
    );
    assert_eq!(
        error_of(silent().try_with_idle_timeout(SECOND).map_stop(Status::of)).await,
        idle
    );

    let token = CancellationToken::new();
    token.cancel_with("enough");
    let draining = silent().try_with_cancellation(&token).drain_for(SECOND);
    assert_eq!(error_of(draining.map_stop(Status::of)).await, "enough");
    let draining = silent().try_with_cancellation(&token).map_stop(Status::of);
    assert_eq!(error_of(draining.drain_for(SECOND)).await, "enough");
}

#[test]
fn it_is_called_after_the_source_was_dropped_and_at_a_stop_only() {
    let calls = Rc::new(Cell::new(0));
    let owned = Arc::new(());
    let is_dropped = Arc::downgrade(&owned);
    let count = Rc::clone(&calls);
    let map = move |_| {
        assert!(is_dropped.upgrade().is_none());
        count.set(count.get() + 1);
    };
    let source = |owned: Arc<()>| stream::iter(0..3).map(move |n| n * Arc::strong_count(&owned));

    let ended = source(Arc::clone(&owned)).with_cancellation(signal::never());
    assert_eq!(
        futures::executor::block_on(ended.map_stop(map.clone()).count()),
        3
    );
    assert_eq!(calls.get(), 0);

    let token = CancellationToken::new();
    let mut stopped = pin!(source(owned).with_cancellation(&token).map_stop(map));
    assert_eq!(poll(stopped.as_mut()), Poll::Ready(Some(Ok(0))));
    token.cancel();
    assert_eq!(poll(stopped.as_mut()), Poll::Ready(Some(Err(()))));
    assert_eq!(poll(stopped.as_mut()), Poll::Ready(None));
    assert_eq!(calls.get(), 1);
}

#[test]
fn a_panic_where_the_error_is_made_passes_through_once() {
    let token = CancellationToken::new();
    token.cancel();
    let mut stream = stream::pending::<()>()
        .with_cancellation(&token)
        .map_stop(|_| -> io::Error { panic!("no error") });
    assert_eq!(panic_of(|| poll(Pin::new(&mut stream))), "no error");
    assert!(matches!(poll(Pin::new(&mut stream)), Poll::Ready(None)));
    assert!(stream.stop_reason().is_some());
}

/// Like in an associated type of tonic.
#[test]
fn a_function_pointer_gives_the_stream_a_name() {
    type Body = TryWithCancellation<
        stream::Pending<Result<u8, Status>>,
        signal::TokenSignal,
        MapStop<fn(StopReason) -> Status>,
    >;
    let token = CancellationToken::new();
    let map: fn(StopReason) -> Status = Status::of;
    let mut body: Body = stream::pending()
        .try_with_cancellation(&token)
        .map_stop(map);
    token.cancel_with("enough");
    assert_eq!(
        poll(Pin::new(&mut body)),
        Poll::Ready(Some(Err(Status("enough".to_owned()))))
    );
}
