use crate::{CancellationToken, StopReason};
use std::mem;

/// The token that is cancelled when its stream ends. Whoever does not ask for it has none.
///
/// It cancels nothing itself, and drops nothing that has no other owner: either might run anything, and the token
/// is borrowed.
pub(super) struct StreamToken {
    /// Until it is asked for, the token of the signal, if it is that of one.
    token: Option<CancellationToken>,
    state: State,
}

enum State {
    Unasked,
    Asked,
    /// For code that asks as late as that: what the body drops.
    Ended(StopReason),
}

impl StreamToken {
    pub(super) fn new(parent: Option<CancellationToken>) -> Self {
        Self {
            token: parent,
            state: State::Unasked,
        }
    }

    /// The token, and a reason to cancel it for if there is one.
    pub(super) fn get(&mut self) -> (CancellationToken, Option<StopReason>) {
        let token = match (&self.state, &self.token) {
            (State::Asked, Some(token)) => return (token.clone(), None),
            (_, Some(parent)) => parent.child_token(),
            (_, None) => CancellationToken::new(),
        };
        // The parent is kept by its child.
        self.token = Some(token.clone());
        match mem::replace(&mut self.state, State::Asked) {
            State::Ended(reason) => (token, Some(reason)),
            State::Unasked | State::Asked => (token, None),
        }
    }

    /// Keeps the reason for a later request. Gives it back if the token has been requested, or it has ended before.
    #[inline]
    pub(super) fn end_unasked(&mut self, reason: StopReason) -> Result<(), StopReason> {
        match self.state {
            State::Unasked => {
                self.state = State::Ended(reason);
                Ok(())
            }
            State::Asked | State::Ended(_) => Err(reason),
        }
    }

    /// What is to be cancelled, if it has been asked for.
    pub(super) fn asked(&self) -> Option<CancellationToken> {
        match self.state {
            State::Asked => self.token.clone(),
            State::Unasked | State::Ended(_) => None,
        }
    }
}
