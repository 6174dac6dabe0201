//! `on_cancel` and its `Registration`: the laws T4, T6 and T7 where callbacks are concerned.

#[cfg(feature = "tokio")]
mod deadlines;
mod foreign_code;
mod threads;

use crate::token::{chain, poll_with, reason};
use std::{
    iter,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
        mpsc::channel,
    },
    task::{Wake, Waker},
    thread,
};
use stopcock::{CancellationToken, Registration, StopReason};
use threads::numbers;

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
fn a_callback_gets_the_reason_of_its_own_token_once() {
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
fn of_callbacks_registered_and_unregistered_at_random_the_rest_run_in_order() {
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
fn callbacks_of_a_token_that_is_dropped_without_a_cancel_do_not_run() {
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

fn panics(message: &'static str) -> impl FnOnce(&StopReason) + Send + 'static {
    move |_| panic!("{message}")
}
