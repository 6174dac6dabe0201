use crate::{CancellationToken, StopReason};
use std::mem;

/// The token that is cancelled when its stream ends. Whoever does not ask for it has none.
pub(super) enum StreamToken {
    /// With the token of the signal, if it is that of one.
    Unasked(Option<CancellationToken>),
    Asked(CancellationToken),
    /// For who asks as late as that: what the body drops.
    Ended(StopReason),
}

impl StreamToken {
    /// Runs nothing foreign: what it lets go of is kept by the token that it makes.
    pub(super) fn get(&mut self) -> CancellationToken {
        let token = match self {
            Self::Unasked(Some(parent)) => parent.child_token(),
            Self::Unasked(None) => CancellationToken::new(),
            Self::Asked(token) => return token.clone(),
            Self::Ended(reason) => {
                let token = CancellationToken::new();
                token.cancel_with(reason.clone());
                token
            }
        };
        *self = Self::Asked(token.clone());
        token
    }

    /// What to cancel, or else to drop: either may run anything.
    pub(super) fn end(&mut self, reason: &StopReason) -> Option<Self> {
        let ended = match self {
            Self::Unasked(_) => Self::Ended(reason.clone()),
            // For who asks again.
            Self::Asked(token) => Self::Asked(token.clone()),
            Self::Ended(_) => return None,
        };
        Some(mem::replace(self, ended))
    }
}
