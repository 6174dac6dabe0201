//! Callbacks: registered, unregistered and dropped, during a cancel or a deadline.

use super::{chain, model};
use crate::{CancellationToken, Registration, StopReason};
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering::Relaxed},
};

/// How often callbacks have run.
#[derive(Clone, Default)]
struct Runs(Arc<AtomicUsize>);

impl Runs {
    fn callback(&self) -> impl FnOnce(&StopReason) + Send + 'static {
        let runs = self.clone();
        move |reason| {
            assert_eq!(reason.to_string(), "the reason");
            runs.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn count(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    /// Checks that all callbacks are dropped.
    fn check_dropped(&self) {
        assert_eq!(Arc::strong_count(&self.0), 1, "the callback is dropped");
    }
}

fn cancel(token: CancellationToken) -> impl FnOnce() -> bool + Send + 'static {
    move || token.cancel_with("the reason")
}

#[test]
fn a_callback_that_is_registered_during_the_cancel_runs_once() {
    model(|| {
        let token = CancellationToken::new();
        let canceller = thread::spawn(cancel(token.clone()));
        let runs = Runs::default();
        let registration = token.on_cancel(runs.callback());
        canceller.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.unregister());
        runs.check_dropped();
    });
}

#[test]
fn a_callback_below_unlisted_ancestors_that_is_registered_during_the_cancel_runs_once() {
    model(|| {
        let [root, _, leaf] = chain();
        let canceller = thread::spawn(cancel(root));
        let runs = Runs::default();
        let _registration = leaf.on_cancel(runs.callback());
        canceller.join().unwrap();
        assert_eq!(runs.count(), 1);
        runs.check_dropped();
    });
}

#[test]
fn a_callback_has_run_or_was_unregistered_in_time() {
    model(|| {
        let root = CancellationToken::new();
        let runs = Runs::default();
        let registration = root.child_token().on_cancel(runs.callback());
        let canceller = thread::spawn(cancel(root));
        let came_in_time = registration.unregister();
        canceller.join().unwrap();
        assert_eq!(runs.count(), usize::from(!came_in_time));
        runs.check_dropped();
    });
}

#[test]
fn a_neighbour_of_a_callback_that_is_unregistered_during_a_cancel_runs() {
    model(|| {
        let token = CancellationToken::new();
        let (leaver, stayer) = (Runs::default(), Runs::default());
        let leavers = token.on_cancel(leaver.callback());
        let _stayers = token.on_cancel(stayer.callback());
        let canceller = thread::spawn(cancel(token));
        drop(leavers);
        canceller.join().unwrap();
        assert!(leaver.count() <= 1);
        assert_eq!(stayer.count(), 1);
        leaver.check_dropped();
    });
}

#[test]
fn two_cancels_at_once_run_a_callback_once() {
    model(|| {
        let [root, _, leaf] = chain();
        let runs = Runs::default();
        let registration = leaf.on_cancel(runs.callback());
        let cancel_root = thread::spawn(cancel(root));
        leaf.cancel_with("the reason");
        cancel_root.join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.unregister());
    });
}

#[test]
fn a_callback_of_a_token_that_is_dropped_during_a_cancel_runs_if_the_token_was_cancelled() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let runs = Runs::default();
        child.on_cancel(runs.callback()).detach();
        let canceller = thread::spawn(cancel(root));
        let was_cancelled = child.is_cancelled();
        drop(child);
        canceller.join().unwrap();
        assert!(runs.count() <= 1);
        assert!(runs.count() == 1 || !was_cancelled);
        runs.check_dropped();
    });
}

/// The cancel is further up, and may have ended when the token is checked.
#[test]
fn a_callback_of_a_grandchild_that_is_dropped_during_a_cancel_runs_if_the_token_was_cancelled() {
    model(|| {
        let [root, middle, leaf] = chain();
        let runs = Runs::default();
        leaf.on_cancel(runs.callback()).detach();
        drop(middle);
        let canceller = thread::spawn(cancel(root));
        let was_cancelled = leaf.is_cancelled();
        drop(leaf);
        canceller.join().unwrap();
        assert!(runs.count() <= 1);
        assert!(runs.count() == 1 || !was_cancelled);
        runs.check_dropped();
    });
}

#[test]
fn a_callback_runs_once_after_a_check_has_seen_the_cancel() {
    model(|| {
        let [root, _, leaf] = chain();
        let runs = Runs::default();
        let registration = leaf.on_cancel(runs.callback());
        let canceller = thread::spawn(cancel(root));
        let _ = leaf.stop_reason();
        canceller.join().unwrap();
        assert_eq!(runs.count(), 1);
        drop::<Registration>(registration);
    });
}

#[test]
fn a_callback_that_another_thread_connects_runs_once() {
    model(|| {
        let [root, middle, leaf] = chain();
        let runs = Runs::default();
        let register = thread::spawn({
            let runs = runs.clone();
            move || leaf.on_cancel(runs.callback())
        });
        let other = Runs::default();
        let others = middle.on_cancel(other.callback());
        root.cancel_with("the reason");
        let registration = register.join().unwrap();
        assert_eq!((runs.count(), other.count()), (1, 1));
        drop((registration, others));
    });
}

/// The timer of a deadline on one thread, and the task that runs its callbacks on another.
fn at_a_deadline(token: CancellationToken) -> thread::JoinHandle<()> {
    let deferred = token.cancel_as_a_timer("the reason");
    thread::spawn(move || drop(deferred))
}

#[test]
fn a_callback_that_is_registered_during_a_deadline_runs_once() {
    model(|| {
        let token = CancellationToken::new();
        let timer = thread::spawn({
            let token = token.clone();
            move || at_a_deadline(token)
        });
        let runs = Runs::default();
        let registration = token.on_cancel(runs.callback());
        timer.join().unwrap().join().unwrap();
        assert_eq!(runs.count(), 1);
        assert!(!registration.unregister());
        runs.check_dropped();
    });
}

#[test]
fn a_callback_of_a_deadline_has_run_or_was_unregistered_in_time() {
    model(|| {
        let root = CancellationToken::new();
        let runs = Runs::default();
        let registration = root.child_token().on_cancel(runs.callback());
        let timer = thread::spawn(move || at_a_deadline(root));
        let came_in_time = registration.unregister();
        timer.join().unwrap().join().unwrap();
        assert_eq!(runs.count(), usize::from(!came_in_time));
        runs.check_dropped();
    });
}

#[test]
fn a_deadline_and_a_cancel_at_once_run_a_callback_once() {
    model(|| {
        let [root, _, leaf] = chain();
        let runs = Runs::default();
        let _registration = leaf.on_cancel(runs.callback());
        let canceller = thread::spawn(cancel(leaf));
        at_a_deadline(root).join().unwrap();
        canceller.join().unwrap();
        assert_eq!(runs.count(), 1);
    });
}

/// Captured by a callback, and never to be dropped by a timer.
struct Captured {
    timer: thread::ThreadId,
    // Not an atomic of loom: only the timer's thread sets and reads it.
    is_in_timer: Arc<AtomicBool>,
}

impl Drop for Captured {
    fn drop(&mut self) {
        let is_timer = thread::current().id() == self.timer;
        assert!(!is_timer || !self.is_in_timer.load(Relaxed), "by the timer");
    }
}

#[test]
fn callbacks_of_another_parent_whose_last_handle_is_dropped_at_a_deadline_are_not_dropped_by_the_timer()
 {
    model(|| {
        let [timed, other] = [CancellationToken::new(), CancellationToken::new()];
        let is_in_timer = Arc::new(AtomicBool::new(true));
        let captured = Captured {
            timer: thread::current().id(),
            is_in_timer: Arc::clone(&is_in_timer),
        };
        other.on_cancel(move |_| drop(captured)).detach();
        let link = CancellationToken::linked([&timed, &other]);
        link.on_cancel(|_| ()).detach();
        drop(other);
        let dropper = thread::spawn(move || drop(link));
        let deferred = timed.cancel_as_a_timer("the reason");
        is_in_timer.store(false, Relaxed);
        drop(deferred);
        dropper.join().unwrap();
        assert_eq!(Arc::strong_count(&is_in_timer), 1);
    });
}
