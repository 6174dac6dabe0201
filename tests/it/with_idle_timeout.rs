//! `with_idle_timeout`: what counts as idle, and when.

use crate::support::{Hooks, poll};
use futures::{FutureExt, Stream, StreamExt, stream};
use std::{
    cell::Cell,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};
use stopcock::{
    CancelStreamExt, CancelTryStreamExt, StopReason, generator, signal,
    testing::{Harness, Source},
};
use tokio::{runtime::Builder, sync::mpsc, time};
use tokio_stream::wrappers::UnboundedReceiverStream;

const SECOND: Duration = Duration::from_secs(1);
const MILLISECOND: Duration = Duration::from_millis(1);

/// The items in order, `X` for the error.
fn letters(items: Vec<Result<char, StopReason>>) -> String {
    let letter = |item| match item {
        Ok(item) => item,
        Err(StopReason::IdleTimeout) => 'X',
        Err(other) => panic!("{other}"),
    };
    items.into_iter().map(letter).collect()
}

fn harness(script: &str) -> Harness<impl futures::Stream<Item = Result<char, StopReason>>> {
    Harness::scripted(script, |source, _| source.with_idle_timeout(SECOND))
}

#[test]
fn a_source_that_gives_nothing_for_the_whole_time_is_idle_and_not_a_nanosecond_earlier() {
    let mut harness = harness("ab~");
    assert_eq!(letters(harness.run()), "ab");
    harness.advance(SECOND - Duration::from_nanos(1));
    assert_eq!(letters(harness.run()), "");
    harness.advance(Duration::from_nanos(1));
    assert_eq!(letters(harness.run()), "X");
    assert!(harness.is_over());
    assert!(harness.record().is_dropped());
}

#[test]
fn a_poll_is_exact_where_no_timer_is() {
    let timeout = Duration::from_nanos(7);
    let mut harness = Harness::scripted("~", |source, _| source.with_idle_timeout(timeout));
    assert!(harness.poll().is_pending());
    harness.advance(timeout - Duration::from_nanos(1));
    assert!(harness.poll().is_pending());
    harness.advance(Duration::from_nanos(1));
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
}

#[test]
fn the_time_runs_from_the_start_as_well() {
    let mut harness = harness("~");
    assert_eq!(letters(harness.run()), "");
    harness.advance(SECOND);
    assert_eq!(letters(harness.run()), "X");
}

#[test]
fn it_does_not_run_before_the_first_poll_nor_between_two_items() {
    let mut harness = harness("abc|");
    for _ in 0..3 {
        harness.advance(2 * SECOND);
        assert!(matches!(harness.poll(), Poll::Ready(Some(Ok(_)))));
    }
    harness.advance(2 * SECOND);
    assert!(matches!(harness.poll(), Poll::Ready(None)));
}

#[test]
fn an_item_that_is_ready_when_the_time_is_over_wins() {
    let mut harness = harness("-a~");
    assert!(harness.poll().is_pending());
    harness.advance(2 * SECOND);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Ok('a')))));
    // From here on the time starts again.
    assert!(harness.poll().is_pending());
    harness.advance(SECOND / 2);
    assert!(harness.poll().is_pending());
    harness.advance(SECOND / 2);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
}

#[test]
fn each_item_sets_it_back_and_it_does_not_drift() {
    let mut harness = harness("-a-b-c-d-e~");
    for _ in 0..5 {
        assert!(harness.poll().is_pending());
        harness.advance(9 * SECOND / 10);
        // The timer was set for an earlier item: that it fires changes nothing.
        assert!(harness.poll().map(|item| item.unwrap().is_ok()).is_ready());
    }
    assert!(harness.poll().is_pending());
    harness.advance(SECOND - Duration::from_nanos(1));
    assert!(harness.poll().is_pending());
    harness.advance(Duration::from_nanos(1));
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
}

#[test]
fn a_pending_stream_is_woken_when_the_time_is_over_whatever_waker_it_has() {
    let mut harness = harness("-a-~");
    assert!(harness.poll().is_pending());
    harness.advance(SECOND / 2);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Ok('a')))));
    assert!(harness.poll().is_pending());
    harness.change_waker();
    assert!(harness.poll().is_pending());
    // The first timer fires, the second one is set.
    harness.advance(SECOND / 2);
    let wakes = harness.wakes();
    assert!(harness.poll().is_pending());
    harness.advance(SECOND / 2);
    assert!(harness.wakes() > wakes);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
}

/// Only the clock decides that the time is over: the timer may be for an earlier time, and may fire at any time.
#[test]
fn a_stale_timer_that_fires_as_it_gets_a_new_waker_is_no_idle_timeout() {
    let runtime = Builder::new_current_thread()
        .enable_time()
        .start_paused(true)
        .build()
        .unwrap();
    let runtime = Arc::new(runtime);
    let _context = runtime.enter();
    let pass = |time| runtime.block_on(time::advance(time));
    let next = Cell::new(None);
    // A source that clones no waker.
    let source = stream::poll_fn(|_| next.take().map_or(Poll::Pending, Poll::Ready));
    let mut stream = pin!(source.with_idle_timeout(SECOND));
    assert!(poll(stream.as_mut()).is_pending());
    pass(SECOND / 2);
    next.set(Some(Some('a')));
    assert!(matches!(poll(stream.as_mut()), Poll::Ready(Some(Ok('a')))));

    let hooks = Hooks::new();
    let (is_off, is_woken) = (Arc::<AtomicBool>::default(), Arc::<AtomicBool>::default());
    hooks.on_clone.set({
        let (runtime, is_off) = (Arc::clone(&runtime), Arc::clone(&is_off));
        move || {
            runtime.block_on(time::advance(SECOND / 2 + MILLISECOND));
            is_off.store(true, SeqCst);
        }
    });
    let waker = hooks.waker();
    let polled = stream.as_mut().poll_next(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    assert!(is_off.load(SeqCst));
    // The wake-up for the time that counts is not lost either.
    hooks.on_wake.set({
        let is_woken = Arc::clone(&is_woken);
        move || is_woken.store(true, SeqCst)
    });
    pass(SECOND / 2 - MILLISECOND);
    assert!(is_woken.load(SeqCst));
    let polled = poll(stream.as_mut());
    assert!(matches!(
        polled,
        Poll::Ready(Some(Err(StopReason::IdleTimeout)))
    ));
}

#[test]
fn a_timeout_that_no_clock_can_count_to_is_never_over() {
    let mut harness = Harness::scripted("-a~", |source, _| source.with_idle_timeout(Duration::MAX));
    assert!(harness.poll().is_pending());
    harness.advance(365 * 24 * 3600 * SECOND);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Ok('a')))));
    assert!(harness.poll().is_pending());
}

#[test]
fn none_at_all_means_that_a_pending_is_the_end() {
    let mut harness =
        Harness::scripted("ab-c", |source, _| source.with_idle_timeout(Duration::ZERO));
    assert_eq!(letters(harness.run()), "abX");
}

#[tokio::test(start_paused = true)]
async fn a_pending_for_a_spent_budget_does_not_count() {
    let (sender, receiver) = mpsc::unbounded_channel();
    for n in 0..1000 {
        sender.send(n).unwrap();
    }
    let receiver = UnboundedReceiverStream::new(receiver);
    // A timeout of zero: the first pending that counts ends the stream.
    let mut stream = pin!(receiver.with_idle_timeout(Duration::ZERO));
    let mut items = 0;
    while let Some(Ok(_)) = stream.next().await {
        items += 1;
    }
    assert_eq!(items, 1000);
}

#[tokio::test(start_paused = true)]
async fn a_budget_that_a_neighbour_spends_does_not_count_when_the_time_is_over_either() {
    let (chat, mut chatty) = mpsc::unbounded_channel();
    let (sender, receiver) = mpsc::unbounded_channel();
    let task = tokio::spawn(async move {
        let mut quiet = pin!(UnboundedReceiverStream::new(receiver).with_idle_timeout(SECOND));
        let chatter = async { while chatty.recv().await.is_some() {} };
        futures::join!(chatter, quiet.next()).1
    });
    time::sleep(SECOND / 2).await;
    sender.send(7).unwrap();
    for n in 0..500 {
        chat.send(n).unwrap();
    }
    // The task is polled when the time is over, and the item is ready.
    time::advance(SECOND / 2).await;
    drop(chat);
    assert!(matches!(task.await.unwrap(), Some(Ok(7))));
}

const NANOSECOND: Duration = Duration::from_nanos(1);

/// Whether a stream that is polled this late after the time was over ends as idle.
fn is_idle(timeout: Duration, late: Duration) -> bool {
    let mut harness = Harness::scripted("~", |source, _| source.with_idle_timeout(timeout));
    assert!(harness.poll().is_pending());
    harness.advance(timeout + late);
    harness.poll().is_ready()
}

#[test]
fn a_poll_that_is_late_by_more_than_a_sixteenth_and_ten_milliseconds_starts_the_time_anew() {
    let sixteenth = SECOND / 16;
    assert!(is_idle(SECOND, sixteenth));
    assert!(!is_idle(SECOND, sixteenth + NANOSECOND));
    let short = 32 * MILLISECOND;
    assert!(is_idle(short, 10 * MILLISECOND));
    assert!(!is_idle(short, 10 * MILLISECOND + NANOSECOND));
}

#[test]
fn the_time_of_a_consumer_that_was_away_is_whole_again_and_wakes() {
    let mut harness = harness("~");
    assert!(harness.poll().is_pending());
    harness.advance(5 * SECOND);
    assert!(harness.poll().is_pending());
    harness.advance(SECOND - NANOSECOND);
    assert!(harness.poll().is_pending());
    let wakes = harness.wakes();
    harness.advance(NANOSECOND);
    assert!(harness.wakes() > wakes);
    assert!(matches!(harness.poll(), Poll::Ready(Some(Err(_)))));
}

#[test]
fn a_second_expiry_counts_however_late_it_is_seen() {
    let mut first = harness("~");
    assert!(first.poll().is_pending());
    first.advance(5 * SECOND);
    assert!(first.poll().is_pending());
    first.advance(5 * SECOND);
    assert!(matches!(first.poll(), Poll::Ready(Some(Err(_)))));

    // An item between the two starts the time again.
    let mut with_an_item = harness("--a~");
    let away = |harness: &mut Harness<_>| {
        assert!(Harness::poll(harness).is_pending());
        harness.advance(5 * SECOND);
        assert!(harness.poll().is_pending());
    };
    away(&mut with_an_item);
    assert!(matches!(with_an_item.poll(), Poll::Ready(Some(Ok('a')))));
    away(&mut with_an_item);
}

#[tokio::test(start_paused = true)]
async fn an_arm_of_select_that_takes_its_time_does_not_make_a_lazy_source_idle() {
    let feed = generator(signal::never(), async |mut y| {
        loop {
            // In two steps, of which each is polled by its consumer.
            time::sleep(SECOND / 5).await;
            time::sleep(SECOND / 5).await;
            y.yield_item("row").await;
        }
    });
    let mut feed = pin!(feed.with_idle_timeout(SECOND));
    let mut slow = pin!(time::sleep(SECOND / 10));
    let mut is_done = false;
    for _ in 0..2 {
        let row = loop {
            tokio::select! {
                row = feed.next() => break row,
                () = &mut slow, if !is_done => {
                    is_done = true;
                    time::sleep(10 * SECOND).await;
                }
            }
        };
        assert!(matches!(row, Some(Ok("row"))), "{row:?}");
    }
}

#[test]
fn the_error_is_the_streams_own_in_the_other_form() {
    let mut harness = Harness::new(|_| {
        let source = Source::new("a~").map(std::io::Result::Ok);
        source.try_with_idle_timeout(SECOND)
    });
    assert_eq!(harness.run().len(), 1);
    harness.advance(SECOND);
    let error = harness.run().pop().unwrap().unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::TimedOut);
    assert!(harness.is_over());
}

#[test]
fn outside_a_runtime_it_panics_with_the_way_out_unless_the_source_is_ready() {
    let mut ready = stream::iter([1]).with_idle_timeout(SECOND);
    assert!(matches!(ready.next().now_or_never(), Some(Some(Ok(1)))));
    assert!(matches!(ready.next().now_or_never(), Some(None)));
    let mut pending = stream::pending::<u8>().with_idle_timeout(SECOND);
    let reported = crate::support::panic_of(|| pending.next().now_or_never());
    assert!(
        reported.contains("context of a Tokio 1.x runtime"),
        "{reported}"
    );
}
