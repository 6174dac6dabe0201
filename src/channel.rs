//! The bounded channel between a body and its consumer, which a token closes.

use crate::{
    CancellationToken, Signal, StopReason,
    fairness::MAX_READY_RUN,
    first_panic::FirstPanic,
    keyed_queue::SmallKeyedQueue,
    signal::Watch,
    sync::{Mutex, MutexGuard},
};
use futures_core::Stream;
#[cfg(feature = "tokio")]
use std::time::Duration;
use std::{
    any::Any,
    collections::VecDeque,
    fmt::{self, Formatter},
    mem,
    panic::resume_unwind,
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Wake, Waker},
};

/// The initial capacity of the queue.
const INITIAL_CAPACITY: usize = 16;

/// An empty queue with a greater capacity than this is shrunk.
const LARGE_CAPACITY: usize = 4 * INITIAL_CAPACITY;

/// It is itself the listener of its token: at the stop it wakes the tasks that wait for the stop, to send, or for an item.
pub(crate) struct Channel<T> {
    queue: Mutex<Queue<T>>,
    capacity: usize,
    /// Cancelled by the signal, and when the consumer is dropped.
    stop: CancellationToken,
}

struct Queue<T> {
    items: VecDeque<T>,
    /// The waiting sends, in the order of their first polls. Empty while the queue is not full.
    sends: SmallKeyedQueue<Waiting<T>>,
    sent_in_run: u16,
    consumer: Option<Waker>,
    /// The task of the body, woken at the stop.
    body: Option<Waker>,
    /// The task that waits until the body has been dropped.
    joiner: Option<Waker>,
    /// From now on sends fail, and no waker is registered for the stop.
    is_stopped: bool,
    /// How the body ended. From then on sends fail.
    ended: Option<Result<(), StopReason>>,
    /// Delivered after the items.
    last: Option<Last<T>>,
    /// The body's token, if it has been requested.
    token: Option<CancellationToken>,
    /// How long the body may run after the stop.
    #[cfg(feature = "tokio")]
    grace: Duration,
}

struct Waiting<T> {
    item: T,
    /// `None` once it has been woken because the send fails.
    waker: Option<Waker>,
}

/// The last thing that the stream of a body delivers.
pub(crate) enum Last<T> {
    Item(T),
    Panic(Box<dyn Any + Send>),
}

impl<T: Send + 'static> Channel<T> {
    /// # Panics
    ///
    /// If the capacity is 0.
    #[track_caller]
    pub(crate) fn new(capacity: usize, stop: CancellationToken) -> Arc<Self> {
        assert!(
            capacity > 0,
            "a producer with a capacity of 0 could never send anything: give it 1 for one item ahead of the consumer, \
             or use a `generator`, which does nothing ahead"
        );
        let channel = Arc::new(Self {
            queue: Mutex::new(Queue {
                items: VecDeque::with_capacity(capacity.min(INITIAL_CAPACITY)),
                sends: SmallKeyedQueue::new(),
                sent_in_run: 0,
                consumer: None,
                body: None,
                joiner: None,
                is_stopped: false,
                ended: None,
                last: None,
                token: None,
                #[cfg(feature = "tokio")]
                grace: Duration::ZERO,
            }),
            capacity,
            stop,
        });
        // Channel and token own each other until the token is cancelled: at the latest when the consumer is dropped.
        let waker = Waker::from(Arc::clone(&channel));
        channel.stop.wake_when_cancelled(waker);
        channel
    }

    /// Lets a cancel close the channel, for a body that no task polls.
    pub(crate) fn close_at_stop(self: &Arc<Self>) {
        let closed = Arc::clone(self);
        // It runs at the latest when the consumer is dropped.
        self.stop.on_cancel(move |_| closed.close()).detach();
    }
}

impl<T> Channel<T> {
    pub(crate) fn stop(&self) -> &CancellationToken {
        &self.stop
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn set_grace(&self, grace: Duration) {
        self.lock().grace = grace;
    }

    #[cfg(feature = "tokio")]
    pub(crate) fn grace(&self) -> Duration {
        self.lock().grace
    }

    /// How the body ended, once it has been dropped.
    pub(crate) fn ended(&self) -> Option<Result<(), StopReason>> {
        self.lock().ended.clone()
    }

    /// Why sends fail, if they do.
    pub(crate) fn stop_reason(&self) -> Option<StopReason> {
        let stopped = self.stop.stop_reason();
        stopped.or_else(|| self.lock().ended.as_ref().map(reason_of))
    }

    /// Returns an error if sends fail.
    pub(crate) fn check(&self) -> Result<(), StopReason> {
        self.stop_reason().map_or(Ok(()), Err)
    }

    /// The token for work that the body starts.
    pub(crate) fn token(&self) -> CancellationToken {
        let (token, ended) = {
            let mut queue = self.lock();
            let token = queue.token.get_or_insert_with(|| self.stop.child_token());
            (token.clone(), queue.ended.as_ref().map(reason_of))
        };
        if let Some(reason) = ended {
            token.cancel_with(reason);
        }
        token
    }

    /// Called when the body has been dropped, with its outcome.
    pub(crate) fn end(&self, ended: Result<(), StopReason>, last: Option<Last<T>>) {
        let (ended, last, undelivered) = match (last, self.stop.stop_reason()) {
            // The error is not delivered: in most cases it is a consequence of the stop.
            (Some(Last::Item(item)), Some(reason)) => (Err(reason), None, Some(item)),
            (last, _) => (ended, last, None),
        };
        let reason = reason_of(&ended);
        let mut queue = self.lock();
        queue.ended = Some(ended);
        queue.last = last;
        let waiting = queue.take_wakers_of_sends();
        let (consumer, joiner) = (queue.consumer.take(), queue.joiner.take());
        let body = queue.body.take();
        let token = queue.token.clone();
        drop(queue);
        let mut panic = FirstPanic::default();
        panic.catch(|| drop(undelivered));
        panic.catch(|| drop(body));
        if let Some(token) = token {
            panic.catch(|| {
                token.cancel_with(reason);
            });
        }
        for waker in waiting.into_iter().chain(consumer).chain(joiner) {
            panic.catch(|| waker.wake());
        }
        if self.stop.is_cancelled() {
            panic.catch(|| self.close());
        }
        panic.resume();
    }

    /// At the stop: wakes the waiting sends, and drops the items in the channel, which are not delivered any more.
    pub(crate) fn close(&self) {
        let mut queue = self.lock();
        queue.is_stopped = true;
        let items = mem::take(&mut queue.items);
        let last = match queue.last.take() {
            Some(Last::Item(item)) => Some(item),
            last => {
                queue.last = last;
                None
            }
        };
        let waiting = queue.take_wakers_of_sends();
        drop(queue);
        let mut panic = FirstPanic::default();
        for waker in waiting {
            panic.catch(|| waker.wake());
        }
        for item in items.into_iter().chain(last) {
            panic.catch(|| drop(item));
        }
        panic.resume();
    }

    /// Registers the waker of the body's task for the stop. The caller has to check for the stop again after that, as the
    /// waker is not registered if it has come.
    #[cfg(any(feature = "tokio", all(test, stopcock_loom)))]
    pub(crate) fn wake_body_at_stop(&self, waker: Waker) {
        let mut queue = self.lock();
        let unused = match queue.is_stopped {
            true => Some(waker),
            false => queue.body.replace(waker),
        };
        drop(queue);
        drop(unused);
    }

    /// Sends an item, or registers the send to wait.
    fn poll_send(&self, sending: &mut Stage<T>, cx: &Context<'_>) -> Poll<Result<(), StopReason>> {
        if self.stop.is_cancelled() {
            return Poll::Ready(Err(self.why_closed()));
        }
        // Cloned and dropped without the lock, as that runs foreign code.
        let mut spare = None;
        loop {
            let mut queue = self.lock();
            if let Stage::Waiting(key) = *sending {
                let is_open = queue.is_open();
                let Some(waiting) = queue.sends.get_mut(key) else {
                    // The consumer has moved its item into the queue.
                    return Poll::Ready(Ok(()));
                };
                if !is_open {
                    drop(queue);
                    return Poll::Ready(Err(self.why_closed()));
                }
                if let Some(waker) = spare.take() {
                    let former = waiting.waker.replace(waker);
                    drop(queue);
                    drop(former);
                    return Poll::Pending;
                }
            } else {
                if !queue.is_open() {
                    drop(queue);
                    return Poll::Ready(Err(self.why_closed()));
                }
                if queue.sends.is_empty() && queue.items.len() < self.capacity {
                    if queue.sent_in_run == MAX_READY_RUN {
                        queue.sent_in_run = 0;
                        drop(queue);
                        cx.waker().wake_by_ref();
                        return Poll::Pending;
                    }
                    queue.sent_in_run += 1;
                    if let Stage::New(item) = mem::replace(sending, Stage::Done) {
                        queue.items.push_back(item);
                    }
                    let consumer = queue.consumer.take();
                    drop(queue);
                    consumer.into_iter().for_each(Waker::wake);
                    return Poll::Ready(Ok(()));
                }
                if let Some(waker) = spare.take() {
                    queue.sent_in_run = 0;
                    if let Stage::New(item) = mem::replace(sending, Stage::Done) {
                        let waker = Some(waker);
                        *sending = Stage::Waiting(queue.sends.push(Waiting { item, waker }));
                    }
                    return Poll::Pending;
                }
            }
            drop(queue);
            spare = Some(cx.waker().clone());
        }
    }

    /// Why `is_open` is false.
    fn why_closed(&self) -> StopReason {
        self.stop_reason().unwrap_or(StopReason::Cancelled)
    }

    #[inline(never)]
    fn remove_send(&self, key: u64) {
        let mut queue = self.lock();
        let waiting = queue.sends.remove(key);
        drop(queue);
        drop(waiting);
    }

    /// Ready once the body has been dropped.
    pub(crate) fn poll_ended(&self, cx: &Context<'_>) -> Poll<Result<(), StopReason>> {
        let waker = cx.waker().clone();
        let mut queue = self.lock();
        let Some(ended) = &queue.ended else {
            let former = queue.joiner.replace(waker);
            drop(queue);
            drop(former);
            return Poll::Pending;
        };
        let ended = ended.clone();
        let last = queue.last.take();
        drop(queue);
        match last {
            Some(Last::Panic(payload)) => resume_unwind(payload),
            _ => Poll::Ready(ended),
        }
    }

    /// The `Debug` of types that own a channel: the items need not implement it.
    pub(crate) fn debug(&self, name: &str, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct(name)
            .field("stop_reason", &self.stop_reason())
            .finish_non_exhaustive()
    }

    fn lock(&self) -> MutexGuard<'_, Queue<T>> {
        // Nothing panics under the lock.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Called at the stop. It only wakes tasks, as the timer driver may call it.
impl<T: Send + 'static> Wake for Channel<T> {
    fn wake(self: Arc<Self>) {
        let mut queue = self.lock();
        queue.is_stopped = true;
        let waiting = queue.take_wakers_of_sends();
        let consumer = queue.consumer.take();
        let body = queue.body.take();
        drop(queue);
        let mut panic = FirstPanic::default();
        for waker in body.into_iter().chain(waiting).chain(consumer) {
            panic.catch(|| waker.wake());
        }
        panic.resume();
    }
}

/// Why sends fail once the body has ended.
fn reason_of(ended: &Result<(), StopReason>) -> StopReason {
    ended.clone().err().unwrap_or(StopReason::Cancelled)
}

impl<T> Queue<T> {
    fn is_open(&self) -> bool {
        !self.is_stopped && self.ended.is_none()
    }

    /// Takes the wakers of the waiting sends, which fail from now on. The sends keep their items.
    fn take_wakers_of_sends(&mut self) -> Vec<Waker> {
        let wakers = self.sends.iter_mut().map(|waiting| waiting.waker.take());
        wakers.flatten().collect()
    }
}

/// The stream of the items.
pub(crate) struct Receiver<T> {
    channel: Arc<Channel<T>>,
}

impl<T> Receiver<T> {
    pub(crate) fn new(channel: Arc<Channel<T>>) -> Self {
        Self { channel }
    }
}

impl<T> Stream for Receiver<T> {
    type Item = T;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        // Cloned and dropped without the lock, as that runs foreign code.
        let mut spare = None;
        loop {
            let mut queue = self.channel.lock();
            if let Some(item) = queue.items.pop_front() {
                let next = match queue.is_open() {
                    true => queue.sends.pop_front(),
                    false => None,
                };
                let sender = next.and_then(|next| {
                    queue.items.push_back(next.item);
                    next.waker
                });
                drop(queue);
                sender.into_iter().for_each(Waker::wake);
                return Poll::Ready(Some(item));
            }
            // All items of a burst have been taken, so its memory is freed.
            if queue.items.capacity() > LARGE_CAPACITY {
                queue.items.shrink_to(INITIAL_CAPACITY);
            }
            if queue.ended.is_some() {
                let last = queue.last.take();
                drop(queue);
                return match last {
                    Some(Last::Item(item)) => Poll::Ready(Some(item)),
                    Some(Last::Panic(payload)) => resume_unwind(payload),
                    None => Poll::Ready(None),
                };
            }
            let is_known = queue
                .consumer
                .as_ref()
                .is_some_and(|known| known.will_wake(cx.waker()));
            if is_known {
                return Poll::Pending;
            }
            if queue.is_stopped {
                drop(queue);
                // The stop has come since the poll began. The next poll notices it.
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if let Some(waker) = spare.take() {
                let former = queue.consumer.replace(waker);
                drop(queue);
                drop(former);
                return Poll::Pending;
            }
            drop(queue);
            spare = Some(cx.waker().clone());
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let queue = self.channel.lock();
        // An error after the items replaces that of a stop, which the stream that reports it has counted.
        let items = queue.items.len();
        (0, queue.ended.is_some().then_some(items))
    }
}

impl<T> Drop for Receiver<T> {
    fn drop(&mut self) {
        let mut queue = self.channel.lock();
        // The consumer need not be woken by its own drop.
        let consumer = queue.consumer.take();
        // It is also dropped after the end.
        let reason = match &queue.ended {
            Some(ended) => reason_of(ended),
            None => StopReason::ConsumerDropped,
        };
        drop(queue);
        let mut panic = FirstPanic::default();
        panic.catch(|| drop(consumer));
        panic.catch(|| {
            self.channel.stop.cancel_with(reason);
        });
        panic.catch(|| self.channel.close());
        panic.resume();
    }
}

/// The signal of the valve around a receiver. The channel wakes the consumer, through the waker that the receiver has
/// registered.
pub(crate) struct ConsumerStop(Watch<CancellationToken>);

impl ConsumerStop {
    pub(crate) fn of<T>(channel: &Channel<T>) -> Self {
        Self(Watch::new(channel.stop.clone()))
    }
}

impl Signal for ConsumerStop {
    #[inline]
    fn is_fired(mut self: Pin<&mut Self>) -> bool {
        Pin::new(&mut self.0).is_fired()
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_fired_at_end(cx)
    }

    /// Always `false` for a token with a deadline, which is checked by the clock.
    #[inline]
    fn will_wake(&self, _: &Context<'_>) -> bool {
        !self.0.needs_checks()
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.0.needs_checks()
    }

    fn poll_fired_at_end(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        Pin::new(&mut self.0).poll_fired_at_end(cx)
    }

    #[inline]
    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        Pin::new(&mut self.0).check_every(items)
    }
}

/// A send of an item.
pub(crate) struct Outgoing<'a, T> {
    channel: &'a Channel<T>,
    stage: Stage<T>,
}

enum Stage<T> {
    New(T),
    Waiting(u64),
    Done,
}

impl<'a, T> Outgoing<'a, T> {
    pub(crate) fn new(channel: &'a Channel<T>, item: T) -> Self {
        Self {
            channel,
            stage: Stage::New(item),
        }
    }

    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<Result<(), StopReason>> {
        assert!(
            !matches!(self.stage, Stage::Done),
            "a future of `send` was polled after it was ready: poll it in an `async` block, or `fuse` it"
        );
        let polled = self.channel.poll_send(&mut self.stage, cx);
        if polled.is_ready() && !matches!(self.stage, Stage::Done) {
            self.unregister();
            // Drops the item, if it was not sent.
            self.stage = Stage::Done;
        }
        polled
    }
}

impl<T> Outgoing<'_, T> {
    #[inline]
    fn unregister(&mut self) {
        if let Stage::Waiting(key) = self.stage {
            self.stage = Stage::Done;
            self.channel.remove_send(key);
        }
    }
}

impl<T> Drop for Outgoing<'_, T> {
    fn drop(&mut self) {
        self.unregister();
    }
}
