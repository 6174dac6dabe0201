//! `CancelFutureExt`: the signal is checked first at every poll, and the future is dropped before the output is
//! returned.

use crate::support::{Wakes, panic_of};
use std::{
    cell::Cell,
    future::{Future, pending, poll_fn, ready},
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
};
use stopcock::{CancelFutureExt, CancellationToken, StopReason, signal, testing::DropProbe};

fn poll<Fut: Future>(future: Pin<&mut Fut>) -> Poll<Fut::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn is_cancelled<T>(polled: &Poll<Result<T, StopReason>>) -> bool {
    matches!(polled, Poll::Ready(Err(StopReason::Cancelled)))
}

#[test]
fn the_signal_wins_at_the_first_poll_and_at_each_later_one() {
    for fired_at in 0..3 {
        let token = CancellationToken::new();
        let polls = Cell::new(0);
        let future = poll_fn(|_| {
            polls.set(polls.get() + 1);
            match polls.get() {
                1 | 2 => Poll::Pending,
                _ => Poll::Ready('a'),
            }
        });
        let mut future = pin!(future.with_cancellation(&token));
        for n in 0..=fired_at {
            if n == fired_at {
                token.cancel();
            }
            let polled = poll(future.as_mut());
            assert_eq!(is_cancelled(&polled), n == fired_at, "{n} of {fired_at}");
        }
        assert_eq!(polls.get(), fired_at, "never polled once it was stopped");
    }
}

#[test]
fn a_future_that_is_ready_gives_its_answer_and_is_dropped() {
    let probe = DropProbe::new();
    let record = probe.record();
    let token = CancellationToken::new();
    let mut future = pin!(
        async move {
            let _probe = &probe;
            ready(7).await
        }
        .with_cancellation(&token)
    );
    assert!(matches!(poll(future.as_mut()), Poll::Ready(Ok(7))));
    assert!(record.is_dropped());
}

#[test]
fn what_the_future_owned_is_dropped_before_the_stop_is_reported() {
    let probe = DropProbe::new();
    let record = probe.record();
    let token = CancellationToken::new();
    let mut future = pin!(
        async move {
            let _probe = probe;
            pending::<()>().await;
        }
        .with_cancellation(token.clone())
    );
    assert!(poll(future.as_mut()).is_pending());
    token.cancel();
    assert!(!record.is_dropped());
    assert!(is_cancelled(&poll(future.as_mut())));
    assert!(record.is_dropped());
}

#[test]
fn a_stop_during_the_poll_is_noticed_in_it_and_an_answer_is_not_lost() {
    let token = CancellationToken::new();
    let cancels = poll_fn(|_| {
        token.cancel();
        Poll::<()>::Pending
    });
    assert!(is_cancelled(&poll(pin!(cancels.with_cancellation(&token)))));

    let token = CancellationToken::new();
    let answers = poll_fn(|_| {
        token.cancel();
        Poll::Ready('a')
    });
    let polled = poll(pin!(answers.with_cancellation(&token)));
    assert!(matches!(polled, Poll::Ready(Ok('a'))));
}

#[test]
fn a_pending_future_is_woken_by_the_stop_at_its_latest_waker() {
    let token = CancellationToken::new();
    let mut future = pin!(pending::<()>().with_cancellation(&token));
    let (first, latest) = (Wakes::new(), Wakes::new());
    for wakes in [&first, &latest] {
        let waker = Waker::from(Arc::clone(wakes));
        let polled = future.as_mut().poll(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
    }
    token.cancel();
    assert_eq!((first.count(), latest.count()), (0, 1));
}

#[test]
fn any_signal_will_do() {
    let (stop, stopped) = futures::channel::oneshot::channel::<()>();
    let token = CancellationToken::new();
    let signal = signal::any(&token, signal::when(stopped));
    let mut future = pin!(pending::<()>().with_cancellation(signal));
    assert!(poll(future.as_mut()).is_pending());
    stop.send(()).unwrap();
    assert!(is_cancelled(&poll(future.as_mut())));
}

#[test]
fn it_counts_for_settling_until_it_is_dropped() {
    let token = CancellationToken::new();
    let mut settled = pin!(token.settled());
    let future = pending::<()>().with_cancellation(&token);
    token.cancel();
    assert!(poll(settled.as_mut()).is_pending());
    drop(future);
    assert!(poll(settled.as_mut()).is_ready());
}

#[test]
fn polled_after_it_was_ready_it_panics_with_a_message() {
    let token = CancellationToken::new();
    let mut future = pin!(ready(1).with_cancellation(&token));
    assert!(poll(future.as_mut()).is_ready());
    assert!(panic_of(|| poll(future.as_mut())).contains("polled after it was ready"));
}

#[cfg(feature = "tokio")]
mod timed {
    use super::{CancelFutureExt, StopReason, pending, poll, ready};
    use crate::with_deadline::tick;
    use std::{pin::pin, task::Poll, time::Duration};
    use tokio::time::Instant;

    const SECOND: Duration = Duration::from_secs(1);
    const NANOSECOND: Duration = Duration::from_nanos(1);

    #[tokio::test(start_paused = true)]
    async fn a_nanosecond_before_the_deadline_it_continues_and_at_the_deadline_it_stops() {
        let mut future = pin!(pending::<()>().with_deadline(Instant::now() + SECOND));
        assert!(poll(future.as_mut()).is_pending());
        tick(SECOND - NANOSECOND);
        assert!(poll(future.as_mut()).is_pending());
        tick(NANOSECOND);
        let polled = poll(future.as_mut());
        assert!(matches!(
            polled,
            Poll::Ready(Err(StopReason::DeadlineExceeded))
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn a_timeout_counts_from_the_call_and_a_past_one_polls_nothing() {
        let past = async { unreachable!("it is never polled") }.with_timeout(Duration::ZERO);
        assert!(matches!(past.await, Err(StopReason::DeadlineExceeded)));
        let late = ready(1).with_timeout(SECOND);
        tick(SECOND);
        assert!(late.await.is_err());
        assert_eq!(ready(1).with_timeout(Duration::MAX).await.unwrap(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_pending_future_is_woken_at_its_deadline() {
        let start = Instant::now();
        let stopped = pending::<()>().with_timeout(SECOND).await;
        assert!(matches!(stopped, Err(StopReason::DeadlineExceeded)));
        assert_eq!(start.elapsed(), SECOND);
    }
}
