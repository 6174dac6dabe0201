use crate::{CancelSignal, CancellationToken, Signal, StopReason, signal::TokenSignal};
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The signal of a body: the signal of its token, until the body is complete.
pub(super) enum BodySignal {
    Armed(TokenSignal),
    /// Never fires, and does not count for `settled`.
    Released(CancellationToken),
}

impl BodySignal {
    pub(super) fn release(&mut self) {
        *self = Self::Released(self.token().clone());
    }
}

impl Signal for BodySignal {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        match self.get_mut() {
            Self::Armed(signal) => Pin::new(signal).is_fired(),
            Self::Released(_) => false,
        }
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.get_mut() {
            Self::Armed(signal) => Pin::new(signal).poll_fired(cx),
            Self::Released(_) => Poll::Pending,
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        match self {
            Self::Armed(signal) => signal.will_wake(cx),
            Self::Released(_) => true,
        }
    }

    #[inline]
    fn poll_fired_since(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.get_mut() {
            Self::Armed(signal) => Pin::new(signal).poll_fired_since(cx),
            Self::Released(_) => Poll::Pending,
        }
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        self.token().has_deadline()
    }

    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.get_mut() {
            Self::Armed(signal) => Pin::new(signal).poll_fired_at_end(cx),
            Self::Released(_) => Poll::Pending,
        }
    }

    #[inline]
    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        match self.get_mut() {
            Self::Armed(signal) => Pin::new(signal).check_every(items),
            Self::Released(_) => u32::MAX,
        }
    }

    fn as_token(&self) -> Option<&CancellationToken> {
        Some(self.token())
    }
}

impl CancelSignal for BodySignal {
    fn token(&self) -> &CancellationToken {
        match self {
            Self::Armed(signal) => signal.token(),
            Self::Released(token) => token,
        }
    }
}
