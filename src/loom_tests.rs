//! Loom models: the token under all interleavings of two or three threads, with one question per model.
//!
//! Run with `RUSTFLAGS="--cfg stopcock_loom" cargo test --lib --release --no-default-features`. The `Arc`s are those of
//! `std`, which loom does not model. Threads report what they have found in return values, so that only the token and
//! the wakers synchronise them.

mod adapter;
mod callbacks;
mod channel;
mod counts;
mod drop_on_cancel;
mod links;
mod run_blocking;
mod settling;

use crate::{CancellationToken, CancelledOwned, StopReason};
use loom::{
    model::Builder,
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    future::Future,
    mem,
    panic::{self, AssertUnwindSafe},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Wake, Waker},
};

/// Counts how often it is woken.
#[derive(Default)]
struct CountingWaker(AtomicUsize);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.0.fetch_add(1, Ordering::Release);
    }
}

impl CountingWaker {
    fn new() -> Arc<Self> {
        Arc::default()
    }

    /// Whether it has been woken, as a task checks before a poll: the writes before the wake-up are visible after that.
    fn is_woken(&self) -> bool {
        self.0.load(Ordering::Acquire) > 0
    }

    fn wakes(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }
}

fn poll(cancelled: &mut CancelledOwned, flag: &Arc<CountingWaker>) -> Poll<()> {
    let waker = Waker::from(Arc::clone(flag));
    let poll = Pin::new(&mut *cancelled).poll(&mut Context::from_waker(&waker));
    if poll.is_ready() {
        assert!(cancelled.token().is_cancelled(), "ready means cancelled");
    }
    poll
}

/// Checks a waiter at the end of a model: woken once if it was pending, at most once if not, and its waker is dropped.
fn check_waiter(first_poll: Poll<()>, mut cancelled: CancelledOwned, flag: &Arc<CountingWaker>) {
    match first_poll {
        Poll::Pending => assert_eq!(flag.wakes(), 1, "a pending waiter is woken once"),
        Poll::Ready(()) => assert!(flag.wakes() <= 1, "no waiter is woken twice"),
    }
    assert!(poll(&mut cancelled, &CountingWaker::new()).is_ready());
    drop(cancelled);
    assert_eq!(Arc::strong_count(flag), 1, "the waker is dropped");
}

fn reason(token: &CancellationToken) -> String {
    token
        .stop_reason()
        .expect("it is cancelled, so it has a reason")
        .to_string()
}

/// root, middle, leaf.
fn chain() -> [CancellationToken; 3] {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    [root, middle, leaf]
}

/// Checks all interleavings of up to three preemptions. A fourth takes minutes, and found no more of the bugs that were
/// put in on trial.
fn model(model: impl Fn() + Send + Sync + 'static) {
    up_to(3, model);
}

/// The same with up to two preemptions, for models in which three preemptions take minutes.
fn long_model(model: impl Fn() + Send + Sync + 'static) {
    up_to(2, model);
}

fn up_to(preemptions: usize, model: impl Fn() + Send + Sync + 'static) {
    let mut builder = Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(model);
}

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
