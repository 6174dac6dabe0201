//! `spawn_generator`: a body on a task of its own.

mod ends;
mod sends;

use crate::support::{Wakes, panic_of, poll};
use futures::{
    FutureExt, Stream, StreamExt, channel::oneshot, future::pending, stream::FusedStream,
};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
    task::Poll,
    time::Duration,
};
use stopcock::{
    CancellationToken, Sender, SpawnedGenerator, StopReason, signal, spawn_generator,
    spawn_generator_on, testing::DropProbe,
};
use tokio::{
    sync::Notify,
    task::yield_now,
    time::{Instant, sleep},
};

const SECOND: Duration = Duration::from_secs(1);

/// Lets all other tasks of this thread run.
async fn turn() {
    for _ in 0..20 {
        yield_now().await;
    }
}

/// 0, 1, 2 and so on; counts what has been sent.
fn counting(
    token: &CancellationToken,
    capacity: usize,
) -> (SpawnedGenerator<usize>, Arc<AtomicUsize>) {
    let sent = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&sent);
    let stream = spawn_generator(token, capacity, |tx| async move {
        for n in 0.. {
            tx.send(n).await?;
            counted.fetch_add(1, SeqCst);
        }
        Ok(())
    });
    (stream, sent)
}

/// A body that waits forever, with a probe.
fn waiting(token: &CancellationToken) -> (SpawnedGenerator<u8>, stopcock::testing::Record) {
    let probe = DropProbe::new();
    let record = probe.record();
    let stream = spawn_generator(token, 1, |_tx| async move {
        let _probe = probe;
        pending().await
    });
    (stream, record)
}

#[tokio::test]
async fn items_come_in_order_and_then_the_end() {
    let token = CancellationToken::new();
    let mut stream = spawn_generator(&token, 2, |tx| async move {
        for n in 0..5 {
            tx.send(n).await?;
        }
        Ok(())
    });
    let items: Vec<i32> = stream.by_ref().collect().await;
    assert_eq!(items, [0, 1, 2, 3, 4]);
    assert!(stream.is_terminated());
    assert!(stream.stop_reason().is_none());
    assert_eq!(stream.next().await, None);
    assert!(stream.join().await.is_ok());
    assert!(!token.is_cancelled());
}

#[tokio::test]
async fn it_is_never_more_than_its_capacity_ahead() {
    for capacity in 1..4 {
        let (mut stream, sent) = counting(&CancellationToken::new(), capacity);
        for taken in 0..10 {
            turn().await;
            assert_eq!(sent.load(SeqCst), taken + capacity);
            assert_eq!(stream.next().await, Some(taken));
        }
    }
}

#[test]
fn a_capacity_of_zero_panics() {
    let message = panic_of(|| {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        let stream = spawn_generator_on(runtime.handle(), signal::never(), 0, |tx| async move {
            tx.send(1).await
        });
        drop(stream);
    });
    assert!(message.contains("capacity of 0"), "{message}");
}

#[tokio::test]
async fn when_the_consumer_is_dropped_an_idle_body_is_dropped() {
    let token = CancellationToken::new();
    let (stream, record) = waiting(&token);
    turn().await;
    assert!(!record.is_dropped());
    drop(stream);
    turn().await;
    assert!(record.is_dropped());
    assert!(!token.is_cancelled());
}

#[tokio::test]
async fn when_the_signal_fires_an_idle_body_is_dropped_without_a_poll() {
    let token = CancellationToken::new();
    let (mut stream, record) = waiting(&token);
    turn().await;
    token.cancel_with("enough");
    turn().await;
    assert!(record.is_dropped());
    assert!(stream.stop_reason().is_none());
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.stop_reason().unwrap().to_string(), "enough");
    assert_eq!(stream.join().await.unwrap_err().to_string(), "enough");
}

#[tokio::test]
async fn a_pending_stream_is_woken_by_the_stop_at_its_latest_waker() {
    let token = CancellationToken::new();
    let (mut stream, _) = waiting(&token);
    let (earlier, latest) = (Wakes::new(), Wakes::new());
    assert!(earlier.poll(Pin::new(&mut stream)).is_pending());
    assert!(latest.poll(Pin::new(&mut stream)).is_pending());
    token.cancel();
    assert_eq!((earlier.count(), latest.count()), (0, 1));
    assert_eq!(latest.poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert_eq!(Arc::strong_count(&latest), 1);
}

#[tokio::test]
async fn a_body_that_is_stopped_before_the_call_never_begins() {
    let token = CancellationToken::new();
    token.cancel();
    let mut stream = spawn_generator(&token, 1, |tx: Sender<u8>| {
        assert!(tx.check().is_err(), "not even this is called");
        unreachable!();
        #[allow(unreachable_code, reason = "it has to have a type")]
        async move {
            tx.send(1).await
        }
    });
    assert_eq!(stream.next().await, None);
    assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
    assert!(stream.join().await.is_err());
}

#[tokio::test]
async fn items_in_the_channel_at_the_stop_are_dropped_without_a_poll() {
    let token = CancellationToken::new();
    let probe = Arc::new(());
    let item = Arc::clone(&probe);
    let mut stream = spawn_generator(&token, 3, |tx| async move {
        loop {
            tx.send(Arc::clone(&item)).await?;
        }
    });
    turn().await;
    assert!(stream.next().await.is_some());
    turn().await;
    // Three in the channel, one that waits, the body's and this one.
    assert_eq!(Arc::strong_count(&probe), 6);
    token.cancel();
    turn().await;
    assert_eq!(Arc::strong_count(&probe), 1);
    assert_eq!(poll(Pin::new(&mut stream)), Poll::Ready(None));
}

#[tokio::test(start_paused = true)]
async fn a_body_may_clean_up_within_its_grace_period_and_is_dropped_after_it() {
    for (cleaning, done) in [(SECOND / 2, true), (SECOND * 2, false)] {
        let token = CancellationToken::new();
        let cleaned = Arc::new(AtomicUsize::new(0));
        let (count, probe) = (Arc::clone(&cleaned), DropProbe::new());
        let record = probe.record();
        let mut stream = spawn_generator(&token, 1, |tx| async move {
            let _probe = probe;
            let reason = tx.closed().await;
            assert!(tx.token().is_cancelled());
            assert!(tx.check().is_err());
            sleep(cleaning).await;
            count.fetch_add(1, SeqCst);
            tx.send(1_u8).await.unwrap_err();
            Err(reason)
        })
        .with_grace(SECOND);
        turn().await;
        let stopped_at = Instant::now();
        token.cancel();
        // The stream does not wait for it.
        assert_eq!(stream.next().await, None);
        assert_eq!(Instant::now(), stopped_at);
        assert!(!record.is_dropped());
        assert!(stream.join().await.is_err());
        assert_eq!(Instant::now() - stopped_at, cleaning.min(SECOND));
        assert_eq!(cleaned.load(SeqCst) == 1, done);
        assert!(record.is_dropped());
    }
}

/// A body that passes out its token, and then runs `then`.
async fn with_token<Fut>(
    signal: &CancellationToken,
    then: impl FnOnce(Sender<u8>) -> Fut,
) -> (SpawnedGenerator<u8>, CancellationToken)
where
    Fut: Future<Output = Result<(), StopReason>> + Send + 'static,
{
    let (hand_out, handed_out) = oneshot::channel();
    let stream = spawn_generator(signal, 1, |tx| {
        let then = then(tx.clone());
        async move {
            assert_eq!(tx.token(), tx.token());
            hand_out.send(tx.token()).unwrap();
            then.await
        }
    });
    (stream, handed_out.await.unwrap())
}

#[tokio::test]
async fn the_token_of_a_body_is_cancelled_with_the_stream() {
    let signal = CancellationToken::new();
    let (_stream, token) = with_token(&signal, |_tx| pending()).await;
    assert!(!token.is_cancelled());
    signal.cancel_with("enough");
    assert_eq!(token.stop_reason().unwrap().to_string(), "enough");

    let signal = CancellationToken::new();
    let (stream, token) = with_token(&signal, |_tx| pending()).await;
    drop(stream);
    assert!(matches!(
        token.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));

    let (_stream, token) = with_token(&signal, async |_tx| Ok(())).await;
    turn().await;
    assert!(matches!(token.stop_reason(), Some(StopReason::Cancelled)));

    let (_stream, token) = with_token(&signal, async |_tx| Err("full".into())).await;
    turn().await;
    assert_eq!(token.stop_reason().unwrap().to_string(), "full");

    let (_stream, token) = with_token(&signal, async |_tx| panic!("in the body")).await;
    turn().await;
    assert!(token.is_cancelled());
    assert!(!signal.is_cancelled());
}

#[tokio::test]
async fn to_cancel_the_token_of_a_body_does_not_stop_it() {
    let signal = CancellationToken::new();
    let (mut stream, token) = with_token(&signal, |tx| async move { tx.send(1).await }).await;
    token.cancel();
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(stream.next().await, None);
    assert!(stream.stop_reason().is_none());
}

#[tokio::test]
async fn while_the_body_runs_the_number_of_items_to_come_is_unknown() {
    let mut stream = spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        pending().await
    });
    turn().await;
    assert_eq!(stream.size_hint(), (0, None));
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(stream.size_hint(), (0, None));
}

#[tokio::test]
async fn a_foreign_signal_that_has_fired_before_the_call_gives_its_reason() {
    let token = CancellationToken::new();
    token.cancel_with("beforehand");
    let signal = signal::any(&token, signal::never());
    let mut stream = spawn_generator(
        signal,
        1,
        |tx: Sender<u8>| async move { Err(tx.closed().await) },
    );
    assert_eq!(stream.next().await, None);
    assert_eq!(stream.stop_reason().unwrap().to_string(), "beforehand");
}

#[tokio::test]
async fn a_body_that_never_waits_lets_its_siblings_run() {
    let token = CancellationToken::new();
    let (stream, sent) = counting(&token, usize::MAX);
    // However often it has run before this one runs again.
    for _ in 1..4 {
        let sent_before = sent.load(SeqCst);
        yield_now().await;
        assert!(sent.load(SeqCst) > sent_before);
        assert_eq!(sent.load(SeqCst) % 1024, 0);
    }
    drop(stream);
}

#[tokio::test]
async fn a_consumer_of_ready_items_lets_its_siblings_run() {
    let mut stream = spawn_generator(signal::never(), 3000, |tx| async move {
        for n in 0..3000 {
            tx.send(n).await?;
        }
        Ok(())
    });
    turn().await;
    let wakes = Wakes::new();
    for _ in 0..1024 {
        assert!(wakes.poll(Pin::new(&mut stream)).is_ready());
    }
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    assert_eq!(wakes.count(), 1);
}

#[tokio::test]
async fn a_signal_that_is_a_future_stops_it_without_a_poll() {
    let (stop, stopped) = oneshot::channel::<()>();
    let probe = DropProbe::new();
    let record = probe.record();
    let mut stream = spawn_generator(signal::when(stopped), 1, |tx| async move {
        let _probe = probe;
        tx.send(1).await?;
        pending().await
    });
    assert_eq!(stream.next().await, Some(1));
    stop.send(()).unwrap();
    turn().await;
    assert!(record.is_dropped());
    assert_eq!(stream.next().await, None);
    assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
}

#[tokio::test]
async fn a_future_that_is_ready_before_the_call_keeps_the_body_from_beginning() {
    let mut stream = spawn_generator(
        signal::when(async {}),
        1,
        |tx| async move { tx.send(1).await },
    );
    assert_eq!(stream.next().await, None);
    assert!(stream.stop_reason().is_some());
}

#[tokio::test]
async fn the_task_that_watches_a_signal_ends_with_the_stream() {
    let watched = Arc::new(());
    let held = Arc::clone(&watched);
    let signal = signal::when(async move {
        let _held = held;
        pending::<()>().await;
    });
    let stream = spawn_generator(signal, 1, |tx| async move { tx.send(1).await });
    turn().await;
    assert_eq!(Arc::strong_count(&watched), 2);
    drop(stream);
    turn().await;
    assert_eq!(Arc::strong_count(&watched), 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_of_the_token_stops_it_without_a_poll() {
    let token = CancellationToken::with_timeout(SECOND);
    let (mut stream, record) = waiting(&token);
    sleep(SECOND - Duration::from_millis(1)).await;
    assert!(!record.is_dropped());
    sleep(Duration::from_millis(2)).await;
    assert!(record.is_dropped());
    assert_eq!(stream.next().await, None);
    assert!(matches!(
        stream.stop_reason(),
        Some(StopReason::DeadlineExceeded)
    ));
}

#[tokio::test]
async fn it_counts_until_the_body_is_dropped_and_no_longer() {
    let token = CancellationToken::new();
    let (stream, record) = waiting(&token.child_token());
    turn().await;
    // The stream is neither polled nor dropped.
    token.cancel_and_settle().await;
    assert!(record.is_dropped());
    drop(stream);

    let token = CancellationToken::new();
    let (stream, _) = counting(&token, 1);
    drop(stream);
    token.cancel();
    assert!(
        token.settled().now_or_never().is_none(),
        "its task has not run yet"
    );
    turn().await;
    assert!(token.settled().now_or_never().is_some());
}

#[tokio::test]
async fn a_token_that_is_a_part_of_the_signal_settles_when_the_body_is_dropped() {
    let token = CancellationToken::new();
    let clean_up = Arc::new(Notify::new());
    let cleans_up = Arc::clone(&clean_up);
    let signal = signal::any(&token, signal::never());
    let _stream = spawn_generator(signal, 1, |tx: Sender<u8>| async move {
        let reason = tx.closed().await;
        cleans_up.notified().await;
        Err(reason)
    })
    .with_grace(SECOND);
    turn().await;
    token.cancel();
    turn().await;
    assert!(token.settled().now_or_never().is_none());
    clean_up.notify_one();
    turn().await;
    assert!(token.settled().now_or_never().is_some());
}

#[tokio::test]
async fn task_locals_are_not_inherited_but_may_be_passed_on() {
    tokio::task_local! {
        static REQUEST: u8;
    }
    let seen = |tx: Sender<bool>| async move { tx.send(REQUEST.try_with(|_| ()).is_ok()).await };
    let stream = REQUEST.sync_scope(7, || spawn_generator(signal::never(), 1, seen));
    assert_eq!(stream.collect::<Vec<_>>().await, [false]);
    let stream = spawn_generator(signal::never(), 1, |tx| REQUEST.scope(7, seen(tx)));
    assert_eq!(stream.collect::<Vec<_>>().await, [true]);
}
