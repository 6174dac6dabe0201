//! Trees of a million tokens: deep ones on a small stack (T9, T12), wide ones while others look on (T10).

use crate::support::Wakes;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        mpsc::{Sender, channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};
use stopcock::{CancellationToken, CancelledOwned, StopReason};

const MILLION: usize = if cfg!(miri) { 300 } else { 1_000_000 };

/// A million tokens are some hundred megabytes: one such tree at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// On a thread that has no room for recursion.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock();
    let thread = thread::Builder::new().stack_size(64 * 1024);
    thread.spawn(test).unwrap().join().unwrap();
}

fn chain() -> Vec<CancellationToken> {
    let mut tokens = vec![CancellationToken::new()];
    for parent in 0..MILLION - 1 {
        tokens.push(tokens[parent].child_token());
    }
    tokens
}

fn waiter(token: &CancellationToken) -> (CancelledOwned, Arc<Wakes>) {
    let wakes = Wakes::new();
    let mut cancelled = token.clone().cancelled_owned();
    assert!(poll(&mut cancelled, Arc::clone(&wakes)).is_pending());
    (cancelled, wakes)
}

fn poll(cancelled: &mut CancelledOwned, wake: Arc<impl Wake + Send + Sync + 'static>) -> Poll<()> {
    let waker = Waker::from(wake);
    Pin::new(cancelled).poll(&mut Context::from_waker(&waker))
}

/// In what order the handles of a chain go.
#[derive(Clone, Copy, Debug)]
enum Order {
    RootFirst,
    LeafFirst,
    MiddleFirst,
    Shuffled,
}

const ORDERS: [Order; 4] = [
    Order::RootFirst,
    Order::LeafFirst,
    Order::MiddleFirst,
    Order::Shuffled,
];

impl Order {
    fn drop(self, mut tokens: Vec<CancellationToken>) {
        match self {
            Self::RootFirst => {}
            Self::LeafFirst => tokens.reverse(),
            Self::MiddleFirst => tokens.rotate_left(MILLION / 2),
            Self::Shuffled => {
                let mut state = 1_usize;
                for place in (1..tokens.len()).rev() {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005_u64 as usize)
                        .wrapping_add(1);
                    tokens.swap(place, (state >> 16) % (place + 1));
                }
            }
        }
        tokens.into_iter().for_each(drop);
    }
}

#[test]
fn a_chain_is_dropped_in_any_order() {
    for order in ORDERS {
        on_a_small_stack(move || order.drop(chain()));
    }
}

#[test]
fn a_chain_that_was_waited_on_is_dropped_in_any_order() {
    for order in ORDERS {
        on_a_small_stack(move || {
            let tokens = chain();
            let (cancelled, wakes) = waiter(&tokens[MILLION - 1]);
            drop(cancelled);
            order.drop(tokens);
            assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
        });
    }
}

#[test]
fn a_chain_that_was_cancelled_is_dropped_in_any_order() {
    for order in ORDERS {
        on_a_small_stack(move || {
            let tokens = chain();
            let (_cancelled, wakes) = waiter(&tokens[MILLION - 1]);
            tokens[0].cancel();
            assert_eq!(wakes.count(), 1);
            order.drop(tokens);
        });
    }
}

#[test]
fn a_cancel_reaches_the_leaf_of_a_chain_that_nobody_waits_on() {
    on_a_small_stack(|| {
        let tokens = chain();
        assert!(tokens[0].cancel_with("root"));
        let leaf = &tokens[MILLION - 1];
        assert!(leaf.is_cancelled());
        assert_eq!(leaf.stop_reason().unwrap().to_string(), "root");
        assert!(tokens.iter().all(CancellationToken::is_cancelled));
    });
}

#[test]
fn a_cancel_in_the_middle_of_a_chain_wakes_the_leaf_and_leaves_the_upper_half() {
    on_a_small_stack(|| {
        let tokens = chain();
        let (_cancelled, wakes) = waiter(&tokens[MILLION - 1]);
        assert!(tokens[MILLION / 2].cancel_with("middle"));
        assert_eq!(wakes.count(), 1);
        assert!(!tokens[MILLION / 2 - 1].is_cancelled());
        assert!(tokens[MILLION - 1].is_cancelled());

        assert!(tokens[0].cancel_with("root"));
        assert_eq!(wakes.count(), 1);
        let reason = |token: usize| tokens[token].stop_reason().unwrap().to_string();
        assert_eq!(reason(MILLION - 1), "middle");
        assert_eq!(reason(MILLION / 2 - 1), "root");
    });
}

/// With a waiter at every token, so that a cancel has more to do at each level than to go down.
#[test]
fn a_chain_with_waiters_all_along_is_cancelled() {
    on_a_small_stack(|| {
        let wakes = Wakes::new();
        let mut waiters: Vec<CancelledOwned> = Vec::new();
        let root = CancellationToken::new();
        let mut token = root.clone();
        // Fewer of them: each new waiter looks up to the root.
        for _ in 0..MILLION / 1000 {
            // Before and after the child in the list.
            let child = token.child_token();
            for token in [&token, &child, &token] {
                let mut cancelled = token.clone().cancelled_owned();
                assert!(poll(&mut cancelled, Arc::clone(&wakes)).is_pending());
                waiters.push(cancelled);
            }
            token = child;
        }
        root.cancel();
        assert_eq!(wakes.count(), waiters.len());
    });
}

/// The waiter is all that is left of the chain, and goes while the cancel is at it.
#[test]
fn a_chain_that_goes_with_its_waiter_during_the_cancel_is_dropped_without_recursion() {
    struct Drops(Mutex<Option<CancelledOwned>>);

    impl Wake for Drops {
        fn wake(self: Arc<Self>) {
            let cancelled = self.0.lock().unwrap().take();
            drop(cancelled);
        }
    }

    on_a_small_stack(|| {
        let mut tokens = chain();
        let root = tokens[0].clone();
        let mut cancelled = tokens.pop().unwrap().cancelled_owned();
        drop(tokens);
        let drops = Arc::new(Drops(Mutex::new(None)));
        assert!(poll(&mut cancelled, Arc::clone(&drops)).is_pending());
        *drops.0.lock().unwrap() = Some(cancelled);
        root.cancel();
        assert_eq!(Arc::strong_count(&drops), 1);
        assert!(drops.0.lock().unwrap().is_none());
    });
}

/// T12, and what a loop of `token = token.child_token()` is.
#[test]
fn the_root_reaches_a_leaf_whose_ancestors_have_no_handle_any_more() {
    on_a_small_stack(|| {
        let root = CancellationToken::new();
        let mut token = root.clone();
        for _ in 0..MILLION {
            token = token.child_token();
        }
        let (mut cancelled, wakes) = waiter(&token);
        root.cancel_with(StopReason::ConsumerDropped);
        assert_eq!(wakes.count(), 1);
        assert!(poll(&mut cancelled, Wakes::new()).is_ready());
        assert!(matches!(
            token.stop_reason(),
            Some(StopReason::ConsumerDropped)
        ));
    });
}

/// T10: every hundredth waker keeps the cancel waiting until another thread has looked at the root, at children that
/// were told already and at others that were not.
#[test]
fn looks_do_not_wait_for_a_cancel_of_a_million_children() {
    struct AsksForALook {
        ask: Sender<Sender<()>>,
    }

    impl Wake for AsksForALook {
        fn wake(self: Arc<Self>) {
            let (looked, looks) = channel();
            self.ask.send(looked).unwrap();
            looks.recv().unwrap();
        }
    }

    let _turn = ONE_AT_A_TIME.lock();
    let root = CancellationToken::new();
    let children: Vec<_> = (0..MILLION).map(|_| root.child_token()).collect();
    let wakes = Wakes::new();
    let (ask, asked) = channel();
    let mut waiters = Vec::new();
    for (place, child) in children.iter().enumerate() {
        let mut cancelled = child.clone().cancelled_owned();
        let first_poll = match place % 100 {
            0 => poll(&mut cancelled, Arc::new(AsksForALook { ask: ask.clone() })),
            _ => poll(&mut cancelled, Arc::clone(&wakes)),
        };
        assert!(first_poll.is_pending());
        waiters.push(cancelled);
    }
    drop(ask);

    thread::scope(|scope| {
        scope.spawn(|| {
            let mut looks = 0;
            for looked in asked {
                assert!(root.is_cancelled());
                for child in children.iter().skip(looks).step_by(MILLION / 100) {
                    assert!(child.is_cancelled());
                    assert!(child.stop_reason().is_some());
                }
                looks += 1;
                looked.send(()).unwrap();
            }
            assert_eq!(looks, MILLION / 100);
        });
        root.cancel();
    });
    assert_eq!(wakes.count(), MILLION - MILLION / 100);
    drop(waiters);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

/// T10 without anybody's leave: the looks go on during all of the cancel.
#[test]
fn a_look_is_never_taken_back_during_a_cancel_of_a_million_children() {
    let _turn = ONE_AT_A_TIME.lock();
    let root = CancellationToken::new();
    let children: Vec<_> = (0..MILLION).map(|_| root.child_token()).collect();
    let waiters: Vec<_> = children.iter().map(waiter).collect();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut was_cancelled = false;
            for child in children.iter().rev().cycle() {
                let is_cancelled = child.is_cancelled();
                assert!(is_cancelled || !was_cancelled, "cancelled all at once");
                was_cancelled = is_cancelled;
                if waiters[MILLION - 1].1.count() == 1 {
                    break;
                }
            }
        });
        root.cancel();
    });
    for (_, wakes) in &waiters {
        assert_eq!(wakes.count(), 1);
    }
}
