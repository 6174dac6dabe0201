use super::{
    map_stop::{FromReason, MapStop, StopError},
    refinements::refinements,
    valve::{Halt, Valve},
};
use crate::{Signal, StopReason, signal::TokenSignal};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
};

/// The stream of [`CancelTryStreamExt::try_with_cancellation`](crate::CancelTryStreamExt::try_with_cancellation), and
/// with other signals of `try_with_deadline`, `try_with_timeout` and `try_with_idle_timeout`.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct TryWithCancellation<
    // Not a `Stream`? Call `.map_stop(|reason| ..)` on it, or implement `From<StopReason>` for its error.
    S,
    G = TokenSignal,
    M = FromReason,
> {
    #[pin]
    valve: Valve<S, G>,
    map_stop: M,
}

impl<S, G> TryWithCancellation<S, G> {
    #[inline]
    pub(crate) fn new(source: S, signal: G) -> Self
    where
        G: Signal,
    {
        Self {
            valve: Valve::new(source, signal),
            map_stop: FromReason(()),
        }
    }

    /// Yields what `map` makes of the reason as the error of the stop, in place of `From<StopReason>`.
    ///
    /// For the error types of other crates, which cannot have that: `tonic::Status`, `reqwest::Error`,
    /// `rusqlite::Error`. `map` is called once, at the stop, after the source was dropped. To name or store the stream,
    /// give it a function pointer: `MapStop<fn(StopReason) -> Status>`.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use stopcock::{CancelTryStreamExt, CancellationToken, StopReason};
    ///
    /// /// Of another crate.
    /// #[derive(Debug, PartialEq)]
    /// struct Status(&'static str);
    ///
    /// let token = CancellationToken::new();
    /// let rows = stream::repeat_with(|| Ok("row")).try_with_cancellation(&token);
    /// let mut rows = rows.map_stop(|reason| match reason.is_timeout() {
    ///     true => Status("deadline exceeded"),
    ///     false => Status("unavailable"),
    /// });
    ///
    /// assert_eq!(block_on(rows.next()), Some(Ok("row")));
    /// token.cancel_with(StopReason::DeadlineExceeded);
    /// assert_eq!(block_on(rows.next()), Some(Err(Status("deadline exceeded"))));
    /// assert_eq!(block_on(rows.next()), None);
    /// ```
    pub fn map_stop<F, T, E>(self, map: F) -> TryWithCancellation<S, G, MapStop<F>>
    where
        S: Stream<Item = Result<T, E>>,
        F: FnOnce(StopReason) -> E,
    {
        TryWithCancellation {
            valve: self.valve,
            map_stop: MapStop::new(map),
        }
    }
}

impl<S, G, M> TryWithCancellation<S, G, M> {
    /// Why it was stopped: `Some` from the poll that yielded the error of the stop, `None` while it runs and after an
    /// end of its own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// The same adapter with its valve replaced by `map`.
    fn map_valve<H>(
        self,
        map: impl FnOnce(Valve<S, G>) -> Valve<S, H>,
    ) -> TryWithCancellation<S, H, M> {
        TryWithCancellation {
            valve: map(self.valve),
            map_stop: self.map_stop,
        }
    }
}

refinements!(
    TryWithCancellation<M>,
    trait: "CancelTryStreamExt",
    call: "map(std::io::Result::Ok).try_with_cancellation",
    stop: "(X|)"
);

impl<S, G, M, T, E> Stream for TryWithCancellation<S, G, M>
where
    S: Stream<Item = Result<T, E>>,
    G: Signal,
    M: StopError<E>,
{
    type Item = Result<T, E>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        match this.valve.as_mut().poll_next(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped) => {
                let reason = this.valve.stop_reason().cloned();
                Poll::Ready(reason.map(|reason| Err(this.map_stop.stop_error(reason))))
            }
            Err(Halt::Ended) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound_with_error())
    }
}

impl<S, G, M, T, E> FusedStream for TryWithCancellation<S, G, M>
where
    S: Stream<Item = Result<T, E>>,
    G: Signal,
    M: StopError<E>,
{
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G, M> Debug for TryWithCancellation<S, G, M> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("TryWithCancellation", f)
    }
}
