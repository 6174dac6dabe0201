//! The exact behaviour of each kind of stream, where the laws leave it a choice.

use crate::support::panic_of;
use futures::{StreamExt, executor::block_on, future::join, stream};
use std::{panic::resume_unwind, task::Poll};
use stopcock::{
    CancelStreamExt, CancellationToken, Yielder, generator, signal,
    testing::{Event, Harness, Letter, Moment, Source, Stop, Stoppable, View},
};

/// A stream under a child token, whose root the test has.
fn of_a_token(source: Source, stop: Stop) -> impl Stoppable<Item = char> {
    source.take_until_cancelled(stop.token().child_token().child_token())
}

fn of_a_future(source: Source, stop: Stop) -> impl Stoppable<Item = char> {
    source.take_until_cancelled(signal::when(async move { stop.token().cancelled().await }))
}

fn of_a_body(mut source: Source, stop: Stop) -> impl Stoppable<Item = char> {
    generator(stop.token(), async move |mut y: Yielder<'_, char>| {
        while let Some(item) = source.next().await {
            y.yield_item(item).await;
        }
    })
}

#[cfg(feature = "tokio")]
fn of_a_deadline(source: Source, stop: Stop) -> impl Stoppable<Item: Letter> {
    source.with_deadline(stop.deadline())
}

#[cfg(feature = "tokio")]
fn of_a_token_with_a_deadline(source: Source, stop: Stop) -> impl Stoppable<Item = char> {
    let token = CancellationToken::with_deadline(stop.deadline());
    source.take_until_cancelled(token.child_token())
}

macro_rules! check_each {
    ($check:path) => {
        $check("a token", of_a_token);
        $check("a future", of_a_future);
        $check("a body", of_a_body);
        #[cfg(feature = "tokio")]
        $check("a deadline", of_a_deadline);
        #[cfg(feature = "tokio")]
        $check("a token with a deadline", of_a_token_with_a_deadline);
    };
}

/// One poll: an item as its letter, `X` for the error of a stop, `|` for the end.
fn poll<S>(harness: &mut Harness<S>) -> char
where
    S: Stoppable<Item: Letter>,
{
    match harness.poll() {
        Poll::Pending => '-',
        Poll::Ready(None) => '|',
        Poll::Ready(Some(item)) => item.letter().unwrap_or('X'),
    }
}

/// The latest view of the stream.
fn last_view<S: Stoppable>(harness: &Harness<S>) -> View {
    let events = harness.record().events().into_iter();
    let views = events.filter_map(|event| match event {
        Event::Seen(view) => Some(view),
        _ => None,
    });
    views.last().unwrap()
}

fn check_over<S: Stoppable>(kind: &str, harness: &Harness<S>, is_stopped: bool) {
    let view = last_view(harness);
    let (is_terminated, reason) = view.outcome.unwrap();
    assert_eq!(
        (is_terminated, reason.is_some(), view.size_hint),
        (true, is_stopped, (0, Some(0))),
        "{kind}"
    );
}

fn check_woken_once<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    let mut harness = Harness::scripted("-----", wrap);
    for _ in 0..2 {
        assert_eq!([(); 2].map(|()| poll(&mut harness)), ['-'; 2], "{kind}");
        harness.change_waker();
    }
    assert_eq!(poll(&mut harness), '-', "{kind}");
    harness.stop();
    assert_eq!(harness.wakes(), 1, "{kind}");
    let events = harness.record().events();
    let is_woken = |event: &&Event| matches!(event, Event::Woken { .. });
    assert_eq!(events.iter().filter(is_woken).count(), 1, "{kind}");
}

#[test]
fn a_stop_wakes_the_latest_waker_once_and_no_earlier_one() {
    check_each!(check_woken_once);
}

fn check_stopped_while_pending<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    let mut harness = Harness::scripted("a-b|", |source, stop| {
        let fires = stop.clone();
        let source = source.with_hook(move |moment| {
            if moment == Moment::Poll(1) {
                fires.fire();
            }
        });
        wrap(source, stop)
    });
    assert_eq!([(); 2].map(|()| poll(&mut harness)), ['a', '|'], "{kind}");
}

#[test]
fn a_cancel_during_a_pending_poll_ends_that_very_poll() {
    check_stopped_while_pending("a token", of_a_token);
    check_stopped_while_pending("a future", of_a_future);
    check_stopped_while_pending("a body", of_a_body);
}

fn check_rows<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    let script = "a".repeat(1024) + "-" + &"a".repeat(3000);
    let mut harness = Harness::scripted(&script, wrap);
    let mut rows = vec![0];
    let mut wakes = Vec::new();
    for _ in 0..3000 {
        let before = harness.wakes();
        match poll(&mut harness) {
            'a' => *rows.last_mut().unwrap() += 1,
            polled => {
                assert_eq!(polled, '-', "{kind}");
                rows.push(0);
                wakes.push(harness.wakes() - before);
            }
        }
    }
    // The run before the pending poll of the script is full, so the stream yields there as well.
    assert_eq!(rows, [1024, 0, 1024, 949], "{kind}");
    assert_eq!(wakes, [1, 0, 1], "{kind}");
    harness.stop();
    assert!(matches!(poll(&mut harness), 'X' | '|'), "{kind}");
}

#[test]
fn an_always_ready_source_yields_after_1024_items_and_wakes_itself_once() {
    check_each!(check_rows);
}

#[test]
fn a_sibling_on_the_same_thread_stops_an_always_ready_source() {
    // Without a runtime: two futures that are polled alternately.
    let token = CancellationToken::new();
    let endless = stream::repeat('a').take_until_cancelled(token.child_token());
    block_on(join(endless.count(), async { token.cancel() }));

    let token = CancellationToken::new();
    let stop = signal::when(token.cancelled());
    let endless = stream::repeat('a').take_until_cancelled(stop);
    block_on(join(endless.count(), async { token.cancel() }));
}

fn check_panic<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    let mut harness = Harness::scripted("a!", wrap).with_outcome();
    assert_eq!(poll(&mut harness), 'a', "{kind}");
    let message = panic_of(|| poll(&mut harness));
    assert_eq!(message, "the script says so", "{kind}");
    check_over(kind, &harness, false);
    // It comes too late to give the reason.
    harness.stop();
    assert_eq!(poll(&mut harness), '|', "{kind}");
    check_over(kind, &harness, false);
}

#[test]
fn a_stream_is_over_at_once_when_its_source_panics() {
    check_each!(check_panic);
}

fn panics_in_drop(source: Source) -> Source {
    source.with_hook(|moment| {
        if moment == Moment::Drop {
            resume_unwind(Box::new("dropped as the script says"));
        }
    })
}

fn check_panic_in_drop<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    for is_stopped in [false, true] {
        let make = |source, stop| wrap(panics_in_drop(source), stop);
        let mut harness = Harness::scripted("-|", make).with_outcome();
        assert_eq!(poll(&mut harness), '-', "{kind}");
        if is_stopped {
            harness.stop();
        }
        let message = panic_of(|| poll(&mut harness));
        assert_eq!(message, "dropped as the script says", "{kind}");
        check_over(kind, &harness, is_stopped);
        assert_eq!(poll(&mut harness), '|', "{kind}");
        check_over(kind, &harness, is_stopped);
    }
}

#[test]
fn a_stream_is_over_at_once_when_its_source_panics_in_its_drop() {
    check_each!(check_panic_in_drop);
}

fn check_panic_in_poll_and_drop<S>(kind: &str, wrap: fn(Source, Stop) -> S)
where
    S: Stoppable<Item: Letter>,
{
    let make = |source, stop| wrap(panics_in_drop(source), stop);
    let mut harness = Harness::scripted("!", make).with_outcome();
    let message = panic_of(|| poll(&mut harness));
    assert_eq!(message, "the script says so", "{kind}");
    check_over(kind, &harness, false);
    let message = panic_of(|| poll(&mut harness));
    assert_eq!(message, "dropped as the script says", "{kind}");
    assert_eq!(poll(&mut harness), '|', "{kind}");
}

/// In a generator the body, and the source in it, is dropped while the first panic unwinds: so the language defines it.
#[test]
fn a_source_that_panics_in_its_poll_and_in_its_drop_does_so_one_after_the_other() {
    check_panic_in_poll_and_drop("a token", of_a_token);
    check_panic_in_poll_and_drop("a future", of_a_future);
    #[cfg(feature = "tokio")]
    check_panic_in_poll_and_drop("a deadline", of_a_deadline);
}
