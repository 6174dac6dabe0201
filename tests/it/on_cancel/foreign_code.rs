//! T7: what callbacks do, and panic with, while they run or are dropped.

use super::{Calls, OnDrop, panics};
use crate::{
    support::{Wakes, panic_of},
    token::{chain, poll, reason, waiter},
};
use std::{
    panic,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
};
use stopcock::{CancellationToken, Registration};

/// When foreign code runs.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Moment {
    /// A callback runs: its own token is cancelled,
    Run,
    /// or the root,
    RunByRoot,
    /// or it was cancelled before,
    RunAtOnce,
    /// or it is still registered when the last handle of its cancelled token is dropped.
    RunAtTheLast,
    /// What a callback owns is dropped: after it ran,
    Spent,
    /// or it is unregistered,
    Unregistered,
    /// or its registration is dropped,
    Left,
    /// or the last handle of its token.
    Gone,
}

const MOMENTS: [Moment; 8] = [
    Moment::Run,
    Moment::RunByRoot,
    Moment::RunAtOnce,
    Moment::RunAtTheLast,
    Moment::Spent,
    Moment::Unregistered,
    Moment::Left,
    Moment::Gone,
];

/// What foreign code does to a token.
#[derive(Clone, Copy, Debug)]
enum Deed {
    Cancel,
    Look,
    Register,
    Unregister,
    MakeChild,
    Link,
    Wait,
    DropHandle,
}

const DEEDS: [Deed; 8] = [
    Deed::Cancel,
    Deed::Look,
    Deed::Register,
    Deed::Unregister,
    Deed::MakeChild,
    Deed::Link,
    Deed::Wait,
    Deed::DropHandle,
];

impl Deed {
    fn hold_against(self, token: CancellationToken, earlier: Registration) {
        match self {
            Self::Cancel => token.cancel(),
            Self::Look => drop((token.is_cancelled(), token.stop_reason())),
            Self::Register => {
                token.on_cancel(|_| {}).detach();
                drop(token.on_cancel(|_| {}));
            }
            Self::Unregister => drop(earlier.unregister()),
            Self::MakeChild => {
                let child = token.child_token().child_token();
                drop((child.on_cancel(|_| {}), child));
            }
            Self::Link => {
                let other = CancellationToken::new();
                let linked = CancellationToken::linked([&other, &token]);
                linked.on_cancel(|_| {}).detach();
                other.cancel();
            }
            Self::Wait => {
                let mut cancelled = token.cancelled();
                let _ = poll(&mut cancelled, &Wakes::new());
                let _ = poll(&mut cancelled, &Wakes::new());
            }
            Self::DropHandle => drop((token, earlier)),
        }
    }
}

/// T7: were a lock held at `moment`, this would wait for itself. `which` is the root, the callback's token, or a leaf
/// below. Of that one foreign code has the only handle.
fn check_reentry(moment: Moment, deed: Deed, which: usize) {
    let case = format!("{moment:?}: {deed:?} {which}");
    let [root, middle, leaf] = chain();
    let others = Calls::new();
    for token in [&root, &middle, &leaf] {
        token.on_cancel(others.callback("other")).detach();
    }
    let target = [&root, &middle, &leaf][which].clone();
    let earlier = target.on_cancel(|_| {});
    drop(leaf);
    let done = Arc::new(AtomicBool::new(false));
    let foreign = {
        let done = Arc::clone(&done);
        move || {
            deed.hold_against(target, earlier);
            done.store(true, SeqCst);
        }
    };
    match moment {
        Moment::Run | Moment::RunByRoot => {
            middle.on_cancel(move |_| foreign()).detach();
            match moment {
                Moment::Run => assert!(middle.cancel_with("middle"), "{case}"),
                _ => assert!(root.cancel_with("root"), "{case}"),
            }
        }
        Moment::RunAtOnce => {
            middle.cancel();
            middle.on_cancel(move |_| foreign()).detach();
        }
        Moment::RunAtTheLast => {
            let last = middle.child_token();
            let registers = last.clone();
            let above = CancellationToken::linked([&root, &CancellationToken::new()]);
            // Told of the cancel before `middle` and `last` are.
            above.on_cancel(move |_| drop(last)).detach();
            registers.on_cancel(move |_| foreign()).detach();
            drop(registers);
            root.cancel();
        }
        Moment::Spent => {
            let owned = OnDrop::new(foreign);
            middle.on_cancel(move |_| drop(owned)).detach();
            assert!(root.cancel_with("root"), "{case}");
        }
        Moment::Unregistered => {
            let owned = OnDrop::new(foreign);
            let registration = middle.on_cancel(move |_| drop(owned));
            assert!(registration.unregister(), "{case}");
        }
        Moment::Left => {
            let owned = OnDrop::new(foreign);
            drop(middle.on_cancel(move |_| drop(owned)));
        }
        Moment::Gone => {
            let last = middle.child_token();
            let owned = OnDrop::new(foreign);
            last.on_cancel(move |_| drop(owned)).detach();
            drop(last);
        }
    }
    assert!(done.load(SeqCst), "{case}");
    root.cancel();
    assert!(middle.is_cancelled(), "{case}");
    drop((root, middle));
    assert_eq!(others.callbacks_left(), 0, "{case}");
    // The leaf may have been dropped without a cancel.
    assert!((2..=3).contains(&others.all().len()), "{case}");
}

#[test]
fn a_callback_that_runs_or_is_dropped_may_do_anything_to_its_token_and_to_its_relatives() {
    for moment in MOMENTS {
        for deed in DEEDS {
            for which in 0..3 {
                check_reentry(moment, deed, which);
            }
        }
    }
}

#[test]
fn a_callback_registered_from_a_callback_runs_at_once_wherever_in_the_subtree() {
    for which in 0..3 {
        let tokens = chain();
        let calls = Calls::new();
        let (inner, token) = (Arc::clone(&calls), tokens[which].clone());
        tokens[0]
            .on_cancel(move |_| {
                token.on_cancel(inner.callback("inner")).detach();
                inner.push("outer".to_string());
            })
            .detach();
        tokens[0].cancel_with("why");
        assert_eq!(calls.all(), ["inner: why", "outer"]);
    }
}

/// A cancel has begun, and calls `first` before it comes to the callback of the leaf.
fn reported_after(first: impl FnOnce([CancellationToken; 2]) + Send + 'static) -> Vec<String> {
    let [root, middle, leaf] = chain();
    let calls = Calls::new();
    let (middle_moved, leaf_moved) = (middle.clone(), leaf.clone());
    root.on_cancel(move |_| first([middle_moved, leaf_moved]))
        .detach();
    leaf.on_cancel(calls.callback("leaf")).detach();
    drop((middle, leaf));
    root.cancel_with("root");
    assert_eq!(calls.callbacks_left(), 0);
    calls.all()
}

#[test]
fn a_callback_runs_once_whatever_is_done_to_its_token_before_its_cancel_comes_by() {
    type First = Box<dyn FnOnce([CancellationToken; 2]) + Send>;
    let kept = Arc::new(Mutex::new(None));
    let keep = Arc::clone(&kept);
    let cases: [(&str, First); 6] = [
        (
            "checked",
            Box::new(move |[middle, leaf]| {
                assert_eq!(reason(&leaf).unwrap(), "root");
                *keep.lock().unwrap() = Some((middle, leaf));
            }),
        ),
        (
            "checked, and its last handle dropped",
            Box::new(|[_middle, leaf]| assert_eq!(reason(&leaf).unwrap(), "root")),
        ),
        ("its last handle dropped", Box::new(drop)),
        (
            "cancelled once more",
            Box::new(|[_middle, leaf]| assert!(!leaf.cancel_with("leaf"))),
        ),
        (
            "its parent cancelled once more",
            Box::new(|[middle, _leaf]| assert!(!middle.cancel_with("middle"))),
        ),
        (
            "checked and cancelled once more",
            Box::new(|[_middle, leaf]| {
                assert_eq!(reason(&leaf).unwrap(), "root");
                assert!(!leaf.cancel_with("leaf"));
            }),
        ),
    ];
    for (case, first) in cases {
        assert_eq!(reported_after(first), ["leaf: root"], "{case}");
    }
}

/// A callback that panics with this message.
#[test]
fn a_panicking_callback_stops_no_other_and_the_first_panic_comes_out_once() {
    for which in 0..3 {
        let tokens = chain();
        let calls = Calls::new();
        let registered = [
            tokens[which].on_cancel(calls.callback("before")),
            tokens[which].on_cancel(panics("first")),
            tokens[which].on_cancel(calls.callback("between")),
            tokens[which].on_cancel(panics("second")),
            tokens[which].on_cancel(calls.callback("after")),
            tokens[2].on_cancel(calls.callback("below")),
        ];
        let (_waits, wakes) = waiter(&tokens[which]);
        assert_eq!(panic_of(|| tokens[0].cancel_with("why")), "first");
        assert_eq!(
            calls.all(),
            ["before: why", "between: why", "after: why", "below: why"]
        );
        assert_eq!(wakes.count(), 1);
        assert!(!tokens[0].cancel_with("again"), "it has no panic any more");
        for registration in registered {
            assert!(!registration.unregister());
        }
    }
}

#[test]
fn a_panicking_callback_does_not_throw_into_an_unwinding() {
    let [root, _, leaf] = chain();
    let calls = Calls::new();
    leaf.on_cancel(panics("a callback")).detach();
    leaf.on_cancel(calls.callback("after")).detach();
    leaf.on_cancel(panics("another")).detach();
    let message = panic_of(|| {
        let _guard = root.drop_guard_ref();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert_eq!(calls.all(), ["after: cancelled"]);
}

/// A payload that panics once more when it is dropped.
struct PanicsOnDrop;

impl Drop for PanicsOnDrop {
    fn drop(&mut self) {
        panic!("the payload of a panic");
    }
}

#[test]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
fn a_second_panic_whose_payload_panics_when_dropped_changes_nothing() {
    let token = CancellationToken::new();
    let calls = Calls::new();
    token.on_cancel(panics("first")).detach();
    token.on_cancel(|_| panic::panic_any(PanicsOnDrop)).detach();
    token.on_cancel(calls.callback("after")).detach();
    assert_eq!(panic_of(|| token.cancel_with("why")), "first");
    assert_eq!(calls.all(), ["after: why"]);
}

#[test]
#[cfg_attr(miri, ignore = "it leaks on purpose")]
fn a_payload_that_panics_when_dropped_does_not_throw_into_an_unwinding() {
    let token = CancellationToken::new();
    let calls = Calls::new();
    token.on_cancel(|_| panic::panic_any(PanicsOnDrop)).detach();
    token.on_cancel(calls.callback("after")).detach();
    let message = panic_of(|| {
        let _guard = token.drop_guard_ref();
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert_eq!(calls.all(), ["after: cancelled"]);
}

#[test]
fn a_panic_of_a_callback_on_a_cancelled_token_comes_out_of_on_cancel() {
    let [root, _, leaf] = chain();
    root.cancel_with("why");
    let message = panic_of(|| leaf.on_cancel(panics("at once")));
    assert_eq!(message, "at once");
    let calls = Calls::new();
    leaf.on_cancel(calls.callback("next")).detach();
    assert_eq!(calls.all(), ["next: why"]);
}

#[test]
fn a_panic_of_what_an_unregistered_callback_owned_leaves_the_others_registered() {
    for by_drop in [false, true] {
        let token = CancellationToken::new();
        let calls = Calls::new();
        token.on_cancel(calls.callback("before")).detach();
        let owned = OnDrop::new(|| panic!("dropped"));
        let registration = token.on_cancel(move |_| drop(owned));
        token.on_cancel(calls.callback("after")).detach();
        let message = panic_of(|| match by_drop {
            true => drop(registration),
            false => drop(registration.unregister()),
        });
        assert_eq!(message, "dropped");
        token.cancel_with("why");
        assert_eq!(calls.all(), ["before: why", "after: why"]);
    }
}
