//! Tokens with a deadline: the laws D1 to D7, and T3 to T7 and T12 where the cancel is a point in time. The clock is
//! tokio's, paused.

mod stories;
mod streams;
mod timers;
mod waking;
mod without_a_runtime;

use crate::support::Wakes;
use futures::{Stream, stream};
use std::{
    future::{Future, pending, ready},
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Waker},
    thread,
    time::Duration,
};
use stopcock::{
    CancelStreamExt, CancellationToken, CancelledOwned, StopReason, generator, testing::Source,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    time::{Instant, advance, sleep},
};

const NANOSECOND: Duration = Duration::from_nanos(1);
const MICROSECOND: Duration = Duration::from_micros(1);
const MILLISECOND: Duration = Duration::from_millis(1);
const SECOND: Duration = Duration::from_secs(1);
const YEAR: Duration = Duration::from_secs(365 * 24 * 3600);
const WHYS: [&str; 4] = ["0", "1", "2", "3"];

/// Moves the paused clock, and keeps the runtime from running any timer.
fn tick(by: Duration) {
    let _ = pin!(advance(by)).poll(&mut Context::from_waker(Waker::noop()));
}

/// One poll by hand.
fn poll<Fut: Future>(future: Fut) -> Poll<Fut::Output> {
    pin!(future).poll(&mut Context::from_waker(Waker::noop()))
}

fn next<S: Stream + ?Sized>(stream: Pin<&mut S>) -> Poll<Option<S::Item>> {
    stream.poll_next(&mut Context::from_waker(Waker::noop()))
}

fn reason(token: &CancellationToken) -> Option<String> {
    token.stop_reason().map(|reason| reason.to_string())
}

fn is_exceeded(token: &CancellationToken) -> bool {
    matches!(token.stop_reason(), Some(StopReason::DeadlineExceeded))
}

/// A waiter on `token` that has been polled once, and is pending.
fn waiter(token: &CancellationToken) -> (CancelledOwned, Arc<Wakes>) {
    let wakes = Wakes::new();
    let mut cancelled = token.clone().cancelled_owned();
    let waker = Waker::from(Arc::clone(&wakes));
    let polled = Pin::new(&mut cancelled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    (cancelled, wakes)
}

/// Paused, on this thread, and not driven.
fn paused_runtime() -> Runtime {
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true).build().unwrap()
}

/// A way in which a token can get a deadline. All handles of its ancestors have been dropped.
type Make = fn(Instant) -> CancellationToken;

const MAKES: [(&str, Make); 10] = [
    ("its own", |at| CancellationToken::with_deadline(at)),
    ("its own, under a plain parent", |at| {
        CancellationToken::new().child_with_deadline(at)
    }),
    ("its own, before its parent's", |at| {
        CancellationToken::with_deadline(at + SECOND).child_with_deadline(at)
    }),
    ("its parent's", |at| {
        CancellationToken::with_deadline(at).child_token()
    }),
    ("its parent's, before its own", |at| {
        CancellationToken::with_deadline(at).child_with_deadline(at + SECOND)
    }),
    ("its parent's, who has its grandparent's", |at| {
        CancellationToken::with_deadline(at)
            .child_token()
            .child_token()
    }),
    ("the first parent's", |at| {
        let timed = CancellationToken::with_deadline(at);
        CancellationToken::linked([timed, CancellationToken::new()])
    }),
    ("the second parent's", |at| {
        let timed = CancellationToken::with_deadline(at);
        CancellationToken::linked([CancellationToken::new(), timed])
    }),
    ("the earlier one of two parents'", |at| {
        let later = CancellationToken::with_deadline(at + SECOND);
        CancellationToken::linked([later, CancellationToken::with_deadline(at)])
    }),
    ("its parent's, who has one of two parents'", |at| {
        let timed = CancellationToken::with_deadline(at).child_token();
        CancellationToken::linked([timed, CancellationToken::new()]).child_token()
    }),
];

/// A way to see that a token is cancelled: whether it is seen.
type Check = fn(&CancellationToken) -> bool;

const CHECKS: [(&str, Check); 15] = [
    ("is_cancelled", CancellationToken::is_cancelled),
    ("stop_reason", |token| token.stop_reason().is_some()),
    ("check", |token| token.check().is_err()),
    ("debug", |token| {
        format!("{token:?}").contains("DeadlineExceeded")
    }),
    ("cancelled", |token| poll(token.cancelled()).is_ready()),
    ("cancelled_owned", |token| {
        poll(token.clone().cancelled_owned()).is_ready()
    }),
    ("on_cancel", |token| {
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let registration = token.on_cancel(move |reason| {
            assert!(matches!(reason, StopReason::DeadlineExceeded));
            counted.fetch_add(1, SeqCst);
        });
        let has_run = runs.load(SeqCst) == 1;
        assert_eq!(registration.unregister(), !has_run);
        has_run
    }),
    ("settled", |token| poll(token.settled()).is_ready()),
    ("run_until_cancelled, of a future that is ready", |token| {
        poll(token.run_until_cancelled(ready(1))) == Poll::Ready(None)
    }),
    ("run_until_cancelled, of a future that waits", |token| {
        poll(token.run_until_cancelled(pending::<u8>())) == Poll::Ready(None)
    }),
    ("take_until_cancelled, of a stream that is ready", |token| {
        let items = stream::repeat(1).take_until_cancelled(token);
        next(pin!(items)) == Poll::Ready(None)
    }),
    ("take_until_cancelled, of a stream that waits", |token| {
        let items = stream::pending::<u8>().take_until_cancelled(token);
        next(pin!(items)) == Poll::Ready(None)
    }),
    ("generator", |token| {
        let items = generator(token, async |mut y| y.yield_item(1).await);
        next(pin!(items)) == Poll::Ready(None)
    }),
    ("the check of a child", |token| {
        token.child_token().is_cancelled()
    }),
    ("the check of a linked one", |token| {
        CancellationToken::linked([&CancellationToken::new(), token]).is_cancelled()
    }),
];

/// D2 and D4, on a thread that never yields to its runtime, so that no timer runs.
fn check_exactness(phase: Duration, timeout: Duration) {
    for (n, (make_name, make)) in MAKES.into_iter().enumerate() {
        for (m, (check_name, check)) in CHECKS.into_iter().enumerate() {
            // Miri is slow.
            if cfg!(miri) && n != m % MAKES.len() {
                continue;
            }
            let case =
                format!("{make_name}, {check_name}, {timeout:?} from {phase:?} after the start");
            let at = Instant::now() + timeout;
            let [seen_before, not_seen] = [make(at), make(at)];
            tick(timeout - NANOSECOND);
            assert!(!check(&seen_before), "a nanosecond before: {case}");
            tick(NANOSECOND);
            assert!(check(&seen_before), "at the deadline: {case}");
            assert!(check(&not_seen), "at the deadline: {case}");
            assert!(
                is_exceeded(&seen_before) && is_exceeded(&not_seen),
                "{case}"
            );
        }
    }
}

/// So that the milliseconds of the runtime's timers begin in the midst of those of the deadlines.
fn phases() -> &'static [Duration] {
    const PHASES: [Duration; 4] = [
        Duration::ZERO,
        NANOSECOND,
        Duration::from_micros(500),
        Duration::from_nanos(999_999),
    ];
    // Miri is slow.
    if cfg!(miri) { &PHASES[1..2] } else { &PHASES }
}

fn timeouts() -> &'static [Duration] {
    const TIMEOUTS: [Duration; 6] = [
        NANOSECOND,
        Duration::from_nanos(999_999),
        MILLISECOND,
        Duration::from_nanos(1_000_001),
        Duration::from_nanos(1_999_999),
        Duration::from_nanos(3_000_000_007),
    ];
    if cfg!(miri) {
        &TIMEOUTS[3..4]
    } else {
        &TIMEOUTS
    }
}

#[test]
fn on_a_thread_that_never_yields_every_check_is_exact_to_the_nanosecond() {
    for &phase in phases() {
        for &timeout in timeouts() {
            paused_runtime().block_on(async {
                tick(phase);
                check_exactness(phase, timeout);
            });
        }
    }
}

#[test]
fn in_a_runtime_that_is_never_driven_every_check_is_exact_to_the_nanosecond() {
    for &phase in phases() {
        for &timeout in timeouts() {
            let runtime = paused_runtime();
            let _context = runtime.enter();
            tick(phase);
            check_exactness(phase, timeout);
        }
    }
}

// D1.

#[tokio::test(start_paused = true)]
async fn the_earliest_deadline_of_a_chain_is_in_force_and_never_passes_up() {
    const LEVELS: usize = 4;
    const CHOICES: usize = 4;

    for case in 0..CHOICES.pow(LEVELS as u32) {
        // 0: none of its own.
        let own: Vec<_> = (0..LEVELS)
            .map(|level| case / CHOICES.pow(level as u32) % CHOICES)
            .collect();
        let start = Instant::now();
        let mut tokens = vec![CancellationToken::new()];
        for (level, &seconds) in own.iter().enumerate() {
            let (parent, timeout) = (&tokens[level], seconds as u32 * SECOND);
            tokens.push(match (seconds, level % 2) {
                (0, _) => parent.child_token(),
                (_, 0) => parent.child_with_deadline(start + timeout),
                (_, _) => parent.child_with_timeout(timeout),
            });
        }
        let effective: Vec<_> = (0..=LEVELS)
            .map(|level| own[..level].iter().filter(|own| **own > 0).min())
            .map(|seconds| seconds.map(|seconds| *seconds as u32 * SECOND))
            .collect();
        for now in (0..CHOICES as u32).map(|seconds| seconds * SECOND) {
            for (token, effective) in tokens.iter().zip(&effective) {
                assert_eq!(token.deadline(), effective.map(|at| start + at), "{own:?}");
                let remaining = effective.map(|at| at.saturating_sub(now));
                assert_eq!(token.remaining(), remaining, "{own:?} after {now:?}");
                let is_over = effective.is_some_and(|at| at <= now);
                assert_eq!(token.is_cancelled(), is_over, "{own:?} after {now:?}");
            }
            tick(SECOND);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_linked_token_has_the_earliest_deadline_of_its_parents() {
    let at = |seconds: u32| Instant::now() + seconds * SECOND;
    let [none, one, two] = [
        CancellationToken::new(),
        CancellationToken::with_deadline(at(1)).child_token(),
        CancellationToken::with_deadline(at(2)),
    ];
    for (parents, expected) in [
        (vec![&none, &none], None),
        (vec![&none], None),
        (vec![&two], Some(at(2))),
        (vec![&two, &none], Some(at(2))),
        (vec![&one, &two, &none], Some(at(1))),
        (vec![&two, &none, &one], Some(at(1))),
    ] {
        let linked = CancellationToken::linked(parents);
        assert_eq!(linked.deadline(), expected);
        assert_eq!(linked.child_token().deadline(), expected);
        assert_eq!(
            linked.child_with_deadline(at(3)).deadline(),
            expected.or(Some(at(3)))
        );
    }
}

#[tokio::test(start_paused = true)]
async fn a_timeout_counts_from_the_call() {
    let start = Instant::now();
    let parent = CancellationToken::with_timeout(3 * SECOND);
    tick(SECOND);
    assert_eq!(parent.deadline(), Some(start + 3 * SECOND));
    assert_eq!(parent.remaining(), Some(2 * SECOND));
    let child = parent.child_with_timeout(SECOND);
    assert_eq!(child.deadline(), Some(start + 2 * SECOND));
    // Also where it is later than the parent's.
    tick(SECOND);
    assert_eq!(parent.child_with_timeout(SECOND).remaining(), Some(SECOND));
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_cancelled_early_keeps_its_deadline() {
    let at = Instant::now() + 2 * SECOND;
    let token = CancellationToken::with_deadline(at);
    token.cancel();
    tick(SECOND);
    assert_eq!(token.deadline(), Some(at));
    assert_eq!(token.remaining(), Some(SECOND));
}

// D3.

#[tokio::test(start_paused = true)]
async fn a_deadline_in_the_past_makes_a_token_that_is_born_cancelled() {
    let parent = CancellationToken::with_timeout(SECOND);
    let past = Instant::now() - NANOSECOND;
    let std_past = past.into_std() - SECOND;
    for token in [
        CancellationToken::with_deadline(past),
        CancellationToken::with_deadline(std_past),
        CancellationToken::with_deadline(Instant::now()),
        CancellationToken::with_timeout(Duration::ZERO),
        parent.child_with_deadline(past),
        parent.child_with_deadline(std_past),
        parent.child_with_timeout(Duration::ZERO),
    ] {
        assert!(!token.cancel_with("too late"));
        assert!(is_exceeded(&token));
        assert_eq!(token.remaining(), Some(Duration::ZERO));

        let source = Source::new("abc");
        let record = source.record();
        let mut stopped = source.take_until_cancelled(&token);
        assert_eq!(next(pin!(&mut stopped)), Poll::Ready(None));
        assert_eq!(record.polls(), 0);
    }
    assert!(!parent.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_descendant_of_a_cancelled_token_has_its_reason_wherever_its_own_deadline_is() {
    for timeout in [Duration::ZERO, SECOND, 2 * SECOND, 3 * SECOND] {
        let root = CancellationToken::with_timeout(2 * SECOND);
        // They have not been checked.
        let parents = [
            root.clone(),
            root.child_token(),
            root.child_token().child_token(),
        ];
        root.cancel_with("root");
        let children = parents.map(|parent| parent.child_with_timeout(timeout));
        tick(10 * SECOND);
        for child in children {
            assert_eq!(reason(&child).unwrap(), "root");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn the_greatest_timeout_means_never() {
    for token in [
        CancellationToken::with_timeout(Duration::MAX),
        CancellationToken::new().child_with_timeout(Duration::MAX),
    ] {
        assert_eq!((token.deadline(), token.remaining()), (None, None));
        tick(100 * YEAR);
        assert!(!token.is_cancelled());
        assert!(token.cancel_with("by hand"));
    }
    let timed = CancellationToken::with_timeout(SECOND);
    let child = timed.child_with_timeout(Duration::MAX);
    assert_eq!(child.deadline(), timed.deadline());
    tick(SECOND);
    assert!(is_exceeded(&child));
}

#[tokio::test(start_paused = true)]
async fn a_deadline_in_a_hundred_years_is_waited_for() {
    for timeout in [YEAR, 2 * YEAR, 3 * YEAR, 100 * YEAR] {
        let at = Instant::now() + timeout;
        let token = CancellationToken::with_deadline(at);
        token.cancelled().await;
        assert!(is_exceeded(&token));
        let late = Instant::now() - at;
        assert!(late <= MILLISECOND, "{late:?} late after {timeout:?}");
    }
}

/// The farthest that the clock can count to.
fn farthest() -> Instant {
    let mut at = Instant::now();
    let mut by = Duration::MAX;
    while by > Duration::ZERO {
        match at.checked_add(by) {
            Some(later) => at = later,
            None => by /= 2,
        }
    }
    at
}

#[tokio::test(start_paused = true)]
async fn the_farthest_deadline_of_all_is_never_over_and_no_panic() {
    let at = farthest();
    for token in [
        CancellationToken::with_deadline(at),
        CancellationToken::new().child_with_timeout(at - Instant::now()),
    ] {
        tick(SECOND);
        assert!(!token.is_cancelled());
        assert!(token.cancel_with("by hand"));
    }
    let mut stream = stream::pending::<u8>().with_deadline(at);
    assert!(next(pin!(&mut stream)).is_pending());
}

// D4.

/// Whichever of the two is the first parent.
#[tokio::test(start_paused = true)]
async fn a_linked_token_of_one_that_was_cancelled_and_one_that_expired_then_has_the_reason_of_the_cancel()
 {
    for timed_is_first in [false, true] {
        let timed = CancellationToken::with_timeout(SECOND);
        let other = CancellationToken::new();
        other.cancel_with("other");
        tick(SECOND);
        let parents = match timed_is_first {
            true => [&timed, &other],
            false => [&other, &timed],
        };
        assert_eq!(
            reason(&CancellationToken::linked(parents)).unwrap(),
            "other"
        );
        assert!(is_exceeded(&timed));
    }
}

#[tokio::test(start_paused = true)]
async fn a_loop_that_never_awaits_is_stopped() {
    let token = CancellationToken::with_timeout(SECOND);
    let mut steps = 0;
    while token.check().is_ok() {
        tick(100 * MILLISECOND);
        steps += 1;
    }
    assert_eq!(steps, 10);
}

#[tokio::test(start_paused = true)]
async fn a_check_fixes_the_reason_and_wakes_nothing_and_the_timer_wakes_once() {
    for (name, check) in CHECKS {
        let token = CancellationToken::with_timeout(SECOND);
        let child = token.child_token();
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        token
            .on_cancel(move |reason| {
                assert!(matches!(reason, StopReason::DeadlineExceeded));
                counted.fetch_add(1, SeqCst);
            })
            .detach();
        let (_here, wakes) = waiter(&token);
        let (_below, wakes_below) = waiter(&child);
        let notified = || [runs.load(SeqCst), wakes.count(), wakes_below.count()];

        tick(SECOND);
        assert!(check(&child) && check(&token), "{name}");
        assert_eq!(notified(), [0, 0, 0], "{name}");
        tokio::time::sleep(MILLISECOND).await;
        assert_eq!(notified(), [1, 1, 1], "{name}");
        assert!(!child.cancel_with("child") && !token.cancel_with("token"));
        sleep(SECOND).await;
        assert_eq!(notified(), [1, 1, 1], "{name}");
        assert!(is_exceeded(&token) && is_exceeded(&child), "{name}");
    }
}

/// More paths lead up than could ever be walked.
#[tokio::test(start_paused = true)]
async fn a_deadline_over_a_tower_of_diamonds_is_seen_and_wakes() {
    for is_seen in [false, true] {
        let timed = CancellationToken::with_timeout(SECOND);
        let levels = if cfg!(miri) { 10 } else { 40 };
        let top = (0..levels).fold(timed, |below, _| {
            CancellationToken::linked([below.child_token(), below.child_token()])
        });
        let (_waiter, wakes) = waiter(&top);
        tick(SECOND - NANOSECOND);
        assert!(!top.is_cancelled());
        tick(NANOSECOND);
        assert!(!is_seen || is_exceeded(&top));
        assert_eq!(wakes.count(), 0);
        sleep(MILLISECOND).await;
        assert_eq!(wakes.count(), 1);
        assert!(is_exceeded(&top));
    }
}

#[tokio::test(start_paused = true)]
async fn a_cancel_beside_a_tower_of_diamonds_walks_it_once() {
    let levels = if cfg!(miri) { 10 } else { 40 };
    let top = (0..levels).fold(CancellationToken::with_timeout(SECOND), |below, _| {
        CancellationToken::linked([below.child_token(), below.child_token()])
    });
    let other = CancellationToken::new();
    let linked = CancellationToken::linked([&top, &other]);
    assert!(other.cancel_with("other"));
    assert_eq!(reason(&linked).unwrap(), "other");
    assert!(!top.is_cancelled());
}

#[tokio::test(start_paused = true)]
async fn a_callback_that_has_not_run_runs_when_the_token_is_dropped_if_its_deadline_is_over() {
    for (passed, is_seen) in [
        (SECOND - NANOSECOND, false),
        (SECOND, false),
        (SECOND, true),
    ] {
        let token = CancellationToken::with_timeout(SECOND);
        let runs = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&runs);
        let count = move |_: &StopReason| {
            counted.fetch_add(1, SeqCst);
        };
        token.on_cancel(count).detach();
        tick(passed);
        assert!(!is_seen || token.is_cancelled());
        drop(token);
        assert_eq!(runs.load(SeqCst), usize::from(passed == SECOND));
        sleep(SECOND).await;
        assert_eq!(runs.load(SeqCst), usize::from(passed == SECOND));
        assert_eq!(Arc::strong_count(&runs), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_token_that_was_seen_cancelled_before_its_deadline_has_not_exceeded_it() {
    let parent = CancellationToken::new();
    let place = Arc::new(Mutex::new(None::<CancellationToken>));
    let seen = Arc::new(Mutex::new(None));
    parent
        .on_cancel({
            let (place, seen) = (Arc::clone(&place), Arc::clone(&seen));
            move |_| {
                let child = place.lock().unwrap().take().unwrap();
                assert!(child.is_cancelled());
                tick(2 * SECOND);
                *seen.lock().unwrap() = reason(&child);
            }
        })
        .detach();
    let child = parent.child_with_timeout(SECOND);
    *place.lock().unwrap() = Some(child);
    parent.cancel_with("parent");
    assert_eq!(seen.lock().unwrap().as_deref(), Some("parent"));
}

#[tokio::test(start_paused = true)]
async fn dropping_the_handles_above_cuts_nothing() {
    for (name, make) in MAKES {
        let leaf = make(Instant::now() + SECOND).child_token().child_token();
        let (_waiter, wakes) = waiter(&leaf);
        sleep(2 * SECOND).await;
        assert_eq!(wakes.count(), 1, "{name}");
        assert!(is_exceeded(&leaf), "{name}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_a_child_affects_neither_the_parent_nor_siblings() {
    let parent = CancellationToken::with_timeout(3 * SECOND);
    let child = parent.child_with_timeout(SECOND);
    let siblings = [parent.child_token(), parent.child_with_timeout(2 * SECOND)];
    let (_waiter, wakes) = waiter(&parent);
    sleep(SECOND).await;
    assert!(is_exceeded(&child));
    assert_eq!(wakes.count(), 0);
    for token in siblings.iter().chain([&parent]) {
        assert!(!token.is_cancelled());
    }
}

#[tokio::test(start_paused = true)]
async fn every_thread_sees_the_deadline() {
    let handle = Handle::current();
    let token = CancellationToken::with_timeout(SECOND);
    let look_elsewhere = |expected: bool| {
        thread::scope(|scope| {
            for _ in 0..3 {
                scope.spawn(|| {
                    let _context = handle.enter();
                    assert_eq!(token.child_token().is_cancelled(), expected);
                    assert_eq!(is_exceeded(&token), expected);
                });
            }
        });
    };
    tick(SECOND - NANOSECOND);
    look_elsewhere(false);
    tick(NANOSECOND);
    look_elsewhere(true);
    assert!(!token.cancel_with("late"));
}

#[tokio::test(start_paused = true)]
async fn after_a_check_on_another_thread_and_a_cancel_at_the_deadline_all_agree_on_the_reason() {
    let rounds = if cfg!(miri) { 10 } else { 500 };
    let handle = Handle::current();
    for _ in 0..rounds {
        let token = CancellationToken::with_timeout(NANOSECOND);
        let children = [token.child_token(), token.child_token()];
        tick(NANOSECOND);
        thread::scope(|scope| {
            let check = scope.spawn(|| {
                let _context = handle.enter();
                reason(&children[0])
            });
            assert!(!children[1].cancel_with("child"));
            assert!(!token.cancel_with("token"));
            let seen = check.join().unwrap();
            assert_eq!(seen, Some(StopReason::DeadlineExceeded.to_string()));
        });
        assert!(is_exceeded(&token) && is_exceeded(&children[1]));
    }
}
