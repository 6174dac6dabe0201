//! `drain_for`: graceful, then hard.

use crate::support::panic_of;
use futures::{FutureExt, StreamExt, stream};
use std::{pin::pin, task::Poll, time::Duration};
use stopcock::{
    CancelStreamExt, CancellationToken, StopReason, signal,
    testing::{Harness, Letter, Stoppable},
};
use tokio::time::Instant;

const SECOND: Duration = Duration::from_secs(1);
const NANOSECOND: Duration = Duration::from_nanos(1);

fn harness(script: &str) -> Harness<impl Stoppable<Item = char> + use<>> {
    Harness::scripted(script, |source, stop| {
        source.take_until_cancelled(stop.token()).drain_for(SECOND)
    })
}

/// One poll, as a letter.
fn poll<S: futures::Stream<Item: Letter>>(harness: &mut Harness<S>) -> char {
    match harness.poll() {
        Poll::Pending => '-',
        Poll::Ready(None) => '|',
        Poll::Ready(Some(item)) => item.letter().unwrap_or('X'),
    }
}

fn polls<S: futures::Stream<Item: Letter>>(harness: &mut Harness<S>, polls: usize) -> String {
    (0..polls).map(|_| poll(harness)).collect()
}

#[test]
fn a_source_that_ends_within_the_time_has_ended_by_itself() {
    let mut harness = harness("a-bc|").with_outcome();
    assert_eq!(poll(&mut harness), 'a');
    harness.stop();
    assert_eq!(polls(&mut harness, 2), "-b");
    harness.advance(SECOND - NANOSECOND);
    assert_eq!(polls(&mut harness, 2), "c|");
    assert!(harness.is_over());
    assert!(matches!(outcome(&harness), Some(None)));
}

/// The latest reason.
fn outcome<S: Stoppable>(harness: &Harness<S>) -> Option<Option<StopReason>> {
    let events = harness.record().events();
    events.iter().rev().find_map(|event| match event {
        stopcock::testing::Event::Seen(view) => {
            view.outcome.as_ref().map(|(_, reason)| reason.clone())
        }
        _ => None,
    })
}

#[test]
fn when_the_time_is_over_it_is_stopped_for_the_reason_of_the_signal() {
    let mut harness = harness("a--b").with_outcome();
    assert_eq!(polls(&mut harness, 2), "a-");
    harness.stop();
    assert_eq!(poll(&mut harness), '-');
    let wakes = harness.wakes();
    harness.advance(SECOND - NANOSECOND);
    assert_eq!(harness.wakes(), wakes);
    harness.advance(NANOSECOND);
    assert_eq!(harness.wakes(), wakes + 1);
    assert_eq!(poll(&mut harness), '|');
    assert!(matches!(
        outcome(&harness),
        Some(Some(StopReason::Cancelled))
    ));
    assert!(harness.record().is_dropped());
}

#[test]
fn the_time_runs_from_the_first_poll_that_saw_the_signal() {
    let mut harness = harness("abcdef|");
    assert_eq!(poll(&mut harness), 'a');
    harness.stop();
    harness.advance(10 * SECOND);
    assert_eq!(poll(&mut harness), 'b');
    harness.advance(SECOND - NANOSECOND);
    assert_eq!(poll(&mut harness), 'c');
    harness.advance(NANOSECOND);
    assert_eq!(poll(&mut harness), '|');
}

#[test]
fn no_time_at_all_is_over_in_the_very_poll_that_sees_the_stop() {
    let mut harness = Harness::scripted("a~", |source, stop| {
        source
            .take_until_cancelled(stop.token())
            .drain_for(Duration::ZERO)
    });
    assert_eq!(polls(&mut harness, 2), "a-");
    // Timers have a precision of a millisecond.
    harness.advance(NANOSECOND);
    harness.stop();
    assert_eq!(poll(&mut harness), '|');
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_no_timer_has_reported_is_seen_on_the_clock() {
    let token = CancellationToken::with_timeout(SECOND);
    let numbers = stream::repeat(1).take_until_cancelled(&token);
    let mut numbers = pin!(numbers.drain_for(Duration::ZERO));
    assert_eq!(numbers.next().await, Some(1));
    // Advances the clock without firing timers.
    assert!(tokio::time::advance(SECOND).now_or_never().is_none());
    let late = (0..100).find(|_| numbers.next().now_or_never() == Some(None));
    assert!(late.is_some());
}

#[test]
fn stopped_before_the_first_poll_it_drains_as_well() {
    let mut harness = harness("ab-c");
    harness.stop();
    assert_eq!(polls(&mut harness, 3), "ab-");
    harness.advance(SECOND);
    assert_eq!(poll(&mut harness), '|');
}

#[test]
fn with_cancellation_reports_the_stop() {
    let mut harness = Harness::scripted("a~", |source, stop| {
        source.with_cancellation(stop.token()).drain_for(SECOND)
    });
    harness.stop();
    assert_eq!(polls(&mut harness, 2), "a-");
    harness.advance(SECOND);
    assert_eq!(polls(&mut harness, 2), "X|");
}

#[test]
fn any_signal_will_do_and_a_deadline_as_well() {
    let mut harness = Harness::scripted("a~", |source, stop| {
        let stopped = signal::when(async move { stop.token().cancelled().await });
        source
            .take_until_cancelled(signal::any(stopped, signal::never()))
            .drain_for(SECOND)
    });
    assert_eq!(polls(&mut harness, 2), "a-");
    harness.stop();
    assert_eq!(harness.wakes(), 1);
    assert_eq!(poll(&mut harness), '-');
    harness.advance(SECOND);
    assert_eq!(poll(&mut harness), '|');

    let mut harness = Harness::scripted("a~", |source, _| {
        source.take_until_timeout(SECOND).drain_for(SECOND)
    });
    assert_eq!(polls(&mut harness, 2), "a-");
    harness.advance(SECOND);
    assert_eq!(poll(&mut harness), '-');
    harness.advance(SECOND);
    assert_eq!(poll(&mut harness), '|');
}

#[test]
fn a_time_that_no_clock_can_count_to_is_for_ever() {
    let mut harness = Harness::scripted("a-b|", |source, stop| {
        source
            .take_until_cancelled(stop.token())
            .drain_for(Duration::MAX)
    });
    harness.stop();
    assert_eq!(polls(&mut harness, 2), "a-");
    harness.advance(365 * 24 * 3600 * SECOND);
    assert_eq!(polls(&mut harness, 2), "b|");
}

#[tokio::test(start_paused = true)]
async fn a_source_that_is_always_ready_is_stopped_when_the_time_is_over() {
    for pace in [Duration::from_micros(100), 100 * Duration::from_millis(1)] {
        let late = late_after(1000, pace).await;
        assert!(late <= pace + Duration::from_millis(1), "{late:?} late");
    }
}

/// By how much more than a second the end comes, after this number of items at a steady pace.
async fn late_after(items: usize, pace: Duration) -> Duration {
    let token = CancellationToken::new();
    let source = stream::repeat_with(|| crate::with_deadline::tick(pace));
    let mut stream = pin!(source.take_until_cancelled(&token).drain_for(SECOND));
    for _ in 0..items {
        stream.next().await;
    }
    token.cancel();
    let start = Instant::now();
    while stream.next().await.is_some() {}
    start.elapsed() - SECOND
}

#[tokio::test(start_paused = true)]
async fn the_pace_of_items_before_the_grace_period_does_not_count_after_a_yield() {
    let pace = Duration::from_millis(100);
    for items in 1015..=1025 {
        let late = late_after(items, pace).await;
        let most = pace + Duration::from_millis(1);
        assert!(late <= most, "stopped after {items} items, {late:?} late");
    }
}

#[tokio::test(start_paused = true)]
async fn a_full_channel_is_drained_although_the_budget_makes_it_pending() {
    let (sender, receiver) = tokio::sync::mpsc::unbounded_channel();
    for n in 0..10_000 {
        sender.send(n).unwrap();
    }
    let receiver = tokio_stream::wrappers::UnboundedReceiverStream::new(receiver);
    let token = CancellationToken::new();
    let items = receiver.take_until_cancelled(&token).drain_for(SECOND);
    token.cancel();
    drop(sender);
    assert_eq!(items.count().await, 10_000);
}

#[test]
fn it_counts_for_settling_while_it_drains() {
    let token = CancellationToken::new();
    let mut harness = Harness::new(|_| {
        stream::repeat('a')
            .take_until_cancelled(&token)
            .drain_for(SECOND)
    });
    token.cancel();
    assert!(harness.poll().is_ready());
    assert!(token.settled().now_or_never().is_none());
    harness.advance(SECOND);
    assert!(matches!(harness.poll(), Poll::Ready(None)));
    assert!(token.settled().now_or_never().is_some());
}

#[test]
fn outside_a_runtime_the_first_poll_panics_with_the_way_out() {
    let token = CancellationToken::new();
    let mut stream = stream::repeat('a')
        .take_until_cancelled(&token)
        .drain_for(SECOND);
    let reported = panic_of(|| stream.next().now_or_never());
    assert!(
        reported.contains("context of a Tokio 1.x runtime"),
        "{reported}"
    );
}
