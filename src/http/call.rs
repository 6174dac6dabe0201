use crate::{StopReason, future::FutureValve, signal::TokenSignal};
use pin_project::pin_project;
use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// A call of the inner service.
#[pin_project(project = CallProjection)]
pub(super) enum Call<Fut> {
    Guarded(#[pin] FutureValve<Fut, TokenSignal>),
    Unguarded(#[pin] Fut),
    /// The call was not made, because the token was already cancelled.
    Stopped(StopReason),
}

impl<Fut> Call<Fut> {
    /// Makes a call that `signal` stops.
    pub(super) fn guarded(signal: TokenSignal, call: impl FnOnce() -> Fut) -> Self {
        match signal.token().stop_reason() {
            Some(reason) => Self::Stopped(reason),
            None => Self::Guarded(FutureValve::Open(call(), signal)),
        }
    }
}

impl<Fut: Future> Call<Fut> {
    /// Polls the call, and maps its output by `then` before the call is dropped, so that a holder which `then` makes
    /// counts for `settled` without a gap.
    pub(super) fn poll_then<R>(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        then: impl FnOnce(Fut::Output) -> R,
    ) -> Poll<Result<R, StopReason>> {
        match self.project() {
            CallProjection::Guarded(valve) => valve.poll_then(cx, then),
            CallProjection::Unguarded(call) => call.poll(cx).map(then).map(Ok),
            CallProjection::Stopped(reason) => Poll::Ready(Err(reason.clone())),
        }
    }
}
