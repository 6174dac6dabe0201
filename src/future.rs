use crate::{CancellationToken, IntoSignal, Signal, StopReason, signal::TokenSignal};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The future of [`CancellationToken::run_until_cancelled`] and
/// [`run_until_cancelled_owned`](CancellationToken::run_until_cancelled_owned).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct RunUntilCancelled<Fut> {
    #[pin]
    valve: FutureValve<Fut, TokenSignal>,
}

impl<Fut> RunUntilCancelled<Fut> {
    pub(crate) fn new(future: Fut, token: CancellationToken) -> Self {
        Self {
            valve: FutureValve::Open(future, token.into_signal()),
        }
    }
}

impl<Fut: Future> Future for RunUntilCancelled<Fut> {
    type Output = Option<Fut::Output>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        self.project().valve.poll(cx).map(Result::ok)
    }
}

impl<Fut> Debug for RunUntilCancelled<Fut> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RunUntilCancelled")
            .field("is_over", &matches!(self.valve, FutureValve::Over))
            .finish()
    }
}

/// The one mechanism under all futures: lets the answer of a future by, unless a signal fires before.
///
/// Over means gone.
#[pin_project(project = FutureValveProjection)]
enum FutureValve<Fut, G> {
    /// In this order they are dropped.
    Open(#[pin] Fut, #[pin] G),
    Over,
}

impl<Fut: Future, G: Signal> FutureValve<Fut, G> {
    fn poll(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Fut::Output, StopReason>> {
        let answer = self.as_mut().poll_open(cx);
        if answer.is_ready() {
            self.set(Self::Over);
        }
        answer
    }

    fn poll_open(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<Fut::Output, StopReason>> {
        let FutureValveProjection::Open(future, mut signal) = self.project() else {
            panic!(
                "a future was polled after it was ready: poll it in an `async` block, or `fuse` it"
            );
        };
        // The signal is asked first, so that a future which is always ready cannot outrun it.
        signal.as_mut().look(0);
        if signal.as_mut().is_fired() {
            if let Poll::Ready(reason) = signal.as_mut().poll_fired(cx) {
                return Poll::Ready(Err(reason));
            }
        }
        match future.poll(cx) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            // A signal that fired during the poll is noticed here.
            Poll::Pending => signal.poll_fired(cx).map(Err),
        }
    }
}
