use super::{
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

/// The stream of [`CancelStreamExt::take_until_cancelled`](crate::CancelStreamExt::take_until_cancelled).
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct TakeUntilCancelled<S, G = TokenSignal> {
    #[pin]
    valve: Valve<S, G>,
}

impl<S, G> TakeUntilCancelled<S, G> {
    #[inline]
    pub(crate) fn new(source: S, signal: G) -> Self
    where
        G: Signal,
    {
        Self {
            valve: Valve::new(source, signal),
        }
    }

    /// Why the signal stopped it: `Some` from the poll it was stopped on, `None` while it runs and after an end of
    /// its own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }

    /// The same adapter with its valve replaced by `map`.
    fn map_valve<H>(
        self,
        map: impl FnOnce(Valve<S, G>) -> Valve<S, H>,
    ) -> TakeUntilCancelled<S, H> {
        TakeUntilCancelled {
            valve: map(self.valve),
        }
    }
}

refinements!(TakeUntilCancelled, trait: "CancelStreamExt", call: "take_until_cancelled", stop: "|");

impl<S: Stream, G: Signal> Stream for TakeUntilCancelled<S, G> {
    type Item = S::Item;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<S::Item>> {
        match self.project().valve.poll_next(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped | Halt::Ended) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound())
    }
}

impl<S: Stream, G: Signal> FusedStream for TakeUntilCancelled<S, G> {
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G> Debug for TakeUntilCancelled<S, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("TakeUntilCancelled", f)
    }
}
