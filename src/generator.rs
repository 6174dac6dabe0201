mod coroutine;
mod stream_token;

use crate::{
    IntoSignal, Signal, StopReason,
    signal::{OnEnd, TokenSignal},
    stream::{AtEnd, FromReason, HaltWith, MapStop, StopError, Valve},
};
use coroutine::Coroutine;
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

pub use coroutine::{GeneratorBody, YieldItem, Yielder};

/// Makes a stream from an async closure that yields, until it returns or `signal` fires.
///
/// ```text
/// body     a---b---c---d--
/// signal   ---------X
/// output   a---b----|
/// ```
///
/// The body is an async closure or an async fn; the older `|mut y| async move { .. }` does not compile, as its future
/// cannot borrow the yielder. The body runs inside the consumer's poll: nothing is spawned or allocated, and between
/// two polls it does not run. It may borrow, and the stream is `Send` when the body is.
///
/// # Termination
///
/// Ends when the body returns or the signal fires, in both cases without an error. Where a truncated stream must not
/// look complete, wrap it in [`with_cancellation`](crate::CancelStreamExt::with_cancellation), or use
/// [`try_generator`].
///
/// At the signal, and when the stream is dropped, the body is dropped at the `await` at which it is suspended: its
/// locals are dropped in reverse order, before the stream ends. After `n` items the body has run up to its `n`-th
/// yield, and continues in the next poll. If the signal has fired before the first poll, the body never starts. A panic
/// in the body passes through the poll, and the stream has ended.
///
/// The signal wakes the task that polled the stream last, and the body is dropped in its next poll. So a consumer that
/// awaits something else, such as a slow client, keeps the body alive until it polls again.
///
/// # Fairness
///
/// Like [`take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled).
///
/// # Cancel safety
///
/// Dropping a `next()` future loses no item. Inside the body, an item that [`yield_item`](Yielder::yield_item) has
/// handed over is yielded, even if the future is dropped after that, as by a `select!`.
///
/// # Examples
///
/// ```
/// use futures::StreamExt;
/// use std::pin::pin;
/// use stopcock::{CancellationToken, generator};
///
/// # futures::executor::block_on(async {
/// let token = CancellationToken::new();
/// let mut fibonacci = pin!(generator(&token, async |mut y| {
///     let (mut a, mut b) = (0, 1);
///     loop {
///         y.yield_item(a).await;
///         (a, b) = (b, a + b);
///     }
/// }));
///
/// assert_eq!(fibonacci.as_mut().take(6).collect::<Vec<u64>>().await, [0, 1, 1, 2, 3, 5]);
/// token.cancel();
/// assert_eq!(fibonacci.next().await, None);
/// # });
/// ```
///
/// # Returning one
///
/// A generator that is returned from a function owns what it uses: its body is an `async move |..|`. `use<>` in the
/// return type says that it borrows none of the arguments: a signal made from `&token` is a clone.
///
/// ```
/// use futures_core::Stream;
/// use stopcock::{CancellationToken, generator};
///
/// fn count(token: &CancellationToken, to: u32) -> impl Stream<Item = u32> + use<> {
///     generator(token, async move |mut y| {
///         for n in 0..to {
///             y.yield_item(n).await;
///         }
///     })
/// }
/// # let _ = count(&CancellationToken::new(), 3);
/// ```
///
/// # Storing one
///
/// The type of an async closure has no name, so a field or an associated type holds the generator in a box, or is
/// generic:
///
/// ```
/// use futures_core::{Stream, stream::BoxStream};
/// use stopcock::{CancellationToken, generator};
///
/// struct Lines {
///     lines: BoxStream<'static, String>, // `Pin<Box<dyn Stream<Item = String> + Send>>`
/// }
///
/// struct Service<S: Stream<Item = String>> {
///     lines: S,
/// }
///
/// let token = CancellationToken::new();
/// // It captures nothing, so it can be used twice.
/// let lines = async |mut y: stopcock::Yielder<'_, String>| y.yield_item("a".to_owned()).await;
/// let boxed = Lines { lines: Box::pin(generator(&token, lines)) };
/// let generic = Service { lines: generator(&token, lines) };
/// # let _ = (boxed.lines, generic.lines);
/// ```
///
/// # When it does not compile
///
/// By what the compiler says:
///
/// - "`PhantomPinned` cannot be unpinned", at `.next()`: a generator has to be pinned to be polled. Write
///   `let mut items = std::pin::pin!(generator(..));`, or `Box::pin(generator(..))`.
/// - "type annotations needed", at `|mut y|`, or "lifetime may not live long enough", at `|mut y: Yielder<'_, T>|`: the
///   body is a closure that returns an async block, `|mut y| async move { .. }`. Write an async closure,
///   `async move |mut y| { .. }`.
/// - "`n` does not live long enough", "borrowed for `'static`", in a function that returns the generator: the body
///   borrows `n`. Write `async move |mut y|`.
/// - "`token` does not live long enough", or "cannot return value referencing local variable `token`", where a function
///   that returns `impl Stream` is called with `&token`: since edition 2024 the type of such a stream borrows each
///   argument. Write `impl Stream<Item = T> + use<>`.
/// - "type annotations needed for `TryGenerator<..>`": `?` does not say which error the body returns. Write the return
///   type, `async |mut y| -> io::Result<()> { .. }`, or end with `Ok::<_, io::Error>(())`.
/// - "the placeholder `_` is not allowed within types": see [Storing one](#storing-one).
/// - "the method `next` exists for struct `TryGenerator<..>`, but its trait bounds were not satisfied": the error type
///   is not `From<StopReason>`. Call [`map_stop`](TryGenerator::map_stop) first.
///
/// What cannot be done with a yielder is shown at [`Yielder`].
#[track_caller]
pub fn generator<T, G, B>(signal: G, body: B) -> Generator<T, B, G::Signal>
where
    G: IntoSignal,
    B: for<'a> AsyncFnOnce(Yielder<'a, T>) + for<'a> GeneratorBody<'a, T>,
{
    Generator {
        valve: stopped_by(signal, body, "generator"),
    }
}

/// Like [`generator`], for a body that may fail: `?` works in it, and the error is the stream's last item.
///
/// ```text
/// body     a---b---c---E
/// signal   ------------------
/// output   a---b---c---(E|)
///
/// body     a---b---c---d--
/// signal   ---------X
/// output   a---b----(X|)
/// ```
///
/// The items are `Result`s: `y.yield_item(x)` yields `Ok(x)`. When the body returns `Ok(())`, the stream ends without
/// a further item. Since `?` converts errors, an async closure has to say which type it returns: with a return type,
/// `async |mut y| -> io::Result<()> { .. }`, or in its last line, `Ok::<_, io::Error>(())`.
///
/// # Termination
///
/// Like [`generator`], with an `Err` for the stop: ends when the body returns or the signal fires, whose reason is also
/// returned by [`stop_reason`](TryGenerator::stop_reason). The body is dropped before the last `Err` is returned, and
/// after that item the stream has ended. If a dropped [`yield_item`](Yielder::yield_item) has left an item in the slot
/// when the body returns, that item is yielded first, and the error in the next poll, unless the signal has fired by
/// then.
///
/// # Fairness
///
/// Like [`generator`].
///
/// # Cancel safety
///
/// Like [`generator`].
///
/// # Errors
///
/// There is at most one `Err`, as the last item: the error of the body, or that of the stop, `E::from(reason)`, if the
/// signal fired first. So a truncated stream never looks complete.
///
/// # Examples
///
/// ```
/// use futures::{StreamExt, TryStreamExt};
/// use std::{io, pin::pin};
/// use stopcock::{CancellationToken, try_generator};
///
/// # futures::executor::block_on(async {
/// let token = CancellationToken::new();
/// let parsed = |text: &'static str| {
///     try_generator(&token, async move |mut y| -> io::Result<()> {
///         for number in text.split(' ') {
///             y.yield_item(number.parse::<u32>().map_err(io::Error::other)?).await;
///         }
///         Ok(())
///     })
/// };
/// assert_eq!(parsed("1 2 3").try_collect::<Vec<_>>().await.unwrap(), [1, 2, 3]);
///
/// let mut numbers = pin!(parsed("4 x 5"));
/// assert_eq!(numbers.next().await.unwrap().unwrap(), 4);
/// assert!(numbers.next().await.unwrap().is_err());
/// assert!(numbers.next().await.is_none());
///
/// let mut stopped = pin!(parsed("6 7"));
/// assert_eq!(stopped.next().await.unwrap().unwrap(), 6);
/// token.cancel_with("enough");
/// assert_eq!(stopped.next().await.unwrap().unwrap_err().to_string(), "enough");
/// assert!(stopped.next().await.is_none());
/// # });
/// ```
#[track_caller]
pub fn try_generator<T, E, G, B>(signal: G, body: B) -> TryGenerator<T, E, B, G::Signal>
where
    G: IntoSignal,
    B: for<'a> AsyncFnOnce(Yielder<'a, T>) -> Result<(), E>
        + for<'a> GeneratorBody<'a, T, Result<(), E>>,
{
    TryGenerator {
        valve: stopped_by(signal, body, "try_generator"),
        map_stop: FromReason(()),
    }
}

#[track_caller]
fn stopped_by<T, B, R, G>(
    signal: G,
    body: B,
    what: &'static str,
) -> Valve<Coroutine<T, B, R>, G::Signal>
where
    G: IntoSignal,
    B: for<'a> GeneratorBody<'a, T, R>,
{
    let signal = signal.into_signal_of(what);
    let parent = signal.as_token().cloned();
    Valve::new(Coroutine::new(body, parent), signal)
}

/// Ends a coroutine with the reason of the stop, and returns what its body has returned.
enum EndOfBody {}

impl<T, B, R> AtEnd<Coroutine<T, B, R>> for EndOfBody
where
    B: for<'a> GeneratorBody<'a, T, R>,
{
    type Output = Option<R>;

    #[inline]
    fn at_end(body: Pin<&mut Coroutine<T, B, R>>, stop_reason: Option<&StopReason>) -> Option<R> {
        body.end(stop_reason)
    }
}

/// The stream of [`generator`].
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct Generator<T, B, G = TokenSignal>
where
    B: for<'a> GeneratorBody<'a, T>,
{
    #[pin]
    valve: Valve<Coroutine<T, B, ()>, G>,
}

impl<T, B, G> Generator<T, B, G>
where
    B: for<'a> GeneratorBody<'a, T>,
{
    /// Why the signal stopped the stream: `Some` from the poll in which it stopped, `None` while the stream runs and
    /// after the body has returned.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// Calls `f` once, when the stream has ended, like
    /// [`TakeUntilCancelled::on_end`](crate::TakeUntilCancelled::on_end). The body has been dropped by then.
    pub fn on_end<F>(self, f: F) -> Generator<T, B, OnEnd<G, F>>
    where
        F: FnOnce(Result<(), &StopReason>),
    {
        Generator {
            valve: self.valve.map_signal(|signal| OnEnd::new(signal, f)),
        }
    }
}

impl<T, B, G> Stream for Generator<T, B, G>
where
    B: for<'a> GeneratorBody<'a, T>,
    G: Signal,
{
    type Item = T;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<T>> {
        match self.project().valve.poll_next_with::<EndOfBody>(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(HaltWith::Pending) => Poll::Pending,
            Err(HaltWith::Stopped | HaltWith::Ended(_)) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound())
    }
}

impl<T, B, G> FusedStream for Generator<T, B, G>
where
    B: for<'a> GeneratorBody<'a, T>,
    G: Signal,
{
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<T, B, G> Debug for Generator<T, B, G>
where
    B: for<'a> GeneratorBody<'a, T>,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("Generator", f)
    }
}

/// The stream of [`try_generator`].
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct TryGenerator<
    // Not a `Stream`? Call `.map_stop(|reason| ..)` on it, or implement `From<StopReason>` for its error.
    T,
    E,
    B,
    G = TokenSignal,
    M = FromReason,
> where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
{
    #[pin]
    valve: Valve<Coroutine<T, B, Result<(), E>>, G>,
    map_stop: M,
}

impl<T, E, B, G> TryGenerator<T, E, B, G>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
{
    /// Makes the error of the stop by `map(reason)` instead of `From<StopReason>`, like
    /// [`TryWithCancellation::map_stop`](crate::TryWithCancellation::map_stop).
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::StreamExt;
    /// use std::pin::pin;
    /// use stopcock::{CancellationToken, try_generator};
    ///
    /// /// Of another crate.
    /// #[derive(Debug)]
    /// struct Status(String);
    ///
    /// # futures::executor::block_on(async {
    /// let token = CancellationToken::new();
    /// let rows = try_generator(&token, async |mut y| -> Result<(), Status> {
    ///     loop {
    ///         y.yield_item("row").await;
    ///     }
    /// });
    /// let mut rows = pin!(rows.map_stop(|reason| Status(reason.to_string())));
    ///
    /// assert_eq!(rows.next().await.unwrap().unwrap(), "row");
    /// token.cancel_with("shutting down");
    /// assert_eq!(rows.next().await.unwrap().unwrap_err().0, "shutting down");
    /// # });
    /// ```
    pub fn map_stop<F>(self, map: F) -> TryGenerator<T, E, B, G, MapStop<F>>
    where
        F: FnOnce(StopReason) -> E,
    {
        TryGenerator {
            valve: self.valve,
            map_stop: MapStop::new(map),
        }
    }
}

impl<T, E, B, G, M> TryGenerator<T, E, B, G, M>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
{
    /// Why the signal stopped the stream: `Some` from the poll in which it stopped, `None` while the stream runs and
    /// after the body has returned.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// Calls `f` once, when the stream has ended, like
    /// [`TakeUntilCancelled::on_end`](crate::TakeUntilCancelled::on_end). The body has been dropped by then. An `Err`
    /// of the body is an item, after which the stream ends by itself.
    pub fn on_end<F>(self, f: F) -> TryGenerator<T, E, B, OnEnd<G, F>, M>
    where
        F: FnOnce(Result<(), &StopReason>),
    {
        TryGenerator {
            valve: self.valve.map_signal(|signal| OnEnd::new(signal, f)),
            map_stop: self.map_stop,
        }
    }
}

impl<T, E, B, G, M> Stream for TryGenerator<T, E, B, G, M>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
    M: StopError<E>,
    G: Signal,
{
    type Item = Result<T, E>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        match this.valve.as_mut().poll_next_with::<EndOfBody>(cx) {
            Ok(item) => Poll::Ready(Some(Ok(item))),
            Err(HaltWith::Pending) => Poll::Pending,
            Err(HaltWith::Stopped) => {
                let reason = this.valve.stop_reason().cloned();
                Poll::Ready(reason.map(|reason| Err(this.map_stop.stop_error(reason))))
            }
            Err(HaltWith::Ended(returned)) => Poll::Ready(match returned {
                Some(Err(error)) => Some(Err(error)),
                Some(Ok(())) | None => None,
            }),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound_with_error())
    }
}

impl<T, E, B, G, M> FusedStream for TryGenerator<T, E, B, G, M>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
    M: StopError<E>,
    G: Signal,
{
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<T, E, B, G, M> Debug for TryGenerator<T, E, B, G, M>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
{
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("TryGenerator", f)
    }
}
