//! `run_blocking`: one call, which may be abandoned.

use crate::support::{is_without_threads, panic_of};
use futures::{FutureExt, channel::oneshot, executor::block_on};
use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
        mpsc,
    },
    task::Wake,
    thread,
};
use stopcock::{CancellationToken, StopReason, run_blocking, signal, testing::DropProbe};

/// A call that waits until the test continues it, and its state.
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

#[test]
fn it_returns_the_result_of_the_call_without_a_runtime() {
    assert_eq!(block_on(run_blocking(signal::never(), || 7)).unwrap(), 7);
    let (_stop, stopped) = oneshot::channel::<()>();
    assert_eq!(
        block_on(run_blocking(signal::when(stopped), || 7)).unwrap(),
        7
    );
}

#[test]
fn it_runs_on_a_thread_that_has_a_name() {
    let name = run_blocking(signal::never(), || {
        thread::current().name().map(str::to_owned)
    });
    assert_eq!(block_on(name).unwrap(), Some("stopcock".to_owned()));
}

#[test]
fn the_call_begins_before_the_first_poll() {
    let (call, at) = call(7);
    let answer = run_blocking(signal::never(), call);
    block_on(at.begun).unwrap();
    at.go_on.send(()).unwrap();
    assert_eq!(block_on(answer).unwrap(), 7);
}

#[test]
fn giving_up_does_not_wait_and_the_late_answer_is_dropped() {
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let (call, at) = call(probe);
    let answer = run_blocking(&token, call);
    block_on(at.begun).unwrap();
    token.cancel_with("enough");
    assert_eq!(block_on(answer).unwrap_err().to_string(), "enough");
    assert!(!record.is_dropped());
    assert!(
        token.settled().now_or_never().is_none(),
        "the call still runs"
    );
    at.go_on.send(()).unwrap();
    block_on(token.settled());
    assert!(record.is_dropped());
}

#[test]
fn an_unread_result_is_dropped_with_the_future() {
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let (done, is_done) = mpsc::channel();
    struct Done(mpsc::Sender<()>);
    impl Wake for Done {
        fn wake(self: Arc<Self>) {
            self.0.send(()).unwrap();
        }
    }
    let (call, at) = call(probe);
    let mut answer = Box::pin(run_blocking(&token, call));
    let waker = Arc::new(Done(done)).into();
    let mut cx = std::task::Context::from_waker(&waker);
    assert!(answer.as_mut().poll(&mut cx).is_pending());
    at.go_on.send(()).unwrap();
    is_done.recv().unwrap();
    assert!(!record.is_dropped());
    drop(answer);
    assert!(record.is_dropped());
    token.cancel();
    block_on(token.settled());
}

#[test]
fn the_latest_waker_is_woken_and_the_earlier_one_dropped() {
    struct Sends(mpsc::Sender<u8>, u8);
    impl Wake for Sends {
        fn wake(self: Arc<Self>) {
            self.0.send(self.1).unwrap();
        }
    }
    let (wake, woken) = mpsc::channel();
    let wakers = [1, 2].map(|n| Arc::new(Sends(wake.clone(), n)));
    let (call, at) = call(7);
    let mut answer = Box::pin(run_blocking(signal::never(), call));
    for waker in &wakers {
        let waker = Arc::clone(waker).into();
        let mut cx = std::task::Context::from_waker(&waker);
        assert!(answer.as_mut().poll(&mut cx).is_pending());
    }
    assert_eq!(Arc::strong_count(&wakers[0]), 1);
    at.go_on.send(()).unwrap();
    assert_eq!(woken.recv(), Ok(2));
    assert!(woken.try_recv().is_err());
    assert_eq!(block_on(answer).unwrap(), 7);
}

#[test]
fn dropping_the_future_is_the_same_as_giving_up() {
    let token = CancellationToken::new();
    let (call, at) = call(7);
    let answer = run_blocking(&token, call);
    block_on(at.begun).unwrap();
    drop(answer);
    assert!(!token.is_cancelled());
    token.cancel();
    assert!(
        token.settled().now_or_never().is_none(),
        "the call still runs"
    );
    at.go_on.send(()).unwrap();
    block_on(token.settled());
}

#[test]
fn the_signal_comes_first() {
    let token = CancellationToken::new();
    let answer = run_blocking(&token, || 7);
    token.cancel();
    assert!(block_on(answer).is_err());
}

#[test]
fn stopped_before_the_call_it_never_begins() {
    let token = CancellationToken::new();
    token.cancel();
    let probe = DropProbe::new();
    let record = probe.record();
    let begun = Arc::new(AtomicUsize::new(0));
    let begin = Arc::clone(&begun);
    let answer = run_blocking(&token, move || {
        let _probe = probe;
        begin.fetch_add(1, SeqCst);
    });
    assert!(record.is_dropped(), "what it captured");
    assert!(matches!(block_on(answer), Err(StopReason::Cancelled)));
    block_on(token.settled());
    assert_eq!(begun.load(SeqCst), 0);
}

#[test]
fn the_captures_of_a_call_are_dropped_although_it_is_abandoned_as_it_begins() {
    // On some of these threads the call has begun by then, on others it has not.
    const ROUNDS: usize = if cfg!(miri) { 3 } else { 200 };
    let (begun, done) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    for _ in 0..ROUNDS {
        let token = CancellationToken::new();
        let captured = Arc::new(());
        let count = Arc::clone(&captured);
        let (begin, end) = (Arc::clone(&begun), Arc::clone(&done));
        let answer = run_blocking(&token, move || {
            begin.fetch_add(1, SeqCst);
            drop(count);
            end.fetch_add(1, SeqCst);
        });
        drop(answer);
        block_on(token.cancel_and_settle());
        assert_eq!(Arc::strong_count(&captured), 1);
        assert_eq!(begun.load(SeqCst), done.load(SeqCst));
    }
}

#[test]
fn a_panic_of_the_call_passes_through() {
    let answer = run_blocking(signal::never(), || panic!("in the call"));
    assert_eq!(panic_of(|| block_on(answer)), "in the call");
}

#[test]
fn a_panic_of_an_abandoned_call_is_discarded() {
    let token = CancellationToken::new();
    let (call, at) = call(());
    let answer = run_blocking(&token, move || {
        call();
        panic!("in the call");
    });
    block_on(at.begun).unwrap();
    token.cancel();
    assert!(block_on(answer).is_err());
    at.go_on.send(()).unwrap();
    block_on(token.settled());
}

#[test]
#[cfg_attr(miri, ignore = "it starts a process")]
fn that_there_is_no_thread_for_it_is_an_error() {
    if !is_without_threads("run_blocking::that_there_is_no_thread_for_it_is_an_error") {
        return;
    }
    let token = CancellationToken::new();
    let probe = DropProbe::new();
    let record = probe.record();
    let answer = run_blocking(&token, move || drop(probe));
    assert!(record.is_dropped(), "what it captured");
    let reason = block_on(answer).unwrap_err();
    assert!(reason.downcast_ref::<io::Error>().is_some(), "{reason}");
    token.cancel();
    block_on(token.settled());
}

/// On a runtime of the application.
#[cfg(feature = "tokio")]
mod in_a_runtime {
    use super::call;
    use futures::executor::block_on;
    use std::time::Duration;
    use stopcock::{CancellationToken, StopReason, run_blocking, signal};
    use tokio::{runtime::Builder, task::spawn_blocking};

    #[tokio::test]
    async fn a_deadline_abandons_the_call() {
        let token = CancellationToken::with_timeout(Duration::from_millis(1));
        let (call, at) = call(7);
        let answer = run_blocking(&token, call).await;
        assert!(matches!(answer, Err(StopReason::DeadlineExceeded)));
        at.go_on.send(()).unwrap();
    }

    #[test]
    fn the_shutdown_of_the_runtime_does_not_wait_for_a_call() {
        let runtime = Builder::new_multi_thread()
            .worker_threads(1)
            .build()
            .unwrap();
        let (call, at) = call(7);
        let context = runtime.enter();
        let answer = run_blocking(signal::never(), call);
        drop(context);
        block_on(at.begun).unwrap();
        // It would wait forever: the call is continued only after it.
        drop(runtime);
        at.go_on.send(()).unwrap();
        assert_eq!(block_on(answer).unwrap(), 7);
    }

    #[test]
    fn neither_waits_a_call_for_the_blocking_pool_nor_the_pool_for_a_call() {
        let runtime = Builder::new_current_thread()
            .max_blocking_threads(1)
            .build()
            .unwrap();
        runtime.block_on(async {
            let (given_up, at) = call(1);
            let token = CancellationToken::new();
            let answer = run_blocking(&token, given_up);
            at.begun.await.unwrap();
            token.cancel();
            assert!(answer.await.is_err());
            // The only thread of the pool is free.
            let (blocker, in_pool) = call(2);
            let pooled = spawn_blocking(blocker);
            in_pool.begun.await.unwrap();
            // Now it is occupied, and a call begins all the same.
            assert_eq!(run_blocking(signal::never(), || 7).await.unwrap(), 7);
            in_pool.go_on.send(()).unwrap();
            assert_eq!(pooled.await.unwrap(), 2);
            at.go_on.send(()).unwrap();
        });
    }
}
