//! Outcomes: all threads agree on them, and see what was written before a cancel.

use super::{CountingWaker, chain, check_waiter, long_model, model, poll, reason};
use crate::{CancellationToken, StopReason};
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::sync::Arc;

#[test]
fn a_child_made_during_a_cancel_is_cancelled_with_its_reason() {
    model(|| {
        let [root, middle, _] = chain();
        let canceller = thread::spawn(move || root.cancel_with("root"));
        let child = middle.child_token();
        let early = child.stop_reason();
        canceller.join().unwrap();
        assert_eq!(reason(&child), "root");
        assert!(early.is_none_or(|early| early.to_string() == "root"));
    });
}

#[test]
fn a_losing_cancel_leaves_the_whole_subtree_cancelled() {
    model(|| {
        let [root, middle, leaf] = chain();
        let cancel = |mine: &'static str, root: CancellationToken, leaf: CancellationToken| {
            move || {
                let won = root.cancel_with(mine);
                assert!(leaf.is_cancelled());
                (won, reason(&leaf))
            }
        };
        let canceller = thread::spawn(cancel("one", root.clone(), leaf.clone()));
        let (other_won, other_saw) = cancel("other", root.clone(), leaf.clone())();
        let (one_won, one_saw) = canceller.join().unwrap();
        assert!(one_won != other_won, "exactly one wins");
        assert_eq!(one_saw, other_saw);
        assert_eq!(one_saw, if one_won { "one" } else { "other" });
        for token in [&root, &middle, &leaf] {
            assert_eq!(reason(token), one_saw);
        }
    });
}

/// What a thread sees after its cancel is what all threads see from then on. A child that won has its own reason, and
/// so have all its descendants.
#[test]
fn all_agree_on_the_reasons_of_a_parent_and_a_child_cancelled_at_once() {
    model(|| {
        let [root, middle, leaf] = chain();
        let canceller = thread::spawn({
            let [root, leaf] = [&root, &leaf].map(Clone::clone);
            move || (root.cancel_with("root"), reason(&leaf))
        });
        let middle_won = middle.cancel_with("middle");
        let seen_here = reason(&leaf);
        let (root_won, seen_there) = canceller.join().unwrap();

        assert!(root_won);
        assert_eq!(reason(&root), "root");
        let expected = if middle_won { "middle" } else { "root" };
        assert_eq!(reason(&middle), expected);
        assert_eq!(reason(&leaf), expected);
        assert_eq!(seen_here, expected);
        assert_eq!(seen_there, expected);
    });
}

/// The same with a waiter at the leaf, so that the cancels walk there as well.
#[test]
fn all_agree_on_the_reasons_below_two_cancels_that_wake_a_waiter() {
    model(|| {
        let [root, middle, leaf] = chain();
        let flag = CountingWaker::new();
        let mut cancelled = leaf.clone().cancelled_owned();
        let first_poll = poll(&mut cancelled, &flag);
        let canceller = thread::spawn({
            let root = root.clone();
            move || root.cancel_with("root")
        });
        let middle_won = middle.cancel_with("middle");
        let root_won = canceller.join().unwrap();

        assert!(root_won);
        let expected = if middle_won { "middle" } else { "root" };
        assert_eq!(reason(&leaf), expected);
        assert_eq!(reason(&middle), expected);
        check_waiter(first_poll, cancelled, &flag);
    });
}

#[test]
fn all_agree_on_the_reason_that_two_checks_set_while_the_middle_is_cancelled() {
    long_model(|| {
        let [root, middle, leaf] = chain();
        let check =
            |leaf: CancellationToken| move || leaf.stop_reason().map(|reason| reason.to_string());
        let canceller = thread::spawn({
            let check = check(leaf.clone());
            move || {
                root.cancel_with("root");
                check()
            }
        });
        let checker = thread::spawn(check(leaf.clone()));
        let middle_won = middle.cancel_with("middle");
        let reasons = [canceller.join().unwrap(), checker.join().unwrap()];

        let expected = if middle_won { "middle" } else { "root" };
        assert_eq!(reason(&middle), expected);
        assert_eq!(reason(&leaf), expected);
        for seen in reasons.into_iter().flatten() {
            assert_eq!(seen, expected);
        }
    });
}

#[test]
fn a_check_that_sees_a_cancel_sees_a_reason_that_never_changes() {
    model(|| {
        let [root, _, leaf] = chain();
        let canceller = thread::spawn(move || root.cancel_with(StopReason::ConsumerDropped));
        if leaf.is_cancelled() {
            assert_eq!(reason(&leaf), StopReason::ConsumerDropped.to_string());
            assert!(leaf.is_cancelled());
        }
        canceller.join().unwrap();
    });
}

/// A thread that writes and then cancels. Only the cancel can make the write visible.
fn write_and_cancel(root: CancellationToken) -> (Arc<AtomicUsize>, thread::JoinHandle<()>) {
    let written = Arc::new(AtomicUsize::new(0));
    let canceller = thread::spawn({
        let written = Arc::clone(&written);
        move || {
            written.store(1, Ordering::Relaxed);
            root.cancel();
        }
    });
    (written, canceller)
}

#[test]
fn writes_before_a_cancel_are_visible_with_it() {
    model(|| {
        let [root, _, leaf] = chain();
        let (written, canceller) = write_and_cancel(root);
        if leaf.is_cancelled() {
            assert_eq!(written.load(Ordering::Relaxed), 1);
        }
        canceller.join().unwrap();
    });
}

/// An outcome that a check sets is a separate store: it has to publish the writes before the cancel as well.
#[test]
fn writes_before_a_cancel_are_visible_with_an_outcome_that_a_check_has_set() {
    model(|| {
        let [root, _, leaf] = chain();
        let (written, canceller) = write_and_cancel(root);
        let checker = thread::spawn({
            let leaf = leaf.clone();
            move || drop(leaf.stop_reason())
        });
        if leaf.is_cancelled() {
            assert_eq!(written.load(Ordering::Relaxed), 1);
        }
        canceller.join().unwrap();
        checker.join().unwrap();
    });
}

#[test]
fn writes_before_a_cancel_are_visible_to_a_waiter_that_is_refused() {
    model(|| {
        let [root, _, leaf] = chain();
        let (written, canceller) = write_and_cancel(root);
        if poll(&mut leaf.cancelled_owned(), &CountingWaker::new()).is_ready() {
            assert_eq!(written.load(Ordering::Relaxed), 1);
        }
        canceller.join().unwrap();
    });
}
