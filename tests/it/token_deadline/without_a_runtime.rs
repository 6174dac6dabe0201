//! Deadlines outside of a runtime, and after its end.

use super::{CHECKS, MAKES, SECOND, is_exceeded, paused_runtime, reason, tick, waiter};
use crate::support::{Wakes, panic_of};
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Waker},
};
use stopcock::CancellationToken;
use tokio::{
    runtime::Builder,
    time::{Instant, advance},
};

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
fn outside_a_runtime_a_deadline_panics_with_the_way_out() {
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
fn in_a_runtime_without_timers_a_deadline_panics_with_the_way_out() {
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
