use super::{Consumer, Join, Outcome, Report, impl_stream, sender::Sender, token_of};
use crate::{
    IntoSignal, Signal, StopReason,
    channel::Channel,
    first_panic::FirstPanic,
    future::FutureValve,
    signal::{Draining, EndCall, TokenSignal},
    waker_id::WakerId,
};
use futures_core::{FusedStream, Stream};
use pin_project::{pin_project, pinned_drop};
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::runtime::Handle;

/// Makes a stream from a body that runs on a task of its own, at most `capacity` items ahead of its consumer, until it
/// returns or `signal` fires.
///
/// ```text
/// body     abc-----d--e--      capacity 2; the third send waits
/// signal   ---------------X
/// output   ------a--b--c--|
/// ```
///
/// For a body that works while its consumer is busy: prefetching, polling, listening. It replaces a hand-written task with
/// a channel, which would continue after the consumer is dropped. Kotlin calls this `produce`. If nothing has to run
/// ahead, a [`generator`](crate::generator()) needs neither a task nor a channel.
///
/// This call spawns the task on the current runtime; [`spawn_generator_on`] takes a handle.
///
/// # Termination
///
/// The stream ends when the body has returned and all sent items have been delivered. Once the body has returned, clones
/// of the sender fail. When the signal fires, the stream ends without an error: it yields no further item, even if one
/// is ready, and the items in the channel are dropped. A token of this crate stops the body at once. Any other signal
/// is watched by a task, and the body is stopped when that task runs. With
/// [`signal::never()`](fn@crate::signal::never) the body is stopped only when the stream is dropped.
///
/// When the signal fires, and when the stream is dropped, the body is dropped at the `await` at which it is suspended,
/// like an aborted task, even if the stream is not polled. A waiting send fails at once.
/// [`with_grace`](SpawnedGenerator::with_grace) gives a body time to clean up. [`join`](SpawnedGenerator::join) drops
/// the stream, which stops the body, and waits until the body has been dropped. If the signal has fired before the call,
/// the body never starts.
///
/// If the body returns an `Err`, the stream yields the items sent before it and ends, with that error as its
/// [`stop_reason`](SpawnedGenerator::stop_reason). If the body panics, the consumer's poll panics, once, after the items
/// sent before. If the runtime shuts down, the stream ends with [`StopReason::Cancelled`].
///
/// Once the token is cancelled, [`CancellationToken::settled`](crate::CancellationToken::settled) waits until the body
/// has been dropped. The stream does not have to be polled or dropped for that.
///
/// # Task-locals and spans
///
/// Like any spawned task, the body has neither the task-locals nor the `tracing` span of the caller. Pass them on:
/// `|tx| REQUEST.scope(request, async move { .. })`, `|tx| async move { .. }.in_current_span()`.
///
/// # Fairness
///
/// The body yields to the runtime after 1024 sends that did not wait, and the stream after 1024 ready items.
///
/// # Cancel safety
///
/// Dropping a `next()` future loses no item.
///
/// # Panics
///
/// If the capacity is 0, or outside of a tokio runtime.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use stopcock::{CancellationToken, spawn_generator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let mut numbers = spawn_generator(&token, 16, |tx| async move {
///     let mut n = 0_u64;
///     loop {
///         tx.send(n).await?;
///         n += 1;
///     }
/// });
/// assert_eq!(numbers.next().await, Some(0));
/// assert_eq!(numbers.next().await, Some(1));
///
/// token.cancel_with("enough");
/// assert_eq!(numbers.next().await, None);
/// assert_eq!(numbers.join().await.unwrap_err().to_string(), "enough");
/// # }
/// ```
///
/// A body that ends with its receiver:
///
/// ```
/// use futures::StreamExt;
/// use std::sync::Arc;
/// use stopcock::{signal, spawn_generator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let connection = Arc::new("connection");
/// let used = Arc::clone(&connection);
/// let mut events = spawn_generator(signal::never(), 8, async move |tx| {
///     loop {
///         tx.send(used.len()).await?;
///     }
/// });
/// assert_eq!(events.next().await, Some(10));
///
/// // Drops the stream. The body is dropped when its task runs next, at the latest: `join` waits for that.
/// events.join().await.unwrap_err();
/// assert_eq!(Arc::strong_count(&connection), 1);
/// # }
/// ```
#[track_caller]
pub fn spawn_generator<T, G, B, Fut>(signal: G, capacity: usize, body: B) -> SpawnedGenerator<T>
where
    T: Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(Sender<T>) -> Fut,
    Fut: Future<Output = Result<(), StopReason>> + Send + 'static,
{
    spawn_generator_on(&Handle::current(), signal, capacity, body)
}

/// Like [`spawn_generator`], on the runtime of this handle.
///
/// # Panics
///
/// If the capacity is 0.
#[track_caller]
pub fn spawn_generator_on<T, G, B, Fut>(
    handle: &Handle,
    signal: G,
    capacity: usize,
    body: B,
) -> SpawnedGenerator<T>
where
    T: Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(Sender<T>) -> Fut,
    Fut: Future<Output = Result<(), StopReason>> + Send + 'static,
{
    let (wrap, outcome) = (|item| item, Outcome::of);
    spawn(handle, signal, capacity, wrap, body, outcome, None)
}

/// Like [`spawn_generator`], for a body that may fail: its error is the last item.
///
/// ```text
/// body     a--b--E
/// output   -a--b--(E|)
///
/// body     a--b--c--d--
/// signal   -------X
/// output   -a--b--(X|)
/// ```
///
/// `send(x)` sends `Ok(x)`. `?` works for the errors of the sender as well as for those of the body.
///
/// # Errors
///
/// There is at most one `Err`, as the last item: the error of the body, or that of the stop, `E::from(reason)`, if the
/// signal fired first. What the body returns after a stop is dropped. The shutdown of the runtime is a stop as well,
/// with [`StopReason::Cancelled`]. So a truncated stream never looks complete.
///
/// # Panics
///
/// Like [`spawn_generator`].
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use std::io;
/// use stopcock::{signal, try_spawn_generator};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let numbers = try_spawn_generator(signal::never(), 4, |tx| async move {
///     for word in ["1", "2", "three"] {
///         tx.send(word.parse::<u32>().map_err(io::Error::other)?).await?;
///     }
///     Ok::<_, io::Error>(())
/// });
/// let numbers: Vec<_> = numbers.collect().await;
/// assert!(matches!(numbers.as_slice(), [Ok(1), Ok(2), Err(_)]));
/// # }
/// ```
#[track_caller]
pub fn try_spawn_generator<T, E, G, B, Fut>(
    signal: G,
    capacity: usize,
    body: B,
) -> SpawnedGenerator<Result<T, E>>
where
    T: Send + 'static,
    E: From<StopReason> + Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(Sender<T, Result<T, E>>) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    try_spawn_generator_on(&Handle::current(), signal, capacity, body)
}

/// Like [`try_spawn_generator`], on the runtime of this handle.
///
/// # Panics
///
/// If the capacity is 0.
#[track_caller]
pub fn try_spawn_generator_on<T, E, G, B, Fut>(
    handle: &Handle,
    signal: G,
    capacity: usize,
    body: B,
) -> SpawnedGenerator<Result<T, E>>
where
    T: Send + 'static,
    E: From<StopReason> + Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(Sender<T, Result<T, E>>) -> Fut,
    Fut: Future<Output = Result<(), E>> + Send + 'static,
{
    let report = Some(Report::new());
    spawn(handle, signal, capacity, Ok, body, Outcome::of_try, report)
}

#[track_caller]
fn spawn<T, R, G, B, Fut>(
    handle: &Handle,
    signal: G,
    capacity: usize,
    wrap: fn(T) -> R,
    body: B,
    outcome: fn(Fut::Output) -> Outcome<R>,
    report: Option<Report<R>>,
) -> SpawnedGenerator<R>
where
    R: Send + 'static,
    G: IntoSignal<Signal: Send + 'static>,
    B: FnOnce(Sender<T, R>) -> Fut,
    Fut: Future<Output: Send> + Send + 'static,
{
    let what = match report {
        None => "spawn_generator",
        Some(_) => "try_spawn_generator",
    };
    let stop = {
        let _context = handle.enter();
        token_of(signal.into_signal_of(what))
    };
    let channel = Channel::new(capacity, stop);
    let consumer = Consumer::new(Arc::clone(&channel), report);
    // If it has been stopped already, the body never begins.
    match channel.stop_reason() {
        Some(reason) => channel.end(Err(reason), None),
        None => {
            let body = body(Sender::new(Arc::clone(&channel), wrap));
            let stop = HardStop {
                stop: Draining::new(channel.stop().into_signal_of(what), Duration::ZERO),
                channel: Arc::clone(&channel),
                registered: WakerId::default(),
            };
            handle.spawn(Work {
                body: FutureValve::Open(body, stop),
                channel,
                outcome,
            });
        }
    }
    SpawnedGenerator::new(consumer)
}

/// The stream of [`spawn_generator`] and [`try_spawn_generator`].
#[pin_project]
#[must_use = "dropping the stream stops its body"]
pub struct SpawnedGenerator<T, F: FnOnce(Result<(), &StopReason>) = fn(Result<(), &StopReason>)> {
    // Dropped in this order.
    consumer: Consumer<T>,
    on_end: EndCall<F>,
}

impl<T, F: FnOnce(Result<(), &StopReason>)> SpawnedGenerator<T, F> {
    /// Gives the body this much time to clean up after a stop, by the signal or because the consumer was dropped.
    /// Without it, the body is dropped at the stop.
    ///
    /// At the stop, sends fail and the body's token is cancelled. The body is polled until it returns or the time is
    /// over, and then dropped. The stream ends at the stop and does not wait for the body; [`join`](Self::join) does.
    pub fn with_grace(self, time: Duration) -> Self {
        self.consumer.channel.set_grace(time);
        self
    }
}

impl_stream!(SpawnedGenerator);

/// When the body is dropped: at the stop, or after the grace period.
#[pin_project]
struct HardStop<T> {
    #[pin]
    stop: Draining<TokenSignal>,
    channel: Arc<Channel<T>>,
    /// The waker that the channel wakes at the stop.
    registered: WakerId,
}

impl<T> Signal for HardStop<T> {
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.project().stop.is_fired()
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let mut this = self.project();
        let token = this.channel.stop();
        if !token.is_cancelled() {
            if this.registered.is_of(cx.waker()) {
                return Poll::Pending;
            }
            let clone = cx.waker().clone();
            *this.registered = WakerId::kept_by(&clone, cx.waker());
            this.channel.wake_body_at_stop(clone);
            if !token.is_cancelled() {
                return Poll::Pending;
            }
        }
        this.stop.as_mut().set_time(this.channel.grace());
        this.stop.poll_fired(cx)
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        self.project().stop.check_every(items)
    }
}

/// The task of a body.
#[pin_project(PinnedDrop)]
struct Work<T, Fut: Future> {
    #[pin]
    body: FutureValve<Fut, HardStop<T>>,
    channel: Arc<Channel<T>>,
    outcome: fn(Fut::Output) -> Outcome<T>,
}

impl<T, Fut: Future> Future for Work<T, Fut> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let mut panic = FirstPanic::default();
        let mut polled = None;
        panic.catch(|| polled = Some(this.body.as_mut().poll(cx)));
        let ended = match polled {
            Some(Poll::Pending) => {
                // The stop has woken this task. In the grace period, sends of other tasks may be waiting.
                if this.channel.stop().is_cancelled() {
                    this.channel.close();
                }
                return Poll::Pending;
            }
            Some(Poll::Ready(ended)) => Some(ended),
            None => {
                panic.catch(|| this.body.set(FutureValve::Over));
                None
            }
        };
        let outcome = match (ended, panic.into_payload()) {
            (_, Some(payload)) => Outcome::panicked(payload),
            (Some(Ok(output)), None) => (this.outcome)(output),
            (Some(Err(reason)), None) => Outcome::of(Err(reason)),
            (None, None) => unreachable!("a poll gives something unless it panics"),
        };
        this.channel.end(outcome.ended, outcome.last);
        Poll::Ready(())
    }
}

/// A runtime that shuts down drops its tasks.
#[pinned_drop]
impl<T, Fut: Future> PinnedDrop for Work<T, Fut> {
    fn drop(self: Pin<&mut Self>) {
        let mut this = self.project();
        if let FutureValve::Open(..) = *this.body {
            let mut panic = FirstPanic::default();
            panic.catch(|| this.body.set(FutureValve::Over));
            let reason = this.channel.stop_reason().unwrap_or(StopReason::Cancelled);
            this.channel.end(Err(reason), None);
            panic.resume();
        }
    }
}
