//! Waiters: each is woken, once, or finds the token cancelled.

use super::{CountingWaker, chain, check_waiter, long_model, model, poll};
use crate::{CancellationToken, StopReason};
use loom::thread;
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    mem,
    panic::{self, AssertUnwindSafe},
    sync::Arc,
};

#[test]
fn a_waiter_is_woken_or_finds_it_cancelled() {
    model(|| {
        let token = CancellationToken::new();
        let canceller = thread::spawn({
            let token = token.clone();
            move || token.cancel()
        });
        let flag = CountingWaker::new();
        let mut cancelled = token.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        canceller.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_waiter_below_unlisted_ancestors_is_woken_or_finds_it_cancelled() {
    model(|| {
        let [root, _, leaf] = chain();
        let canceller = thread::spawn(move || root.cancel());
        let flag = CountingWaker::new();
        let mut cancelled = leaf.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        canceller.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_waiter_below_a_listed_middle_is_woken_or_finds_it_cancelled() {
    model(|| {
        let [root, middle, leaf] = chain();
        let elder_bell = CountingWaker::new();
        let mut elder = middle.cancelled_owned();
        let elder_poll = poll(&mut elder, &elder_bell);
        assert!(elder_poll.is_pending());

        let canceller = thread::spawn(move || root.cancel());
        let flag = CountingWaker::new();
        let mut cancelled = leaf.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        canceller.join().unwrap();
        check_waiter(elder_poll, elder, &elder_bell);
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn both_of_two_waiters_that_list_the_same_child_are_woken_or_find_it_cancelled() {
    long_model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let wait = |token: CancellationToken| {
            move || {
                let flag = CountingWaker::new();
                let mut cancelled = token.cancelled_owned();
                (poll(&mut cancelled, &flag), cancelled, flag)
            }
        };
        let one = thread::spawn(wait(child.clone()));
        let other = thread::spawn(wait(child));
        root.cancel();
        for waiter in [one, other] {
            let (first_poll, cancelled, flag) = waiter.join().unwrap();
            check_waiter(first_poll, cancelled, &flag);
        }
    });
}

#[test]
fn both_of_two_waiters_that_list_the_same_child_are_woken_by_a_later_cancel() {
    long_model(|| {
        let [root, _, leaf] = chain();
        let mut one = leaf.clone().cancelled_owned();
        let (mut other, flag) = (leaf.cancelled_owned(), CountingWaker::new());
        let waiter = thread::spawn(move || {
            let flag = CountingWaker::new();
            (poll(&mut one, &flag), one, flag)
        });
        let first_poll = poll(&mut other, &flag);
        // If the cancel comes before the other thread has registered, that thread has to find the token cancelled.
        root.cancel();
        check_waiter(first_poll, other, &flag);
        let (first_poll, cancelled, flag) = waiter.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn waiters_at_the_leaf_and_at_the_middle_are_woken_or_find_it_cancelled() {
    long_model(|| {
        let [root, middle, leaf] = chain();
        let wait = |token: CancellationToken| {
            move || {
                let flag = CountingWaker::new();
                let mut cancelled = token.cancelled_owned();
                (poll(&mut cancelled, &flag), cancelled, flag)
            }
        };
        let at_leaf = thread::spawn(wait(leaf));
        let at_middle = thread::spawn(wait(middle));
        root.cancel();
        for waiter in [at_leaf, at_middle] {
            let (first_poll, cancelled, flag) = waiter.join().unwrap();
            check_waiter(first_poll, cancelled, &flag);
        }
    });
}

#[test]
fn a_waiter_is_woken_once_though_parent_and_child_are_cancelled_at_once() {
    long_model(|| {
        let [root, middle, leaf] = chain();
        let cancel_root = thread::spawn(move || root.cancel());
        let cancel_middle = thread::spawn(move || middle.cancel());
        let flag = CountingWaker::new();
        let mut cancelled = leaf.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        cancel_root.join().unwrap();
        cancel_middle.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_check_does_not_prevent_the_wake_up_of_a_waiter() {
    model(|| {
        let [root, _, leaf] = chain();
        let flag = CountingWaker::new();
        let mut cancelled = leaf.clone().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        assert!(first_poll.is_pending());

        let canceller = thread::spawn(move || root.cancel());
        let _ = leaf.stop_reason();
        canceller.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn when_a_cancel_returns_the_waiter_has_been_woken_or_is_being_woken() {
    model(|| {
        let token = CancellationToken::new();
        let flag = CountingWaker::new();
        let mut cancelled = token.clone().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        let canceller = thread::spawn({
            let token = token.clone();
            move || token.cancel_with("one")
        });
        let other_won = token.cancel_with("other");
        let one_won = canceller.join().unwrap();
        assert!(one_won != other_won, "exactly one wins");
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_waiter_on_a_child_made_during_a_cancel_is_woken_or_finds_it_cancelled() {
    model(|| {
        let root = CancellationToken::new();
        let canceller = thread::spawn({
            let root = root.clone();
            move || root.cancel()
        });
        let flag = CountingWaker::new();
        let mut cancelled = root.child_token().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        canceller.join().unwrap();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn a_waiter_dropped_during_a_cancel_is_woken_at_most_once_and_leaves_nothing() {
    model(|| {
        let root = CancellationToken::new();
        let flag = CountingWaker::new();
        let mut cancelled = root.child_token().cancelled_owned();
        assert!(poll(&mut cancelled, &flag).is_pending());
        let canceller = thread::spawn(move || root.cancel());
        drop(cancelled);
        canceller.join().unwrap();
        assert!(flag.wakes() <= 1);
        assert_eq!(Arc::strong_count(&flag), 1);
    });
}

#[test]
fn a_neighbour_of_a_waiter_that_is_dropped_during_a_cancel_is_woken() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let mut leaver = child.clone().cancelled_owned();
        assert!(poll(&mut leaver, &CountingWaker::new()).is_pending());
        let flag = CountingWaker::new();
        let mut stayer = child.cancelled_owned();
        let first_poll = poll(&mut stayer, &flag);
        let canceller = thread::spawn(move || root.cancel());
        drop(leaver);
        canceller.join().unwrap();
        check_waiter(first_poll, stayer, &flag);
    });
}

#[test]
fn the_last_handle_of_a_listed_child_can_be_dropped_during_a_cancel() {
    model(|| {
        let [root, middle, leaf] = chain();
        let mut waiter = leaf.clone().cancelled_owned();
        assert!(poll(&mut waiter, &CountingWaker::new()).is_pending());
        drop((waiter, middle));
        // The neighbour in the root's list, after it.
        let flag = CountingWaker::new();
        let mut neighbour = root.child_token().cancelled_owned();
        let first_poll = poll(&mut neighbour, &flag);

        let canceller = thread::spawn({
            let root = root.clone();
            move || root.cancel()
        });
        // Drops the leaf and the middle, here or when the canceller is done with them.
        drop(leaf);
        canceller.join().unwrap();
        check_waiter(first_poll, neighbour, &flag);
        assert!(root.is_cancelled());
    });
}

#[test]
fn the_last_handle_of_a_listed_child_can_be_dropped_while_another_registers() {
    model(|| {
        let root = CancellationToken::new();
        let leaver = root.child_token();
        let mut waiter = leaver.clone().cancelled_owned();
        assert!(poll(&mut waiter, &CountingWaker::new()).is_pending());
        drop(waiter);
        let stayer = root.child_token();
        let dropper = thread::spawn(move || drop(leaver));
        let flag = CountingWaker::new();
        let mut cancelled = stayer.cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        dropper.join().unwrap();
        root.cancel();
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn the_latest_waker_is_woken_though_it_came_during_the_cancel() {
    model(|| {
        let root = CancellationToken::new();
        let (earlier, latest) = (CountingWaker::new(), CountingWaker::new());
        let mut cancelled = root.child_token().cancelled_owned();
        assert!(poll(&mut cancelled, &earlier).is_pending());
        let canceller = thread::spawn(move || root.cancel());
        let second_poll = poll(&mut cancelled, &latest);
        canceller.join().unwrap();
        assert!(earlier.wakes() + latest.wakes() <= 1);
        check_waiter(second_poll, cancelled, &latest);
        assert_eq!(Arc::strong_count(&earlier), 1);
    });
}

#[derive(Debug)]
struct PanicsOnDrop;

impl Display for PanicsOnDrop {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.write_str("an error")
    }
}

impl Error for PanicsOnDrop {}

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        // Prints no message for each of the interleavings.
        panic::resume_unwind(Box::new("dropped"));
    }
}

/// The cancel that loses has taken the waiters when it drops its reason: it has to wake them first.
#[test]
fn a_losing_reason_that_panics_when_dropped_does_not_prevent_the_wake_up_of_a_waiter() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let flag = CountingWaker::new();
        let mut cancelled = child.clone().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        let canceller = thread::spawn({
            let root = root.clone();
            move || root.cancel()
        });
        let checker = thread::spawn({
            let child = child.clone();
            move || drop(child.stop_reason())
        });
        let reason = StopReason::custom(PanicsOnDrop);
        let won = panic::catch_unwind(AssertUnwindSafe(|| child.cancel_with(reason)));
        canceller.join().unwrap();
        checker.join().unwrap();
        if won.is_ok() {
            // It is the child's reason now, and must not be dropped here.
            mem::forget(child.clone());
        }
        check_waiter(first_poll, cancelled, &flag);
    });
}

/// The cancel visits a child that has a reason of its own, and drops the child's last handle.
#[test]
fn a_reason_that_is_dropped_with_a_child_during_a_cancel_does_not_prevent_the_wake_up_of_its_neighbour()
 {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let mut waiter = child.clone().cancelled_owned();
        assert!(poll(&mut waiter, &CountingWaker::new()).is_pending());
        drop(waiter);
        assert!(child.cancel_with(StopReason::custom(PanicsOnDrop)));
        let flag = CountingWaker::new();
        let mut neighbour = root.child_token().cancelled_owned();
        let first_poll = poll(&mut neighbour, &flag);

        let dropper = thread::spawn(move || {
            let _ = child.stop_reason();
            panic::catch_unwind(AssertUnwindSafe(|| drop(child))).is_ok()
        });
        let cancelled = panic::catch_unwind(AssertUnwindSafe(|| root.cancel())).is_ok();
        let dropped = dropper.join().unwrap();
        assert!(cancelled != dropped, "the panic comes out once");
        check_waiter(first_poll, neighbour, &flag);
    });
}
