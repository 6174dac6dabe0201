//! Items on their way from a body to its consumer, and the events that close the channel.

use super::{CountingWaker, model};
use crate::{
    CancellationToken, StopReason,
    channel::{Channel, ConsumerStop, Outgoing, Receiver},
    stream::{Halt, Valve},
};
use futures_core::Stream;
use loom::{
    sync::atomic::{AtomicUsize, Ordering},
    thread,
};
use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// An item that counts its drop.
struct Item(usize, Arc<AtomicUsize>);

impl Drop for Item {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::Relaxed);
    }
}

/// A channel for one item, and how many items have been dropped.
struct Setting {
    token: CancellationToken,
    channel: Arc<Channel<Item>>,
    consumer: Valve<Receiver<Item>, ConsumerStop>,
    drops: Arc<AtomicUsize>,
}

impl Setting {
    fn new() -> Self {
        let token = CancellationToken::new();
        let channel = Channel::new(1, token.clone());
        channel.close_at_stop();
        let consumer = Valve::new(
            Receiver::new(Arc::clone(&channel)),
            ConsumerStop::of(&channel),
        );
        Self {
            token,
            channel,
            consumer,
            drops: Arc::new(AtomicUsize::new(0)),
        }
    }

    /// A channel whose only slot has the item 0.
    fn full() -> Self {
        let setting = Self::new();
        let sent = send(&mut setting.outgoing(0), &CountingWaker::new());
        assert!(matches!(sent, Poll::Ready(Ok(()))));
        setting
    }

    fn outgoing(&self, n: usize) -> Outgoing<'_, Item> {
        Outgoing::new(&self.channel, Item(n, Arc::clone(&self.drops)))
    }
}

fn send(
    outgoing: &mut Outgoing<'_, Item>,
    flag: &Arc<CountingWaker>,
) -> Poll<Result<(), StopReason>> {
    outgoing.poll(&Context::from_waker(&Waker::from(Arc::clone(flag))))
}

/// The result of a poll of the consumer: the number of an item, or `None` for the end.
fn take(
    consumer: &mut Valve<Receiver<Item>, ConsumerStop>,
    flag: &Arc<CountingWaker>,
) -> Poll<Option<usize>> {
    let waker = Waker::from(Arc::clone(flag));
    match Pin::new(consumer).poll_next(&mut Context::from_waker(&waker)) {
        Ok(item) => Poll::Ready(Some(item.0)),
        Err(Halt::Pending) => Poll::Pending,
        Err(Halt::Stopped | Halt::Ended) => Poll::Ready(None),
    }
}

/// Sends an item for which there is room, unless the channel is closed.
fn send_one(channel: &Channel<Item>, item: Item) -> Result<(), StopReason> {
    match send(&mut Outgoing::new(channel, item), &CountingWaker::new()) {
        Poll::Ready(sent) => sent,
        Poll::Pending => panic!("there is room"),
    }
}

#[test]
fn a_pending_consumer_is_woken_by_an_item() {
    model(|| {
        let mut setting = Setting::new();
        let item = Item(0, Arc::clone(&setting.drops));
        let channel = Arc::clone(&setting.channel);
        let sender = thread::spawn(move || send_one(&channel, item));
        let flag = CountingWaker::new();
        let first = take(&mut setting.consumer, &flag);
        assert!(sender.join().unwrap().is_ok());
        match first {
            Poll::Pending => {
                assert_eq!(flag.wakes(), 1);
                assert_eq!(
                    take(&mut setting.consumer, &CountingWaker::new()),
                    Poll::Ready(Some(0))
                );
            }
            taken => assert_eq!(taken, Poll::Ready(Some(0))),
        }
    });
}

#[test]
fn a_send_that_waits_for_room_gets_it_and_is_woken() {
    model(|| {
        let Setting {
            channel,
            mut consumer,
            drops,
            token: _token,
        } = Setting::full();
        let consumer = thread::spawn(move || {
            let taken = take(&mut consumer, &CountingWaker::new());
            (taken, consumer)
        });
        let flag = CountingWaker::new();
        let mut outgoing = Outgoing::new(&channel, Item(1, drops));
        let first = send(&mut outgoing, &flag);
        let (taken, mut consumer) = consumer.join().unwrap();
        assert_eq!(taken, Poll::Ready(Some(0)));
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
            assert!(matches!(
                send(&mut outgoing, &CountingWaker::new()),
                Poll::Ready(Ok(()))
            ));
        } else {
            assert!(matches!(first, Poll::Ready(Ok(()))));
        }
        assert_eq!(
            take(&mut consumer, &CountingWaker::new()),
            Poll::Ready(Some(1))
        );
    });
}

#[test]
fn a_send_that_waits_for_room_is_woken_by_the_stop() {
    model(|| {
        let setting = Setting::full();
        let token = setting.token.clone();
        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        let mut outgoing = setting.outgoing(1);
        let first = send(&mut outgoing, &flag);
        canceller.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
            assert!(matches!(
                send(&mut outgoing, &CountingWaker::new()),
                Poll::Ready(Err(_))
            ));
        } else {
            assert!(matches!(first, Poll::Ready(Err(_))));
        }
        drop(outgoing);
        assert_eq!(setting.drops.load(Ordering::Relaxed), 2);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}

#[test]
fn a_send_that_waits_for_room_is_woken_by_the_drop_of_the_consumer() {
    model(|| {
        let Setting {
            channel,
            consumer,
            drops,
            token: _token,
        } = Setting::full();
        let consumer = thread::spawn(move || drop(consumer));
        let flag = CountingWaker::new();
        let mut outgoing = Outgoing::new(&channel, Item(1, Arc::clone(&drops)));
        let first = send(&mut outgoing, &flag);
        consumer.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
        }
        drop(outgoing);
        assert_eq!(drops.load(Ordering::Relaxed), 2);
    });
}

#[test]
fn after_the_stop_no_item_is_received_and_none_is_leaked() {
    model(|| {
        let mut setting = Setting::new();
        let item = Item(0, Arc::clone(&setting.drops));
        let channel = Arc::clone(&setting.channel);
        let sender = thread::spawn(move || send_one(&channel, item));
        setting.token.cancel();
        assert_eq!(
            take(&mut setting.consumer, &CountingWaker::new()),
            Poll::Ready(None)
        );
        let _ = sender.join().unwrap();
        assert_eq!(setting.drops.load(Ordering::Relaxed), 1);
    });
}

#[test]
fn a_pending_consumer_is_woken_by_the_stop() {
    model(|| {
        let mut setting = Setting::new();
        let token = setting.token.clone();
        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        let first = take(&mut setting.consumer, &flag);
        canceller.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
        }
        assert_eq!(
            take(&mut setting.consumer, &CountingWaker::new()),
            Poll::Ready(None)
        );
        assert_eq!(Arc::strong_count(&flag), 1, "the waker has been dropped");
    });
}

#[test]
fn the_task_of_a_body_is_woken_by_the_stop() {
    model(|| {
        let setting = Setting::new();
        let token = setting.token.clone();
        let canceller = thread::spawn(move || token.cancel());
        let flag = CountingWaker::new();
        setting
            .channel
            .wake_body_at_stop(Waker::from(Arc::clone(&flag)));
        let is_seen = setting.token.is_cancelled();
        canceller.join().unwrap();
        assert!(is_seen || flag.wakes() == 1);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker has been dropped");
    });
}

#[test]
fn a_consumer_that_is_dropped_during_the_stop_leaves_nothing() {
    model(|| {
        let mut setting = Setting::new();
        let flag = CountingWaker::new();
        assert!(take(&mut setting.consumer, &flag).is_pending());
        let Setting {
            token,
            channel,
            consumer,
            ..
        } = setting;
        let canceller = thread::spawn(move || token.cancel());
        drop(consumer);
        canceller.join().unwrap();
        assert_eq!(Arc::strong_count(&flag), 1, "the waker has been dropped");
        assert_eq!(Arc::strong_count(&channel), 1, "the token keeps nothing");
    });
}

#[test]
fn a_pending_consumer_is_woken_by_the_end() {
    model(|| {
        let mut setting = Setting::new();
        let channel = Arc::clone(&setting.channel);
        let body = thread::spawn(move || channel.end(Ok(()), None));
        let flag = CountingWaker::new();
        let first = take(&mut setting.consumer, &flag);
        body.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
            assert_eq!(
                take(&mut setting.consumer, &CountingWaker::new()),
                Poll::Ready(None)
            );
        }
    });
}

#[test]
fn a_join_is_woken_by_the_end() {
    model(|| {
        let Setting { channel, .. } = Setting::new();
        let ending = Arc::clone(&channel);
        let body = thread::spawn(move || ending.end(Ok(()), None));
        let flag = CountingWaker::new();
        let waker = Waker::from(Arc::clone(&flag));
        let first = channel.poll_ended(&Context::from_waker(&waker));
        body.join().unwrap();
        if first.is_pending() {
            assert_eq!(flag.wakes(), 1);
        }
        let ended = channel.poll_ended(&Context::from_waker(Waker::noop()));
        assert!(matches!(ended, Poll::Ready(Ok(()))));
    });
}

#[test]
fn the_token_of_a_body_that_is_made_during_its_end_is_cancelled() {
    model(|| {
        let Setting { channel, .. } = Setting::new();
        let ending = Arc::clone(&channel);
        let body = thread::spawn(move || ending.end(Ok(()), None));
        let token = channel.token();
        body.join().unwrap();
        assert!(token.is_cancelled());
    });
}

#[test]
fn a_send_that_is_dropped_while_it_waits_does_not_block_the_next_one() {
    model(|| {
        let mut setting = Setting::full();
        let (channel, drops) = (Arc::clone(&setting.channel), Arc::clone(&setting.drops));
        let mut leaver = Outgoing::new(&channel, Item(1, drops));
        assert!(send(&mut leaver, &CountingWaker::new()).is_pending());
        let (channel, drops) = (Arc::clone(&setting.channel), Arc::clone(&setting.drops));
        let mut stayer = Outgoing::new(&channel, Item(2, drops));
        let flag = CountingWaker::new();
        assert!(send(&mut stayer, &flag).is_pending());
        // The two sends borrow the channel, so it is the consumer that moves to another thread.
        let consumer = thread::spawn(move || {
            let first = take(&mut setting.consumer, &CountingWaker::new());
            let second = take(&mut setting.consumer, &CountingWaker::new());
            let third = take(&mut setting.consumer, &CountingWaker::new());
            ([first, second, third], setting)
        });
        drop(leaver);
        let (taken, _setting) = consumer.join().unwrap();
        assert_eq!(taken[0], Poll::Ready(Some(0)));
        assert!(taken.contains(&Poll::Ready(Some(2))), "{taken:?}");
        assert_eq!(flag.wakes(), 1);
        assert!(matches!(
            send(&mut stayer, &CountingWaker::new()),
            Poll::Ready(Ok(()))
        ));
    });
}

#[test]
fn a_receiver_that_is_polled_after_the_stop_keeps_no_waker() {
    model(|| {
        let Setting { channel, .. } = Setting::new();
        channel.close();
        let mut receiver = Receiver::new(channel);
        let flag = CountingWaker::new();
        let waker = Waker::from(Arc::clone(&flag));
        let polled = Pin::new(&mut receiver).poll_next(&mut Context::from_waker(&waker));
        assert!(polled.is_pending());
        drop(waker);
        assert_eq!(Arc::strong_count(&flag), 1, "the waker is dropped");
    });
}
