//! Tokens made from signals, and adopted tokens with a runtime.

use super::{is_plainly_cancelled, wakes};
use crate::support::{Wakes, panic_of};
use futures::{StreamExt, stream};
use std::{
    future::{pending, poll_fn},
    pin::pin,
    sync::{Arc, Barrier, Mutex},
    task::Poll,
    thread,
    time::Duration,
};
use stopcock::{CancelStreamExt, CancellationToken, StopReason, signal};
use tokio::{
    runtime::{Builder, Handle, Runtime},
    sync::oneshot,
    task::yield_now,
    time::{advance, sleep},
};
use tokio_util::sync::CancellationToken as Theirs;

const SECOND: Duration = Duration::from_secs(1);

fn alive_tasks() -> usize {
    Handle::current().metrics().num_alive_tasks()
}

fn runtime() -> Runtime {
    let mut runtime = Builder::new_current_thread();
    runtime.enable_all().start_paused(true).build().unwrap()
}

/// A signal to be sent, and the token of it.
fn signalled() -> (oneshot::Sender<()>, CancellationToken) {
    let (send, sent) = oneshot::channel();
    (send, CancellationToken::from_signal(signal::when(sent)))
}

#[tokio::test]
async fn a_thousand_adopted_tokens_make_no_task() {
    let theirs = Theirs::new();
    let adopted: Vec<_> = (0..1000)
        .map(|_| CancellationToken::from(&theirs))
        .collect();
    let back: Vec<_> = adopted
        .iter()
        .map(CancellationToken::to_tokio_util)
        .collect();
    assert_eq!(alive_tasks(), 0);
    theirs.cancel();
    assert!(adopted.iter().all(CancellationToken::is_cancelled));
    assert!(back.iter().all(Theirs::is_cancelled));
    assert_eq!(alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn theirs_is_cancelled_at_a_deadline_by_a_task_and_at_once_if_it_has_passed() {
    let ours = CancellationToken::with_timeout(SECOND);
    let below = ours.child_token();
    let early = below.to_tokio_util();
    advance(SECOND).await;
    assert!(below.to_tokio_util().is_cancelled());
    early.cancelled().await;

    let parent = CancellationToken::new();
    let timed = parent.child_with_timeout(SECOND).to_tokio_util();
    parent.cancel();
    assert!(timed.is_cancelled(), "linked to what is above");
}

#[tokio::test]
async fn a_token_of_a_signal_is_cancelled_when_it_fires_with_all_that_is_below() {
    let (send, token) = signalled();
    let child = token.child_token();
    assert_eq!(alive_tasks(), 1);
    yield_now().await;
    assert!(!child.is_cancelled());
    send.send(()).unwrap();
    child.cancelled().await;
    assert!(is_plainly_cancelled(&token));
    yield_now().await;
    assert_eq!(alive_tasks(), 0);
}

#[tokio::test(start_paused = true)]
async fn a_token_of_a_signal_has_the_reason_of_the_signal() {
    let timed = CancellationToken::with_timeout(SECOND);
    let either = signal::any(&timed, signal::when(pending::<()>()));
    let token = CancellationToken::from_signal(either);
    sleep(2 * SECOND).await;
    let reason = token.stop_reason();
    assert!(matches!(reason, Some(StopReason::DeadlineExceeded)));
}

#[tokio::test]
async fn a_signal_that_has_fired_makes_a_cancelled_token_and_no_task() {
    let token = CancellationToken::from_signal(signal::when(async {}));
    assert!(is_plainly_cancelled(&token));
    assert_eq!(alive_tasks(), 0);
}

#[test]
fn a_signal_that_never_fires_takes_neither_a_task_nor_a_runtime() {
    let never = signal::any(signal::never(), signal::never());
    let token = CancellationToken::from_signal(never);
    assert!(!token.is_cancelled());
    assert!(wakes(&token, || token.cancel()));
}

/// A token need not be watched by a task.
#[test]
fn the_token_of_a_token_is_its_child_without_a_runtime() {
    let parent = CancellationToken::new();
    let token = CancellationToken::from_signal(&parent);
    token.cancel();
    assert!(!parent.is_cancelled());
    let token = CancellationToken::from_signal(parent.clone());
    parent.cancel_with("enough");
    assert_eq!(token.stop_reason().unwrap().to_string(), "enough");
}

#[test]
fn a_foreign_signal_needs_a_runtime() {
    let said = panic_of(|| CancellationToken::from_signal(signal::when(pending::<()>())));
    assert!(said.contains("`Handle::enter`"), "{said}");
}

#[tokio::test]
async fn the_task_ends_with_the_last_handle_of_the_token_or_of_one_below() {
    for has_run in [true, false] {
        let (send, token) = signalled();
        let child = token.child_token();
        let linked = CancellationToken::linked([&child, &CancellationToken::new()]);
        for last in [Some(token), Some(child), Some(linked), None] {
            if has_run {
                yield_now().await;
            }
            assert_eq!((alive_tasks(), send.is_closed()), (1, false));
            drop(last);
            if has_run {
                yield_now().await;
            }
            // The next drop is that of the last handle.
            if send.is_closed() {
                break;
            }
        }
        yield_now().await;
        assert_eq!((alive_tasks(), send.is_closed()), (0, true));
    }
}

#[tokio::test]
async fn a_thousand_dropped_tokens_of_a_signal_leave_no_task() {
    let (_keep, token) = signalled();
    for _ in 0..1000 {
        let signal = signal::any(
            token.clone().cancelled_owned(),
            signal::when(pending::<()>()),
        );
        drop(CancellationToken::from_signal(signal));
    }
    // The runtime polls some of its tasks, then that of the test.
    for _ in 0..100 {
        yield_now().await;
    }
    assert_eq!(alive_tasks(), 1);
}

#[tokio::test]
async fn the_task_ends_when_the_token_is_cancelled_by_other_means() {
    for has_run in [true, false] {
        let (send, token) = signalled();
        if has_run {
            yield_now().await;
        }
        token.cancel_with("enough");
        yield_now().await;
        assert_eq!((alive_tasks(), send.is_closed()), (0, true));
        assert_eq!(token.stop_reason().unwrap().to_string(), "enough");
    }
}

#[test]
fn a_runtime_that_ends_first_cancels_the_token() {
    for has_run in [true, false] {
        let runtime = runtime();
        let (_send, token) = runtime.block_on(async {
            let signalled = signalled();
            if has_run {
                yield_now().await;
            }
            signalled
        });
        let child = token.child_token();
        assert!(wakes(&child, || drop(runtime)));
        assert!(is_plainly_cancelled(&token));
    }
}

#[test]
fn a_runtime_that_has_ended_makes_a_cancelled_token() {
    let runtime = runtime();
    let handle = runtime.handle().clone();
    drop(runtime);
    let _context = handle.enter();
    let (_send, token) = signalled();
    assert!(is_plainly_cancelled(&token));
}

#[test]
fn the_end_of_the_runtime_does_not_affect_a_dropped_token() {
    let runtime = runtime();
    let (send, token) = runtime.block_on(async {
        let signalled = signalled();
        yield_now().await;
        signalled
    });
    drop(token);
    drop(runtime);
    assert!(send.is_closed());

    // And the other way.
    let runtime = self::runtime();
    let (_send, token) = runtime.block_on(async { signalled() });
    drop(runtime);
    drop(token);
}

#[tokio::test]
async fn a_signal_that_panics_in_the_task_cancels_the_token() {
    let (send, sent) = oneshot::channel::<()>();
    let signal = signal::when(async move {
        sent.await.unwrap();
        panic!("in a signal");
    });
    let token = CancellationToken::from_signal(signal);
    send.send(()).unwrap();
    token.cancelled().await;
    assert!(is_plainly_cancelled(&token));
}

/// So waiting for the one waits for the streams of the other.
#[tokio::test]
async fn a_token_in_the_signal_has_settled_once_the_token_of_the_signal_has() {
    let server = CancellationToken::new();
    let either = signal::any(&server, signal::when(pending::<()>()));
    let token = CancellationToken::from_signal(either);
    let mut stream = stream::pending::<()>().take_until_cancelled(&token);
    let mut settled = pin!(stream::once(server.cancel_and_settle()));
    let wakes = Wakes::new();
    yield_now().await;
    assert!(token.is_cancelled());
    assert!(wakes.poll(settled.as_mut()).is_pending());
    assert_eq!(stream.next().await, None);
    settled.next().await.unwrap();
}

/// A poll of a signal in which the last handle is dropped.
#[tokio::test]
async fn the_last_handle_may_be_dropped_by_the_signal() {
    let handle = Arc::new(Mutex::new(None::<CancellationToken>));
    let drops = Arc::clone(&handle);
    let token = CancellationToken::from_signal(signal::when(poll_fn(move |cx| {
        drop(drops.lock().unwrap().take());
        cx.waker().wake_by_ref();
        Poll::<()>::Pending
    })));
    *handle.lock().unwrap() = Some(token);
    for _ in 0..4 {
        yield_now().await;
    }
    assert!(handle.lock().unwrap().is_none());
    assert_eq!(alive_tasks(), 0);
}

#[test]
fn drops_and_signals_on_other_threads_leave_no_task_and_lose_no_cancel() {
    const ROUNDS: usize = if cfg!(miri) { 5 } else { 500 };
    let runtime = Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    for round in 0..ROUNDS {
        let (send, token) = runtime.block_on(async { signalled() });
        let child = token.child_token();
        let start = Barrier::new(2);
        thread::scope(|scope| {
            scope.spawn(|| {
                start.wait();
                drop(token);
            });
            start.wait();
            if round % 2 == 0 {
                send.send(()).unwrap();
                runtime.block_on(child.cancelled());
            } else {
                drop(child);
                runtime.block_on(async {
                    let mut send = send;
                    send.closed().await;
                });
            }
        });
    }
    runtime.block_on(async {
        while alive_tasks() > 0 {
            yield_now().await;
        }
    });
}
