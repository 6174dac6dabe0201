//! T7: no lock is held while a waker is woken or dropped.

use super::{hold, poll_once, waiter};
use crate::support::{panic_of, panicking_waker};
use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::{Context, Wake, Waker},
};
use stopcock::{CancellationToken, Settled};

// T7: no lock is held while a waker is woken or dropped.

/// A waker that does something once when it is woken, or when it is dropped.
#[derive(Default)]
struct Hooks {
    on_wake: Mutex<Option<Deed>>,
    on_drop: Mutex<Option<Deed>>,
}

type Deed = Box<dyn FnOnce() + Send>;

impl Hooks {
    fn on_wake(deed: Deed) -> Waker {
        let hooks = Self::default();
        *hooks.on_wake.lock().unwrap() = Some(deed);
        Waker::from(Arc::new(hooks))
    }

    fn on_drop(deed: Deed) -> Waker {
        let hooks = Self::default();
        *hooks.on_drop.lock().unwrap() = Some(deed);
        Waker::from(Arc::new(hooks))
    }
}

impl Wake for Hooks {
    fn wake(self: Arc<Self>) {
        let deed = self.on_wake.lock().unwrap().take();
        deed.into_iter().for_each(|deed| deed());
    }
}

impl Drop for Hooks {
    fn drop(&mut self) {
        let deed = self.on_drop.get_mut().unwrap().take();
        deed.into_iter().for_each(|deed| deed());
    }
}

/// What foreign code does with a root, its child and its grandchild, and with what is held elsewhere.
type ForeignCode = fn([CancellationToken; 3], Box<dyn Send>);

const FOREIGN_CODES: [(&str, ForeignCode); 5] = [
    ("makes and drops adapters", |tokens, _| {
        for token in &tokens {
            drop([hold(token), hold(&token.child_token())]);
        }
    }),
    ("drops adapters", |_, held| drop(held)),
    ("drops the last handles", |tokens, _| drop(tokens)),
    ("waits and leaves", |tokens, _| {
        for token in &tokens {
            let held = hold(token);
            let (mut settled, _) = waiter(token);
            assert!(poll_once(&mut settled).is_pending());
            drop(held);
            let _ = poll_once(&mut settled);
        }
    }),
    ("cancels", |tokens, _| {
        for token in &tokens {
            token.cancel();
            assert!(!token.child_token().cancel_with("late"));
        }
    }),
];

/// When it does so.
#[derive(Clone, Copy, Debug, PartialEq)]
enum When {
    /// A waiter is woken.
    Woken,
    /// The waker is dropped, as it was the last of its kind, after it was woken,
    Notified,
    /// or as another one came,
    Replaced,
    /// or when the waiter was dropped.
    Left,
}

#[test]
fn foreign_code_may_do_anything_in_a_wake_up_and_in_the_drop_of_a_waker() {
    for when in [When::Woken, When::Notified, When::Replaced, When::Left] {
        for (what, do_it) in FOREIGN_CODES {
            for waits_at in 0..3 {
                let case = format!("{when:?}: {what}, {waits_at}");
                let root = CancellationToken::new();
                let middle = root.child_token();
                let tokens = [root, middle.clone(), middle.child_token()];
                let held = hold(&tokens[2]);
                let mut settled = tokens[0].cancel_and_settle();
                if waits_at > 0 {
                    settled = tokens[waits_at].settled();
                }
                let elsewhere = CancellationToken::new();
                elsewhere.cancel();
                let held_elsewhere = Box::new([hold(&elsewhere), hold(&elsewhere.child_token())]);
                let (_waiter, woken_elsewhere) = waiter(&elsewhere);

                let done = Arc::new(AtomicUsize::new(0));
                let deed: Deed = Box::new({
                    let done = Arc::clone(&done);
                    move || {
                        do_it(tokens, held_elsewhere);
                        done.fetch_add(1, SeqCst);
                    }
                });
                let waker = match when {
                    When::Woken => Hooks::on_wake(deed),
                    When::Notified | When::Replaced | When::Left => Hooks::on_drop(deed),
                };
                let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
                assert!(polled.is_pending(), "{case}");
                drop(waker);
                assert_eq!(done.load(SeqCst), 0, "{case}");
                let mut settled = Some(settled);
                match when {
                    When::Woken | When::Notified => {}
                    When::Replaced => assert!(poll_once(settled.as_mut().unwrap()).is_pending()),
                    When::Left => settled = None,
                }
                drop(held);
                assert_eq!(done.load(SeqCst), 1, "{case}");
                assert_eq!(woken_elsewhere.count(), 1, "{case}");
                if let Some(mut settled) = settled {
                    assert!(poll_once(&mut settled).is_ready(), "{case}");
                }
                assert!(poll_once(&mut middle.settled()).is_ready(), "{case}");
            }
        }
    }
}

#[test]
fn a_wake_may_drop_its_own_settler_and_with_it_the_last_handle() {
    for neighbours in 0..3 {
        let token = CancellationToken::new();
        let held = hold(&token.child_token());
        token.cancel();
        let slot = Arc::new(Mutex::new(None::<Settled>));
        let mut settled = token.settled();
        let waker = Hooks::on_wake(Box::new({
            let slot = Arc::clone(&slot);
            move || {
                let settled = slot.lock().unwrap().take();
                drop(settled);
            }
        }));
        let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        let neighbours: Vec<_> = (0..neighbours).map(|_| waiter(&token)).collect();
        *slot.lock().unwrap() = Some(settled);
        drop(token);
        drop(held);
        assert!(slot.lock().unwrap().is_none());
        assert!(neighbours.iter().all(|(_, wakes)| wakes.count() == 1));
    }
}

#[test]
fn a_wake_may_drop_a_holder_that_another_level_waits_for() {
    let root = CancellationToken::new();
    let child = root.child_token();
    root.cancel();
    let held_at_root = hold(&root);
    let held = hold(&child);
    let (mut at_root, wakes) = waiter(&root);
    let mut at_child = child.settled();
    let waker = Hooks::on_wake(Box::new(move || drop(held_at_root)));
    let polled = Pin::new(&mut at_child).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    drop(held);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut at_root).is_ready());
}

#[test]
fn a_wake_that_makes_and_drops_an_adapter_leaves_no_waiter() {
    let root = CancellationToken::new();
    let child = root.child_token();
    root.cancel();
    let held = hold(&child);
    let mut at_child = child.settled();
    let waker = Hooks::on_wake(Box::new(move || drop(hold(&child))));
    let polled = Pin::new(&mut at_child).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let waiters = [waiter(&root), waiter(&root)];
    drop(held);
    for (_, wakes) in waiters {
        assert_eq!(wakes.count(), 1);
    }
}

#[test]
fn a_panicking_waker_stops_no_other_and_the_first_panic_comes_out_of_the_drop() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let held = hold(&child);
    root.cancel();
    let mut waiters = Vec::new();
    let mut panicking = Vec::new();
    for (token, message) in [(&child, "first"), (&child, "second"), (&root, "third")] {
        let mut settled = token.settled();
        let waker = panicking_waker(message);
        let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        panicking.push(settled);
        waiters.push(waiter(token));
    }
    assert_eq!(panic_of(|| drop(held)), "first");
    for (settled, wakes) in &mut waiters {
        assert_eq!(wakes.count(), 1);
        assert!(poll_once(settled).is_ready());
    }
    // Once.
    drop(hold(&child));
}

#[test]
fn a_panicking_waker_does_not_throw_into_an_unwinding() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let mut settled = token.settled();
    let waker = panicking_waker("woken");
    let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let (mut other, wakes) = waiter(&token);
    let message = panic_of(|| {
        let _held = held;
        panic!("the task failed");
    });
    assert_eq!(message, "the task failed");
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut other).is_ready());
}
