//! `on_cancel` and its `Registration`: the laws T4, T6 and T7 where callbacks are concerned.

use crate::{
    support::{Wakes, panic_of},
    token::{chain, in_step, poll, poll_with, reason, waiter},
};
use std::{
    iter, panic,
    sync::{
        Arc, Mutex,
        atomic::{
            AtomicBool, AtomicUsize,
            Ordering::{Relaxed, SeqCst},
        },
        mpsc::channel,
    },
    task::{Wake, Waker},
    thread,
};
use stopcock::{CancellationToken, Registration, StopReason};

/// Which callback was called with what, in order. Each of its callbacks keeps a handle of it until it has run or is dropped.
#[derive(Default)]
pub(crate) struct Calls(Mutex<Vec<String>>);

impl Calls {
    pub(crate) fn new() -> Arc<Self> {
        Arc::default()
    }

    pub(crate) fn callback(
        self: &Arc<Self>,
        name: &str,
    ) -> impl FnOnce(&StopReason) + Send + use<> + 'static {
        let (calls, name) = (Arc::clone(self), name.to_string());
        move |reason| calls.push(format!("{name}: {reason}"))
    }

    fn push(&self, entry: String) {
        self.0.lock().unwrap().push(entry);
    }

    pub(crate) fn all(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }

    pub(crate) fn callbacks_left(self: &Arc<Self>) -> usize {
        Arc::strong_count(self) - 1
    }
}

/// Runs foreign code when it is dropped.
struct OnDrop<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> OnDrop<F> {
    fn new(foreign: F) -> Self {
        Self(Some(foreign))
    }
}

impl<F: FnOnce()> Drop for OnDrop<F> {
    fn drop(&mut self) {
        if let Some(foreign) = self.0.take() {
            foreign();
        }
    }
}

#[test]
fn a_callback_runs_on_the_thread_that_cancels_before_its_cancel_returns() {
    for above in 0..3 {
        let tokens = chain();
        let (sender, receiver) = channel();
        let _registration = tokens[2].on_cancel(move |reason| {
            sender
                .send((thread::current().id(), reason.to_string()))
                .unwrap();
        });
        let canceller = thread::spawn(move || {
            tokens[above].cancel_with("the reason");
            receiver.try_recv().unwrap()
        });
        let id = canceller.thread().id();
        assert_eq!(canceller.join().unwrap(), (id, "the reason".to_string()));
    }
}

#[test]
fn on_a_cancelled_token_a_callback_runs_before_on_cancel_returns() {
    for above in 0..3 {
        let tokens = chain();
        tokens[above].cancel_with("the reason");
        let calls = Calls::new();
        let registration = tokens[2].on_cancel(calls.callback("late"));
        assert_eq!(calls.all(), ["late: the reason"]);
        assert_eq!(calls.callbacks_left(), 0);
        assert!(!registration.unregister());
    }
}

/// The cause of the nearest one that was cancelled first, in all orders of any three cancels.
#[test]
fn a_callback_hears_the_reason_that_its_own_token_has_once() {
    const WHYS: [&str; 3] = ["root", "middle", "leaf"];

    for order in 0..27 {
        let order = [order % 3, order / 3 % 3, order / 9];
        let tokens = chain();
        let calls = Calls::new();
        for (token, name) in tokens.iter().zip(WHYS) {
            token.on_cancel(calls.callback(name)).detach();
        }
        let mut expected = [None; 3];
        for cancelled in order {
            let won = tokens[cancelled].cancel_with(WHYS[cancelled]);
            assert_eq!(won, expected[cancelled].is_none(), "{order:?}");
            for below in &mut expected[cancelled..] {
                below.get_or_insert(WHYS[cancelled]);
            }
        }
        let mut all = calls.all();
        all.sort();
        let mut expected: Vec<_> = iter::zip(WHYS, expected)
            .filter_map(|(name, why)| Some(format!("{name}: {}", why?)))
            .collect();
        expected.sort();
        assert_eq!(all, expected, "{order:?}");
    }
}

#[test]
fn callbacks_and_wakers_are_run_in_the_order_in_which_they_came_and_a_subtree_in_its_turn() {
    struct Named(Arc<Calls>);

    impl Wake for Named {
        fn wake(self: Arc<Self>) {
            self.0.push("waker".to_string());
        }
    }

    let [root, child, leaf] = chain();
    let calls = Calls::new();
    root.on_cancel(calls.callback("first")).detach();
    let mut cancelled = root.cancelled();
    let waker = Waker::from(Arc::new(Named(Arc::clone(&calls))));
    assert!(poll_with(&mut cancelled, &waker).is_pending());
    leaf.on_cancel(calls.callback("far below")).detach();
    root.on_cancel(calls.callback("second")).detach();
    let left = root.on_cancel(calls.callback("left"));
    root.on_cancel(calls.callback("third")).detach();
    child.on_cancel(calls.callback("below")).detach();
    leaf.on_cancel(calls.callback("far below, too")).detach();
    assert!(left.unregister());
    root.cancel_with("why");
    assert_eq!(
        calls.all(),
        [
            "first: why",
            "waker",
            "far below: why",
            "far below, too: why",
            "below: why",
            "second: why",
            "third: why",
        ]
    );
}

/// At each place of a row, and so whatever the list of the token does with a gap.
#[test]
fn an_unregistered_callback_is_dropped_and_never_runs_and_the_others_do() {
    for length in 1..6 {
        for leaves in 0..1_usize << length {
            let [root, _, leaf] = chain();
            let (stays, left) = (Calls::new(), Calls::new());
            let registrations: Vec<_> = (0..length)
                .map(|place| match (leaves >> place) & 1 {
                    1 => (true, leaf.on_cancel(left.callback("left"))),
                    _ => (false, leaf.on_cancel(stays.callback(&place.to_string()))),
                })
                .collect();
            for (leaves, registration) in registrations {
                if leaves {
                    let before = left.callbacks_left();
                    assert!(registration.unregister());
                    assert_eq!(left.callbacks_left(), before - 1);
                } else {
                    registration.detach();
                }
            }
            root.cancel_with("why");
            let expected = (0..length).filter(|place| (leaves >> place) & 1 == 0);
            let expected: Vec<_> = expected.map(|place| format!("{place}: why")).collect();
            assert_eq!(stays.all(), expected);
            assert!(left.all().is_empty());
        }
    }
}

#[test]
fn of_callbacks_that_come_and_go_at_random_those_that_stay_run_in_order() {
    for seed in 0..if cfg!(miri) { 2 } else { 100 } {
        let mut number = numbers(seed);
        let token = CancellationToken::new();
        let calls = Calls::new();
        let mut stay = Vec::new();
        for n in 0..200 {
            // More and more of them, and then fewer and fewer.
            let coming = if n < 100 { 7 } else { 3 };
            if stay.is_empty() || number(10) < coming {
                stay.push((n, token.on_cancel(calls.callback(&n.to_string()))));
            } else {
                let (_, leaves) = stay.remove(number(stay.len()));
                assert!(leaves.unregister());
            }
            assert_eq!(calls.callbacks_left(), stay.len());
        }
        token.cancel_with("why");
        let expected: Vec<_> = stay.iter().map(|(n, _)| format!("{n}: why")).collect();
        assert_eq!(calls.all(), expected);
    }
}

#[test]
fn dropping_the_registration_drops_the_callback_unrun() {
    let [root, _, leaf] = chain();
    let calls = Calls::new();
    let registration = leaf.on_cancel(calls.callback("dropped"));
    assert_eq!(calls.callbacks_left(), 1);
    drop(registration);
    assert_eq!(calls.callbacks_left(), 0);
    root.cancel();
    assert!(calls.all().is_empty());
}

#[test]
fn a_callback_that_has_run_can_not_be_unregistered_and_is_dropped() {
    let [root, _, leaf] = chain();
    let calls = Calls::new();
    let registration = leaf.on_cancel(calls.callback("callback"));
    root.cancel_with("why");
    assert_eq!(calls.callbacks_left(), 0);
    assert!(!registration.unregister());
    assert_eq!(calls.all(), ["callback: why"]);
}

#[test]
fn a_detached_callback_runs_though_its_token_has_no_registration_any_more() {
    let [root, _, leaf] = chain();
    let calls = Calls::new();
    leaf.on_cancel(calls.callback("detached")).detach();
    root.cancel_with("why");
    assert_eq!(calls.all(), ["detached: why"]);
}

#[test]
fn a_registration_keeps_its_token_as_a_clone_does() {
    let [root, middle, leaf] = chain();
    let calls = Calls::new();
    let registration = leaf.on_cancel(calls.callback("kept"));
    drop((middle, leaf));
    root.cancel_with("why");
    assert_eq!(calls.all(), ["kept: why"]);
    drop(registration);
}

#[test]
fn callbacks_of_a_token_whose_handles_all_go_uncancelled_are_dropped_unrun() {
    for length in [1, 2, 3, 40] {
        let [root, middle, leaf] = chain();
        let calls = Calls::new();
        for _ in 0..length {
            leaf.on_cancel(calls.callback("leaf")).detach();
        }
        middle.on_cancel(calls.callback("middle")).detach();
        drop(middle);
        assert_eq!(calls.callbacks_left(), length + 1, "its child keeps it");
        drop(leaf);
        assert_eq!(calls.callbacks_left(), 0);
        root.cancel();
        assert!(calls.all().is_empty());
    }
}

#[test]
fn a_callback_that_owns_a_handle_of_its_own_token_is_dropped_after_the_cancel() {
    let token = CancellationToken::new();
    let calls = Calls::new();
    let (callback, owned) = (calls.callback("owner"), token.child_token());
    owned
        .clone()
        .on_cancel(move |reason| {
            callback(reason);
            assert!(owned.is_cancelled());
        })
        .detach();
    token.cancel_with("why");
    assert_eq!(calls.all(), ["owner: why"]);
    assert_eq!(calls.callbacks_left(), 0);
}

/// T4.
#[test]
fn while_a_callback_runs_the_whole_subtree_reports_cancelled_and_nothing_else_does() {
    for cancelled in 0..3 {
        let tokens = chain();
        let ran = Arc::new(AtomicUsize::new(0));
        let mut registrations = Vec::new();
        for token in &tokens {
            let (ran, seen) = (Arc::clone(&ran), tokens.clone());
            let callback = move |_: &StopReason| {
                for (place, token) in seen.iter().enumerate() {
                    assert_eq!(token.is_cancelled(), place >= cancelled);
                    assert_eq!(token.child_token().is_cancelled(), place >= cancelled);
                    assert_eq!(reason(token).is_some(), place >= cancelled);
                }
                ran.fetch_add(1, SeqCst);
            };
            registrations.push(token.on_cancel(callback));
        }
        tokens[cancelled].cancel();
        assert_eq!(ran.load(SeqCst), 3 - cancelled);
    }
}

/// T3.
#[test]
fn neither_an_unregister_nor_another_cancel_waits_for_a_callback_that_runs() {
    for above in 0..3 {
        let tokens = chain();
        let calls = Calls::new();
        let (started, starts) = channel();
        let (finish, finished) = channel::<()>();
        let registration = tokens[1].on_cancel(move |_| {
            started.send(()).unwrap();
            let _ = finished.recv();
        });
        tokens[2].on_cancel(calls.callback("leaf")).detach();
        let root = tokens[0].clone();
        let canceller = thread::spawn(move || root.cancel_with("first"));
        starts.recv().unwrap();

        assert!(!registration.unregister());
        assert!(!tokens[above].cancel_with("second"));
        for token in &tokens {
            assert_eq!(reason(token).unwrap(), "first");
        }
        drop(finish);
        assert!(canceller.join().unwrap());
        assert_eq!(calls.all(), ["leaf: first"]);
    }
}

/// `false`, as it can not be taken back any more: it is in the hands of the cancel.
#[test]
fn a_callback_later_in_line_can_not_be_unregistered_from_an_earlier_one() {
    for drops in [false, true] {
        let token = CancellationToken::new();
        let calls = Calls::new();
        let slot = Arc::new(Mutex::new(None::<Registration>));
        let later = Arc::clone(&slot);
        token
            .on_cancel(move |_| {
                let later = later.lock().unwrap().take().unwrap();
                match drops {
                    true => drop(later),
                    false => assert!(!later.unregister()),
                }
            })
            .detach();
        *slot.lock().unwrap() = Some(token.on_cancel(calls.callback("later")));
        token.cancel_with("why");
        assert_eq!(calls.all(), ["later: why"]);
    }
}

#[test]
fn a_callback_below_that_has_not_run_yet_can_be_unregistered_from_one_above() {
    let [root, _, leaf] = chain();
    let calls = Calls::new();
    let slot = Arc::new(Mutex::new(None::<Registration>));
    let below = Arc::clone(&slot);
    let came_in_time = Arc::new(AtomicBool::new(false));
    root.on_cancel({
        let came_in_time = Arc::clone(&came_in_time);
        move |_| {
            let below = below.lock().unwrap().take().unwrap();
            came_in_time.store(below.unregister(), SeqCst);
        }
    })
    .detach();
    *slot.lock().unwrap() = Some(leaf.on_cancel(calls.callback("below")));
    root.cancel();
    // Either, but one of the two.
    assert_ne!(calls.all().len(), usize::from(came_in_time.load(SeqCst)));
    assert_eq!(calls.callbacks_left(), 0);
}

#[test]
fn a_callback_that_unregisters_itself_is_too_late() {
    let token = CancellationToken::new();
    let slot = Arc::new(Mutex::new(None::<Registration>));
    let own = Arc::clone(&slot);
    let ran = Arc::new(AtomicBool::new(false));
    let registration = token.on_cancel({
        let ran = Arc::clone(&ran);
        move |_| {
            let own = own.lock().unwrap().take().unwrap();
            assert!(!own.unregister());
            ran.store(true, SeqCst);
        }
    });
    *slot.lock().unwrap() = Some(registration);
    token.cancel();
    assert!(ran.load(SeqCst));
}

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
fn told_after(first: impl FnOnce([CancellationToken; 2]) + Send + 'static) -> Vec<String> {
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
        assert_eq!(told_after(first), ["leaf: root"], "{case}");
    }
}

/// A callback that panics with this message.
fn panics(message: &'static str) -> impl FnOnce(&StopReason) + Send + 'static {
    move |_| panic!("{message}")
}

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

const ROUNDS: usize = if cfg!(miri) { 30 } else { 10_000 };

fn chains() -> Vec<[CancellationToken; 3]> {
    (0..ROUNDS).map(|_| chain()).collect()
}

fn counters() -> Arc<Vec<AtomicUsize>> {
    Arc::new((0..ROUNDS).map(|_| AtomicUsize::new(0)).collect())
}

/// A callback that counts in this round's counter.
fn counts(
    counters: &Arc<Vec<AtomicUsize>>,
    round: usize,
) -> impl FnOnce(&StopReason) + Send + use<> + 'static {
    let counters = Arc::clone(counters);
    move |_| {
        counters[round].fetch_add(1, Relaxed);
    }
}

/// T6, and the stop function of Go's `AfterFunc`.
#[test]
fn a_callback_that_is_cancelled_and_unregistered_at_once_has_run_or_was_unregistered() {
    for above in [0, 2] {
        let (tokens, ran, unregistered) = (chains(), counters(), counters());
        let registrations: Vec<_> = tokens
            .iter()
            .enumerate()
            .map(|(round, [.., leaf])| Mutex::new(Some(leaf.on_cancel(counts(&ran, round)))))
            .collect();
        in_step(2, ROUNDS, |thread, round| {
            if thread == 0 {
                tokens[round][above].cancel();
            } else {
                let registration = registrations[round].lock().unwrap().take().unwrap();
                unregistered[round].store(registration.unregister().into(), Relaxed);
            }
        });
        for (ran, unregistered) in ran.iter().zip(&*unregistered) {
            assert_eq!(ran.load(Relaxed) + unregistered.load(Relaxed), 1);
        }
    }
}

#[test]
fn a_callback_that_is_registered_during_a_cancel_runs_once() {
    for above in [0, 2] {
        let (tokens, ran) = (chains(), counters());
        in_step(2, ROUNDS, |thread, round| {
            if thread == 0 {
                tokens[round][above].cancel();
            } else {
                tokens[round][2].on_cancel(counts(&ran, round)).detach();
            }
        });
        assert!(ran.iter().all(|ran| ran.load(Relaxed) == 1));
    }
}

#[test]
fn a_callback_whose_token_and_ancestor_are_cancelled_and_checked_at_once_runs_once() {
    let (tokens, ran) = (chains(), counters());
    for (round, [.., leaf]) in tokens.iter().enumerate() {
        leaf.on_cancel(counts(&ran, round)).detach();
    }
    let late = AtomicUsize::new(0);
    in_step(3, ROUNDS, |thread, round| {
        let [root, _, leaf] = &tokens[round];
        match thread {
            0 => root.cancel(),
            1 => leaf.cancel(),
            _ => {
                let missing = leaf.is_cancelled() && leaf.stop_reason().is_none();
                late.fetch_add(missing.into(), Relaxed);
            }
        }
    });
    assert_eq!(late.into_inner(), 0);
    assert!(ran.iter().all(|ran| ran.load(Relaxed) == 1));
}

/// The last handle is dropped during the cancel: in time or not, nothing is leaked.
#[test]
fn a_callback_whose_last_handle_is_dropped_during_a_cancel_runs_once_at_most_and_is_dropped() {
    let ran = counters();
    let (roots, leaves): (Vec<_>, Vec<_>) = chains()
        .into_iter()
        .map(|[root, _, leaf]| (root, Mutex::new(Some(leaf))))
        .unzip();
    for (round, leaf) in leaves.iter().enumerate() {
        let leaf = leaf.lock().unwrap();
        leaf.as_ref()
            .unwrap()
            .on_cancel(counts(&ran, round))
            .detach();
    }
    in_step(2, ROUNDS, |thread, round| match thread {
        0 => roots[round].cancel(),
        _ => drop(leaves[round].lock().unwrap().take()),
    });
    assert!(ran.iter().all(|ran| ran.load(Relaxed) <= 1));
    assert_eq!(Arc::strong_count(&ran), 1);
}

/// Numbers below what is asked for, the same ones at each run.
pub(crate) fn numbers(seed: usize) -> impl FnMut(usize) -> usize {
    let mut state = seed as u64;
    move |below| {
        state = state
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % below
    }
}

/// Tokens of which each has up to two of the earlier ones as parents, and those.
struct Tree {
    tokens: Vec<CancellationToken>,
    parents: Vec<Vec<usize>>,
    /// What the callback of each token heard.
    heard: Vec<Arc<Calls>>,
}

impl Tree {
    fn grow(size: usize, mut number: impl FnMut(usize) -> usize) -> Self {
        let mut tree = Self {
            tokens: vec![CancellationToken::new()],
            parents: vec![Vec::new()],
            heard: Vec::new(),
        };
        for token in 1..size {
            let parents: Vec<_> = (0..=number(2)).map(|_| number(token)).collect();
            let linked = parents.iter().map(|parent| &tree.tokens[*parent]);
            tree.tokens.push(CancellationToken::linked(linked));
            tree.parents.push(parents);
        }
        for token in &tree.tokens {
            let calls = Calls::new();
            // Not all: most tokens have no waiter, and are not listed.
            if number(3) > 0 {
                token.on_cancel(calls.callback("")).detach();
            }
            tree.heard.push(calls);
        }
        tree
    }

    fn check(&self, registered: &[bool], cancelled: &[Vec<String>], case: &str) {
        for (place, token) in self.tokens.iter().enumerate() {
            let parents = &self.parents[place];
            let mut candidates: Vec<_> = parents
                .iter()
                .filter_map(|parent| reason(&self.tokens[*parent]))
                .collect();
            candidates.extend(cancelled[place].iter().cloned());
            let why = reason(token);
            assert_eq!(why.is_some(), !candidates.is_empty(), "{case}: {place}");
            assert!(why.iter().all(|why| candidates.contains(why)), "{case}");
            let heard = why.iter().filter(|_| registered[place]);
            let heard: Vec<_> = heard.map(|why| format!(": {why}")).collect();
            assert_eq!(self.heard[place].all(), heard, "{case}: {place}");
        }
    }
}

#[test]
fn in_a_storm_of_cancels_every_callback_hears_once_what_its_token_says_for_ever() {
    const THREADS: usize = 3;
    const SIZE: usize = 14;
    const CANCELS: usize = 3;

    let rounds = if cfg!(miri) { 3 } else { 2000 };
    let trees: Vec<_> = (0..rounds).map(|n| Tree::grow(SIZE, numbers(n))).collect();
    let registered: Vec<Vec<_>> = trees
        .iter()
        .map(|tree| tree.heard.iter().map(|heard| heard.callbacks_left() > 0))
        .map(Iterator::collect)
        .collect();
    let targets = |thread: usize, round: usize| {
        let mut number = numbers(1000 * round + thread + 1);
        iter::repeat_with(move || number(SIZE)).take(CANCELS)
    };
    let late = AtomicUsize::new(0);
    in_step(THREADS, rounds, |thread, round| {
        let tokens = &trees[round].tokens;
        for (nth, target) in targets(thread, round).enumerate() {
            tokens[target].cancel_with(format!("{thread} {nth}"));
            late.fetch_add((!tokens[target].is_cancelled()).into(), Relaxed);
        }
    });
    assert_eq!(late.into_inner(), 0);
    for (round, tree) in trees.iter().enumerate() {
        let mut cancelled = vec![Vec::new(); SIZE];
        for thread in 0..THREADS {
            for (nth, target) in targets(thread, round).enumerate() {
                cancelled[target].push(format!("{thread} {nth}"));
            }
        }
        tree.check(&registered[round], &cancelled, &format!("round {round}"));
    }
}

#[cfg(feature = "tokio")]
mod deadlines {
    use super::{Calls, panics};
    use crate::{token::reason, with_deadline::tick};
    use std::time::Duration;
    use stopcock::CancellationToken;
    use tokio::{task::yield_now, time::advance};

    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn at_a_deadline_the_callbacks_of_the_whole_subtree_run_and_the_runtime_survives_their_panics()
     {
        let calls = Calls::new();
        let request = CancellationToken::with_timeout(SECOND);
        let query = request.child_token();
        request.on_cancel(panics("ends in the task")).detach();
        query.on_cancel(calls.callback("query")).detach();
        let other = CancellationToken::with_timeout(SECOND);
        other.on_cancel(calls.callback("other")).detach();
        advance(2 * SECOND).await;
        yield_now().await;
        let mut all = calls.all();
        all.sort();
        assert_eq!(
            all,
            ["other: deadline exceeded", "query: deadline exceeded"]
        );
    }

    /// What comes after a check has set the outcome of a token and its child, and has woken no task.
    #[derive(Clone, Copy, Debug)]
    enum Comes {
        Timer,
        Cancel,
        CancelBelow,
        Gone,
    }

    #[tokio::test(start_paused = true)]
    async fn a_callback_runs_once_with_what_a_check_has_fixed_whatever_comes_by_then() {
        for comes in [Comes::Timer, Comes::Cancel, Comes::CancelBelow, Comes::Gone] {
            let calls = Calls::new();
            let request = CancellationToken::with_timeout(SECOND);
            let query = request.child_token();
            query.on_cancel(calls.callback("query")).detach();
            tick(SECOND);
            assert_eq!(reason(&query).unwrap(), "deadline exceeded");
            assert!(calls.all().is_empty(), "a check runs no callbacks");
            match comes {
                Comes::Timer => advance(SECOND).await,
                Comes::Cancel => assert!(!request.cancel_with("too late")),
                Comes::CancelBelow => assert!(!query.cancel_with("too late")),
                Comes::Gone => {}
            }
            drop((query, request));
            advance(SECOND).await;
            assert_eq!(calls.all(), ["query: deadline exceeded"], "{comes:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_callback_on_a_token_that_is_over_its_deadline_runs_at_once_and_the_earlier_one_later()
     {
        let calls = Calls::new();
        let token = CancellationToken::with_timeout(SECOND);
        token.on_cancel(calls.callback("earlier")).detach();
        tick(SECOND);
        token.on_cancel(calls.callback("later")).detach();
        assert_eq!(calls.all(), ["later: deadline exceeded"]);
        advance(SECOND).await;
        yield_now().await;
        assert_eq!(
            calls.all(),
            ["later: deadline exceeded", "earlier: deadline exceeded"]
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_cancel_keeps_its_reason_below_though_a_callback_takes_until_after_a_deadline_there()
    {
        let root = CancellationToken::new();
        let calls = Calls::new();
        root.on_cancel(|_| tick(2 * SECOND)).detach();
        let request = root.child_with_timeout(SECOND);
        request.on_cancel(calls.callback("request")).detach();
        root.cancel_with("shutting down");
        assert_eq!(calls.all(), ["request: shutting down"]);
    }
}
