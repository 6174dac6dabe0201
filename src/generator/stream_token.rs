use crate::{CancellationToken, StopReason};
use std::mem;

/// The token that is cancelled when its stream ends. It is made when the body requests it.
///
/// No method cancels, or drops the last handle of anything: that may run foreign code, and the `StreamToken` is
/// borrowed.
pub(super) struct StreamToken {
    /// Until it is requested: the parent, if the signal is a token.
    token: Option<CancellationToken>,
    state: State,
}

enum State {
    Unrequested,
    Requested,
    /// Ended before it was requested. The body's locals may still do so when they are dropped.
    Ended(StopReason),
}

impl StreamToken {
    pub(super) fn new(parent: Option<CancellationToken>) -> Self {
        Self {
            token: parent,
            state: State::Unrequested,
        }
    }

    /// The token, and the reason for which it is to be cancelled, if it has ended.
    pub(super) fn get(&mut self) -> (CancellationToken, Option<StopReason>) {
        let token = match (&self.state, &self.token) {
            (State::Requested, Some(token)) => return (token.clone(), None),
            (_, Some(parent)) => parent.child_token(),
            (_, None) => CancellationToken::new(),
        };
        // The child keeps the parent alive.
        self.token = Some(token.clone());
        match mem::replace(&mut self.state, State::Requested) {
            State::Ended(reason) => (token, Some(reason)),
            State::Unrequested | State::Requested => (token, None),
        }
    }

    /// Stores the reason for a later request. Returns it as an `Err` if the token has been requested, or has ended
    /// before.
    #[inline]
    pub(super) fn end_unless_requested(&mut self, reason: StopReason) -> Result<(), StopReason> {
        match self.state {
            State::Unrequested => {
                self.state = State::Ended(reason);
                Ok(())
            }
            State::Requested | State::Ended(_) => Err(reason),
        }
    }

    /// The token, if it has been requested before the end.
    pub(super) fn requested(&self) -> Option<CancellationToken> {
        match self.state {
            State::Requested => self.token.clone(),
            State::Unrequested | State::Ended(_) => None,
        }
    }
}
