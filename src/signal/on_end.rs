use super::{Signal, StreamEnd};
use crate::{CancellationToken, StopReason, first_panic::FirstPanic};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    mem,
    pin::Pin,
    task::{Context, Poll},
    thread,
};

/// The signal of `on_end`: another one, and what to call when the stream has ended.
//
// A stream drops its signal after its source, whatever ended it. So the call is made where the signal is dropped.
#[pin_project]
pub struct OnEnd<G, F: FnOnce(Result<(), &StopReason>)> {
    /// In this order they are dropped: the token has not settled before the call has returned.
    call: EndCall<F>,
    #[pin]
    signal: G,
}

impl<G, F: FnOnce(Result<(), &StopReason>)> OnEnd<G, F> {
    pub(crate) fn new(signal: G, call: F) -> Self {
        Self {
            call: EndCall::new(call),
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
        self.project().call.note(end);
    }
}

impl<G, F: FnOnce(Result<(), &StopReason>)> Debug for OnEnd<G, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("OnEnd").finish_non_exhaustive()
    }
}

/// A call that is made when this is dropped, unless the source was taken back.
pub(crate) struct EndCall<F: FnOnce(Result<(), &StopReason>)> {
    call: Option<F>,
    end: Result<(), StopReason>,
}

impl<F: FnOnce(Result<(), &StopReason>)> EndCall<F> {
    pub(crate) fn new(call: F) -> Self {
        Self {
            call: Some(call),
            // Unless something else is noted before it is dropped.
            end: Err(StopReason::ConsumerDropped),
        }
    }

    pub(crate) fn note(&mut self, end: StreamEnd<'_>) {
        match end {
            StreamEnd::Natural => self.end = Ok(()),
            StreamEnd::Stopped(reason) => self.end = Err(reason.clone()),
            StreamEnd::TakenBack => self.call = None,
        }
    }
}

impl<F: FnOnce(Result<(), &StopReason>)> Drop for EndCall<F> {
    fn drop(&mut self) {
        let Some(call) = self.call.take() else {
            return;
        };
        let end = mem::replace(&mut self.end, Ok(()));
        let call = || call(end.as_ref().copied());
        if thread::panicking() {
            // A second panic would abort the process.
            let mut panic = FirstPanic::default();
            panic.catch(call);
            panic.resume();
        } else {
            call();
        }
    }
}
