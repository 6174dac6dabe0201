use super::{Signal, StreamEnd};
use crate::{CancellationToken, StopReason, first_panic::FirstPanic};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    task::{Context, Poll},
    thread,
};

/// The signal of `on_end`: wraps another signal, with the closure to call when the stream has ended.
//
// However a stream ends, it drops its signal after its source. So the drop of the signal makes the call.
#[pin_project]
pub struct OnEnd<G, F: FnOnce(Result<(), &StopReason>)> {
    /// Dropped before `signal`: the token does not settle before the call has returned.
    noted: Noted<F>,
    #[pin]
    signal: G,
}

impl<G, F: FnOnce(Result<(), &StopReason>)> OnEnd<G, F> {
    pub(crate) fn new(signal: G, call: F) -> Self {
        Self {
            noted: Noted {
                end: None,
                call: EndCall::new(call),
            },
            signal,
        }
    }

    pub(crate) fn signal(&self) -> &G {
        &self.signal
    }
}

impl<G: Signal, F: FnOnce(Result<(), &StopReason>)> Signal for OnEnd<G, F> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.project().signal.is_fired()
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.project().signal.poll_fired(cx)
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.signal.will_wake(cx)
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.project().signal.poll_fired_since(cx)
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.signal.needs_checks()
    }

    #[inline]
    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        self.project().signal.check_every(items)
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        self.project().signal.note_item();
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        self.project().signal.poll_fired_at_end(cx)
    }

    fn as_token(&self) -> Option<&CancellationToken> {
        self.signal.as_token()
    }

    fn note_end(self: Pin<&mut Self>, end: StreamEnd<'_>) {
        let noted = self.project().noted;
        match end {
            StreamEnd::Natural => noted.end = Some(Ok(())),
            StreamEnd::Stopped(reason) => noted.end = Some(Err(reason.clone())),
            StreamEnd::TakenBack => noted.call.disarm(),
        }
    }
}

impl<G, F: FnOnce(Result<(), &StopReason>)> Debug for OnEnd<G, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnEnd").finish_non_exhaustive()
    }
}

/// How the stream ended, kept until its source has been dropped and the call can be made.
struct Noted<F: FnOnce(Result<(), &StopReason>)> {
    end: Option<Result<(), StopReason>>,
    call: EndCall<F>,
}

impl<F: FnOnce(Result<(), &StopReason>)> Drop for Noted<F> {
    fn drop(&mut self) {
        if let Some(end) = self.end.take() {
            self.call.call(end.as_ref().copied());
        }
    }
}

/// A call that is made once. If it has not been made yet, its drop makes it: then the consumer has dropped the stream.
pub(crate) struct EndCall<F: FnOnce(Result<(), &StopReason>)>(Option<F>);

impl<F: FnOnce(Result<(), &StopReason>)> EndCall<F> {
    pub(crate) fn new(call: F) -> Self {
        Self(Some(call))
    }

    /// Makes no call.
    pub(crate) fn none() -> Self {
        Self(None)
    }

    pub(crate) fn disarm(&mut self) {
        self.0 = None;
    }

    pub(crate) fn call(&mut self, end: Result<(), &StopReason>) {
        let Some(call) = self.0.take() else {
            return;
        };
        if thread::panicking() {
            // A second panic would abort the process.
            let mut panic = FirstPanic::default();
            panic.catch(|| call(end));
            panic.resume();
        } else {
            call(end);
        }
    }
}

impl<F: FnOnce(Result<(), &StopReason>)> Drop for EndCall<F> {
    fn drop(&mut self) {
        self.call(Err(&StopReason::ConsumerDropped));
    }
}
