use super::CancellationToken;
use std::borrow::Borrow;

/// Cancels its token when dropped: what [`CancellationToken::drop_guard`] makes.
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuard(Guard<CancellationToken>);

impl DropGuard {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self(Guard(Some(token)))
    }

    /// Gives the token back, not cancelled by this guard any more.
    pub fn disarm(self) -> CancellationToken {
        self.0.disarm()
    }
}

/// Cancels a borrowed token when dropped: what [`CancellationToken::drop_guard_ref`] makes.
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuardRef<'a>(Guard<&'a CancellationToken>);

impl<'a> DropGuardRef<'a> {
    pub(super) fn new(token: &'a CancellationToken) -> Self {
        Self(Guard(Some(token)))
    }

    /// Gives the token back, not cancelled by this guard any more.
    pub fn disarm(self) -> &'a CancellationToken {
        self.0.disarm()
    }
}

/// `None` once disarmed.
#[derive(Debug)]
struct Guard<T: Borrow<CancellationToken>>(Option<T>);

impl<T: Borrow<CancellationToken>> Guard<T> {
    fn disarm(mut self) -> T {
        match self.0.take() {
            Some(token) => token,
            None => unreachable!("only `disarm` takes the token, and it takes the guard as well"),
        }
    }
}

impl<T: Borrow<CancellationToken>> Drop for Guard<T> {
    fn drop(&mut self) {
        if let Some(token) = &self.0 {
            token.borrow().cancel();
        }
    }
}
