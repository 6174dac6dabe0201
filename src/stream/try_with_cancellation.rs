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

/// The stream of [`CancelTryStreamExt::try_with_cancellation`](crate::CancelTryStreamExt::try_with_cancellation), and
/// with other signals of `try_with_deadline`, `try_with_timeout` and `try_with_idle_timeout`.
#[pin_project]
#[must_use = "streams do nothing unless polled"]
pub struct TryWithCancellation<S, G = TokenSignal> {
    #[pin]
    valve: Valve<S, G>,
}

impl<S, G> TryWithCancellation<S, G> {
    pub(crate) fn new(source: S, signal: G) -> Self {
        Self {
            valve: Valve::new(source, signal),
        }
    }

    /// Why it was stopped: `Some` from the poll that yielded the error of the stop, `None` while it runs and after an
    /// end of its own.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        self.valve.stop_reason()
    }
}

refinements!(
    TryWithCancellation,
    trait: "CancelTryStreamExt",
    call: "map(std::io::Result::Ok).try_with_cancellation",
    stop: "(X|)"
);

impl<S, G, T, E> Stream for TryWithCancellation<S, G>
where
    S: Stream<Item = Result<T, E>>,
    G: Signal,
    E: From<StopReason>,
{
    type Item = Result<T, E>;

    #[inline]
    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut valve = self.project().valve;
        match valve.as_mut().poll_next(cx) {
            Ok(item) => Poll::Ready(Some(item)),
            Err(Halt::Pending) => Poll::Pending,
            Err(Halt::Stopped) => {
                let reason = valve.stop_reason().cloned();
                Poll::Ready(reason.map(|reason| Err(reason.into())))
            }
            Err(Halt::Ended) => Poll::Ready(None),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.valve.upper_bound_with_error())
    }
}

impl<S, G, T, E> FusedStream for TryWithCancellation<S, G>
where
    S: Stream<Item = Result<T, E>>,
    G: Signal,
    E: From<StopReason>,
{
    fn is_terminated(&self) -> bool {
        self.valve.is_over()
    }
}

impl<S, G> Debug for TryWithCancellation<S, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("TryWithCancellation", f)
    }
}
