//! The laws D2 to D7, and S1 to S13 if the stop is a point in time. The clock is tokio's, paused.

use crate::support::{Wakes, panic_of, poll};
use futures::{Stream, StreamExt, stream};
use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use stopcock::{CancelStreamExt, StopReason, testing::Source};
use tokio::time::{Instant, advance};

const NANOSECOND: Duration = Duration::from_nanos(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);

/// Advances the paused clock inside a poll, where nothing can be awaited and no timer fires.
pub(crate) fn tick(by: Duration) {
    let _ = pin!(advance(by)).poll(&mut Context::from_waker(Waker::noop()));
}

/// `Ok` items as letters, `X` the error, `|` the end, `-` a pending.
fn marble(polled: Poll<Option<Result<char, StopReason>>>) -> char {
    match polled {
        Poll::Pending => '-',
        Poll::Ready(None) => '|',
        Poll::Ready(Some(Ok(item))) => item,
        Poll::Ready(Some(Err(StopReason::DeadlineExceeded))) => 'X',
        Poll::Ready(Some(Err(other))) => panic!("{other}"),
    }
}

/// Polls a script with a deadline `polls` times, and advances the clock to `now` before the poll `before`.
fn run(script: &str, deadline: Duration, before: usize, now: Duration, polls: usize) -> String {
    let start = Instant::now();
    let mut stream = Source::new(script).with_deadline(start + deadline);
    let mut output = String::new();
    for n in 0..polls {
        if n == before {
            tick(start + now - Instant::now());
        }
        output.push(marble(poll(pin!(&mut stream))));
    }
    output
}

#[tokio::test(start_paused = true)]
async fn a_nanosecond_before_the_deadline_it_continues_and_at_the_deadline_it_stops() {
    for deadline in [NANOSECOND, MILLISECOND, SECOND, SECOND + 7 * NANOSECOND] {
        let early = deadline - NANOSECOND;
        // At the first poll, and at one after a pending.
        assert_eq!(run("abc|", deadline, 0, early, 4), "abc|");
        assert_eq!(run("abc|", deadline, 0, deadline, 3), "X||");
        assert_eq!(run("a-bc|", deadline, 2, early, 5), "a-bc|");
        assert_eq!(run("a-bc|", deadline, 2, deadline, 4), "a-X|");
        assert_eq!(run("---a|", deadline, 3, deadline, 5), "---X|");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_keeps_the_source_from_ever_being_polled() {
    let past = Instant::now() - SECOND;
    let streams = [
        Source::new("abc").with_deadline(past),
        Source::new("abc").with_deadline(std::time::Instant::now() - SECOND),
        Source::new("abc").with_timeout(Duration::ZERO),
    ];
    for mut stream in streams {
        assert_eq!(marble(poll(pin!(&mut stream))), 'X');
        assert!(matches!(
            stream.stop_reason(),
            Some(StopReason::DeadlineExceeded)
        ));
        assert_eq!(marble(poll(pin!(&mut stream))), '|');
    }
    let source = Source::new("abc");
    let record = source.record();
    let _ = poll(pin!(source.with_timeout(Duration::ZERO)));
    assert_eq!(record.polls(), 0);
    assert!(record.is_dropped());
}

#[tokio::test(start_paused = true)]
async fn the_greatest_timeout_means_never() {
    let mut stream = Source::new("a-b|").with_timeout(Duration::MAX);
    tick(SECOND * 3600 * 24 * 365);
    let output: String = (0..4).map(|_| marble(poll(pin!(&mut stream)))).collect();
    assert_eq!(output, "a-b|");
    assert!(stream.stop_reason().is_none());
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_hundred_years_is_waited_for() {
    let century = 100 * 365 * 24 * 3600 * SECOND;
    let mut stream = Source::new("-a").with_deadline(Instant::now() + century);
    let output: String = (0..2).map(|_| marble(poll(pin!(&mut stream)))).collect();
    assert_eq!(output, "-a");
    tick(century);
    let output: String = (0..4).map(|_| marble(poll(pin!(&mut stream)))).collect();
    assert!(output.contains("X|"), "{output}");
}

#[tokio::test(start_paused = true)]
async fn a_pending_stream_is_woken_at_the_deadline_by_its_latest_waker() {
    let mut stream = Source::new("---").by_hand().with_timeout(SECOND);
    let (first, latest) = (Wakes::new(), Wakes::new());
    for wakes in [&first, &first, &latest] {
        assert_eq!(marble(wakes.poll(pin!(&mut stream))), '-');
    }
    advance(SECOND - MILLISECOND).await;
    assert_eq!(latest.count(), 0);
    advance(2 * MILLISECOND).await;
    assert_eq!((first.count(), latest.count()), (0, 1));
    assert_eq!(marble(latest.poll(pin!(&mut stream))), 'X');
}

#[tokio::test(start_paused = true)]
async fn a_stream_whose_task_has_spent_its_budget_is_woken_all_the_same() {
    let wakes = Wakes::new();
    let mut stream = Source::new("-").by_hand().with_timeout(SECOND);
    tokio::spawn({
        let wakes = wakes.clone();
        async move {
            while tokio::task::coop::has_budget_remaining() {
                let consume = pin!(tokio::task::coop::consume_budget());
                let _ = consume.poll(&mut Context::from_waker(Waker::noop()));
            }
            assert_eq!(marble(wakes.poll(pin!(&mut stream))), '-');
            tokio::task::yield_now().await;
            assert_eq!(wakes.count(), 0, "woken by the budget");
            advance(2 * SECOND).await;
            assert_eq!(wakes.count(), 1);
            assert_eq!(marble(wakes.poll(pin!(&mut stream))), 'X');
        }
    })
    .await
    .unwrap();
}

/// How late a stream with this time for each item is stopped, and how many items come late.
fn lateness(stream: impl Stream<Item = ()>, deadline: Instant) -> (Duration, usize) {
    let mut stream = pin!(stream.with_deadline(deadline));
    let mut late = 0;
    loop {
        let was_over = Instant::now() >= deadline;
        match poll(stream.as_mut()) {
            Poll::Ready(Some(Ok(()))) => late += usize::from(was_over),
            Poll::Ready(Some(Err(_))) => {
                assert!(was_over, "stopped before the deadline");
                return (Instant::now() - deadline, late);
            }
            Poll::Pending => {}
            Poll::Ready(None) => unreachable!(),
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_always_ready_source_at_a_steady_pace_is_at_most_a_millisecond_late() {
    let paces = [
        100, 999, 7_777, 15_625, 33_333, 500_000, 999_999, 1_000_000, 1_000_001, 7_000_000,
    ];
    // Miri is slow.
    let paces = if cfg!(miri) { &paces[2..] } else { &paces };
    for pace in paces.iter().copied().map(Duration::from_nanos) {
        for length in [MILLISECOND, 3 * MILLISECOND / 2, 20 * MILLISECOND] {
            let source = stream::repeat_with(|| tick(pace));
            let (late_by, late) = lateness(source, Instant::now() + length);
            // The item during which the deadline passes does not count.
            let own = if pace > MILLISECOND {
                pace
            } else {
                Duration::ZERO
            };
            assert!(
                late_by <= MILLISECOND + own,
                "{late_by:?} late at {pace:?} an item"
            );
            assert!(
                pace <= MILLISECOND || late == 0,
                "{late} items late at {pace:?} an item"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_consumer_counts() {
    let deadline = Instant::now() + 20 * MILLISECOND;
    let source = stream::repeat(());
    let mut stream = source.with_deadline(deadline);
    while let Poll::Ready(Some(Ok(()))) | Poll::Pending = poll(pin!(&mut stream)) {
        tick(100 * MICROSECOND);
    }
    assert!(Instant::now() - deadline <= MILLISECOND + 100 * MICROSECOND);
}

#[tokio::test(start_paused = true)]
async fn a_borrowed_stream_can_be_read_after_the_deadline() {
    let mut numbers = stream::iter(0..4);
    {
        let mut lent = (&mut numbers).with_timeout(SECOND);
        assert_eq!(lent.next().await.unwrap().unwrap(), 0);
        tick(SECOND);
        assert!(lent.next().await.unwrap().is_err());
    }
    assert_eq!(numbers.next().await, Some(1));
}

#[test]
fn outside_a_runtime_the_first_poll_panics_with_the_way_out() {
    let far = || Instant::now() + 3600 * SECOND;
    let mut ready = Source::new("abc").with_deadline(far());
    assert!(panic_of(|| poll(pin!(&mut ready))).contains("context of a Tokio 1.x runtime"));
    assert!(matches!(poll(pin!(&mut ready)), Poll::Ready(None)));
    let mut pending = stream::pending::<u8>().with_deadline(far());
    assert!(panic_of(|| poll(pin!(&mut pending))).contains("Runtime::block_on"));

    // Where no timer is needed nothing panics.
    let mut over = Source::new("abc").with_timeout(Duration::ZERO);
    assert_eq!(marble(poll(pin!(&mut over))), 'X');
    let mut never = Source::new("a|").with_timeout(Duration::MAX);
    assert_eq!(marble(poll(pin!(&mut never))), 'a');
}

#[test]
fn in_a_runtime_without_timers_tokio_panics_with_the_way_out() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let message = runtime.block_on(async {
        let mut pending = stream::pending::<u8>().with_timeout(SECOND);
        panic_of(|| poll(pin!(&mut pending)))
    });
    assert!(message.contains("enable_time"), "{message}");
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_passes_within_a_stride_is_not_lost_when_the_source_is_pending_next() {
    // After seven items the next check comes after eight: none between `a`, `b` and the pending poll.
    let wakes = Wakes::new();
    let source = Source::new("aaaaaaa-ab-").by_hand();
    let mut stream = source.with_timeout(SECOND);
    let output: String = (0..9)
        .map(|_| marble(wakes.poll(pin!(&mut stream))))
        .collect();
    assert_eq!(output, "aaaaaaa-a");
    // The timer wakes the task, whose poll finds the source ready and makes no check.
    advance(2 * SECOND).await;
    assert_eq!(wakes.count(), 1);
    assert_eq!(marble(wakes.poll(pin!(&mut stream))), 'b');
    assert_eq!(marble(wakes.poll(pin!(&mut stream))), 'X');
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_is_pending_after_a_long_run_is_woken_at_the_deadline() {
    for row in [1, 63, 64, 65, 127, 128, 200, 1000] {
        let (first, latest) = (Wakes::new(), Wakes::new());
        let script = "a".repeat(row) + "--";
        let mut stream = Source::new(&script).by_hand().with_timeout(SECOND);
        for _ in 0..row {
            assert_eq!(marble(first.poll(pin!(&mut stream))), 'a');
        }
        assert_eq!(marble(first.poll(pin!(&mut stream))), '-');
        assert_eq!(marble(latest.poll(pin!(&mut stream))), '-');
        advance(2 * SECOND).await;
        assert_eq!((first.count(), latest.count()), (0, 1), "after {row} items");
        assert_eq!(marble(latest.poll(pin!(&mut stream))), 'X');
    }
}

#[tokio::test(start_paused = true)]
async fn after_64_items_a_consumer_that_begins_to_wait_is_stopped_at_its_next_poll() {
    for row in (0..200).step_by(if cfg!(miri) { 40 } else { 1 }) {
        let mut stream = stream::repeat('a').with_timeout(SECOND);
        for _ in 0..row {
            assert_eq!(stream.next().await.unwrap().unwrap(), 'a');
        }
        let mut late = 0;
        loop {
            tokio::time::sleep(2 * SECOND).await;
            match stream.next().await.unwrap() {
                Ok(_) => late += 1,
                Err(_) => break,
            }
        }
        assert!(
            late <= if row < 64 { 31 } else { 0 },
            "{late} late after {row}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_not_read_at_every_item() {
    let mut stream = stream::repeat('a').with_timeout(SECOND);
    // Checks after 1, 3, 7, 15 items.
    for _ in 0..16 {
        assert_eq!(marble(poll(pin!(&mut stream))), 'a');
    }
    tick(SECOND);
    for _ in 16..31 {
        assert_eq!(marble(poll(pin!(&mut stream))), 'a');
    }
    assert_eq!(marble(poll(pin!(&mut stream))), 'X');
}

#[tokio::test(start_paused = true)]
async fn an_upper_bound_that_cannot_be_counted_is_none() {
    struct Endless;
    impl Stream for Endless {
        type Item = char;

        fn poll_next(self: std::pin::Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<char>> {
            Poll::Pending
        }

        fn size_hint(&self) -> (usize, Option<usize>) {
            (usize::MAX, Some(usize::MAX))
        }
    }
    assert_eq!(Endless.with_timeout(SECOND).size_hint(), (0, None));
}

#[test]
fn a_runtime_that_is_shut_down_under_a_pending_stream_makes_its_next_poll_panic_and_not_hang() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .unwrap();
    let wakes = Wakes::new();
    let mut stream = stream::pending().with_timeout(3600 * SECOND);
    {
        let _context = runtime.enter();
        assert_eq!(marble(wakes.poll(pin!(&mut stream))), '-');
    }
    drop(runtime);
    assert_eq!(wakes.count(), 1);
    assert!(panic_of(|| wakes.poll(pin!(&mut stream))).contains("shutdown"));
}
