//! How a body ends: its errors and panics, and `join`.

use super::{SECOND, turn, waiting};
use crate::support::{Wakes, panic_of, poll};
use futures::{FutureExt, Stream, StreamExt, future::pending, stream::FusedStream};
use std::{io, pin::Pin, task::Poll};
use stopcock::{
    CancellationToken, Sender, StopReason, signal, spawn_generator, spawn_generator_on,
    testing::DropProbe, try_spawn_generator,
};

#[tokio::test]
async fn a_panic_comes_after_the_items_before_it_and_once() {
    let mut stream = spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        tx.send(2).await?;
        panic!("in the body");
    });
    turn().await;
    assert_eq!(stream.next().await, Some(1));
    assert_eq!(stream.next().await, Some(2));
    assert_eq!(panic_of(|| poll(Pin::new(&mut stream))), "in the body");
    assert!(stream.is_terminated());
    assert_eq!(stream.next().await, None);
    assert!(stream.stop_reason().is_none());
    assert!(stream.join().await.is_ok());
}

#[tokio::test]
async fn a_panic_that_did_not_come_out_of_the_stream_comes_out_of_join() {
    let stream = spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        panic!("in the body");
    });
    turn().await;
    let mut join = stream.join();
    assert_eq!(panic_of(|| (&mut join).now_or_never()), "in the body");
}

#[tokio::test]
async fn a_panic_in_the_drop_of_a_stopped_body_reaches_only_the_join() {
    struct Hurts;
    impl Drop for Hurts {
        fn drop(&mut self) {
            panic!("as it was dropped");
        }
    }
    let token = CancellationToken::new();
    let mut stream = spawn_generator(&token, 1, |_tx: Sender<u8>| async move {
        let _hurts = Hurts;
        pending().await
    });
    turn().await;
    token.cancel();
    assert_eq!(stream.next().await, None);
    turn().await;
    let mut join = stream.join();
    assert_eq!(panic_of(|| (&mut join).now_or_never()), "as it was dropped");
}

#[tokio::test]
async fn an_error_that_a_body_ends_with_is_a_reason_and_costs_no_item() {
    let mut stream = spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        Err(StopReason::from("the disk is full"))
    });
    turn().await;
    assert_eq!(stream.next().await, Some(1));
    assert!(stream.stop_reason().is_none());
    assert_eq!(stream.next().await, None);
    assert_eq!(
        stream.stop_reason().unwrap().to_string(),
        "the disk is full"
    );
    assert_eq!(
        stream.join().await.unwrap_err().to_string(),
        "the disk is full"
    );
}

#[tokio::test]
async fn join_stops_a_body_that_still_runs() {
    let (stream, record) = waiting(&CancellationToken::new());
    assert!(matches!(
        stream.join().await,
        Err(StopReason::ConsumerDropped)
    ));
    assert!(record.is_dropped());
}

#[tokio::test]
async fn join_returns_ok_for_a_body_that_has_returned_although_items_are_left() {
    let mut stream = spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        tx.send(2).await
    });
    assert_eq!(stream.next().await, Some(1));
    turn().await;
    assert!(stream.join().await.is_ok());
}

#[tokio::test]
async fn the_error_of_a_stop_may_come_after_all_items() {
    let token = CancellationToken::new();
    let mut stream = try_spawn_generator(&token, 8, |tx| async move {
        tx.send(1).await?;
        Ok::<_, StopReason>(())
    });
    assert!(stream.next().await.is_some());
    turn().await;
    assert_eq!(stream.size_hint(), (0, Some(1)));
    token.cancel();
    assert!(matches!(stream.next().await, Some(Err(_))));
    assert_eq!(stream.size_hint(), (0, Some(0)));
}

#[tokio::test]
async fn a_join_is_woken_through_its_latest_waker() {
    let token = CancellationToken::new();
    let stream = spawn_generator(
        &token,
        1,
        |tx: Sender<u8>| async move { Err(tx.closed().await) },
    );
    let mut join = stream.join().into_stream();
    let (first, second) = (Wakes::new(), Wakes::new());
    for wakes in [&first, &second] {
        assert!(wakes.poll(Pin::new(&mut join)).is_pending());
    }
    turn().await;
    assert_eq!((first.count(), second.count()), (0, 1));
}

#[test]
fn a_stopped_body_that_is_dropped_with_its_runtime_has_the_reason_of_the_stop() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let token = CancellationToken::new();
    let stream = spawn_generator_on(runtime.handle(), &token, 1, |tx: Sender<u8>| async move {
        Err(tx.closed().await)
    });
    token.cancel_with("enough");
    drop(runtime);
    let reason = stream.join().now_or_never().unwrap().unwrap_err();
    assert_eq!(reason.to_string(), "enough");
}

#[tokio::test]
async fn its_size_hint_counts_the_error_that_is_to_come() {
    let mut stream = try_spawn_generator(signal::never(), 8, |tx| async move {
        tx.send(1).await?;
        Err(io::Error::other("the disk is full"))
    });
    turn().await;
    for left in [2, 1] {
        assert_eq!(stream.size_hint(), (0, Some(left)));
        assert!(stream.next().await.is_some());
    }
    assert!(stream.next().await.is_none());
    assert_eq!(stream.size_hint(), (0, Some(0)));
}

#[tokio::test]
async fn the_error_of_a_body_that_may_fail_is_the_last_item() {
    let mut stream = try_spawn_generator(signal::never(), 1, |tx| async move {
        tx.send(1).await?;
        tx.send("2".parse().map_err(io::Error::other)?).await?;
        let third: u8 = "three".parse().map_err(io::Error::other)?;
        tx.send(third).await?;
        Ok::<_, io::Error>(())
    });
    assert_eq!(stream.next().await.unwrap().unwrap(), 1);
    assert_eq!(stream.next().await.unwrap().unwrap(), 2);
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
    assert!(stream.stop_reason().is_none());
    assert!(stream.join().await.is_ok());
}

#[tokio::test]
async fn an_error_that_comes_after_the_stop_gives_way_to_that_of_the_stop() {
    let token = CancellationToken::new();
    let mut stream = try_spawn_generator(&token, 1, |tx| async move {
        loop {
            tx.send(1).await?;
        }
        #[allow(unreachable_code, reason = "it names the error")]
        Ok::<_, io::Error>(())
    })
    .with_grace(SECOND);
    assert!(stream.next().await.unwrap().is_ok());
    token.cancel();
    turn().await;
    assert_eq!(
        stream.next().await.unwrap().unwrap_err().to_string(),
        "cancelled"
    );
    assert!(stream.next().await.is_none());
    assert!(stream.stop_reason().is_some());
    assert!(matches!(stream.join().await, Err(StopReason::Cancelled)));
}

#[test]
fn a_runtime_that_shuts_down_ends_the_stream() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let probe = DropProbe::new();
    let record = probe.record();
    let mut stream = spawn_generator_on(runtime.handle(), signal::never(), 1, |tx| async move {
        let _probe = probe;
        tx.send(1).await?;
        pending().await
    });
    assert_eq!(runtime.block_on(stream.next()), Some(1));
    let wakes = Wakes::new();
    assert!(wakes.poll(Pin::new(&mut stream)).is_pending());
    drop(runtime);
    assert!(record.is_dropped());
    assert_eq!(wakes.count(), 1);
    assert_eq!(wakes.poll(Pin::new(&mut stream)), Poll::Ready(None));
    assert!(matches!(stream.stop_reason(), Some(StopReason::Cancelled)));
}
