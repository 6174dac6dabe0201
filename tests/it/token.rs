//! `CancellationToken`, its futures and its guard: the laws T1 to T5, T7, T11 and T12. T8 is in `residue`, T9 and T10 in `depth`.

mod foreign_code;
mod stories;
mod threads;

use crate::support::{Hooks, Wakes, panic_of};
use std::{
    collections::HashSet,
    error::Error,
    fmt::{self, Display, Formatter},
    future::Future,
    mem,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};
use stopcock::{CancellationToken, CancelledOwned, StopReason};

pub(crate) fn poll(
    future: &mut (impl Future<Output = ()> + Unpin),
    wakes: &Arc<Wakes>,
) -> Poll<()> {
    poll_with(future, &Waker::from(Arc::clone(wakes)))
}

pub(crate) fn poll_with(
    future: &mut (impl Future<Output = ()> + Unpin),
    waker: &Waker,
) -> Poll<()> {
    Pin::new(future).poll(&mut Context::from_waker(waker))
}

pub(crate) fn reason(token: &CancellationToken) -> Option<String> {
    token.stop_reason().map(|reason| reason.to_string())
}

/// A waiter on `token` that has been polled once, and is pending.
pub(crate) fn waiter(token: &CancellationToken) -> (CancelledOwned, Arc<Wakes>) {
    let wakes = Wakes::new();
    let mut cancelled = token.clone().cancelled_owned();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    (cancelled, wakes)
}

/// root, middle, leaf.
pub(crate) fn chain() -> [CancellationToken; 3] {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    [root, middle, leaf]
}

#[test]
fn a_new_token_is_not_cancelled() {
    for token in [CancellationToken::new(), CancellationToken::default()] {
        for token in [token.child_token(), token] {
            assert!(!token.is_cancelled());
            assert!(token.stop_reason().is_none());
            assert!(token.check().is_ok());
        }
    }
}

#[test]
fn a_plain_cancel_has_the_reason_cancelled() {
    let token = CancellationToken::new();
    token.cancel();
    assert!(token.is_cancelled());
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    assert!(matches!(token.check(), Err(StopReason::Cancelled)));
}

#[test]
fn the_first_cancel_wins_and_its_reason_stays() {
    let token = CancellationToken::new();
    assert!(token.cancel_with("first"));
    assert!(!token.cancel_with("second"));
    token.cancel();
    assert_eq!(reason(&token).unwrap(), "first");
    assert_eq!(token.check().unwrap_err().to_string(), "first");
}

#[test]
fn a_reason_of_ones_own_can_be_taken_back_out_anywhere_below() {
    #[derive(Debug)]
    struct UserLeft(u32);

    impl Display for UserLeft {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            write!(f, "user {} left", self.0)
        }
    }

    impl Error for UserLeft {}

    let [root, _, leaf] = chain();
    root.cancel_with(StopReason::custom(UserLeft(7)));
    let reason = leaf.stop_reason().unwrap();
    assert_eq!(reason.downcast_ref::<UserLeft>().unwrap().0, 7);
}

#[test]
#[expect(
    clippy::mutable_key_type,
    reason = "it is hashed by what it is, not by its state"
)]
fn clones_are_the_same_token_and_children_are_not() {
    let [root, middle, _] = chain();
    let clone = root.clone();
    assert_eq!(root, clone);
    assert_ne!(root, middle);
    assert_ne!(root, CancellationToken::new());
    assert_ne!(root.child_token(), root.child_token());

    let set: HashSet<_> = [root.clone(), clone.clone(), middle.clone()].into();
    assert_eq!(set.len(), 2);
    assert!(set.contains(&root) && set.contains(&middle));
    assert!(!set.contains(&root.child_token()));

    clone.cancel_with("by a clone");
    assert_eq!(reason(&root).unwrap(), "by a clone");
    assert_eq!(root, clone, "what it is does not change with its state");
}

#[test]
fn debug_shows_whether_and_why() {
    let token = CancellationToken::new();
    let waiting = format!("{token:?} {:?}", token.cancelled());
    assert!(!waiting.contains("ConsumerDropped"));
    token.cancel_with(StopReason::ConsumerDropped);
    let guard = token.clone().drop_guard();
    for text in [
        format!("{token:?}"),
        format!("{:?}", token.cancelled()),
        format!("{:?}", token.clone().cancelled_owned()),
        format!("{guard:?}"),
    ] {
        assert!(text.contains("ConsumerDropped"), "{text}");
    }
}

#[test]
fn a_cancel_propagates_down_and_never_up_or_sideways() {
    let [root, middle, leaf] = chain();
    let [aunt, sibling] = [root.child_token(), middle.child_token()];
    assert!(leaf.cancel_with("leaf"));
    assert_eq!(reason(&leaf).unwrap(), "leaf");
    for token in [&root, &middle, &aunt, &sibling] {
        assert!(!token.is_cancelled());
    }
    assert!(middle.cancel_with("middle"));
    assert_eq!(reason(&middle).unwrap(), "middle");
    assert_eq!(reason(&sibling).unwrap(), "middle");
    assert_eq!(reason(&leaf).unwrap(), "leaf", "it had one");
    for token in [&root, &aunt] {
        assert!(!token.is_cancelled());
    }
}

#[test]
fn a_reason_of_a_descendant_does_not_reach_the_siblings_of_its_parent() {
    let root = CancellationToken::new();
    let [first, second] = [root.child_token(), root.child_token()];
    let below_first = first.child_token();
    let reasons = Arc::new(Mutex::new(Vec::new()));
    for token in [&below_first, &second] {
        let reasons = Arc::clone(&reasons);
        let note = move |reason: &StopReason| reasons.lock().unwrap().push(reason.to_string());
        token.on_cancel(note).detach();
    }
    below_first.cancel_with("below");
    root.cancel_with("root");
    assert_eq!(*reasons.lock().unwrap(), ["below", "root"]);
    assert_eq!(reason(&second).unwrap(), "root");
}

#[test]
fn a_child_of_a_cancelled_token_is_born_cancelled_with_its_reason() {
    let [root, middle, leaf] = chain();
    middle.cancel_with("middle");
    root.cancel_with("root");
    for (parent, why) in [(&root, "root"), (&middle, "middle"), (&leaf, "middle")] {
        let child = parent.child_token();
        assert!(child.is_cancelled());
        assert!(!child.cancel_with("too late"));
        assert_eq!(reason(&child).unwrap(), why);
        let wakes = Wakes::new();
        assert!(poll(&mut child.cancelled(), &wakes).is_ready());
        assert_eq!(wakes.count(), 0);
    }
}

#[test]
fn a_cancel_below_a_cancelled_ancestor_loses_to_it() {
    for look_first in [false, true] {
        let [root, middle, leaf] = chain();
        root.cancel_with("root");
        if look_first {
            assert!(middle.is_cancelled());
        }
        assert!(!leaf.cancel_with("leaf"));
        assert!(!middle.cancel_with("middle"));
        for token in [&leaf, &middle, &root] {
            assert_eq!(reason(token).unwrap(), "root");
        }
    }
}

/// T12.
#[test]
fn dropping_a_middle_token_cuts_nothing() {
    let [root, middle, leaf] = chain();
    drop(middle);
    let (mut cancelled, wakes) = waiter(&leaf);
    root.cancel_with("root");
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut cancelled, &wakes).is_ready());
    assert_eq!(reason(&leaf).unwrap(), "root");
}

#[test]
fn a_middle_token_dropped_after_it_was_cancelled_still_counts() {
    let [root, middle, leaf] = chain();
    middle.cancel_with("middle");
    drop(middle);
    root.cancel_with("root");
    assert_eq!(reason(&leaf).unwrap(), "middle");
}

#[test]
fn dropping_every_handle_cancels_nothing_and_wakes_no_task() {
    let [root, middle, leaf] = chain();
    let (cancelled, wakes) = waiter(&leaf);
    drop([root, middle, leaf]);
    assert_eq!(wakes.count(), 0);
    drop(cancelled);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn a_waiter_is_woken_once_by_a_cancel_of_its_token_or_of_any_ancestor() {
    for above in 0..3 {
        for below in above..3 {
            let tokens = chain();
            let (mut cancelled, wakes) = waiter(&tokens[below]);
            tokens[above].cancel();
            assert_eq!(wakes.count(), 1);
            assert!(poll(&mut cancelled, &wakes).is_ready());
            tokens[0].cancel();
            assert_eq!(wakes.count(), 1);
            assert_eq!(Arc::strong_count(&wakes), 1, "the waker is gone");
        }
    }
}

#[test]
fn a_cancel_below_or_beside_a_token_wakes_no_waiter_of_it() {
    let [root, middle, leaf] = chain();
    let (mut at_root, root_wakes) = waiter(&root);
    let (mut beside, beside_wakes) = waiter(&middle.child_token());
    let (_below, _) = waiter(&leaf);
    leaf.cancel();
    assert_eq!((root_wakes.count(), beside_wakes.count()), (0, 0));
    assert!(poll(&mut at_root, &root_wakes).is_pending());
    assert!(poll(&mut beside, &beside_wakes).is_pending());
}

#[test]
fn a_waiter_that_came_after_others_had_left_is_woken() {
    let [root, _, leaf] = chain();
    drop(waiter(&leaf));
    let (_cancelled, wakes) = waiter(&leaf);
    root.cancel();
    assert_eq!(wakes.count(), 1);
}

#[test]
fn the_waiters_of_a_token_are_woken_in_the_order_in_which_they_came() {
    struct Entry(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Entry {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    let token = CancellationToken::new();
    let woken = Arc::new(Mutex::new(Vec::new()));
    let mut waiters = Vec::new();
    for place in 0..20 {
        let mut cancelled = token.cancelled();
        let waker = Waker::from(Arc::new(Entry(place, Arc::clone(&woken))));
        assert!(poll_with(&mut cancelled, &waker).is_pending());
        waiters.push(cancelled);
    }
    drop(waiters.remove(7));
    token.cancel();
    let expected: Vec<usize> = (0..20).filter(|place| *place != 7).collect();
    assert_eq!(*woken.lock().unwrap(), expected);
}

#[test]
fn only_the_latest_waker_is_woken() {
    let [root, _, leaf] = chain();
    let mut cancelled = leaf.cancelled();
    let wakes = [Wakes::new(), Wakes::new(), Wakes::new()];
    for wakes in [&wakes[0], &wakes[0], &wakes[1], &wakes[0], &wakes[2]] {
        assert!(poll(&mut cancelled, wakes).is_pending());
    }
    assert_eq!(Arc::strong_count(&wakes[0]), 1, "it is not kept");
    assert_eq!(Arc::strong_count(&wakes[1]), 1, "it is not kept");
    root.cancel();
    assert_eq!(wakes.each_ref().map(|wakes| wakes.count()), [0, 0, 1]);
}

#[test]
fn polling_again_with_the_same_waker_keeps_one_of_it() {
    let token = CancellationToken::new();
    let (mut cancelled, wakes) = waiter(&token);
    for _ in 0..10 {
        assert!(poll(&mut cancelled, &wakes).is_pending());
    }
    assert_eq!(Arc::strong_count(&wakes), 2);
    token.cancel();
    assert_eq!(wakes.count(), 1);
}

#[test]
fn a_waiter_that_was_moved_is_woken() {
    let token = CancellationToken::new();
    let (cancelled, wakes) = waiter(&token);
    let mut moved = Box::new(cancelled);
    assert!(poll(&mut moved, &wakes).is_pending());
    token.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut moved, &wakes).is_ready());
}

#[test]
fn a_waiter_that_is_dropped_leaves_nothing_and_is_not_woken() {
    let [root, _, leaf] = chain();
    let (cancelled, wakes) = waiter(&leaf);
    let (_stays, stays_wakes) = waiter(&leaf);
    drop(cancelled);
    assert_eq!(Arc::strong_count(&wakes), 1);
    root.cancel();
    assert_eq!((wakes.count(), stays_wakes.count()), (0, 1));
}

#[test]
fn a_waiter_that_was_never_polled_keeps_nothing_and_is_ready_after_the_cancel() {
    let token = CancellationToken::new();
    let (mut borrowing, mut owning) = (token.cancelled(), token.clone().cancelled_owned());
    token.cancel();
    assert!(poll(&mut borrowing, &Wakes::new()).is_ready());
    assert!(poll(&mut owning, &Wakes::new()).is_ready());
}

#[test]
fn a_waiter_that_was_ready_is_ready_again() {
    let token = CancellationToken::new();
    token.cancel();
    let mut cancelled = token.cancelled();
    for _ in 0..3 {
        assert!(poll(&mut cancelled, &Wakes::new()).is_ready());
    }
}

#[test]
fn a_waiter_that_is_forgotten_is_woken_and_its_waker_dropped() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut cancelled = token.cancelled();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    mem::forget(cancelled);
    token.cancel();
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (1, 1));
}

#[test]
fn the_waker_of_a_waiter_that_was_forgotten_is_dropped_with_the_token() {
    let token = CancellationToken::new();
    let wakes = Wakes::new();
    let mut cancelled = token.cancelled();
    assert!(poll(&mut cancelled, &wakes).is_pending());
    mem::forget(cancelled);
    drop(token);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn a_guard_cancels_when_dropped() {
    let token = CancellationToken::new();
    let guard = token.clone().drop_guard();
    assert!(!token.is_cancelled());
    drop(guard);
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
}

#[test]
fn a_disarmed_guard_gives_its_token_back_as_it_was() {
    let token = CancellationToken::new();
    let disarmed = token.clone().drop_guard().disarm();
    assert_eq!(disarmed, token);
    drop(disarmed);
    assert!(!token.is_cancelled());
}

#[test]
fn a_guard_cancels_while_a_panic_unwinds() {
    let token = CancellationToken::new();
    let (_cancelled, wakes) = waiter(&token);
    let guarded = token.clone();
    let message = panic_of(|| {
        let _guard = guarded.drop_guard();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert!(token.is_cancelled());
    assert_eq!(wakes.count(), 1);
}

/// T2 and T4: at the first wake the whole subtree is cancelled already, and nothing else is.
#[test]
fn while_a_waker_runs_the_whole_subtree_reports_cancelled() {
    const PARENTS: [usize; 7] = [0, 0, 0, 1, 1, 2, 3];

    for cancelled in 0..PARENTS.len() {
        let mut tokens = vec![CancellationToken::new()];
        for parent in &PARENTS[1..] {
            tokens.push(tokens[*parent].child_token());
        }
        let tokens = Arc::new(tokens);
        let mut below = [false; PARENTS.len()];
        for node in 0..PARENTS.len() {
            below[node] = node == cancelled || (node > 0 && below[PARENTS[node]]);
        }

        let woken = Arc::new(AtomicUsize::new(0));
        let mut waiters = Vec::new();
        for token in tokens.iter() {
            let hooks = Hooks::new();
            let (seen, woken) = (Arc::clone(&tokens), Arc::clone(&woken));
            hooks.on_wake.set(move || {
                for (node, token) in seen.iter().enumerate() {
                    assert_eq!(token.is_cancelled(), below[node]);
                    assert_eq!(reason(token).is_some(), below[node]);
                }
                woken.fetch_add(1, SeqCst);
            });
            let mut cancelled = token.cancelled();
            assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
            waiters.push((cancelled, hooks));
        }
        assert!(tokens[cancelled].cancel_with("the reason"));
        let expected = below.iter().filter(|below| **below).count();
        assert_eq!(woken.load(SeqCst), expected);
    }
}
