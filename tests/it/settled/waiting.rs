//! Which waiters are woken, when, and on which thread.

use super::{hold, poll, poll_once, waiter};
use crate::support::Wakes;
use futures::stream;
use std::{
    fmt::Debug,
    future::Future,
    pin::Pin,
    sync::{Arc, Mutex},
    task::{Context, Wake, Waker},
    thread::{self, ThreadId},
};
use stopcock::{CancelStreamExt, CancellationToken, Settled, StopReason};

// Which tasks are woken.

#[test]
fn only_the_latest_waker_is_woken_and_once() {
    let token = CancellationToken::new();
    let held = hold(&token.child_token());
    let mut settled = token.settled();
    let wakes = [(); 4].map(|()| Wakes::new());
    // The first one waits for the cancel.
    assert!(poll(Pin::new(&mut settled), &wakes[0]).is_pending());
    token.cancel();
    assert_eq!((wakes[0].count(), Arc::strong_count(&wakes[0])), (1, 1));
    for wakes in [
        &wakes[1], &wakes[1], &wakes[2], &wakes[1], &wakes[3], &wakes[3],
    ] {
        assert!(poll(Pin::new(&mut settled), wakes).is_pending());
    }
    for wakes in &wakes[..3] {
        assert_eq!(Arc::strong_count(wakes), 1, "it is not kept");
    }
    drop(held);
    assert_eq!(wakes.each_ref().map(|wakes| wakes.count()), [1, 0, 0, 1]);
    assert_eq!(Arc::strong_count(&wakes[3]), 1);
    assert!(poll(Pin::new(&mut settled), &wakes[3]).is_ready());
}

#[test]
fn one_that_was_moved_is_woken() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let (settled, wakes) = waiter(&token);
    let mut moved = Box::new(settled);
    assert!(poll(Pin::new(&mut *moved), &wakes).is_pending());
    drop(held);
    assert_eq!(wakes.count(), 1);
    assert!(poll(Pin::new(&mut *moved), &wakes).is_ready());
}

#[test]
fn of_many_waiters_all_are_woken_except_those_that_were_dropped() {
    let count: usize = if cfg!(miri) { 8 } else { 40 };
    for leaving in [0, 1, 2, 3, count - 1] {
        let root = CancellationToken::new();
        let tokens = [root.child_token(), root.clone(), root.child_token()];
        let held = hold(&tokens[0].child_token());
        root.cancel();
        let mut waiters: Vec<_> = (0..count).map(|n| waiter(&tokens[n % 2])).collect();
        assert!(poll_once(&mut tokens[2].settled()).is_ready());
        let stays = |n: usize| leaving == 0 || n % leaving != 0;
        let all: Vec<_> = waiters.iter().map(|(_, wakes)| Arc::clone(wakes)).collect();
        let mut n = 0;
        waiters.retain(|_| {
            n += 1;
            stays(n - 1)
        });
        // And some that never waited.
        drop((root.settled(), tokens[0].settled()));
        drop(held);
        for (n, wakes) in all.iter().enumerate() {
            assert_eq!(wakes.count(), usize::from(stays(n)), "{n} of {leaving}");
        }
        for (settled, _) in &mut waiters {
            assert!(poll_once(settled).is_ready());
        }
        drop(waiters);
        assert!(all.iter().all(|wakes| Arc::strong_count(wakes) == 1));
    }
}

#[test]
fn waiters_are_woken_in_the_order_in_which_they_came() {
    struct Entry(usize, Arc<Mutex<Vec<usize>>>);

    impl Wake for Entry {
        fn wake(self: Arc<Self>) {
            self.1.lock().unwrap().push(self.0);
        }
    }

    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let log = Arc::new(Mutex::new(Vec::new()));
    let waiters: Vec<_> = (0..5)
        .map(|n| {
            let mut settled = token.settled();
            let waker = Waker::from(Arc::new(Entry(n, Arc::clone(&log))));
            let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
            assert!(polled.is_pending());
            settled
        })
        .collect();
    drop(held);
    assert_eq!(*log.lock().unwrap(), [0, 1, 2, 3, 4]);
    drop(waiters);
}

#[test]
fn a_waiter_that_leaves_after_it_was_woken_takes_no_other_ones_place() {
    let token = CancellationToken::new();
    token.cancel();
    let first = hold(&token);
    let (notified, _) = waiter(&token);
    drop(first);
    let second = hold(&token);
    let (mut waits, wakes) = waiter(&token);
    // Its place is the one that the other had.
    drop(notified);
    drop(second);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut waits).is_ready());
}

#[test]
fn a_waiter_that_was_woken_is_ready_though_there_is_a_holder_by_then() {
    let token = CancellationToken::new();
    token.cancel();
    let held = hold(&token);
    let (mut settled, wakes) = waiter(&token);
    drop(held);
    let _late = hold(&token);
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut settled).is_ready(), "that moment has been");
    assert!(poll_once(&mut token.settled()).is_pending());
}

#[test]
fn each_level_settles_when_the_last_under_it_is_dropped() {
    let root = CancellationToken::new();
    let middle = root.child_token();
    let leaf = middle.child_token();
    root.cancel();
    let held = [hold(&root), hold(&middle), hold(&leaf)];
    let waiters = [&root, &middle, &leaf].map(waiter);
    let notified = || waiters.each_ref().map(|(_, wakes)| wakes.count());
    let [at_root, at_middle, at_leaf] = held;
    drop(at_middle);
    assert_eq!(notified(), [0, 0, 0]);
    drop(at_leaf);
    assert_eq!(notified(), [0, 1, 1]);
    drop(at_root);
    assert_eq!(notified(), [1, 1, 1]);
}

#[test]
fn the_wake_up_is_on_the_thread_that_drops_the_last_after_that_drop() {
    struct Notes {
        alive: Arc<()>,
        seen: Mutex<Option<(ThreadId, usize)>>,
    }

    impl Wake for Notes {
        fn wake(self: Arc<Self>) {
            let seen = (thread::current().id(), Arc::strong_count(&self.alive));
            *self.seen.lock().unwrap() = Some(seen);
        }
    }

    let token = CancellationToken::new();
    let alive = Arc::new(());
    let stream = {
        let alive = Arc::clone(&alive);
        let source = stream::repeat_with(move || Arc::strong_count(&alive));
        source.take_until_cancelled(token.child_token())
    };
    let mut settled = token.cancel_and_settle();
    let notes = Arc::new(Notes {
        alive,
        seen: Mutex::default(),
    });
    let waker = Waker::from(Arc::clone(&notes));
    let polled = Pin::new(&mut settled).poll(&mut Context::from_waker(&waker));
    assert!(polled.is_pending());
    let dropper = thread::spawn(move || drop(stream));
    let id = dropper.thread().id();
    dropper.join().unwrap();
    assert_eq!(*notes.seen.lock().unwrap(), Some((id, 1)));
}

#[test]
fn it_keeps_its_token_and_no_more() {
    let root = CancellationToken::new();
    let alive = Arc::new(());
    let child = root.child_token();
    child
        .on_cancel({
            let alive = Arc::clone(&alive);
            move |_| drop(alive)
        })
        .detach();
    let held = hold(&child);
    let (mut settled, wakes) = waiter(&child);
    drop((child, held));
    assert_eq!((wakes.count(), Arc::strong_count(&alive)), (0, 2));
    root.cancel();
    assert_eq!(wakes.count(), 1);
    assert!(poll_once(&mut settled).is_ready());

    let (settled, wakes) = waiter(&CancellationToken::new());
    drop(settled);
    assert_eq!((wakes.count(), Arc::strong_count(&wakes)), (0, 1));
}

#[test]
fn one_that_was_ready_is_ready_again() {
    let token = CancellationToken::new();
    let held = hold(&token);
    token.cancel();
    let (mut settled, _) = waiter(&token);
    drop(held);
    for _ in 0..3 {
        assert!(poll_once(&mut settled).is_ready());
    }
}

#[test]
fn cancel_and_settle_cancels_when_it_is_called() {
    let token = CancellationToken::new();
    let settled = token.cancel_and_settle();
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));
    drop(settled);
    let token = CancellationToken::new();
    token.cancel_with("first");
    assert!(poll_once(&mut token.cancel_and_settle()).is_ready());
    assert_eq!(token.stop_reason().unwrap().to_string(), "first");
    let _settled = token.child_token().settled();
    assert!(!CancellationToken::new().is_cancelled());
}

#[test]
fn settled_itself_cancels_nothing() {
    let token = CancellationToken::new();
    drop(waiter(&token));
    assert!(!token.is_cancelled());
}

#[test]
fn its_future_can_be_sent_kept_and_printed() {
    fn is_everything<T: Send + Sync + Unpin + Debug + 'static>() {}
    is_everything::<Settled>();
    let token = CancellationToken::new();
    let settled = token.settled();
    assert!(!format!("{settled:?}").contains("ConsumerDropped"));
    token.cancel_with(StopReason::ConsumerDropped);
    assert!(format!("{settled:?}").contains("ConsumerDropped"));
}
