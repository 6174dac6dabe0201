//! What a token with a deadline stops: D2 and D6 for streams, bodies and futures.

use super::{MAKES, MICROSECOND, MILLISECOND, NANOSECOND, SECOND, next, poll, tick, timeouts};
use crate::support::Wakes;
use futures::{
    StreamExt,
    stream::{self, BoxStream},
};
use std::{
    mem,
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use stopcock::{
    CancelStreamExt, CancellationToken, StopReason, Yielder, generator, signal, testing::Source,
};
use tokio::time::{Instant, sleep};

// D6: adapters over such tokens.

/// A stream that a token stops.
type Stop = fn(BoxStream<'static, ()>, Instant) -> BoxStream<'static, ()>;

const STOPS: [(&str, Stop); 9] = [
    ("its own deadline", |source, at| {
        let token = CancellationToken::with_deadline(at);
        source.take_until_cancelled(token).boxed()
    }),
    ("its parent's", |source, at| {
        let token = CancellationToken::with_deadline(at).child_token();
        source.take_until_cancelled(&token).boxed()
    }),
    ("a linked one's", |source, at| {
        let timed = CancellationToken::with_deadline(at);
        let linked = CancellationToken::linked([&CancellationToken::new(), &timed]);
        source.take_until_cancelled(linked.child_token()).boxed()
    }),
    ("that of the first of two signals", |source, at| {
        let timed = CancellationToken::with_deadline(at);
        source
            .take_until_cancelled(signal::any(timed, CancellationToken::new()))
            .boxed()
    }),
    ("that of the second of two signals", |source, at| {
        let timed = CancellationToken::with_deadline(at);
        source
            .take_until_cancelled(signal::any(signal::never(), timed))
            .boxed()
    }),
    ("the earlier one of two signals'", |source, at| {
        let [later, timed] = [at + SECOND, at].map(CancellationToken::with_deadline);
        source
            .take_until_cancelled(signal::any(later, timed))
            .boxed()
    }),
    ("that of a waiter's token", |source, at| {
        let cancelled = CancellationToken::with_deadline(at).cancelled_owned();
        source.take_until_cancelled(cancelled).boxed()
    }),
    ("that of the inner one of two adapters", |source, at| {
        let [later, timed] = [at + SECOND, at].map(CancellationToken::with_deadline);
        source
            .take_until_cancelled(timed)
            .take_until_cancelled(later)
            .boxed()
    }),
    ("a generator's", |mut source, at| {
        let token = CancellationToken::with_deadline(at).child_token();
        generator(token, async move |mut y| {
            while let Some(item) = source.next().await {
                y.yield_item(item).await;
            }
        })
        .boxed()
    }),
];

/// How late the stream ends, and how many items it yields at or after the deadline.
fn lateness(mut stream: BoxStream<'static, ()>, deadline: Instant) -> (Duration, usize) {
    let mut late = 0;
    loop {
        let was_over = Instant::now() >= deadline;
        match next(stream.as_mut()) {
            Poll::Ready(Some(())) => late += usize::from(was_over),
            Poll::Ready(None) => {
                assert!(was_over, "stopped before the deadline");
                return (Instant::now() - deadline, late);
            }
            Poll::Pending => {}
        }
    }
}

#[tokio::test(start_paused = true)]
async fn an_always_ready_source_at_a_steady_pace_is_at_most_a_millisecond_late() {
    let paces = [777, 15_625, 33_333, 999_999, 1_000_001, 7_000_000];
    // Miri is slow.
    let paces = if cfg!(miri) { &paces[3..5] } else { &paces };
    for pace in paces.iter().copied().map(Duration::from_nanos) {
        for length in [MILLISECOND, 3 * MILLISECOND / 2, 10 * MILLISECOND] {
            for (name, stop) in STOPS {
                let deadline = Instant::now() + length;
                let source = stream::repeat_with(move || tick(pace)).boxed();
                let (late_by, late) = lateness(stop(source, deadline), deadline);
                // The item during which the deadline passes does not count as late.
                let own = if pace > MILLISECOND {
                    pace
                } else {
                    Duration::ZERO
                };
                let case = format!("{name}, {pace:?} an item, {length:?}");
                assert!(late_by <= MILLISECOND + own, "{late_by:?} late: {case}");
                assert!(
                    pace <= MILLISECOND || late == 0,
                    "{late} items late: {case}"
                );
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_sudden_slow_down_at_most_64_items_come_late() {
    let rows = [0, 1, 10, 63, 64, 65, 1000, 1023, 1024, 1025, 3000];
    // Miri is slow.
    let rows = if cfg!(miri) { &rows[2..4] } else { &rows };
    for &fast in rows {
        for (name, stop) in STOPS {
            let mut items = 0;
            let source = stream::repeat_with(move || {
                items += 1;
                tick(if items <= fast { NANOSECOND } else { SECOND });
            });
            let deadline = Instant::now() + SECOND;
            let (_, late) = lateness(stop(source.boxed(), deadline), deadline);
            assert!(
                late <= 64,
                "{name}: {late} items late after {fast} fast ones"
            );
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_time_of_the_consumer_counts() {
    for (name, stop) in STOPS {
        let deadline = Instant::now() + 20 * MILLISECOND;
        let mut stream = stop(stream::repeat(()).boxed(), deadline);
        while next(stream.as_mut()) != Poll::Ready(None) {
            tick(100 * MICROSECOND);
        }
        let late = Instant::now() - deadline;
        assert!(late <= MILLISECOND + 100 * MICROSECOND, "{name}: {late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_clock_is_read_after_1_2_4_8_16_items_and_not_at_every_one() {
    // Two adapters check one after the other.
    for (name, stop) in STOPS {
        let mut stream = stop(stream::repeat(()).boxed(), Instant::now() + SECOND);
        for _ in 0..17 {
            assert_eq!(next(stream.as_mut()), Poll::Ready(Some(())), "{name}");
        }
        tick(SECOND);
        for _ in 17..32 {
            assert_eq!(next(stream.as_mut()), Poll::Ready(Some(())), "{name}");
        }
        assert_eq!(next(stream.as_mut()), Poll::Ready(None), "{name}");
    }
}

/// `()` or pending, as often as it is said.
fn scripted(script: &str) -> BoxStream<'static, ()> {
    Source::new(script).by_hand().map(|_| ()).boxed()
}

#[tokio::test(start_paused = true)]
async fn the_first_poll_and_each_one_after_a_pending_are_exact() {
    for (name, stop) in STOPS {
        for script in [
            "aaa",
            "-aaa",
            "a-aaa",
            "aaaaa-a",
            "--aaa",
            "aa-aaa-aaa",
            "---",
        ] {
            for &timeout in timeouts() {
                // Before the first poll, or before the one after the last pending.
                let polls = script.rfind('-').map_or(0, |pending| pending + 1);
                for (by, is_stopped) in [(timeout - NANOSECOND, false), (timeout, true)] {
                    let mut stream = stop(scripted(script), Instant::now() + timeout);
                    for _ in 0..polls {
                        let _ = next(stream.as_mut());
                    }
                    tick(by);
                    let polled = next(stream.as_mut());
                    let case = format!("{name}, {script:?}, {by:?} of {timeout:?}");
                    assert_eq!(polled == Poll::Ready(None), is_stopped, "{case}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_poll_after_a_yield_for_fairness_is_exact() {
    for (name, stop) in STOPS {
        for (by, expected) in [(SECOND - NANOSECOND, Some(())), (SECOND, None)] {
            let mut stream = stop(stream::repeat(()).boxed(), Instant::now() + SECOND);
            let mut polls = std::iter::repeat_with(|| next(stream.as_mut()));
            assert_eq!(
                polls.by_ref().take_while(Poll::is_ready).count(),
                1024,
                "{name}"
            );
            tick(by);
            // Of two adapters each yields.
            let polled = polls.find(Poll::is_ready);
            assert_eq!(polled, Some(Poll::Ready(expected)), "{name}");
        }
    }
}

/// The timer of a token is set from the start.
#[tokio::test(start_paused = true)]
async fn a_consumer_that_awaits_between_two_items_is_stopped_at_its_next_poll() {
    for (name, stop) in STOPS {
        let rows = [0, 1, 63, 64, 65, 2, 10, 33, 200];
        // Miri is slow.
        for &row in &rows[..if cfg!(miri) { 3 } else { rows.len() }] {
            let mut stream = stop(stream::repeat(()).boxed(), Instant::now() + SECOND);
            for _ in 0..row {
                assert_eq!(stream.next().await, Some(()), "{name}");
            }
            sleep(2 * SECOND).await;
            assert_eq!(stream.next().await, None, "{name} after {row}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_or_another_tasks_check_stops_the_very_next_poll_in_the_midst_of_a_stride() {
    for row in [0, 1, 2, 16, 70, 127, 128] {
        for is_looked_at in [false, true] {
            let token = CancellationToken::with_timeout(SECOND);
            let mut stream = stream::repeat(1).take_until_cancelled(token.child_token());
            for _ in 0..row {
                assert_eq!(next(pin!(&mut stream)), Poll::Ready(Some(1)));
            }
            if is_looked_at {
                tick(SECOND);
                assert!(token.is_cancelled());
            } else {
                assert!(token.cancel_with(StopReason::IdleTimeout));
            }
            assert_eq!(next(pin!(&mut stream)), Poll::Ready(None), "after {row}");
            let is_exceeded = matches!(stream.stop_reason(), Some(StopReason::DeadlineExceeded));
            assert_eq!(is_exceeded, is_looked_at);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_pending_stream_or_body_is_woken_by_the_timer_of_its_token() {
    for (name, stop) in STOPS {
        for script in ["--", "aaaaa--"] {
            let mut stream = stop(scripted(script), Instant::now() + SECOND);
            let (first, latest) = (Wakes::new(), Wakes::new());
            while first.poll(stream.as_mut()).is_ready() {}
            assert!(latest.poll(stream.as_mut()).is_pending());
            sleep(SECOND + MILLISECOND).await;
            assert_eq!((first.count(), latest.count()), (0, 1), "{name}");
            assert_eq!(latest.poll(stream.as_mut()), Poll::Ready(None), "{name}");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn after_a_deadline_the_reason_is_deadline_exceeded() {
    let parent = CancellationToken::with_timeout(2 * SECOND);
    let token = parent.child_with_timeout(SECOND);
    let mut of_one = stream::repeat(1).take_until_cancelled(&token);
    let either = signal::any(CancellationToken::new(), token.child_token());
    let mut of_two = stream::repeat(1).take_until_cancelled(either);
    let mut body = pin!(generator(&token, async |mut y: Yielder<'_, u8>| {
        y.yield_item(1).await;
    }));
    tick(SECOND);
    for polled in [next(pin!(&mut of_one)), next(pin!(&mut of_two))] {
        assert_eq!(polled, Poll::Ready(None));
    }
    assert_eq!(next(body.as_mut()), Poll::Ready(None));
    // Whatever comes then.
    parent.cancel();
    for reason in [
        of_one.stop_reason(),
        of_two.stop_reason(),
        body.stop_reason(),
    ] {
        assert!(matches!(reason, Some(StopReason::DeadlineExceeded)));
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_is_always_ready_is_dropped_at_its_yield_when_the_deadline_has_passed() {
    let (begun, alive) = (Arc::new(AtomicUsize::new(0)), Arc::new(()));
    let mut items = pin!(generator(CancellationToken::with_timeout(SECOND), {
        let (begun, alive) = (Arc::clone(&begun), Arc::clone(&alive));
        async move |mut y| {
            let _alive = alive;
            loop {
                tick(100 * MILLISECOND);
                y.yield_item(begun.fetch_add(1, SeqCst)).await;
            }
        }
    }));
    assert_eq!(items.as_mut().count().await, 10);
    assert_eq!((begun.load(SeqCst), Arc::strong_count(&alive)), (10, 1));
}

/// Exactly, as a future has no items in a row.
#[tokio::test(start_paused = true)]
async fn a_future_is_stopped_at_its_first_poll_at_or_after_the_deadline() {
    for (name, make) in MAKES {
        for &timeout in timeouts() {
            for (by, is_stopped) in [(timeout - NANOSECOND, false), (timeout, true)] {
                let token = make(Instant::now() + timeout);
                let mut answer = pin!(token.run_until_cancelled(async {
                    for _ in 0..3 {
                        let mut is_first = true;
                        std::future::poll_fn(|_| match mem::take(&mut is_first) {
                            true => Poll::Pending,
                            false => Poll::Ready(()),
                        })
                        .await;
                    }
                }));
                for _ in 0..3 {
                    assert!(poll(answer.as_mut()).is_pending(), "{name}");
                }
                tick(by);
                let expected = if is_stopped { None } else { Some(()) };
                assert_eq!(
                    poll(answer),
                    Poll::Ready(expected),
                    "{name}, {by:?} of {timeout:?}"
                );
            }
        }
    }
}

// Settling.

#[tokio::test(start_paused = true)]
async fn a_deadline_settles_when_what_it_stopped_has_been_dropped() {
    for (name, make) in MAKES {
        let token = make(Instant::now() + SECOND);
        let mut settled = pin!(token.settled());
        let held = stream::pending::<u8>().take_until_cancelled(token.child_token());
        assert!(poll(settled.as_mut()).is_pending(), "{name}");
        tick(SECOND);
        assert!(poll(settled.as_mut()).is_pending(), "{name}");
        drop(held);
        assert!(poll(settled.as_mut()).is_ready(), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_waiter_for_a_deadline_to_settle_is_woken_by_its_timer_and_then_by_the_last_drop() {
    let token = CancellationToken::with_timeout(SECOND);
    let mut events = stream::pending::<u8>().take_until_cancelled(token.child_token());
    let connection = tokio::spawn(async move {
        let last = events.next().await;
        // The source has been dropped, and the adapter has not.
        sleep(SECOND).await;
        (last, events.stop_reason().cloned())
    });
    let at = Instant::now() + SECOND;
    token.settled().await;
    assert_eq!(Instant::now(), at);
    let (last, reason) = connection.await.unwrap();
    assert_eq!(last, None);
    assert!(matches!(reason, Some(StopReason::DeadlineExceeded)));
}
