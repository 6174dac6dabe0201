use super::{
    map_stop::{FromReason, MapStop, StopOutput},
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

/// The stream of [`CancelStreamExt::with_cancellation`](crate::CancelStreamExt::with_cancellation), and with other
/// signals of `with_deadline`, `with_timeout` and `with_idle_timeout`.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct WithCancellation<S, G = TokenSignal, M = FromReason> {
    #[pin]
    valve: Valve<S, G>,
    map_stop: M,
}

impl<S, G> WithCancellation<S, G> {
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

    /// Yields what `map` makes of the reason as the error of the stop.
    ///
    /// `map` is called once, at the stop, after the source was dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// let token = CancellationToken::new();
    /// let rows = stream::repeat("row").with_cancellation(&token);
    /// let mut rows = rows.map_stop(|reason| format!("no more rows: {reason}"));
    ///
    /// token.cancel_with("shutting down");
    /// assert_eq!(block_on(rows.next()), Some(Err("no more rows: shutting down".to_owned())));
    /// ```
    pub fn map_stop<F, E>(self, map: F) -> WithCancellation<S, G, MapStop<F>>
    where
        F: FnOnce(StopReason) -> E,
    {
        WithCancellation {
            valve: self.valve,
            map_stop: MapStop::new(map),
        }
    }
}

impl<S, G, M> WithCancellation<S, G, M> {
    /// Why it was stopped: `Some` from the poll that yielded the error, `None` while it runs and after an end of its
    /// own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// The same adapter with its valve replaced by `map`.
    fn map_valve<H>(
        self,
        map: impl FnOnce(Valve<S, G>) -> Valve<S, H>,
    ) -> WithCancellation<S, H, M> {
        WithCancellation {
            valve: map(self.valve),
            map_stop: self.map_stop,
        }
    }
}

refinements!(WithCancellation<M>, trait: "CancelStreamExt", call: "with_cancellation", stop: "(X|)");

impl<S: Stream, G: Signal, M: StopOutput> Stream for WithCancellation<S, G, M> {
    type Item = Result<S::Item, M::Error>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut this = self.project();
        match this.valve.as_mut().poll_next(cx) {
            Ok(item) => Poll::Ready(Some(Ok(item))),
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

impl<S: Stream, G: Signal, M: StopOutput> FusedStream for WithCancellation<S, G, M> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G, M> Debug for WithCancellation<S, G, M> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("WithCancellation", f)
    }
}
