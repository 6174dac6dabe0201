//! Tokens of tokio-util's that are adopted.

use super::{is_plainly_cancelled, pair, wakes};
use crate::support::panic_of;
use std::{
    sync::{
        Arc, Barrier, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    thread,
};
use stopcock::{CancellationToken, StopReason};
use tokio_util::sync::CancellationToken as Theirs;

#[test]
fn an_adopted_token_is_cancelled_when_the_cancel_of_theirs_returns() {
    let (theirs, ours) = pair();
    let (by_value, child) = (CancellationToken::from(theirs.clone()), ours.child_token());
    assert!(!ours.is_cancelled() && !by_value.is_cancelled());
    assert!(wakes(&child, || theirs.cancel()));
    for token in [ours, by_value, child] {
        assert!(is_plainly_cancelled(&token));
    }
}

#[test]
fn a_cancelled_token_is_adopted_as_cancelled() {
    let theirs = Theirs::new();
    theirs.cancel();
    for token in [
        CancellationToken::from(&theirs),
        CancellationToken::from(theirs.child_token()),
    ] {
        assert!(is_plainly_cancelled(&token));
    }
}

#[test]
fn a_child_of_theirs_is_cancelled_by_its_own_cancel_and_by_its_parents() {
    let parent = Theirs::new();
    let children = [parent.child_token(), parent.child_token().child_token()];
    let [first, second] = children.each_ref().map(CancellationToken::from);
    children[0].cancel();
    assert!(first.is_cancelled() && !second.is_cancelled() && !parent.is_cancelled());
    parent.cancel();
    assert!(is_plainly_cancelled(&second));
}

#[test]
fn cancelling_an_adopted_token_does_not_cancel_theirs_and_keeps_its_reason() {
    let (theirs, ours) = pair();
    assert!(ours.cancel_with("enough"));
    assert!(!theirs.is_cancelled());
    theirs.cancel();
    assert_eq!(ours.stop_reason().unwrap().to_string(), "enough");
}

#[test]
fn an_adopted_token_links_with_ours() {
    for theirs_is_first in [true, false] {
        let (theirs, adopted) = pair();
        let ours = CancellationToken::new();
        let linked = CancellationToken::linked([&adopted, &ours]);
        drop(adopted);
        let woken = wakes(&linked, || match theirs_is_first {
            true => theirs.cancel(),
            false => ours.cancel(),
        });
        assert!(woken && linked.is_cancelled());
        assert_eq!(ours.is_cancelled(), !theirs_is_first);
    }
}

/// Only its child is left.
#[test]
fn the_child_of_an_adopted_token_keeps_it() {
    let (theirs, ours) = pair();
    let child = ours.child_token();
    drop(ours);
    assert!(wakes(&child, || theirs.cancel()));
}

#[test]
fn a_panic_of_a_callback_does_not_pass_through_the_cancel_of_theirs() {
    let (theirs, ours) = pair();
    let later = CancellationToken::from(&theirs);
    let has_run = Arc::new(AtomicUsize::new(0));
    ours.on_cancel(|_| panic!("in a callback")).detach();
    for token in [&ours, &later] {
        let runs = Arc::clone(&has_run);
        let callback = move |_: &StopReason| _ = runs.fetch_add(1, SeqCst);
        token.on_cancel(callback).detach();
    }
    theirs.cancel();
    assert!(ours.is_cancelled() && later.is_cancelled());
    assert_eq!(has_run.load(SeqCst), 2);
}

struct PanicsWhenDropped;

impl Drop for PanicsWhenDropped {
    fn drop(&mut self) {
        if !thread::panicking() {
            std::panic::panic_any(Self);
        }
    }
}

#[test]
fn nor_does_a_panic_in_the_drop_of_the_payload() {
    let (theirs, ours) = pair();
    ours.on_cancel(|_| std::panic::panic_any(PanicsWhenDropped))
        .detach();
    theirs.cancel();
    assert!(ours.is_cancelled());
}

/// Their guard cancels when a panic drops it.
#[test]
fn a_panic_of_a_callback_does_not_abort_a_panic_that_cancels_theirs() {
    let (theirs, ours) = pair();
    ours.on_cancel(|_| panic!("in a callback")).detach();
    let said = panic_of(|| {
        let _guard = theirs.drop_guard();
        panic!("the first");
    });
    assert_eq!(said, "the first");
    assert!(ours.is_cancelled());
}

/// Older versions of theirs hold the lock of the parent then.
#[test]
fn a_callback_may_use_the_tokens_of_theirs() {
    let parent = Theirs::new();
    let theirs = parent.child_token();
    let ours = CancellationToken::from(&theirs);
    let sibling = parent.child_token();
    let uses = [&parent, &theirs, &sibling].map(Clone::clone);
    let (done, is_done) = std::sync::mpsc::channel();
    // The last handle of another token that is adopted from it, which the callback drops.
    let other = CancellationToken::from(&theirs);
    let keeps_itself = ours.clone();
    ours.on_cancel(move |_| {
        for token in &uses {
            assert!(token.is_cancelled());
            token.cancel();
            drop(token.clone());
            assert!(token.child_token().is_cancelled());
            assert!(CancellationToken::from(token).is_cancelled());
        }
        drop((uses, other, keeps_itself));
        done.send(()).unwrap();
    })
    .detach();
    drop((theirs, ours));
    parent.cancel();
    is_done.recv().unwrap();
}

/// More of them than tokio wakes at once.
#[test]
fn callbacks_may_drop_the_other_adopted_tokens_and_adopt_more() {
    let theirs = Theirs::new();
    let all = Arc::new(Mutex::new(Vec::new()));
    for _ in 0..100 {
        let ours = CancellationToken::from(theirs.child_token());
        let (others, again) = (Arc::clone(&all), theirs.clone());
        ours.on_cancel(move |_| {
            let last = others.lock().unwrap().pop();
            drop(last);
            assert!(CancellationToken::from(again).is_cancelled());
        })
        .detach();
        all.lock().unwrap().push(ours);
    }
    theirs.cancel();
    let left: Vec<_> = all.lock().unwrap().drain(..).collect();
    assert!(left.iter().all(CancellationToken::is_cancelled));
}

#[test]
fn a_cancel_of_theirs_on_another_thread_is_visible_when_it_returns_though_handles_are_dropped_during_it()
 {
    const ROUNDS: usize = if cfg!(miri) { 10 } else { 2_000 };
    for round in 0..ROUNDS {
        let parent = Theirs::new();
        let theirs = match round % 2 {
            0 => parent.clone(),
            _ => parent.child_token(),
        };
        let dropped = CancellationToken::from(&theirs);
        let called = Arc::new(AtomicUsize::new(0));
        let calls = Arc::clone(&called);
        let callback = dropped.on_cancel(move |_| _ = calls.fetch_add(1, SeqCst));
        let stays = CancellationToken::from(&theirs).child_token();
        let start = Barrier::new(3);
        let (born, came_in_time) = thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                parent.cancel();
                assert!(stays.is_cancelled());
            });
            let drops = scope.spawn(|| {
                start.wait();
                let came_in_time = callback.unregister();
                drop(dropped);
                came_in_time
            });
            start.wait();
            (CancellationToken::from(&theirs), drops.join().unwrap())
        });
        assert!(is_plainly_cancelled(&born) && is_plainly_cancelled(&stays));
        // T6.
        assert_eq!(called.load(SeqCst), usize::from(!came_in_time));
    }
}
