//! The crate without its feature `tokio`, under smol.

use futures_util::{StreamExt, stream};
use smol::{LocalExecutor, Timer, future::FutureExt};
use std::{
    future,
    pin::pin,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
        mpsc,
    },
    thread,
    time::Duration,
};
use stopcock::{
    CancelFutureExt, CancelStreamExt, CancellationToken, Signal, StopReason, blocking_generator,
    blocking_iter, generator, run_blocking, signal, try_generator,
};

/// The time of timers. It does not matter, so it is as short as possible.
const SHORT: Duration = Duration::from_millis(1);

/// A deadline on smol's clock, as the documentation shows it.
fn deadline(after: Duration) -> impl Signal {
    let timer = signal::when(Timer::after(after)).with_reason(StopReason::DeadlineExceeded);
    stopcock::IntoSignal::into_signal(timer)
}

/// A source that reports its drop.
struct Dropped(Arc<AtomicBool>);

impl Drop for Dropped {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

fn dropped() -> (Dropped, impl Fn() -> bool) {
    let flag = Arc::new(AtomicBool::new(false));
    let is_dropped = flag.clone();
    (Dropped(flag), move || is_dropped.load(Ordering::Relaxed))
}

#[test]
fn a_source_that_is_always_ready_is_stopped_by_a_task_of_its_thread() {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(async {
        let token = CancellationToken::new();
        let items = stream::repeat(1).take_until_cancelled(&token);
        executor.spawn(async move { token.cancel() }).detach();
        assert_eq!(items.count().await, 1024);
    }));
}

#[test]
fn a_pending_stream_is_woken_with_the_reason() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let child = token.child_token();
        let items = smol::spawn(
            stream::pending::<u32>()
                .with_cancellation(child)
                .collect::<Vec<_>>(),
        );
        smol::unblock(move || token.cancel_with("shutting down")).await;
        let items = items.await;
        assert_eq!(items.len(), 1);
        assert_eq!(items[0].as_ref().unwrap_err().to_string(), "shutting down");
    });
}

#[test]
fn a_cancel_reaches_what_is_below_it_and_nothing_else() {
    let root = CancellationToken::new();
    let (left, right) = (root.child_token(), root.child_token());
    let below = left.child_token();
    left.cancel_with("left");
    assert_eq!(below.stop_reason().unwrap().to_string(), "left");
    assert!(!right.is_cancelled() && !root.is_cancelled());
}

#[test]
fn settled_waits_until_every_stream_and_hold_is_dropped() {
    smol::block_on(async {
        let root = CancellationToken::new();
        let (source, source_is_dropped) = dropped();
        let (work, work_is_dropped) = dropped();

        let items = stream::pending::<u32>().chain(stream::once(async move {
            drop(source);
            1
        }));
        let items = items.take_until_cancelled(root.child_token());
        smol::spawn(items.for_each(|_| future::ready(()))).detach();
        let hold = root.hold();
        smol::spawn(async move {
            Timer::after(SHORT).await;
            drop((work, hold));
        })
        .detach();

        root.cancel_and_settle().await;
        assert!(source_is_dropped() && work_is_dropped());
    });
}

#[test]
fn a_timer_is_a_deadline() {
    smol::block_on(async {
        // One source is idle, the other one is always ready.
        for source in [stream::pending().boxed(), stream::repeat(1).boxed()] {
            let mut items = source.with_cancellation(deadline(SHORT));
            let last = loop {
                match items.next().await.unwrap() {
                    Ok(_) => {}
                    Err(reason) => break reason,
                }
            };
            assert!(matches!(last, StopReason::DeadlineExceeded) && last.is_timeout());
            assert!(items.next().await.is_none());
        }

        let late = future::pending::<()>()
            .with_cancellation(deadline(SHORT))
            .await;
        assert!(matches!(late, Err(StopReason::DeadlineExceeded)));
    });
}

#[test]
fn the_first_of_a_token_and_a_timer_stops() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let items =
            || stream::pending::<u32>().with_cancellation(signal::any(&token, deadline(SHORT)));
        assert!(matches!(
            items().next().await,
            Some(Err(StopReason::DeadlineExceeded))
        ));
        token.cancel();
        assert!(matches!(
            items().next().await,
            Some(Err(StopReason::Cancelled))
        ));
    });
}

#[test]
fn generators_run_in_the_poll_of_their_consumer() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let body = async |mut y: stopcock::Yielder<'_, u32>| -> Result<(), StopReason> {
            for n in 0.. {
                smol::future::yield_now().await;
                y.yield_item(n).await;
            }
            Ok(())
        };
        let silent = generator(&token, async |y| drop(body(y).await));
        assert_eq!(silent.take(3).collect::<Vec<_>>().await, [0, 1, 2]);

        let mut reported = pin!(try_generator(&token, body));
        assert_eq!(reported.next().await.unwrap().unwrap(), 0);
        token.cancel();
        assert!(matches!(
            reported.next().await,
            Some(Err(StopReason::Cancelled))
        ));
        assert!(reported.next().await.is_none());
    });
}

#[test]
fn a_source_is_dropped_by_the_thread_that_cancels() {
    let token = CancellationToken::new();
    let (source, is_dropped) = dropped();
    let source = stream::repeat_with(move || {
        let _owned = &source;
    });
    let unpolled = source.take_until_cancelled(&token).drop_on_cancel();
    thread::scope(|scope| drop(scope.spawn(|| token.cancel())));
    assert!(is_dropped());
    drop(unpolled);
}

#[test]
fn a_blocking_body_ends_with_its_consumer() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let numbers = blocking_iter(&token, 2, 0..5).collect::<Vec<_>>().await;
        assert_eq!(numbers, [0, 1, 2, 3, 4]);

        let (ended, end) = mpsc::channel();
        let mut numbers = blocking_generator(&token, 1, move |tx| {
            let result = (0..).try_for_each(|n| tx.send(n));
            ended.send(result.clone()).unwrap();
            result
        });
        assert_eq!(numbers.next().await, Some(0));
        drop(numbers);
        let end = smol::unblock(move || end.recv().unwrap()).await;
        assert!(matches!(end, Err(StopReason::ConsumerDropped)));
    });
}

#[test]
fn a_blocking_body_is_stopped_by_a_token() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let mut numbers = blocking_generator(&token, 1, |tx| (0..).try_for_each(|n| tx.send(n)));
        assert_eq!(numbers.next().await, Some(0));
        token.cancel_with("enough");
        assert_eq!(numbers.next().await, None);
        assert_eq!(numbers.join().await.unwrap_err().to_string(), "enough");
        // Nothing of it is left.
        token.settled().await;
    });
}

#[test]
fn a_blocking_call_is_abandoned() {
    smol::block_on(async {
        let token = CancellationToken::new();
        assert_eq!(run_blocking(&token, || 1).await.unwrap(), 1);

        let (release, released) = mpsc::channel::<()>();
        let (begins, begun) = mpsc::channel();
        let mut call = pin!(run_blocking(&token, move || {
            begins.send(()).unwrap();
            released.recv()
        }));
        assert!(smol::future::poll_once(call.as_mut()).await.is_none());
        smol::unblock(move || begun.recv().unwrap()).await;
        token.cancel();
        // The call itself runs on until it returns.
        assert!(matches!(call.await, Err(StopReason::Cancelled)));
        release.send(()).unwrap();
    });
}

#[test]
fn a_blocking_call_has_a_deadline_by_a_token_that_a_task_cancels() {
    smol::block_on(async {
        let token = CancellationToken::new();
        let timer = async {
            Timer::after(SHORT).await;
            token.cancel_with(StopReason::DeadlineExceeded);
            future::pending().await
        };
        let (release, released) = mpsc::channel::<()>();
        let call = run_blocking(&token, move || released.recv().is_ok());
        assert!(matches!(
            call.or(timer).await,
            Err(StopReason::DeadlineExceeded)
        ));
        drop(release);
    });
}

#[test]
#[should_panic(
    expected = "enable the feature `tokio` of `stopcock`, or pass a `CancellationToken`"
)]
fn a_blocking_body_under_a_foreign_signal_panics_with_a_message() {
    let _ = blocking_generator(deadline(SHORT), 1, |tx| tx.send(1));
}
