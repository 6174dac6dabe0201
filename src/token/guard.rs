use super::CancellationToken;
use crate::StopReason;
use std::{
    borrow::Borrow,
    mem,
    panic::{AssertUnwindSafe, Location},
};

/// Cancels its token when dropped. Made by [`CancellationToken::drop_guard`] and
/// [`drop_guard_with`](CancellationToken::drop_guard_with).
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuard(Guard<CancellationToken>);

impl DropGuard {
    #[track_caller]
    pub(super) fn new(token: CancellationToken, reason: StopReason) -> Self {
        Self(Guard::new(token, reason))
    }

    /// Consumes the guard without cancelling, and returns the token.
    ///
    /// tokio-util's guard has the same method.
    pub fn disarm(self) -> CancellationToken {
        self.0.disarm()
    }
}

/// Cancels a borrowed token when dropped. Made by [`CancellationToken::drop_guard_ref`].
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuardRef<'a>(Guard<&'a CancellationToken>);

impl<'a> DropGuardRef<'a> {
    #[track_caller]
    pub(super) fn new(token: &'a CancellationToken) -> Self {
        Self(Guard::new(token, StopReason::Cancelled))
    }

    /// Consumes the guard without cancelling, and returns the token.
    pub fn disarm(self) -> &'a CancellationToken {
        self.0.disarm()
    }
}

#[derive(Debug)]
struct Guard<T: Borrow<CancellationToken>> {
    /// `None` once disarmed.
    token: Option<T>,
    // Only the drop uses it, so a guard is unwind safe with any error in it.
    reason: AssertUnwindSafe<StopReason>,
    made_at: &'static Location<'static>,
}

impl<T: Borrow<CancellationToken>> Guard<T> {
    #[track_caller]
    fn new(token: T, reason: StopReason) -> Self {
        Self {
            token: Some(token),
            reason: AssertUnwindSafe(reason),
            made_at: Location::caller(),
        }
    }

    fn disarm(mut self) -> T {
        match self.token.take() {
            Some(token) => token,
            None => unreachable!("only `disarm` takes the token, and it takes the guard as well"),
        }
    }
}

impl<T: Borrow<CancellationToken>> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            let reason = mem::replace(&mut self.reason.0, StopReason::Cancelled);
            token.borrow().node.cancel(reason, self.made_at);
        }
    }
}
