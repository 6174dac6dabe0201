//! `hold`: work that a cancel does not stop, and that `settled` waits for.

use crate::support::Wakes;
use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    thread,
};
use stopcock::{CancellationToken, Hold, Settled, StopReason};

fn poll(settled: &mut Settled, wakes: &Arc<Wakes>) -> Poll<()> {
    Pin::new(settled).poll(&mut Context::from_waker(&Waker::from(Arc::clone(wakes))))
}

#[cfg(feature = "tokio")]
#[tokio::test(start_paused = true)]
async fn work_with_a_hold_is_finished_before_the_token_has_settled() {
    use std::{
        sync::atomic::{AtomicBool, Ordering::SeqCst},
        time::Duration,
    };

    let server = CancellationToken::new();
    let is_written = Arc::new(AtomicBool::new(false));
    let (hold, written) = (server.child_token().hold(), Arc::clone(&is_written));
    tokio::spawn(async move {
        let _hold = hold;
        tokio::time::sleep(Duration::from_secs(1)).await;
        written.store(true, SeqCst);
    });

    server.cancel_and_settle().await;
    assert!(is_written.load(SeqCst));
}

#[test]
fn a_hold_is_not_cancelled_and_counts_in_its_token_and_above() {
    let root = CancellationToken::new();
    let child = root.child_token();
    let hold = child.hold();
    let wakes = Wakes::new();
    let (mut of_root, mut of_child) = (root.cancel_and_settle(), child.settled());
    for settled in [&mut of_root, &mut of_child] {
        assert!(poll(settled, &wakes).is_pending());
    }
    drop(hold);
    assert_eq!(wakes.count(), 2);
    for settled in [&mut of_root, &mut of_child] {
        assert!(poll(settled, &wakes).is_ready());
    }
}

#[test]
fn a_hold_under_a_child_does_not_count_beside_it() {
    let root = CancellationToken::new();
    let (child, sibling) = (root.child_token(), root.child_token());
    let _hold = child.hold();
    root.cancel();
    assert!(poll(&mut sibling.settled(), &Wakes::new()).is_ready());
}

#[test]
fn each_clone_counts_in_whatever_order_they_are_dropped() {
    for dropped_first in 0..3 {
        let token = CancellationToken::new();
        let hold = token.hold();
        let mut holds = vec![hold.clone(), hold.clone(), hold];
        let wakes = Wakes::new();
        let mut settled = token.cancel_and_settle();
        holds.swap(0, dropped_first);
        for hold in holds {
            assert!(poll(&mut settled, &wakes).is_pending());
            assert_eq!(wakes.count(), 0);
            drop(hold);
        }
        assert_eq!(wakes.count(), 1);
        assert!(poll(&mut settled, &wakes).is_ready());
    }
}

#[test]
fn a_hold_that_is_made_after_the_cancel_counts() {
    let token = CancellationToken::new();
    token.cancel();
    let hold = token.hold();
    let mut settled = token.settled();
    assert!(poll(&mut settled, &Wakes::new()).is_pending());
    drop(hold);
    assert!(poll(&mut settled, &Wakes::new()).is_ready());
}

#[test]
fn a_hold_that_is_dropped_on_another_thread_wakes() {
    let token = CancellationToken::new();
    let hold = token.hold();
    let wakes = Wakes::new();
    let mut settled = token.cancel_and_settle();
    assert!(poll(&mut settled, &wakes).is_pending());
    thread::spawn(move || drop(hold)).join().unwrap();
    assert_eq!(wakes.count(), 1);
    assert!(poll(&mut settled, &wakes).is_ready());
}

#[test]
fn a_hold_keeps_its_token_and_returns_it() {
    let token = CancellationToken::new();
    let callback = Arc::new(());
    let kept = Arc::clone(&callback);
    token.on_cancel(move |_| drop(kept)).detach();
    let hold: Hold = token.hold();
    let printed = format!("{hold:?}");
    assert!(printed.starts_with("Hold(CancellationToken"), "{printed}");
    drop(token);
    assert_eq!(Arc::strong_count(&callback), 2);
    drop(hold);
    assert_eq!(Arc::strong_count(&callback), 1);
}

#[test]
fn a_guard_with_a_reason_cancels_with_it_when_it_is_dropped() {
    let token = CancellationToken::new();
    let child = token.child_token();
    let guard = token.clone().drop_guard_with("the handler returned early");
    assert!(!token.is_cancelled());
    drop(guard);
    let reason = child.stop_reason().unwrap();
    assert_eq!(reason.to_string(), "the handler returned early");

    let late = token.clone().drop_guard_with(StopReason::ConsumerDropped);
    drop(late);
    let reason = token.stop_reason().unwrap();
    assert_eq!(reason.to_string(), "the handler returned early");
}

#[test]
fn a_guard_with_a_reason_can_be_disarmed() {
    let token = CancellationToken::new();
    let disarmed = token.clone().drop_guard_with("unused").disarm();
    assert_eq!(disarmed, token);
    assert!(!token.is_cancelled());
}
