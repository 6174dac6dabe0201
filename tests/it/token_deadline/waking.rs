//! What the timer wakes and runs: T4, T7 and T12 where the cancel is a point in time.

use super::{
    MAKES, MILLISECOND, NANOSECOND, SECOND, is_exceeded, next, phases, poll, reason, tick,
    timeouts, waiter,
};
use crate::support::Wakes;
use futures::{StreamExt, stream};
use std::{
    future::{Future, pending},
    mem,
    pin::{Pin, pin},
    sync::{Arc, Mutex},
    task::{Context, Poll, Wake, Waker},
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken, StopReason, Yielder, generator};
use tokio::{
    task::yield_now,
    time::{Instant, advance, sleep},
};

// The timer.

#[tokio::test(start_paused = true)]
async fn the_timer_wakes_within_a_millisecond_what_is_not_polled_and_never_early() {
    for (name, make) in MAKES {
        for &phase in phases() {
            for &timeout in timeouts() {
                let case = format!("{name}, {timeout:?} from {phase:?}");
                tick(phase);
                let at = Instant::now() + timeout;
                let token = make(at);
                let called = Arc::new(Mutex::new(None));
                let registration = token.on_cancel({
                    let called = Arc::clone(&called);
                    move |reason| {
                        *called.lock().unwrap() = Some((reason.to_string(), Instant::now()));
                    }
                });
                let child = token.child_token();
                let (_waiter, wakes) = waiter(&child);

                advance(timeout - NANOSECOND).await;
                assert_eq!(wakes.count(), 0, "{case}");
                assert!(called.lock().unwrap().is_none(), "{case}");
                advance(NANOSECOND + MILLISECOND).await;
                assert_eq!(wakes.count(), 1, "{case}");
                // The task that runs callbacks has its turn.
                yield_now().await;
                let (reason, when) = called.lock().unwrap().take().unwrap();
                assert_eq!(reason, StopReason::DeadlineExceeded.to_string(), "{case}");
                assert!(at <= when && when <= at + MILLISECOND, "{case}");
                assert!(!registration.unregister(), "{case}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_task_that_awaits_the_token_or_a_descendant_wakes_up_at_the_deadline() {
    let at = Instant::now() + SECOND;
    for (name, make) in MAKES {
        let token = make(Instant::now() + SECOND);
        let child = token.child_token();
        let run = child.run_until_cancelled(pending::<u8>());
        let stopped = stream::pending::<u8>().take_until_cancelled(&child);
        let body = generator(&token, async |_: Yielder<'_, u8>| pending().await);
        let (run, stopped, items, ()) =
            tokio::join!(run, stopped.count(), body.count(), child.cancelled());
        assert_eq!((run, stopped, items), (None, 0, 0), "{name}");
        assert!(is_exceeded(&child), "{name}");
    }
    assert_eq!(Instant::now(), at + (MAKES.len() as u32 - 1) * SECOND);
}

#[tokio::test(start_paused = true)]
async fn the_timer_of_a_token_made_in_a_task_that_has_spent_its_budget_wakes_all_the_same() {
    tokio::spawn(async {
        while tokio::task::coop::has_budget_remaining() {
            let _ = poll(tokio::task::coop::consume_budget());
        }
        let token = CancellationToken::with_timeout(SECOND);
        let (_waiter, wakes) = waiter(&token);
        sleep(2 * SECOND).await;
        assert_eq!(wakes.count(), 1);
    })
    .await
    .unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_waiter_dropped_after_a_check_saw_the_deadline_and_before_the_timer_leaves_no_waker() {
    for is_seen in [false, true] {
        let token = CancellationToken::with_timeout(SECOND).child_token();
        let wakes = Wakes::new();
        let waker = Waker::from(Arc::clone(&wakes));
        let mut waiter = token.clone().cancelled_owned();
        let polled = Pin::new(&mut waiter).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        tick(SECOND);
        if is_seen {
            assert!(token.is_cancelled());
        }
        drop((waiter, waker));
        assert_eq!(Arc::strong_count(&wakes), 1, "seen: {is_seen}");
    }
}

#[tokio::test(start_paused = true)]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
async fn a_timer_survives_panicking_wakers_and_callbacks_and_runs_the_others() {
    struct Panics;

    impl Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("woken");
        }
    }

    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let at = Instant::now() + SECOND;
    let mut notified = Vec::new();
    let mut kept = Vec::new();
    for _ in 0..3 {
        let token = CancellationToken::with_deadline(at);
        let child = token.child_token();
        notified.push(waiter(&token));
        token.on_cancel(|_| panic!("called")).detach();
        token
            .on_cancel(|_| std::panic::panic_any(PanicsOnDrop))
            .detach();
        for panicking in [&token, &child] {
            let mut cancelled = panicking.clone().cancelled_owned();
            let waker = Waker::from(Arc::new(Panics));
            let polled = Pin::new(&mut cancelled).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            kept.push(cancelled);
        }
        notified.push(waiter(&child));
        notified.push(waiter(&token));
    }
    sleep(2 * SECOND).await;
    for (_, wakes) in &notified {
        assert_eq!(wakes.count(), 1);
    }
    // The runtime and its timers go on.
    let later = CancellationToken::with_timeout(SECOND);
    tokio::spawn(later.clone().cancelled_owned()).await.unwrap();
    assert!(is_exceeded(&later));
}

#[tokio::test(start_paused = true)]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
async fn the_first_panic_whose_payload_panics_when_dropped_ends_with_the_timer() {
    struct PanicsOnDrop;

    impl Drop for PanicsOnDrop {
        fn drop(&mut self) {
            panic!("dropped");
        }
    }

    let token = CancellationToken::with_timeout(SECOND);
    token
        .on_cancel(|_| std::panic::panic_any(PanicsOnDrop))
        .detach();
    let (_waiter, wakes) = waiter(&token);
    sleep(2 * SECOND).await;
    assert_eq!(wakes.count(), 1);
}

/// T7 where it is the timer that cancels.
#[tokio::test(start_paused = true)]
async fn a_callback_that_a_timer_runs_may_do_anything_to_other_deadlines() {
    let at = Instant::now() + SECOND;
    let root = CancellationToken::new();
    let token = root.child_with_deadline(at);
    let log = Arc::new(Mutex::new(Vec::new()));
    // Of the same tick, and later.
    let dropped = [at, at + SECOND].map(CancellationToken::with_deadline);
    let cancelled = [at, at + SECOND].map(CancellationToken::with_deadline);
    let made = Arc::new(Mutex::new(None));
    token
        .on_cancel({
            let (token, log, made) = (token.clone(), Arc::clone(&log), Arc::clone(&made));
            move |_| {
                assert!(!token.cancel_with("again"));
                assert!(token.child_with_timeout(SECOND).is_cancelled());
                drop(token);
                drop(dropped);
                for token in cancelled {
                    token.cancel();
                }
                let later = root.child_with_timeout(SECOND);
                let noted = Arc::clone(&log);
                later
                    .on_cancel(move |_| noted.lock().unwrap().push("later"))
                    .detach();
                *made.lock().unwrap() = Some(later);
                assert!(CancellationToken::with_timeout(Duration::ZERO).is_cancelled());
                log.lock().unwrap().push("at");
            }
        })
        .detach();
    // The callback has the last handle.
    drop(token);
    sleep(3 * SECOND).await;
    assert_eq!(*log.lock().unwrap(), ["at", "later"]);
}

/// T4: descendants with a deadline are notified after it, but are cancelled all the same.
#[tokio::test(start_paused = true)]
async fn while_a_callback_of_an_ancestor_runs_the_tokens_with_a_deadline_below_report_cancelled() {
    for is_asked_why in [false, true] {
        let root = CancellationToken::new();
        let below = Arc::new(Mutex::new(Vec::new()));
        let asked = Arc::clone(&below);
        root.on_cancel(move |_| {
            let tokens: Vec<CancellationToken> = mem::take(&mut asked.lock().unwrap());
            for token in &tokens {
                match is_asked_why {
                    true => assert_eq!(reason(token).as_deref(), Some("root")),
                    false => assert!(token.is_cancelled()),
                }
                let items = stream::repeat(1).take_until_cancelled(token);
                assert_eq!(next(pin!(items)), Poll::Ready(None));
            }
            *asked.lock().unwrap() = tokens;
        })
        .detach();
        let timed = root.child_token().child_with_timeout(SECOND);
        let linked = CancellationToken::linked([&CancellationToken::with_timeout(SECOND), &timed]);
        let leaves = [timed.child_token(), linked.child_token()];
        below.lock().unwrap().extend([timed, linked]);
        below.lock().unwrap().extend(leaves);
        assert!(root.cancel_with("root"));
        assert_eq!(below.lock().unwrap().len(), 4);
    }
}
