//! Trees of a million tokens: deep ones on a small stack (T9, T12), wide ones during checks of other threads (T10).

use crate::support::{Wakes, poll as poll_stream};
use futures::stream;
use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::SeqCst},
        mpsc::{Sender, channel},
    },
    task::{Context, Poll, Wake, Waker},
    thread,
};
use stopcock::{CancelStreamExt, CancellationToken, CancelledOwned, StopReason};

const MILLION: usize = if cfg!(miri) { 300 } else { 1_000_000 };

/// For tests in which each waiter walks up to the root: its square is a million steps or more.
const SOME: usize = if cfg!(miri) { 50 } else { 3_000 };

/// For tokens with several parents: a walk stores which of them it has visited.
const JOINTS: usize = if cfg!(miri) { 20 } else { 10_000 };

/// How often a thread yields to another one before it fails.
const PATIENCE: usize = if cfg!(miri) { 1 << 20 } else { 1 << 27 };

/// A million tokens are some hundred megabytes: one such tree at a time.
static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

/// On a thread whose stack is too small for recursion.
fn on_a_small_stack(test: impl FnOnce() + Send + 'static) {
    let _turn = ONE_AT_A_TIME.lock();
    let thread = thread::Builder::new().stack_size(64 * 1024);
    thread.spawn(test).unwrap().join().unwrap();
}

fn chain() -> Vec<CancellationToken> {
    chain_of(MILLION)
}

fn chain_of(length: usize) -> Vec<CancellationToken> {
    let mut tokens = vec![CancellationToken::new()];
    for parent in 0..length - 1 {
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

fn poll(
    future: &mut (impl Future<Output = ()> + Unpin),
    wake: Arc<impl Wake + Send + Sync + 'static>,
) -> Poll<()> {
    let waker = Waker::from(wake);
    Pin::new(future).poll(&mut Context::from_waker(&waker))
}

/// The order in which the handles of a chain are dropped.
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
            Self::MiddleFirst => {
                let half = tokens.len() / 2;
                tokens.rotate_left(half);
            }
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
fn a_cancel_reaches_the_leaf_of_a_chain_on_which_nothing_waits() {
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

/// With a waiter at every token, so that a cancel has work at each level.
#[test]
fn a_chain_with_waiters_all_along_is_cancelled() {
    on_a_small_stack(|| {
        let wakes = Wakes::new();
        let mut waiters: Vec<CancelledOwned> = Vec::new();
        let root = CancellationToken::new();
        let mut token = root.clone();
        // Fewer, as each new waiter walks up to the root.
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

#[test]
fn a_chain_with_a_waiter_at_every_token_is_cancelled_whichever_end_they_came_from() {
    for is_root_first in [false, true] {
        on_a_small_stack(move || {
            let mut tokens = chain_of(SOME);
            let wakes = Wakes::new();
            let wait = |token: &CancellationToken| {
                let mut cancelled = token.clone().cancelled_owned();
                assert!(poll(&mut cancelled, Arc::clone(&wakes)).is_pending());
                cancelled
            };
            let _waiters: Vec<_> = match is_root_first {
                true => tokens.iter().map(wait).collect(),
                false => tokens.iter().rev().map(wait).collect(),
            };
            tokens.swap_remove(0).cancel();
            assert_eq!(wakes.count(), SOME);
        });
    }
}

#[test]
fn the_callbacks_all_along_a_chain_run_from_the_root_to_the_leaf() {
    for order in ORDERS {
        on_a_small_stack(move || {
            let tokens = chain_of(SOME);
            let (log, logged) = channel();
            for (level, token) in tokens.iter().enumerate() {
                let log = log.clone();
                let callback = move |reason: &StopReason| {
                    log.send((level, reason.to_string())).unwrap();
                };
                token.on_cancel(callback).detach();
            }
            let (root, leaf) = (tokens[0].clone(), tokens[SOME - 1].clone());
            order.drop(tokens);
            root.cancel_with("root");
            let notified = logged.try_iter();
            assert!(notified.eq((0..SOME).map(|level| (level, "root".to_owned()))));
            assert!(leaf.is_cancelled());
        });
    }
}

#[test]
fn all_callbacks_of_a_chain_that_is_dropped_without_a_cancel_are_dropped_with_it() {
    for order in ORDERS {
        on_a_small_stack(move || {
            let tokens = chain_of(SOME);
            let alive = Arc::new(());
            for token in &tokens {
                let alive = Arc::clone(&alive);
                let callback = move |_: &StopReason| panic!("nobody cancels {alive:?}");
                token.on_cancel(callback).detach();
            }
            assert_eq!(Arc::strong_count(&alive), SOME + 1);
            order.drop(tokens);
            assert_eq!(Arc::strong_count(&alive), 1);
        });
    }
}

#[test]
fn an_adapter_at_the_leaf_of_a_chain_keeps_the_root_from_being_settled() {
    on_a_small_stack(|| {
        let tokens = chain();
        let mut adapter = stream::pending::<()>().take_until_cancelled(&tokens[MILLION - 1]);
        assert!(poll_stream(Pin::new(&mut adapter)).is_pending());
        let mut settled = tokens[0].cancel_and_settle();
        let wakes = Wakes::new();
        assert!(poll(&mut settled, Arc::clone(&wakes)).is_pending());
        assert!(poll_stream(Pin::new(&mut adapter)).is_ready());
        assert_eq!(wakes.count(), 1);
        assert!(poll(&mut settled, wakes).is_ready());
        Order::RootFirst.drop(tokens);
    });
}

/// Which token is cancelled when a tree has been built.
#[derive(Clone, Copy, Debug)]
enum End {
    Nobody,
    Root,
    /// A parent of every token but the root.
    Common,
}

/// Each of its tokens is linked to the one before it and to a common one.
#[test]
fn a_chain_of_links_is_cancelled_and_dropped_in_any_order() {
    for order in ORDERS {
        for end in [End::Nobody, End::Root, End::Common] {
            on_a_small_stack(move || {
                let common = CancellationToken::new();
                let mut tokens = vec![CancellationToken::new()];
                for last in 0..JOINTS {
                    tokens.push(CancellationToken::linked([&tokens[last], &common]));
                }
                let (cancelled, wakes) = waiter(&tokens[JOINTS]);
                match end {
                    End::Nobody => drop(cancelled),
                    End::Root => assert!(tokens[0].cancel_with("root")),
                    End::Common => assert!(common.cancel_with("common")),
                }
                let reason = tokens[JOINTS]
                    .stop_reason()
                    .map(|reason| reason.to_string());
                let expected = match end {
                    End::Nobody => (0, None),
                    End::Root => (1, Some("root")),
                    End::Common => (1, Some("common")),
                };
                assert_eq!((wakes.count(), reason.as_deref()), expected);
                assert_eq!(tokens[0].is_cancelled(), matches!(end, End::Root));
                assert_eq!(common.is_cancelled(), matches!(end, End::Common));
                order.drop(tokens);
            });
        }
    }
}

/// Two paths lead from each joint to the next: from end to end far too many to walk each.
#[test]
fn a_ladder_of_diamonds_is_cancelled_and_dropped_in_any_order() {
    for order in ORDERS {
        on_a_small_stack(move || {
            let mut tokens = vec![CancellationToken::new()];
            for _ in 0..JOINTS {
                let joint = &tokens[tokens.len() - 1];
                let sides = [joint.child_token(), joint.child_token()];
                let next = CancellationToken::linked(&sides);
                tokens.extend(sides);
                tokens.push(next);
            }
            let top = tokens[tokens.len() - 1].clone();
            let mut adapter = stream::pending::<()>().take_until_cancelled(&top);
            let (_cancelled, wakes) = waiter(&top);
            assert!(!top.is_cancelled());
            let mut settled = tokens[0].cancel_and_settle();
            assert_eq!(wakes.count(), 1);
            assert!(top.stop_reason().is_some());
            assert!(poll(&mut settled, Wakes::new()).is_pending());
            assert!(poll_stream(Pin::new(&mut adapter)).is_ready());
            assert!(poll(&mut settled, Wakes::new()).is_ready());
            order.drop(tokens);
        });
    }
}

/// Each with a timer: a deadline is earlier than all those above.
#[test]
#[cfg(feature = "tokio")]
fn a_chain_of_deadlines_is_cancelled_or_is_over_and_is_dropped_in_any_order() {
    use std::time::Duration;

    for order in ORDERS {
        for end in [End::Nobody, End::Root, End::Common] {
            let mut runtime = tokio::runtime::Builder::new_current_thread();
            let runtime = runtime.enable_time().start_paused(true).build().unwrap();
            on_a_small_stack(move || {
                runtime.block_on(async {
                    let mut tokens = vec![CancellationToken::new()];
                    for last in 0..SOME {
                        let timeout = Duration::from_millis((SOME - last) as u64);
                        tokens.push(tokens[last].child_with_timeout(timeout));
                    }
                    let (cancelled, wakes) = waiter(&tokens[SOME]);
                    let expected = match end {
                        End::Nobody => {
                            drop(cancelled);
                            (0, None)
                        }
                        End::Root => {
                            assert!(tokens[0].cancel_with("root"));
                            (1, Some("root".to_owned()))
                        }
                        // They share nothing but the clock.
                        End::Common => {
                            tokio::time::advance(Duration::from_millis(SOME as u64)).await;
                            (1, Some(StopReason::DeadlineExceeded.to_string()))
                        }
                    };
                    let reason = tokens[SOME].stop_reason().map(|reason| reason.to_string());
                    assert_eq!((wakes.count(), reason), expected);
                    order.drop(tokens);
                });
            });
        }
    }
}

/// Only the waiter still owns the chain, and is dropped while the cancel visits it.
#[test]
fn a_chain_that_is_dropped_with_its_waiter_during_the_cancel_is_dropped_without_recursion() {
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

/// T12: a loop of `token = token.child_token()`.
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

/// T10: every hundredth waker blocks the cancel until another thread has checked the root, children that were notified
/// already and others that were not.
#[test]
fn checks_do_not_wait_for_a_cancel_of_a_million_children() {
    struct AsksForALook {
        ask: Sender<Sender<()>>,
    }

    impl Wake for AsksForALook {
        fn wake(self: Arc<Self>) {
            let (checked, checks) = channel();
            self.ask.send(checked).unwrap();
            checks.recv().unwrap();
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
            let mut checks = 0;
            for checked in asked {
                assert!(root.is_cancelled());
                for child in children.iter().skip(checks).step_by(MILLION / 100) {
                    assert!(child.is_cancelled());
                    assert!(child.stop_reason().is_some());
                }
                checks += 1;
                checked.send(()).unwrap();
            }
            assert_eq!(checks, MILLION / 100);
        });
        root.cancel();
    });
    assert_eq!(wakes.count(), MILLION - MILLION / 100);
    drop(waiters);
    assert_eq!(Arc::strong_count(&wakes), 1);
}

/// T10 without synchronisation: the checks continue during the whole cancel.
#[test]
fn a_check_is_never_contradicted_during_a_cancel_of_a_million_children() {
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

/// T10 for all other operations on a token. The cancel is blocked in a callback, with half of a million children
/// notified, until another thread has done them all.
#[test]
fn no_thread_waits_for_a_cancel_of_a_million_children() {
    let _turn = ONE_AT_A_TIME.lock();
    let root = CancellationToken::new();
    let children: Vec<_> = (0..MILLION).map(|_| root.child_token()).collect();
    let wakes = Wakes::new();
    let mut waiters: Vec<_> = children
        .iter()
        .map(|child| {
            let mut cancelled = child.clone().cancelled_owned();
            assert!(poll(&mut cancelled, Arc::clone(&wakes)).is_pending());
            cancelled
        })
        .collect();
    // Blocked by the first child that has not been notified yet.
    let mut unwoken = waiters.split_off(MILLION / 2);

    let (stands_still, stood_still) = channel();
    let is_done = Arc::new(AtomicBool::new(false));
    children[MILLION / 2 - 1]
        .on_cancel({
            let is_done = Arc::clone(&is_done);
            move |_| {
                stands_still.send(()).unwrap();
                // Not forever: a thread that waits for this cancel has to fail, not to hang.
                let has_come = || {
                    thread::yield_now();
                    is_done.load(SeqCst)
                };
                let is_done = (0..PATIENCE).any(|_| has_come());
                assert!(is_done, "somebody waits for the cancel");
            }
        })
        .detach();
    let mut registrations = Vec::new();
    let mut adapters = Vec::new();
    for child in [&root, &children[0], &children[MILLION - 1]] {
        registrations.push(child.on_cancel(|_| ()));
        adapters.push(stream::pending::<()>().take_until_cancelled(child));
    }

    let (root, children, wakes) = (&root, &children, &wakes);
    thread::scope(|scope| {
        scope.spawn(move || {
            stood_still.recv().unwrap();
            assert_eq!(wakes.count(), MILLION / 2);
            for token in [root, &children[0], &children[MILLION - 1]] {
                assert!(token.is_cancelled() && token.check().is_err());
                assert!(!token.cancel_with("a loser"));
                assert_eq!(token.stop_reason().unwrap().to_string(), "root");
                assert!(token.child_token().is_cancelled());
                assert!(poll(&mut token.clone().cancelled_owned(), Wakes::new()).is_ready());
                let (ran, runs) = channel();
                token.on_cancel(move |_| ran.send(()).unwrap()).detach();
                assert!(runs.try_recv().is_ok());
                let linked = CancellationToken::linked([&CancellationToken::new(), token]);
                assert!(linked.is_cancelled());
                assert!(poll(&mut token.settled(), Wakes::new()).is_pending());
            }
            for registration in registrations {
                registration.unregister();
            }
            for mut adapter in adapters {
                assert!(poll_stream(Pin::new(&mut adapter)).is_ready());
            }
            for waiter in unwoken.drain(..MILLION / 4) {
                drop(waiter);
            }
            for waiter in &mut unwoken {
                assert!(poll(waiter, Wakes::new()).is_ready());
            }
            drop(unwoken);
            is_done.store(true, SeqCst);
        });
        assert!(root.cancel_with("root"));
    });
    assert_eq!(
        wakes.count(),
        MILLION / 2 + 1,
        "the cancel that lost woke one"
    );
}
