//! Sends that wait, in order, and what ends them.

use super::{SECOND, turn};
use crate::support::Wakes;
use futures::{FutureExt, StreamExt, channel::oneshot, future::pending};
use std::{sync::Arc, time::Duration};
use stopcock::{CancellationToken, Sender, SpawnedGenerator, StopReason, signal, spawn_generator};
use tokio::sync::Notify;

#[tokio::test]
async fn a_waiting_send_fails_at_the_stop() {
    let token = CancellationToken::new();
    let (reported, reason) = oneshot::channel();
    // The body has time after the stop to report the error.
    let stream = spawn_generator(&token, 1, |tx| async move {
        tx.send(1).await?;
        let stopped = tx.send(2).await.unwrap_err();
        reported.send(stopped.clone()).unwrap();
        Err(stopped)
    })
    .with_grace(SECOND);
    turn().await;
    token.cancel_with("enough");
    assert_eq!(reason.await.unwrap().to_string(), "enough");
    assert_eq!(stream.join().await.unwrap_err().to_string(), "enough");
}

#[tokio::test]
async fn a_send_of_a_clone_on_another_task_fails_at_the_stop_in_the_grace_period_as_well() {
    for grace in [Duration::ZERO, SECOND] {
        let token = CancellationToken::new();
        let (hand_out, handed_out) = oneshot::channel();
        let stream = spawn_generator(&token, 1, |tx| async move {
            tx.send(1).await?;
            hand_out.send(tx.clone()).unwrap();
            pending().await
        })
        .with_grace(grace);
        let tx = handed_out.await.unwrap();
        let sending = tokio::spawn(async move { tx.send(2).await });
        turn().await;
        token.cancel();
        turn().await;
        assert!(sending.now_or_never().unwrap().unwrap().is_err());
        drop(stream);
    }
}

#[tokio::test]
async fn a_send_fails_once_the_consumer_is_dropped() {
    let (reported, reason) = oneshot::channel();
    let stream = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(1).await?;
        let stopped = tx.send(2).await;
        reported.send(stopped.clone()).unwrap();
        stopped
    })
    .with_grace(SECOND);
    turn().await;
    drop(stream);
    assert!(matches!(
        reason.await.unwrap(),
        Err(StopReason::ConsumerDropped)
    ));
}

#[tokio::test]
async fn a_clone_that_outlives_the_body_sends_nothing_any_more() {
    let (hand_out, handed_out) = oneshot::channel();
    let mut stream = spawn_generator(signal::never(), 2, |tx| async move {
        tx.send(1).await?;
        hand_out.send(tx.clone()).unwrap();
        Ok(())
    });
    let tx = handed_out.await.unwrap();
    turn().await;
    assert!(matches!(tx.send(2).await, Err(StopReason::Cancelled)));
    assert!(tx.check().is_err());
    assert!(tx.token().is_cancelled());
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(stream.next().await, None);
}

#[tokio::test]
async fn a_waiting_send_fails_when_the_body_ends_and_an_accepted_item_is_delivered() {
    let (hand_out, handed_out) = oneshot::channel();
    let end = Arc::new(Notify::new());
    let ends = Arc::clone(&end);
    let mut stream = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(1).await?;
        hand_out.send(tx.clone()).unwrap();
        ends.notified().await;
        Ok(())
    });
    let tx = handed_out.await.unwrap();
    let (let_in, waits) = (tx.send(2), tx.send(3));
    let (mut let_in, mut waits) = (Box::pin(let_in), Box::pin(waits));
    assert!((&mut let_in).now_or_never().is_none());
    assert!((&mut waits).now_or_never().is_none());
    // Now the first of them can be sent.
    assert_eq!(stream.next().await, Some(1));
    end.notify_one();
    turn().await;
    assert!(let_in.await.is_ok());
    assert!(waits.await.is_err());
    assert_eq!(stream.next().await, Some(2));
    assert_eq!(stream.next().await, None);
}

/// A stream whose body waits until the test ends it, and the sender of that body.
async fn with_sender(capacity: usize) -> (SpawnedGenerator<usize>, Sender<usize>, Arc<Notify>) {
    let (hand_out, handed_out) = oneshot::channel();
    let end = Arc::new(Notify::new());
    let ends = Arc::clone(&end);
    let stream = spawn_generator(signal::never(), capacity, |tx| async move {
        assert!(hand_out.send(tx).is_ok());
        ends.notified().await;
        Ok(())
    });
    (stream, handed_out.await.unwrap(), end)
}

#[tokio::test]
async fn a_send_that_waits_when_the_body_ends_is_not_accepted_later() {
    let (mut stream, tx, end) = with_sender(1).await;
    assert!(tx.send(1).await.is_ok());
    let mut waits = Box::pin(tx.send(2));
    assert!((&mut waits).now_or_never().is_none());
    end.notify_one();
    turn().await;
    // It has not been polled since. The item in the channel is taken first.
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(stream.next().await, None);
    assert!(waits.await.is_err());
}

#[tokio::test]
async fn sends_come_in_in_the_order_in_which_they_began_to_wait() {
    let (take, taken) = oneshot::channel::<()>();
    let mut numbers = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(0).await?;
        let [mut first, mut second, mut third] = [1, 2, 3].map(|n| tx.send(n));
        assert!(futures::poll!(&mut first).is_pending());
        assert!(futures::poll!(&mut second).is_pending());
        // The first of them is accepted, and is no longer waiting.
        _ = taken.await;
        assert!(futures::poll!(&mut third).is_pending());
        let (third, second, first) = futures::join!(third, second, first);
        first.and(second).and(third)
    });
    assert_eq!(numbers.next().await, Some(0));
    take.send(()).unwrap();
    turn().await;
    assert_eq!(numbers.collect::<Vec<_>>().await, [1, 2, 3]);
}

#[tokio::test]
async fn a_wait_for_room_begins_a_new_run() {
    let (mut stream, tx, _end) = with_sender(600).await;
    for _ in 0..2 {
        // Together they are more than may be sent without a yield.
        for n in 0..600 {
            let sent = tx.send(n).now_or_never();
            assert!(matches!(sent, Some(Ok(()))), "{n}: {sent:?}");
        }
        let mut waits = Box::pin(tx.send(600));
        assert!((&mut waits).now_or_never().is_none());
        for n in 0..600 {
            assert_eq!(stream.next().await, Some(n));
        }
        assert!(matches!(waits.now_or_never(), Some(Ok(()))));
        assert_eq!(stream.next().await, Some(600));
    }
}

#[tokio::test]
async fn a_send_that_is_dropped_while_it_waits_takes_its_item_with_it() {
    let (hand_out, handed_out) = oneshot::channel();
    let mut stream = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(1).await?;
        hand_out.send(tx.clone()).unwrap();
        pending().await
    });
    let tx = handed_out.await.unwrap();
    let (mut first, mut second) = (Box::pin(tx.send(2)), Box::pin(tx.send(3)));
    assert!((&mut first).now_or_never().is_none());
    assert!((&mut second).now_or_never().is_none());
    drop(first);
    assert_eq!(stream.next().await, Some(1));
    assert!(second.await.is_ok());
    assert_eq!(stream.next().await, Some(3));
}

#[tokio::test]
async fn waiting_sends_are_accepted_in_order_each_woken_through_its_latest_waker() {
    let (hand_out, handed_out) = oneshot::channel();
    let mut stream = spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(0).await?;
        hand_out.send(tx.clone()).unwrap();
        pending().await
    });
    let tx = handed_out.await.unwrap();
    let mut sends: Vec<_> = (1..4).map(|n| Box::pin(tx.send(n).into_stream())).collect();
    let (earlier, latest) = (Wakes::new(), Wakes::new());
    for send in &mut sends {
        assert!(earlier.poll(send.as_mut()).is_pending());
    }
    assert!(latest.poll(sends[0].as_mut()).is_pending());
    for n in 0..4 {
        assert_eq!(stream.next().await, Some(n));
        assert_eq!(
            (latest.count(), earlier.count()),
            (1, usize::try_from(n).unwrap().min(2))
        );
    }
}
