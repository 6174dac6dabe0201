//! T7: what wakers and errors do, and panic with, while they are woken, cloned or dropped.

use super::{chain, poll, poll_with, reason, waiter};
use crate::support::{Hooks, Wakes, panic_of, panicking_waker};
use std::{
    error::Error,
    fmt::{self, Display, Formatter},
    mem::ManuallyDrop,
    ptr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{RawWaker, RawWakerVTable, Waker},
};
use stopcock::{CancellationToken, CancelledOwned, StopReason};

/// Where the wakers of all tasks lie, one after the other, as those do that a runtime lends to a poll. A clone is a waker
/// of the task's own, somewhere else.
struct Place(Mutex<Arc<Wakes>>);

#[expect(
    unsafe_code,
    reason = "the clone of one of std's wakers lies where that one does"
)]
impl Place {
    const VTABLE: RawWakerVTable = RawWakerVTable::new(Self::cloned, |_| {}, |_| {}, |_| {});

    fn waker_of(&self, task: &Arc<Wakes>) -> Waker {
        *self.0.lock().unwrap() = Arc::clone(task);
        // SAFETY: the data is a `Place`, as `cloned` takes it, and each test keeps its own for as long as it polls.
        unsafe { Waker::new(ptr::from_ref(self).cast(), &Self::VTABLE) }
    }

    unsafe fn cloned(data: *const ()) -> RawWaker {
        // SAFETY: the data is a `Place` that is still there.
        let place = unsafe { &*data.cast::<Self>() };
        let clone = ManuallyDrop::new(Waker::from(Arc::clone(&place.0.lock().unwrap())));
        RawWaker::new(clone.data(), clone.vtable())
    }
}

#[test]
fn a_waker_that_lies_where_an_earlier_one_lay_is_another_one() {
    let token = CancellationToken::new();
    let (first, second) = (Wakes::new(), Wakes::new());
    let place = Place(Mutex::new(Arc::clone(&first)));
    let mut cancelled = Box::pin(token.cancelled());
    assert!(poll_with(&mut cancelled, &place.waker_of(&first)).is_pending());
    assert!(poll_with(&mut cancelled, &place.waker_of(&second)).is_pending());
    token.cancel();
    assert_eq!((first.count(), second.count()), (0, 1));
}

/// When foreign code runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// A waiter's waker is cloned at its first poll,
    Cloned,
    /// or at a later one, with another waker,
    ClonedAgain,
    /// for which the earlier one is dropped.
    Replaced,
    /// The waiter is dropped.
    Left,
    /// The root is cancelled,
    WokenByRoot,
    /// or the waiter's own token.
    Woken,
    /// The waiter is refused, as its token was cancelled while its waker was cloned,
    Refused,
    /// or the root.
    RefusedByRoot,
    /// The waiter is refused another waker.
    RefusedAgain,
}

const MOMENTS: [Moment; 9] = [
    Moment::Cloned,
    Moment::ClonedAgain,
    Moment::Replaced,
    Moment::Left,
    Moment::WokenByRoot,
    Moment::Woken,
    Moment::Refused,
    Moment::RefusedByRoot,
    Moment::RefusedAgain,
];

/// What foreign code does to a token.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Cancel,
    Look,
    MakeChild,
    Wait,
    DropHandle,
}

const DEEDS: [Deed; 5] = [
    Deed::Cancel,
    Deed::Look,
    Deed::MakeChild,
    Deed::Wait,
    Deed::DropHandle,
];

impl Deed {
    fn hold_against(self, token: CancellationToken) {
        match self {
            Self::Cancel => token.cancel(),
            Self::Look => drop((token.is_cancelled(), token.stop_reason())),
            Self::MakeChild => drop(token.child_token().child_token()),
            Self::Wait => {
                let child = token.child_token();
                let (mut here, mut below) = (token.cancelled(), child.cancelled());
                for _ in 0..2 {
                    let _ = poll(&mut here, &Wakes::new());
                    let _ = poll(&mut below, &Wakes::new());
                }
            }
            Self::DropHandle => drop(token),
        }
    }
}

/// T7: were a lock held at `moment`, this would wait for itself. `which` is the root, the waiter's token, or a leaf
/// below, of which foreign code then has the last handle.
fn check_reentry(moment: Moment, deed: Deed, which: usize) {
    let [root, middle, leaf] = chain();
    // All of them list their children.
    drop(waiter(&leaf));
    let target = [root.clone(), middle.clone(), leaf][which].clone();
    let done = Arc::new(AtomicBool::new(false));
    let foreign = {
        let done = Arc::clone(&done);
        move || {
            deed.hold_against(target);
            done.store(true, SeqCst);
        }
    };

    let hooks = Hooks::new();
    let waker = hooks.waker();
    let (other, other_wakes) = waiter(&middle);
    let mut cancelled = middle.cancelled();
    match moment {
        Moment::Cloned => {
            hooks.on_clone.set(foreign);
            let _ = poll_with(&mut cancelled, &waker);
        }
        Moment::ClonedAgain => {
            assert!(poll(&mut cancelled, &Wakes::new()).is_pending());
            hooks.on_clone.set(foreign);
            let _ = poll_with(&mut cancelled, &waker);
        }
        Moment::Replaced => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_drop.set(foreign);
            let _ = poll(&mut cancelled, &Wakes::new());
        }
        Moment::Left => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_drop.set(foreign);
            drop(cancelled);
        }
        Moment::WokenByRoot | Moment::Woken => {
            assert!(poll_with(&mut cancelled, &waker).is_pending());
            hooks.on_wake.set(foreign);
            match moment {
                Moment::Woken => assert!(middle.cancel_with("middle")),
                _ => assert!(root.cancel_with("root")),
            }
        }
        Moment::Refused | Moment::RefusedByRoot | Moment::RefusedAgain => {
            if moment == Moment::RefusedAgain {
                assert!(poll(&mut cancelled, &Wakes::new()).is_pending());
            }
            let above = match moment {
                Moment::RefusedByRoot => root.clone(),
                _ => middle.clone(),
            };
            hooks.on_clone.set(move || above.cancel());
            hooks.on_drop.set(foreign);
            assert!(poll_with(&mut cancelled, &waker).is_ready());
        }
    }
    let case = format!("{moment:?}: {deed:?} {which}");
    assert!(done.load(SeqCst), "{case}");
    drop(waker);
    root.cancel();
    assert_eq!(other_wakes.count(), 1, "{case}");
    drop(other);
    assert_eq!(Arc::strong_count(&other_wakes), 1, "{case}");
    assert!(middle.is_cancelled(), "{case}");
}

#[test]
fn foreign_code_may_do_anything_to_a_token_its_ancestor_or_its_descendant() {
    for moment in MOMENTS {
        for deed in DEEDS {
            for which in 0..3 {
                check_reentry(moment, deed, which);
            }
        }
    }
}

/// Between its check and its registration, and with no list above that has it.
#[test]
fn a_first_waiter_whose_ancestor_is_cancelled_while_its_waker_is_cloned_is_ready() {
    for above in 0..3 {
        let tokens = chain();
        let cancelled = tokens[above].clone();
        let hooks = Hooks::new();
        hooks.on_clone.set(move || cancelled.cancel());
        let mut waits = tokens[2].cancelled();
        assert!(poll_with(&mut waits, &hooks.waker()).is_ready());
        assert_eq!(Arc::strong_count(&hooks), 1, "the clone is gone");
    }
}

#[test]
fn a_wake_may_drop_its_own_waiter_and_with_it_the_last_handle() {
    for neighbours in 0..3 {
        let root = CancellationToken::new();
        let middle = root.child_token();
        let hooks = Hooks::new();
        let mut cancelled = middle.child_token().cancelled_owned();
        assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
        let waiters: Vec<_> = (0..neighbours).map(|_| waiter(&middle)).collect();
        hooks.on_wake.set(move || drop((cancelled, middle)));
        root.cancel();
        for (_, wakes) in &waiters {
            assert_eq!(wakes.count(), 1);
        }
        drop(waiters);
        assert_eq!(Arc::strong_count(&hooks), 1);
    }
}

#[test]
fn a_wake_may_drop_a_neighbour_that_was_not_woken_yet() {
    let [root, middle, leaf] = chain();
    let hooks = Hooks::new();
    let mut first = middle.cancelled();
    assert!(poll_with(&mut first, &hooks.waker()).is_pending());
    let (neighbour, neighbour_wakes) = waiter(&middle);
    let (below, below_wakes) = waiter(&leaf);
    let (stays, stays_wakes) = waiter(&root.child_token());
    hooks.on_wake.set(move || drop((neighbour, below, leaf)));
    root.cancel();
    assert!(neighbour_wakes.count() <= 1 && below_wakes.count() <= 1);
    assert_eq!(stays_wakes.count(), 1);
    drop(stays);
    for wakes in [neighbour_wakes, below_wakes, stays_wakes] {
        assert_eq!(Arc::strong_count(&wakes), 1);
    }
}

#[test]
fn a_cancel_within_a_wake_loses_and_finds_everything_cancelled() {
    let [root, middle, leaf] = chain();
    let hooks = Hooks::new();
    let mut first = root.cancelled();
    assert!(poll_with(&mut first, &hooks.waker()).is_pending());
    let (_below, wakes) = waiter(&leaf);
    let inner = [root.clone(), middle.clone(), leaf.clone()];
    hooks.on_wake.set(move || {
        for token in inner.iter().rev() {
            assert!(!token.cancel_with("inner"));
            assert_eq!(reason(token).unwrap(), "outer");
        }
    });
    assert!(root.cancel_with("outer"));
    assert_eq!(wakes.count(), 1);
}

/// An error is dropped under no lock either.
#[test]
fn the_error_of_a_losing_reason_may_do_anything_when_it_is_dropped() {
    #[derive(Debug)]
    struct CancelsOnDrop([CancellationToken; 3]);

    impl Display for CancelsOnDrop {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.write_str("an error")
        }
    }

    impl Error for CancelsOnDrop {}

    impl Drop for CancelsOnDrop {
        fn drop(&mut self) {
            for token in &self.0 {
                token.cancel();
                let _ = poll(&mut token.child_token().cancelled(), &Wakes::new());
            }
        }
    }

    for above in 0..3 {
        for below in above..3 {
            let tokens = chain();
            let (_cancelled, wakes) = waiter(&tokens[2]);
            tokens[above].cancel_with("first");
            let error = CancelsOnDrop(tokens.clone());
            assert!(!tokens[below].cancel_with(StopReason::custom(error)));
            assert_eq!(reason(&tokens[below]).unwrap(), "first");
            assert_eq!(wakes.count(), 1);
            assert!(tokens[0].is_cancelled(), "the error was dropped");
        }
    }
}

/// Pending waiters at `token`, of which the first and the third panic when woken.
fn panicking_waiters(token: &CancellationToken) -> (Vec<CancelledOwned>, [Arc<Wakes>; 2]) {
    let (second, second_wakes) = waiter(token);
    drop(second);
    let mut waiters = Vec::new();
    let fourth_wakes = Wakes::new();
    for waker in [
        panicking_waker("first"),
        Waker::from(Arc::clone(&second_wakes)),
        panicking_waker("third"),
        Waker::from(Arc::clone(&fourth_wakes)),
    ] {
        let mut cancelled = token.clone().cancelled_owned();
        assert!(poll_with(&mut cancelled, &waker).is_pending());
        waiters.push(cancelled);
    }
    (waiters, [second_wakes, fourth_wakes])
}

#[test]
fn a_panicking_waker_stops_no_other_and_the_first_panic_comes_out_once() {
    for which in 0..3 {
        let [root, middle, leaf] = chain();
        let token = [&root, &middle, &leaf][which];
        let (_waiters, panicking_wakes) = panicking_waiters(token);
        let (_below, below_wakes) = waiter(&leaf);
        let (_beside, beside_wakes) = waiter(&root.child_token());

        assert_eq!(panic_of(|| root.cancel_with("root")), "first");
        for wakes in panicking_wakes.iter().chain([&below_wakes, &beside_wakes]) {
            assert_eq!(wakes.count(), 1);
        }
        assert_eq!(reason(&leaf).unwrap(), "root");
        assert!(!root.cancel_with("again"), "and it has no panic any more");
    }
}

#[test]
fn a_panicking_waker_does_not_throw_into_an_unwinding() {
    let [root, _, leaf] = chain();
    let (_waiters, panicking_wakes) = panicking_waiters(&leaf);
    let guarded = root.clone();
    let message = panic_of(|| {
        let _guard = guarded.drop_guard();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    for wakes in panicking_wakes {
        assert_eq!(wakes.count(), 1);
    }
    assert!(leaf.is_cancelled());
}

#[test]
fn a_token_works_on_after_a_waker_panicked_while_it_was_cloned_replaced_or_dropped() {
    let [root, _, leaf] = chain();
    let hooks = Hooks::new();
    let wakes = Wakes::new();
    let mut cancelled = leaf.cancelled();

    hooks.on_clone.set(|| panic!("cloned"));
    let cloned = panic_of(|| poll_with(&mut cancelled, &hooks.waker()));
    assert_eq!(cloned, "cloned");
    assert!(poll_with(&mut cancelled, &hooks.waker()).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(|| poll(&mut cancelled, &wakes)), "dropped");
    assert!(poll(&mut cancelled, &wakes).is_pending());

    let mut leaves = leaf.cancelled();
    assert!(poll_with(&mut leaves, &hooks.waker()).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(move || drop(leaves)), "dropped");

    root.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut cancelled, &wakes).is_ready());
}

#[test]
fn the_latest_waker_is_woken_though_the_drop_of_an_earlier_one_panicked() {
    let token = CancellationToken::new();
    let mut cancelled = token.cancelled();
    let (hooks, between) = (Hooks::new(), Wakes::new());
    let woken = Arc::new(AtomicBool::new(false));
    let waker = hooks.waker();
    assert!(poll_with(&mut cancelled, &waker).is_pending());
    hooks.on_drop.set(|| panic!("dropped"));
    assert_eq!(panic_of(|| poll(&mut cancelled, &between)), "dropped");
    assert!(poll_with(&mut cancelled, &waker).is_pending());

    hooks.on_wake.set({
        let woken = Arc::clone(&woken);
        move || woken.store(true, SeqCst)
    });
    token.cancel();
    assert!(woken.load(SeqCst));
    assert_eq!(between.count(), 0);
}

/// Only the call that loses has the error. It has to wake the waiters that it found all the same.
#[test]
fn a_losing_reason_that_panics_when_dropped_leaves_everything_cancelled() {
    for above in 0..3 {
        let tokens = chain();
        let (_cancelled, wakes) = waiter(&tokens[2]);
        tokens[above].cancel_with("first");
        let error = StopReason::custom(PanicsOnDrop);
        assert_eq!(panic_of(|| tokens[2].cancel_with(error)), "dropped");
        assert_eq!(reason(&tokens[2]).unwrap(), "first");
        assert_eq!(wakes.count(), 1);
    }
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
        panic!("dropped");
    }
}
