use super::Signal;
use crate::{CancellationToken, StopReason};
use pin_project::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The signal of an `Option`: `None` never fires.
#[pin_project]
#[derive(Clone, Debug)]
pub struct Optional<G>(#[pin] Option<G>);

impl<G> Optional<G> {
    pub(super) fn new(signal: Option<G>) -> Self {
        Self(signal)
    }
}

impl<G: Signal> Signal for Optional<G> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        let signal = self.project().0.as_pin_mut();
        signal.is_some_and(G::is_fired)
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired(cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.0.as_ref().is_none_or(|signal| signal.will_wake(cx))
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired_since(cx),
            None => Poll::Pending,
        }
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.0.as_ref().is_some_and(G::needs_checks)
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.project().0.as_pin_mut() {
            Some(signal) => signal.poll_fired_at_end(cx),
            None => Poll::Pending,
        }
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let signal = self.project().0.as_pin_mut();
        signal.map_or(u32::MAX, |signal| signal.check_every(items))
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        if let Some(signal) = self.project().0.as_pin_mut() {
            signal.note_item();
        }
    }

    fn as_token(&self) -> Option<&CancellationToken> {
        self.0.as_ref()?.as_token()
    }
}
