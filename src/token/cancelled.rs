use super::{CancellationToken, waiter::Waiter};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    task::{Context, Poll},
};

/// The future of [`CancellationToken::cancelled`].
#[must_use = "futures do nothing unless polled"]
pub struct Cancelled<'a>(Listening<&'a CancellationToken>);

impl<'a> Cancelled<'a> {
    #[inline]
    pub(super) fn new(token: &'a CancellationToken) -> Self {
        Self(Listening::new(token))
    }
}

impl Future for Cancelled<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

impl Debug for Cancelled<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancelled").field(self.0.token).finish()
    }
}

/// The future of [`CancellationToken::cancelled_owned`].
#[must_use = "futures do nothing unless polled"]
pub struct CancelledOwned(Listening<CancellationToken>);

impl CancelledOwned {
    #[inline]
    pub(super) fn new(token: CancellationToken) -> Self {
        Self(Listening::new(token))
    }

    pub(crate) fn token(&self) -> &CancellationToken {
        &self.0.token
    }
}

impl Future for CancelledOwned {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

impl Debug for CancelledOwned {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelledOwned")
            .field(&self.0.token)
            .finish()
    }
}

/// A token and a registration among its listeners. Everything that waits for a token is made of this.
pub(crate) struct Listening<T: Borrow<CancellationToken>> {
    pub(crate) token: T,
    waiter: Waiter,
}

impl<T: Borrow<CancellationToken>> Listening<T> {
    #[inline]
    pub(crate) fn new(token: T) -> Self {
        Self {
            token,
            waiter: Waiter::default(),
        }
    }

    #[inline]
    pub(crate) fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.waiter.poll(&self.token.borrow().node, cx)
    }

    /// Like `poll`, for a caller whose check in the same poll has found that the token is not cancelled.
    #[inline(always)]
    pub(crate) fn poll_after_check(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.waiter.poll_after_check(&self.token.borrow().node, cx)
    }

    /// Whether this waker is woken when the token is cancelled, for a caller whose check in the same poll has found
    /// that it is not. Always `false` if the token has a deadline.
    #[inline]
    pub(crate) fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.waiter.will_wake(cx)
    }
}

impl<T: Borrow<CancellationToken>> Drop for Listening<T> {
    #[inline]
    fn drop(&mut self) {
        self.waiter.unregister(&self.token.borrow().node);
    }
}
