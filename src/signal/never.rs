use super::Signal;
use crate::StopReason;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// The signal of [`never()`](fn@super::never).
#[derive(Clone, Debug)]
pub struct Never(());

impl Never {
    pub(super) fn new() -> Self {
        Self(())
    }
}

impl Signal for Never {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        false
    }

    #[inline]
    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        Poll::Pending
    }

    #[inline]
    fn will_wake(&self, _: &Context<'_>) -> bool {
        true
    }

    #[inline]
    fn needs_checks(&self) -> bool {
        false
    }
}
