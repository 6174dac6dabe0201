//! `run_blocking`: one call, which may be given up.

use crate::support::panic_of;
use futures::FutureExt;
use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    time::Duration,
};
use stopcock::{CancellationToken, StopReason, run_blocking, signal, testing::DropProbe};
use tokio::sync::oneshot;

/// A call that waits until it is let on, and where it is.
struct Call {
    go_on: mpsc::Sender<()>,
    begun: oneshot::Receiver<()>,
}

fn call<T>(answer: T) -> (impl FnOnce() -> T + Send, Call)
where
    T: Send,
{
    let (go_on, may_go_on) = mpsc::channel();
    let (begin, begun) = oneshot::channel();
    let call = move || {
        begin.send(()).unwrap();
        may_go_on.recv().unwrap();
        answer
    };
    (call, Call { go_on, begun })
}

#[tokio::test]
async fn it_answers_what_the_call_does() {
    assert_eq!(run_blocking(signal::never(), || 7).await.unwrap(), 7);
}

#[tokio::test]
async fn the_call_begins_before_the_first_poll() {
    let (call, at) = call(7);
    let answer = run_blocking(signal::never(), call);
    at.begun.await.unwrap();
    at.go_on.send(()).unwrap();
    assert_eq!(answer.await.unwrap(), 7);
}

#[tokio::test]
async fn giving_up_does_not_wait_and_the_late_answer_is_dropped() {
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let (call, at) = call(probe);
    let answer = run_blocking(&token, call);
    at.begun.await.unwrap();
    token.cancel_with("enough");
    assert_eq!(answer.await.unwrap_err().to_string(), "enough");
    assert!(!record.is_dropped());
    assert!(
        token.settled().now_or_never().is_none(),
        "the call still runs"
    );
    at.go_on.send(()).unwrap();
    token.settled().await;
    assert!(record.is_dropped());
}

#[tokio::test]
async fn dropping_the_future_is_the_same() {
    let token = CancellationToken::new();
    let (call, at) = call(7);
    let answer = run_blocking(&token, call);
    at.begun.await.unwrap();
    drop(answer);
    assert!(!token.is_cancelled());
    token.cancel();
    assert!(
        token.settled().now_or_never().is_none(),
        "the call still runs"
    );
    at.go_on.send(()).unwrap();
    token.settled().await;
}

#[tokio::test]
async fn the_signal_comes_first() {
    let token = CancellationToken::new();
    let answer = run_blocking(&token, || 7);
    token.cancel();
    assert!(answer.await.is_err());
}

#[tokio::test]
async fn stopped_beforehand_the_call_never_begins() {
    let token = CancellationToken::new();
    token.cancel();
    let answer = run_blocking(&token, || unreachable!());
    let stopped: Result<u8, _> = answer.await;
    assert!(matches!(stopped, Err(StopReason::Cancelled)));
    token.settled().await;
}

#[test]
fn given_up_while_it_queues_it_never_begins() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .max_blocking_threads(1)
        .build()
        .unwrap();
    runtime.block_on(async {
        let (blocker, at) = call(1);
        let first = run_blocking(signal::never(), blocker);
        at.begun.await.unwrap();
        let calls = Arc::new(AtomicUsize::new(0));
        let called = Arc::clone(&calls);
        let queued = run_blocking(signal::never(), move || called.fetch_add(1, SeqCst));
        drop(queued);
        at.go_on.send(()).unwrap();
        first.await.unwrap();
        run_blocking(signal::never(), || ()).await.unwrap();
        assert_eq!(calls.load(SeqCst), 0);
        assert_eq!(Arc::strong_count(&calls), 1);
    });
}

#[tokio::test]
async fn a_panic_of_the_call_passes_through() {
    let mut answer = run_blocking(signal::never(), || panic!("in the call"));
    // Until it has panicked.
    let panicked = std::panic::AssertUnwindSafe(&mut answer)
        .catch_unwind()
        .await;
    let payload = match panicked {
        Err(payload) => payload,
        Ok(Ok::<(), _>(())) | Ok(Err(_)) => panic!("it should have panicked"),
    };
    assert_eq!(
        panic_of(|| std::panic::resume_unwind(payload)),
        "in the call"
    );
}

#[tokio::test]
async fn a_deadline_gives_up() {
    let token = CancellationToken::with_timeout(Duration::from_millis(1));
    let (call, at) = call(7);
    let answer = run_blocking(&token, call).await;
    assert!(matches!(answer, Err(StopReason::DeadlineExceeded)));
    at.go_on.send(()).unwrap();
}
