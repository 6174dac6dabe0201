//! Our tokens that become tokens of tokio-util's.

use super::{pair, wakes};
use crate::support::panic_of;
use std::{
    pin::pin,
    sync::{
        Arc, Barrier,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};
use stopcock::CancellationToken;

#[test]
fn a_converted_token_is_cancelled_when_the_cancel_of_ours_returns() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let [of_root, of_child] = [&root, &child].map(CancellationToken::to_tokio_util);
    assert!(!of_root.is_cancelled() && !of_child.is_cancelled());
    child.cancel();
    assert!(!of_root.is_cancelled() && of_child.is_cancelled());
    let another = root.child_token().child_token();
    let of_another = another.to_tokio_util();
    root.cancel();
    assert!(of_root.is_cancelled() && of_another.is_cancelled());
}

#[test]
fn a_token_converted_from_a_cancelled_one_is_cancelled() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let before = child.to_tokio_util();
    root.cancel();
    for token in [before, root.to_tokio_util(), child.to_tokio_util()] {
        assert!(token.is_cancelled());
        assert!(token.child_token().is_cancelled());
    }
}

#[test]
fn a_cancel_of_a_converted_token_stops_no_other() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let [first, second] = [(); 2].map(|()| root.to_tokio_util());
    let below = child.to_tokio_util();
    first.cancel();
    assert!(!root.is_cancelled() && !second.is_cancelled() && !below.is_cancelled());
    assert!(!root.to_tokio_util().is_cancelled());
    root.cancel();
    assert!(second.is_cancelled() && below.is_cancelled());
}

/// T12, also for a token that was dropped.
#[test]
fn an_ancestor_reaches_what_was_made_of_a_token_that_has_been_dropped() {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let made = || middle.child_token().child_token().to_tokio_util();
    let [first, second] = [(); 2].map(|()| made());
    middle.cancel();
    assert!(first.is_cancelled() && second.is_cancelled());

    let leaf = root.child_token().child_token().to_tokio_util();
    let other = root.child_token().to_tokio_util();
    other.cancel();
    assert!(!leaf.is_cancelled());
    root.cancel();
    assert!(leaf.is_cancelled());
}

#[test]
fn a_token_converted_from_a_linked_one_is_cancelled_with_any_parent() {
    for first in [true, false] {
        let parents = [(); 2].map(|()| CancellationToken::new().child_token());
        let linked = CancellationToken::linked(&parents);
        let theirs = linked.child_token().to_tokio_util();
        parents[usize::from(first)].cancel();
        assert!(theirs.is_cancelled());
    }
}

#[test]
fn a_token_converted_from_an_adopted_one_is_cancelled_with_theirs() {
    let (theirs, ours) = pair();
    let back = ours.to_tokio_util();
    let again = CancellationToken::from(&back);
    back.cancel();
    assert!(again.is_cancelled() && !theirs.is_cancelled() && !ours.is_cancelled());
    let back = ours.child_token().to_tokio_util();
    assert!(wakes(&CancellationToken::from(back), || theirs.cancel()));
}

#[test]
fn a_waker_of_theirs_sees_all_of_ours_cancelled_and_its_panic_comes_out_of_our_cancel() {
    let root = CancellationToken::new();
    let leaf = root.child_token().child_token();
    let watched = CancellationToken::from(leaf.to_tokio_util());
    let (seen, reported) = (leaf.clone(), Arc::new(AtomicUsize::new(0)));
    let report = Arc::clone(&reported);
    watched
        .on_cancel(move |_| {
            assert!(seen.is_cancelled());
            report.fetch_add(1, SeqCst);
        })
        .detach();
    root.cancel();
    assert_eq!(reported.load(SeqCst), 1);

    struct Panics;
    impl std::task::Wake for Panics {
        fn wake(self: Arc<Self>) {
            panic!("in a waker");
        }
    }
    let ours = CancellationToken::new();
    let theirs = ours.to_tokio_util();
    let mut waits = pin!(theirs.cancelled());
    let waker = Arc::new(Panics).into();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(waits.as_mut().poll(&mut cx).is_pending());
    assert_eq!(panic_of(|| ours.cancel()), "in a waker");
    assert!(theirs.is_cancelled());
}

#[test]
fn two_threads_that_convert_while_a_third_cancels_get_tokens_that_are_cancelled_when_it_returns() {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for round in 0..ROUNDS {
        let root = CancellationToken::new();
        let leaf = root.child_token().child_token();
        let canceller = if round % 2 == 0 { &root } else { &leaf };
        let start = Barrier::new(3);
        let made: Vec<_> = thread::scope(|scope| {
            let makes = [(); 2].map(|()| {
                scope.spawn(|| {
                    start.wait();
                    let theirs = leaf.to_tokio_util();
                    let was_first = !leaf.is_cancelled();
                    (theirs, was_first)
                })
            });
            start.wait();
            canceller.cancel();
            makes.map(|made| made.join().unwrap()).into()
        });
        assert!(made.iter().all(|(theirs, _)| theirs.is_cancelled()));
    }
}

/// One thread converts, then cancels; the other one converts at the same time.
#[test]
fn of_two_threads_that_convert_at_once_neither_gets_a_token_that_its_own_cancel_misses() {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for _ in 0..ROUNDS {
        let root = CancellationToken::new();
        let leaf = root.child_token().child_token();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            for canceller in [&root, &leaf] {
                let (start, leaf) = (&start, &leaf);
                scope.spawn(move || {
                    start.wait();
                    let theirs = leaf.to_tokio_util();
                    canceller.cancel();
                    assert!(theirs.is_cancelled());
                });
            }
        });
    }
}

#[test]
fn theirs_is_made_cancelled_and_dropped_at_any_depth_on_a_small_stack() {
    const DEPTH: usize = if cfg!(miri) { 100 } else { 100_000 };
    let run = || {
        for is_cancelled in [true, false] {
            let root = CancellationToken::new();
            let mut leaf = root.clone();
            for _ in 0..DEPTH {
                leaf = leaf.child_token();
            }
            let theirs = leaf.to_tokio_util();
            if is_cancelled {
                root.cancel();
            }
            drop(leaf);
            root.cancel();
            assert!(theirs.is_cancelled());
        }
    };
    let small = thread::Builder::new().stack_size(64 << 10);
    small.spawn(run).unwrap().join().unwrap();
}
