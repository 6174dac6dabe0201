//! Tokens with a deadline: the laws D1 to D7, and T3 to T7 and T12 where the cancel is a point in time. The clock is
//! tokio's, paused.

use crate::{
    sequences::sequences,
    support::{Wakes, panic_of},
};
use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use std::{
    future::{Future, pending, ready},
    mem,
    pin::{Pin, pin},
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
    time::Duration,
};
use stopcock::{
    CancelStreamExt, CancellationToken, CancelledOwned, StopReason, Yielder, generator, signal,
    testing::Source,
};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    task::yield_now,
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

// D1 and D5: which timers there are.

/// Where the clock of an idle runtime halts on its way to the end of a long sleep, once `set_up` has been run: at the
/// timers.
fn halts<T>(set_up: impl FnOnce() -> T) -> Vec<Duration> {
    let halts = Arc::new(Mutex::new(Vec::new()));
    let runtime = {
        let halts = Arc::clone(&halts);
        Builder::new_current_thread()
            .enable_time()
            .start_paused(true)
            .on_thread_park(move || halts.lock().unwrap().push(Instant::now()))
            .build()
            .unwrap()
    };
    let start = runtime.block_on(async {
        let start = Instant::now();
        let _kept = set_up();
        sleep(1000 * SECOND).await;
        start
    });
    drop(runtime);
    let halts = mem::take(&mut *halts.lock().unwrap());
    halts.into_iter().map(|halt| halt - start).collect()
}

fn at_second(second: u32) -> Instant {
    Instant::now() + second * SECOND
}

#[test]
fn a_deadline_is_a_timer() {
    let halts_of_nobody = halts(|| ());
    assert!(!halts_of_nobody.contains(&SECOND));
    for (name, make) in MAKES {
        let halts = halts(|| make(at_second(1)));
        assert!(halts.contains(&SECOND), "{name}: {halts:?}");
    }
}

#[test]
fn a_deadline_that_is_not_before_the_ancestors_costs_no_timer() {
    for parent in [1, 2] {
        for child in [parent, parent + 1, parent + 7] {
            let without = halts(|| CancellationToken::with_deadline(at_second(parent)));
            let with = halts(|| {
                let token = CancellationToken::with_deadline(at_second(parent));
                let middle = token.child_token();
                let linked = CancellationToken::linked([&middle, &CancellationToken::new()]);
                [
                    token.child_with_deadline(at_second(child)),
                    middle.child_with_timeout(child * SECOND),
                    linked.child_with_deadline(at_second(child)),
                ]
            });
            assert_eq!(with, without);
        }
    }
}

#[test]
fn what_never_comes_or_is_over_costs_no_timer() {
    let without = halts(|| ());
    let makes: [Make; 6] = [
        |_| CancellationToken::with_timeout(Duration::MAX),
        |_| CancellationToken::new().child_with_timeout(Duration::MAX),
        |_| CancellationToken::with_timeout(Duration::ZERO),
        |_| CancellationToken::new().child_with_timeout(Duration::ZERO),
        |now| CancellationToken::with_deadline(now),
        |now| CancellationToken::new().child_with_deadline(now),
    ];
    for make in makes {
        assert_eq!(halts(|| make(Instant::now())), without);
    }
    let of_a_cancelled_parent = halts(|| {
        let parent = CancellationToken::new();
        parent.cancel();
        parent.child_with_timeout(SECOND)
    });
    assert_eq!(of_a_cancelled_parent, without);
}

#[test]
fn a_cancel_of_the_token_or_of_any_ancestor_releases_the_timer() {
    let without = halts(|| ());
    for which in 0..4 {
        let with = halts(|| {
            let [root, other] = [CancellationToken::new(), CancellationToken::new()];
            let linked = CancellationToken::linked([&other, &root]);
            let timed = linked.child_token().child_with_deadline(at_second(1));
            // Another one below, with a timer of its own.
            let below = timed.child_token().child_with_timeout(SECOND / 2);
            [&root, &other, &linked, &timed][which].cancel();
            (root, other, linked, timed, below)
        });
        assert_eq!(with, without, "{which}");
    }
}

#[test]
fn a_cancel_below_leaves_the_timer() {
    let halts = halts(|| {
        let timed = CancellationToken::with_deadline(at_second(1));
        timed.child_token().cancel();
        timed
    });
    assert!(halts.contains(&SECOND));
}

#[test]
fn dropping_the_last_handle_early_releases_the_timer() {
    let without = halts(|| ());
    for (name, make) in MAKES {
        assert_eq!(halts(|| drop(make(at_second(1)))), without, "{name}");
        let with_more = halts(|| {
            let token = make(at_second(1));
            token.on_cancel(|_| {}).detach();
            drop(waiter(&token));
            drop((token.child_token(), token.clone()));
        });
        assert_eq!(with_more, without, "{name}");
    }
}

#[test]
fn a_descendant_or_a_waiter_keeps_the_timer() {
    let keepers: [fn(CancellationToken) -> Box<dyn Send>; 5] = [
        |token| Box::new(token.child_token().child_token()),
        |token| Box::new(CancellationToken::linked([token, CancellationToken::new()])),
        |token| Box::new(token.on_cancel(|_| {})),
        |token| Box::new(token.cancelled_owned()),
        |token| Box::new(stream::pending::<u8>().take_until_cancelled(token)),
    ];
    for keep in keepers {
        let halts = halts(|| keep(CancellationToken::with_deadline(at_second(1))));
        assert!(halts.contains(&SECOND));
    }
}

#[test]
fn a_cancel_on_another_thread_releases_the_timer() {
    let with = halts(|| {
        let token = CancellationToken::with_deadline(at_second(1));
        let cancelled = token.clone();
        thread::spawn(move || cancelled.cancel()).join().unwrap();
        token
    });
    assert_eq!(with, halts(|| ()));
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

/// What is done to a small tree on a thread that never yields to the runtime.
#[derive(Clone, Copy, Debug)]
enum Step {
    Cancel(usize),
    Check(usize),
    /// A second passes.
    Tick,
}

/// 1 is a child of 0 with a deadline after two seconds, and 2 its child. 3 is a root with a deadline after one second.
/// 4 is linked to 2 and 3, and 5 is its child.
const BELOW: [&[usize]; 6] = [
    &[0, 1, 2, 4, 5],
    &[1, 2, 4, 5],
    &[2, 4, 5],
    &[3, 4, 5],
    &[4, 5],
    &[5],
];

/// What it would be if a cancel and the time could just set a field in every node below.
#[derive(Default)]
struct Model {
    now: u32,
    reasons: [Option<String>; BELOW.len()],
    notified: [bool; BELOW.len()],
}

impl Model {
    fn give(&mut self, token: usize, reason: &str) -> bool {
        let is_first = self.reasons[token].is_none();
        for &below in BELOW[token].iter().filter(|_| is_first) {
            self.reasons[below].get_or_insert(reason.into());
        }
        is_first
    }

    fn cancel(&mut self, token: usize, reason: &str) -> bool {
        let has_won = self.give(token, reason);
        for &below in BELOW[token] {
            self.notified[below] = true;
        }
        has_won
    }

    fn tick(&mut self) {
        self.now += 1;
        match self.now {
            1 => self.give(3, &StopReason::DeadlineExceeded.to_string()),
            2 => self.give(1, &StopReason::DeadlineExceeded.to_string()),
            _ => false,
        };
    }
}

async fn check_sequence(steps: &[Step], are_waited_on: bool) {
    let root = CancellationToken::new();
    let timed = root.child_with_timeout(2 * SECOND);
    let middle = timed.child_token();
    let other = CancellationToken::with_timeout(SECOND);
    let linked = CancellationToken::linked([&middle, &other]);
    let leaf = linked.child_token();
    let tokens = [root, timed, middle, other, linked, leaf];

    let calls = Arc::new(Mutex::new(vec![Vec::new(); BELOW.len()]));
    let mut waiters = Vec::new();
    for (node, token) in tokens.iter().enumerate().filter(|_| are_waited_on) {
        let calls = Arc::clone(&calls);
        let call = move |reason: &StopReason| calls.lock().unwrap()[node].push(reason.to_string());
        waiters.push((waiter(token), token.on_cancel(call)));
    }
    let mut model = Model::default();
    let check_notified = |model: &Model| {
        for (node, ((_, wakes), _)) in waiters.iter().enumerate() {
            let notified = usize::from(model.notified[node]);
            assert_eq!(wakes.count(), notified, "{node}: {steps:?}");
            let calls = &calls.lock().unwrap()[node];
            let reason = model.reasons[node].iter().filter(|_| model.notified[node]);
            assert!(calls.iter().eq(reason), "{node}: {calls:?} in {steps:?}");
        }
    };

    for (step, why) in steps.iter().zip(WHYS) {
        match *step {
            Step::Cancel(node) => {
                let has_won = tokens[node].cancel_with(why);
                assert_eq!(has_won, model.cancel(node, why), "{steps:?}");
            }
            Step::Check(node) => {
                let is_cancelled = tokens[node].is_cancelled();
                assert_eq!(is_cancelled, model.reasons[node].is_some(), "{steps:?}");
            }
            Step::Tick => {
                tick(SECOND);
                model.tick();
            }
        }
        check_notified(&model);
    }
    // From below or from above, as a check sets the outcomes of the ancestors.
    let mut nodes: Vec<_> = (0..BELOW.len()).collect();
    if steps.len() % 2 == 1 {
        nodes.reverse();
    }
    for node in nodes {
        assert_eq!(
            reason(&tokens[node]),
            model.reasons[node],
            "{node}: {steps:?}"
        );
    }
    check_notified(&model);
    // The timers notify those that have not been notified.
    while model.now < 3 {
        tick(SECOND);
        model.tick();
    }
    sleep(MILLISECOND).await;
    for node in 1..BELOW.len() {
        model.notified[node] = true;
    }
    check_notified(&model);
    for (token, expected) in tokens.iter().zip(&model.reasons) {
        assert_eq!(reason(token), *expected, "{steps:?}");
    }
}

#[test]
fn every_short_sequence_of_deadlines_and_cancels_matches_a_simple_model() {
    let mut steps = vec![Step::Tick];
    steps.extend((0..BELOW.len()).flat_map(|node| [Step::Cancel(node), Step::Check(node)]));
    let runtime = paused_runtime();
    let length = if cfg!(miri) { 1 } else { WHYS.len() };
    for sequence in sequences(&steps, length) {
        for are_waited_on in [true, false] {
            // There are too many of the longest ones to run each twice.
            if sequence.len() < length || are_waited_on == (length % 2 == 0) {
                runtime.block_on(check_sequence(&sequence, are_waited_on));
            }
        }
    }
}

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
async fn a_deadline_below_leaves_the_parent_and_the_siblings_alone() {
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

// Runtimes and threads.

type MakeBelow = fn(&CancellationToken) -> CancellationToken;

/// All four constructors, none of them with a deadline that is over.
const MAKES_BELOW: [(&str, MakeBelow); 4] = [
    ("with_deadline", |_| {
        CancellationToken::with_deadline(Instant::now() + SECOND)
    }),
    ("with_timeout", |_| CancellationToken::with_timeout(SECOND)),
    ("child_with_deadline", |parent| {
        parent.child_with_deadline(Instant::now() + SECOND)
    }),
    ("child_with_timeout", |parent| {
        parent.child_with_timeout(SECOND)
    }),
];

#[test]
fn outside_of_a_runtime_a_deadline_panics_and_says_what_to_do() {
    let parent = CancellationToken::new();
    for (name, make) in MAKES_BELOW {
        let message = panic_of(|| make(&parent));
        assert!(
            message.contains("context of a Tokio 1.x runtime"),
            "{name}: {message}"
        );
        assert!(message.contains("Handle::enter"), "{name}: {message}");
    }
    // The parent is none the worse for it.
    let (_waiter, wakes) = waiter(&parent);
    assert!(parent.cancel_with("parent"));
    assert_eq!(wakes.count(), 1);
}

#[test]
fn outside_of_a_runtime_every_other_use_of_a_deadline_works() {
    let runtime = paused_runtime();
    let token = {
        let _context = runtime.enter();
        CancellationToken::with_timeout(3600 * SECOND)
    };
    for (name, check) in CHECKS {
        assert!(!check(&token), "{name}");
    }
    assert!(token.remaining() > Some(SECOND));
    assert!(token.child_token().cancel_with("child"));
    assert!(
        CancellationToken::linked([&token, &CancellationToken::new()])
            .deadline()
            .is_some()
    );
    assert!(token.cancel_with("token"));
}

#[test]
fn in_a_runtime_without_timers_a_deadline_panics_and_says_what_to_do() {
    let runtime = Builder::new_current_thread().build().unwrap();
    let parent = CancellationToken::new();
    let (_waiter, wakes) = waiter(&parent);
    let _context = runtime.enter();
    for (name, make) in MAKES_BELOW {
        let message = panic_of(|| make(&parent));
        assert!(message.contains("enable_time"), "{name}: {message}");
    }
    parent.cancel();
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_runtime_that_ends_before_the_deadline_wakes_nothing_and_checks_stay_honest() {
    let runtime = paused_runtime();
    let [token, cancelled] = {
        let _context = runtime.enter();
        [SECOND, SECOND].map(CancellationToken::with_timeout)
    };
    let child = token.child_token();
    let (_waiter, wakes) = waiter(&child);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let _registration = token.on_cancel(move |_| {
        counted.fetch_add(1, SeqCst);
    });
    runtime.block_on(async { advance(SECOND / 2).await });
    drop(runtime);
    assert_eq!((wakes.count(), calls.load(SeqCst)), (0, 0));

    // Another clock that can be moved.
    let runtime = paused_runtime();
    let _context = runtime.enter();
    assert!(!child.is_cancelled());
    assert!(cancelled.cancel_with("early"));
    tick(3600 * SECOND);
    assert!(is_exceeded(&child));
    assert_eq!((wakes.count(), calls.load(SeqCst)), (0, 0));
    assert!(!token.cancel_with("late"));
    assert_eq!((wakes.count(), calls.load(SeqCst)), (1, 1));
    assert_eq!(reason(&cancelled).unwrap(), "early");
}

#[test]
fn a_token_that_outlives_its_runtime_is_dropped_at_any_time() {
    for (name, make) in MAKES {
        let runtime = paused_runtime();
        let tokens = {
            let _context = runtime.enter();
            [0, 1].map(|seconds| make(Instant::now() + seconds * SECOND))
        };
        drop(runtime);
        let child = tokens[1].child_token();
        drop(tokens);
        assert!(child.cancel_with(name));
    }
}

#[test]
fn a_runtime_that_ends_after_the_deadline_without_having_run_its_timers_wakes_nothing_twice() {
    let runtime = paused_runtime();
    let token = {
        let _context = runtime.enter();
        let token = CancellationToken::with_timeout(SECOND);
        tick(2 * SECOND);
        token
    };
    let wakes = Wakes::new();
    let mut cancelled = token.cancelled();
    let waker = Waker::from(Arc::clone(&wakes));
    // Outside of the runtime's context the clock has not moved.
    let polled = Pin::new(&mut cancelled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(runtime);
    token.cancel();
    assert_eq!(wakes.count(), 1);
    drop((cancelled, waker));
    assert_eq!(Arc::strong_count(&wakes), 1);
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

/// D7.
#[test]
fn under_a_paused_clock_a_story_of_many_deadlines_is_the_same_at_every_run() {
    fn sequence() -> Vec<(u32, Duration)> {
        let log = Arc::new(Mutex::new(Vec::new()));
        paused_runtime().block_on(async {
            let start = Instant::now();
            let root = CancellationToken::new();
            let mut tokens = vec![root];
            let mut state = 7_u32;
            for number in 0..60 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let parent = &tokens[(state >> 16) as usize % tokens.len()];
                let token = match number % 5 {
                    0 => CancellationToken::linked([parent, &tokens[0]]),
                    1 => parent.child_token(),
                    _ => parent.child_with_timeout((state >> 12) % 5000 * 300 * MICROSECOND),
                };
                let log = Arc::clone(&log);
                let call =
                    move |_: &StopReason| log.lock().unwrap().push((number, start.elapsed()));
                token.on_cancel(call).detach();
                tokens.push(token);
            }
            sleep(10 * SECOND).await;
            assert!(!tokens[0].is_cancelled());
        });
        mem::take(&mut *log.lock().unwrap())
    }

    let first = sequence();
    assert!(first.len() > 20);
    assert!(first.is_sorted_by_key(|(_, when)| *when));
    assert_eq!(sequence(), first);
    assert_eq!(sequence(), first);
}

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
async fn what_a_deadline_stopped_says_so() {
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
