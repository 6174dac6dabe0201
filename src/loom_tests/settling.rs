//! Holders of what a token stops, and the tasks that wait for them.

use super::{CountingWaker, model};
use crate::{CancellationToken, IntoSignal, Settled};
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

fn poll(settled: &mut Settled, flag: &Arc<CountingWaker>) -> Poll<()> {
    let waker = Waker::from(Arc::clone(flag));
    Pin::new(settled).poll(&mut Context::from_waker(&waker))
}

/// Checks a waiter at the end of a model: woken if it was pending, and its waker is dropped.
fn check_settled(first_poll: Poll<()>, mut settled: Settled, flag: &Arc<CountingWaker>) {
    assert!(
        first_poll.is_ready() || flag.wakes() > 0,
        "a pending waiter is woken"
    );
    assert!(poll(&mut settled, &CountingWaker::new()).is_ready());
    drop(settled);
    assert_eq!(Arc::strong_count(flag), 1, "the waker is dropped");
}

#[test]
fn a_waiter_is_woken_by_the_last_release_or_finds_the_token_settled() {
    model(|| {
        let token = CancellationToken::new();
        let held = (&token).into_signal();
        let mut settled = token.cancel_and_settle();
        let holder = thread::spawn(move || drop(held));
        let flag = CountingWaker::new();
        let first_poll = poll(&mut settled, &flag);
        holder.join().unwrap();
        check_settled(first_poll, settled, &flag);
    });
}

#[test]
fn a_waiter_above_two_holders_that_release_at_once_is_woken() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let (one, other) = ((&child).into_signal(), root.child_token().into_signal());
        let mut settled = root.cancel_and_settle();
        let one = thread::spawn(move || drop(one));
        let other = thread::spawn(move || drop(other));
        let flag = CountingWaker::new();
        let first_poll = poll(&mut settled, &flag);
        one.join().unwrap();
        other.join().unwrap();
        check_settled(first_poll, settled, &flag);
    });
}

#[test]
fn two_waiters_at_two_levels_are_woken() {
    model(|| {
        let root = CancellationToken::new();
        let child = root.child_token();
        let held = (&child).into_signal();
        let mut at_child = child.settled();
        let mut at_root = root.cancel_and_settle();
        let holder = thread::spawn(move || drop(held));
        let flags = [CountingWaker::new(), CountingWaker::new()];
        let polls = [
            poll(&mut at_root, &flags[0]),
            poll(&mut at_child, &flags[1]),
        ];
        holder.join().unwrap();
        check_settled(polls[0], at_root, &flags[0]);
        check_settled(polls[1], at_child, &flags[1]);
    });
}

#[test]
fn a_token_is_not_settled_while_there_is_a_holder() {
    model(|| {
        let token = CancellationToken::new();
        let held = (&token).into_signal();
        let passing = (&token).into_signal();
        let mut settled = token.cancel_and_settle();
        let other = thread::spawn(move || drop(passing));
        let flag = CountingWaker::new();
        assert!(poll(&mut settled, &flag).is_pending());
        other.join().unwrap();
        assert!(poll(&mut settled, &flag).is_pending());
        drop(held);
        assert!(flag.wakes() > 0);
        assert!(poll(&mut settled, &flag).is_ready());
    });
}

#[test]
fn a_waiter_is_woken_though_another_holder_comes_and_is_released() {
    model(|| {
        let token = CancellationToken::new();
        let held = (&token).into_signal();
        let mut settled = token.cancel_and_settle();
        let flag = CountingWaker::new();
        let first_poll = poll(&mut settled, &flag);
        assert!(first_poll.is_pending());
        let passing = thread::spawn(move || drop(token.into_signal()));
        drop(held);
        passing.join().unwrap();
        check_settled(first_poll, settled, &flag);
    });
}

#[test]
fn the_neighbour_of_a_waiter_that_is_dropped_is_woken() {
    model(|| {
        let token = CancellationToken::new();
        let held = (&token).into_signal();
        let mut leaver = token.cancel_and_settle();
        let mut stayer = token.settled();
        assert!(poll(&mut leaver, &CountingWaker::new()).is_pending());
        let flag = CountingWaker::new();
        let first_poll = poll(&mut stayer, &flag);
        let holder = thread::spawn(move || drop(held));
        drop(leaver);
        holder.join().unwrap();
        check_settled(first_poll, stayer, &flag);
    });
}

#[test]
fn a_waiter_is_woken_though_the_cancel_comes_during_the_last_release() {
    model(|| {
        let root = CancellationToken::new();
        let held = root.child_token().into_signal();
        let mut settled = root.settled();
        let flag = CountingWaker::new();
        let first_poll = poll(&mut settled, &flag);
        assert!(first_poll.is_pending());
        let canceller = thread::spawn(move || root.cancel());
        drop(held);
        canceller.join().unwrap();
        check_settled(first_poll, settled, &flag);
    });
}

#[test]
fn the_writes_of_all_holders_before_their_release_are_visible_to_a_waiter() {
    model(|| {
        let token = CancellationToken::new();
        let written = Arc::new([AtomicUsize::new(0), AtomicUsize::new(0)]);
        let holders = [0, 1].map(|index| {
            let (held, written) = ((&token).into_signal(), Arc::clone(&written));
            move || {
                written[index].store(1, Ordering::Relaxed);
                drop(held);
            }
        });
        let mut settled = token.cancel_and_settle();
        let holders = holders.map(thread::spawn);
        let first_poll = poll(&mut settled, &CountingWaker::new());
        if first_poll.is_ready() || poll(&mut settled, &CountingWaker::new()).is_ready() {
            for written in &*written {
                assert_eq!(written.load(Ordering::Relaxed), 1);
            }
        }
        for holder in holders {
            holder.join().unwrap();
        }
    });
}
