//! `drop_on_cancel`: the thread that cancels drops the source.

use crate::support::{Wakes, panic_of, poll};
use futures::{FutureExt, Stream, StreamExt, stream};
use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::{Context, Poll, Waker},
    thread,
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, CancellationToken, StopReason, generator, signal,
    testing::{DropProbe, Moment, Record, Source},
};

/// A source by hand, and its record.
fn source(script: &str) -> (Source, Record) {
    let source = Source::new(script).by_hand();
    let record = source.record();
    (source, record)
}

/// Runs `f` when it is dropped, and is always pending.
struct AtDrop<F: FnMut()>(F);

impl<F: FnMut() + Unpin> Stream for AtDrop<F> {
    type Item = char;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<char>> {
        Poll::Pending
    }
}

impl<F: FnMut()> Drop for AtDrop<F> {
    fn drop(&mut self) {
        (self.0)();
    }
}

#[test]
fn the_canceller_drops_the_source_without_a_poll() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(Some('a')));
    token.cancel_with("enough");
    assert!(record.is_dropped());
    // Until a poll has reported it.
    assert!(stream.stop_reason().is_none());
    assert_eq!(stream.size_hint(), (0, Some(0)));
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert_eq!(stream.stop_reason().unwrap().to_string(), "enough");
}

#[test]
fn with_an_error_it_reports_the_stop_although_its_source_was_dropped_before() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let mut stream = source
        .with_cancellation(token.child_token())
        .drop_on_cancel();
    token.cancel_with("enough");
    assert!(record.is_dropped());
    assert_eq!(record.polls(), 0);
    assert_eq!(stream.size_hint(), (0, Some(1)));
    let Poll::Ready(Some(Err(reason))) = poll(Pin::new(&mut stream)) else {
        panic!("the error of the stop comes first");
    };
    assert_eq!(reason.to_string(), "enough");
    assert_eq!(stream.size_hint(), (0, Some(0)));
    assert!(matches!(poll(Pin::new(&mut stream)), Poll::Ready(None)));
}

/// The chunks of a response, and the connection that their producer holds.
fn chunks() -> (impl Stream<Item = io::Result<char>> + Send, Record) {
    let connection = DropProbe::new();
    let record = connection.record();
    let chunks = generator(signal::never(), async move |mut y| {
        let _connection = connection;
        loop {
            y.yield_item(Ok('a')).await;
        }
    });
    (chunks, record)
}

#[test]
fn a_body_that_nothing_polls_is_dropped_by_the_cancel_and_has_settled() {
    let server = CancellationToken::new();
    let (chunks, connection) = chunks();
    let mut body = chunks
        .try_with_cancellation(server.child_token())
        .drop_on_cancel();
    assert!(poll(Pin::new(&mut body)).is_ready());
    // The window is full, and the client does not read.
    let settled = server.cancel_and_settle();
    assert!(connection.is_dropped());
    assert!(settled.now_or_never().is_some());
    let Poll::Ready(Some(Err(error))) = poll(Pin::new(&mut body)) else {
        panic!("a client that reads again sees that the response is not complete");
    };
    assert_eq!(error.to_string(), "cancelled");
    assert!(matches!(poll(Pin::new(&mut body)), Poll::Ready(None)));
}

#[test]
fn without_it_a_body_that_is_not_polled_keeps_its_source_and_settled_waits() {
    let server = CancellationToken::new();
    let (chunks, connection) = chunks();
    let mut body = Box::pin(chunks.try_with_cancellation(server.child_token()));
    assert!(poll(body.as_mut()).is_ready());
    let mut settled = server.cancel_and_settle();
    assert!(!connection.is_dropped());
    assert!((&mut settled).now_or_never().is_none());
    drop(body);
    assert!(connection.is_dropped());
    assert!(settled.now_or_never().is_some());
}

#[test]
fn cancelled_before_the_call_it_drops_its_source_as_it_is_made() {
    let token = CancellationToken::new();
    token.cancel();
    let (source, record) = source("ab|");
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert_eq!(record.polls(), 0);
}

#[test]
fn a_poll_that_takes_an_item_yields_it_and_drops_the_source_as_it_returns() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let source = Source::new("ab|");
    let record = source.record();
    let seen = record.clone();
    let source = source.with_hook(move |moment| {
        if moment == Moment::Poll(0) {
            cancelled.cancel();
            assert!(!seen.is_dropped(), "not while it is polled");
        }
    });
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(Some('a')));
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
}

#[test]
fn a_poll_that_finds_nothing_ends_it_at_once() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let source = Source::new("~").with_hook(move |moment| {
        if moment == Moment::Poll(0) {
            cancelled.cancel();
        }
    });
    let record = source.record();
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(record.is_dropped());
}

#[test]
fn a_pending_stream_is_woken_once() {
    let token = CancellationToken::new();
    let mut stream = stream::pending::<u8>()
        .take_until_cancelled(&token)
        .drop_on_cancel();
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    token.cancel();
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn while_another_thread_polls_the_canceller_does_not_wait() {
    let token = CancellationToken::new();
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let probe = DropProbe::new();
    let record = probe.record();
    let source = stream::once(async move {
        let _probe = probe;
        entered.send(()).unwrap();
        may_go_on.recv().unwrap();
        'a'
    });
    let mut stream = source
        .chain(stream::pending())
        .take_until_cancelled(&token)
        .drop_on_cancel();
    let consumer = thread::spawn(move || {
        let polled = poll(Pin::new(&mut stream));
        (polled, stream)
    });
    has_entered.recv().unwrap();
    token.cancel();
    assert!(!record.is_dropped(), "it is being polled");
    go_on.send(()).unwrap();
    let (polled, mut stream) = consumer.join().unwrap();
    assert_eq!(polled, Poll::Ready(Some('a')));
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
}

/// A source whose drop blocks until the test continues it, and whether a thread is in that drop.
fn slow_to_drop() -> (
    impl Stream<Item = char> + Send + Unpin,
    mpsc::Receiver<()>,
    mpsc::Sender<()>,
) {
    let (entered, has_entered) = mpsc::channel();
    let (go_on, may_go_on) = mpsc::channel::<()>();
    let source = AtDrop(move || {
        entered.send(()).unwrap();
        may_go_on.recv().unwrap();
    });
    (source, has_entered, go_on)
}

#[test]
fn while_the_canceller_drops_the_source_polls_are_pending_and_woken_after() {
    let token = CancellationToken::new();
    let (source, has_entered, go_on) = slow_to_drop();
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    let canceller = thread::spawn(move || token.cancel());
    has_entered.recv().unwrap();

    let (earlier, latest) = (Wakes::new(), Wakes::new());
    assert!(earlier.poll(Pin::new(&mut stream)).is_pending());
    assert!(latest.poll(Pin::new(&mut stream)).is_pending());
    assert_eq!(stream.size_hint(), (0, None));
    assert!(stream.stop_reason().is_none());
    assert_eq!(latest.count(), 0);
    go_on.send(()).unwrap();
    canceller.join().unwrap();
    assert_eq!((earlier.count(), latest.count()), (0, 1));
    assert_eq!(latest.poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(stream.stop_reason().is_some());
    assert_eq!(Arc::strong_count(&latest), 1);
}

#[test]
fn while_the_canceller_drops_the_source_dropping_the_stream_does_not_wait() {
    let token = CancellationToken::new();
    let (source, has_entered, go_on) = slow_to_drop();
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    let canceller = thread::spawn(move || token.cancel());
    has_entered.recv().unwrap();
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    drop(stream);
    assert_eq!(Arc::strong_count(&wakes), 1);
    go_on.send(()).unwrap();
    canceller.join().unwrap();
    assert_eq!(wakes.count(), 0);
}

#[test]
fn a_panic_in_the_drop_of_one_source_affects_no_other() {
    let token = CancellationToken::new();
    let hurts = || {
        AtDrop(|| panic!("as it was dropped"))
            .take_until_cancelled(&token)
            .drop_on_cancel()
    };
    let (source, record) = source("ab|");
    let (mut first, between, mut last) = (
        hurts(),
        source.take_until_cancelled(&token).drop_on_cancel(),
        hurts(),
    );
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut first)).is_pending());
    assert!(wakes.poll(Pin::new(&mut last)).is_pending());
    // Like with any callback: out of the cancel call, once, after all others have run.
    assert_eq!(panic_of(|| token.cancel()), "as it was dropped");
    assert!(record.is_dropped());
    assert_eq!(wakes.count(), 2);
    assert_eq!(poll(Pin::new(&mut first)), Poll::Ready(None));
    assert_eq!(poll(Pin::new(&mut last)), Poll::Ready(None));
    assert!(first.stop_reason().is_some());
    drop(between);
}

#[test]
fn a_panic_in_the_drop_of_a_polled_source_passes_through_the_poll() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let source = Source::new("ab|").with_hook(move |moment| match moment {
        Moment::Poll(_) => cancelled.cancel(),
        _ => panic!("as it was dropped"),
    });
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert_eq!(
        panic_of(|| poll(Pin::new(&mut stream))),
        "as it was dropped"
    );
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    drop(stream);
}

#[test]
fn a_source_that_panics_while_it_is_cancelled_is_dropped_as_well() {
    let token = CancellationToken::new();
    let cancelled = token.clone();
    let source = Source::new("!").with_hook(move |moment| {
        if moment == Moment::Poll(0) {
            cancelled.cancel();
        }
    });
    let record = source.record();
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert!(catch_unwind(AssertUnwindSafe(|| poll(Pin::new(&mut stream)))).is_err());
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(stream.stop_reason().is_none(), "it had panicked before");
}

#[test]
fn a_stream_whose_source_has_panicked_is_over_and_the_canceller_drops_what_is_left() {
    let token = CancellationToken::new();
    let (source, record) = source("!");
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    assert!(catch_unwind(AssertUnwindSafe(|| poll(Pin::new(&mut stream)))).is_err());
    assert!(futures::stream::FusedStream::is_terminated(&stream));
    assert!(!record.is_dropped());
    token.cancel();
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(stream.stop_reason().is_none());
}

#[test]
fn a_guard_that_cancels_while_a_panic_unwinds_drops_the_source() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let _stream = source.take_until_cancelled(&token).drop_on_cancel();
    let guard = token.drop_guard();
    let unwound = catch_unwind(AssertUnwindSafe(move || {
        let _guard = guard;
        panic!("elsewhere");
    }));
    assert!(unwound.is_err());
    assert!(record.is_dropped());
}

#[test]
fn refinements_come_in_any_order() {
    fn check(mut stream: impl Stream + Unpin) {
        let polled = [(); 4].map(|()| poll(Pin::new(&mut stream)).is_ready());
        assert_eq!(polled, [true, false, true, false]);
    }
    let token = CancellationToken::new();
    let source = || stream::repeat('a');
    let silent = || source().take_until_cancelled(&token);
    let with_error = || source().with_cancellation(&token);
    let among_errors = || source().map(io::Result::Ok).try_with_cancellation(&token);
    check(silent().yield_every(1).drop_on_cancel());
    check(silent().drop_on_cancel().yield_every(1));
    check(with_error().yield_every(1).drop_on_cancel());
    check(with_error().drop_on_cancel().yield_every(1));
    check(among_errors().yield_every(1).drop_on_cancel());
    check(among_errors().drop_on_cancel().yield_every(1));
}

#[test]
fn a_stream_that_had_ended_before_keeps_its_outcome() {
    let token = CancellationToken::new();
    let mut ended = stream::empty::<u8>().take_until_cancelled(&token);
    assert_eq!(poll(Pin::new(&mut ended)), Poll::Ready(None));
    let mut ended = ended.drop_on_cancel();
    let mut stopped = stream::empty::<u8>().take_until_cancelled(&token);
    token.cancel();
    assert_eq!(poll(Pin::new(&mut stopped)), Poll::Ready(None));
    let mut stopped = stopped.drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut ended)), Poll::Ready(None));
    assert_eq!(poll(Pin::new(&mut stopped)), Poll::Ready(None));
    assert!(ended.stop_reason().is_none());
    assert!(stopped.stop_reason().is_some());
}

#[test]
fn drop_on_cancel_applies_to_a_stream_that_was_polled_before() {
    let token = CancellationToken::new();
    let (source, record) = source("abc|");
    let mut stream = source.take_until_cancelled(&token);
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(Some('a')));
    let mut stream = stream.drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(Some('b')));
    token.cancel();
    assert!(record.is_dropped());
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
}

#[test]
fn after_its_end_it_is_not_listed_in_the_token() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut stream = stream::iter(['a'])
        .take_until_cancelled(&token)
        .drop_on_cancel();
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(Some('a')));
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(None));
    token.cancel();
    assert!(stream.stop_reason().is_none());
    assert_eq!(Arc::strong_count(&wakes), 1);
}

#[test]
fn it_has_settled_when_the_cancel_returns_without_a_poll() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let _stream = source
        .take_until_cancelled(token.child_token())
        .drop_on_cancel();
    let mut settled = token.cancel_and_settle();
    assert!(record.is_dropped());
    let polled = Future::poll(
        Pin::new(&mut settled),
        &mut Context::from_waker(Waker::noop()),
    );
    assert!(polled.is_ready());
}

#[test]
fn the_drop_of_its_source_may_use_the_token_in_any_way() {
    let token = CancellationToken::new();
    let inner = token.clone();
    let ran = Arc::new(AtomicBool::new(false));
    let has_run = Arc::clone(&ran);
    let source = AtDrop(move || {
        assert!(inner.is_cancelled());
        assert!(!inner.cancel_with("again"));
        assert!(inner.child_token().is_cancelled());
        let nested = stream::pending::<char>()
            .take_until_cancelled(&inner)
            .drop_on_cancel();
        drop(nested);
        has_run.store(true, SeqCst);
    });
    let _stream = source.take_until_cancelled(&token).drop_on_cancel();
    token.cancel();
    assert!(ran.load(SeqCst));
}

#[test]
fn a_generator_is_dropped_at_its_await_point() {
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let numbers = generator(signal::never(), async move |mut y| {
        let _probe = probe;
        for n in 0.. {
            y.yield_item(n).await;
        }
    });
    let mut stream = numbers.take_until_cancelled(&token).drop_on_cancel();
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(Some(0)));
    token.cancel();
    assert!(record.is_dropped());
}

#[test]
fn dropping_it_drops_the_source_at_once_and_does_not_cancel_the_token() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let stream = source.take_until_cancelled(&token).drop_on_cancel();
    drop(stream);
    assert!(record.is_dropped());
    assert!(!token.is_cancelled());
}

#[test]
fn dropped_during_a_cancel_it_drops_its_source_at_once() {
    let token = CancellationToken::new();
    let (source, record) = source("ab|");
    let stream = Arc::new(Mutex::new(None));
    let its_turn_is_before = {
        let stream = Arc::clone(&stream);
        move |_: &StopReason| {
            drop(stream.lock().unwrap().take());
            assert!(record.is_dropped());
        }
    };
    token.on_cancel(its_turn_is_before).detach();
    *stream.lock().unwrap() = Some(source.take_until_cancelled(&token).drop_on_cancel());
    token.cancel();
}

#[test]
fn of_two_threads_exactly_one_drops_the_source() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 3000 };
    for round in 0..ROUNDS {
        let drops = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&drops);
        let token = CancellationToken::new();
        let source = stream::repeat('a').chain(AtDrop(move || {
            counted.fetch_add(1, SeqCst);
        }));
        let mut stream = source.with_cancellation(&token).drop_on_cancel();
        let canceller = thread::spawn(move || token.cancel());
        let mut reported = 0;
        for _ in 0..round % 40 {
            match poll(Pin::new(&mut stream)) {
                Poll::Ready(Some(Ok('a'))) => assert_eq!(reported, 0),
                Poll::Ready(Some(Ok(_))) => unreachable!(),
                Poll::Ready(Some(Err(reason))) => {
                    assert!(matches!(reason, StopReason::Cancelled));
                    reported += 1;
                }
                Poll::Ready(None) => assert_eq!(reported, 1),
                Poll::Pending => {}
            }
        }
        if round % 2 == 0 {
            drop(stream);
            canceller.join().unwrap();
        } else {
            canceller.join().unwrap();
            assert_eq!(drops.load(SeqCst), 1);
        }
        assert_eq!(drops.load(SeqCst), 1);
    }
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn the_timer_of_a_token_drops_the_source_without_a_poll() {
    use std::time::Duration;

    let token = CancellationToken::with_timeout(Duration::from_secs(1));
    let (source, record) = source("ab|");
    let mut stream = source.take_until_cancelled(&token).drop_on_cancel();
    tokio::time::sleep(Duration::from_millis(999)).await;
    assert!(!record.is_dropped());
    tokio::time::sleep(Duration::from_millis(2)).await;
    assert!(record.is_dropped());
    assert_eq!(stream.next().await, None);
    assert!(matches!(
        stream.stop_reason(),
        Some(StopReason::DeadlineExceeded)
    ));
}
