//! What a deadline costs, and what releases its timer: D1 and D5.

use super::{MAKES, Make, SECOND, waiter};
use futures::stream;
use std::{
    mem,
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken};
use tokio::{
    runtime::Builder,
    time::{Instant, sleep},
};

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
