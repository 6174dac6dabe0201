use super::{CancellationToken, HeldToken, Listed, is_tracked_anywhere};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    panic::Location,
};

/// Keeps [`settled`](CancellationToken::settled) waiting until it is dropped. Made by [`CancellationToken::hold`].
///
/// Like a clone, it keeps the token alive. A clone of a hold counts as well. It is what `TaskTrackerToken` is in
/// tokio-util.
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold {
    _listed: Option<Listed>,
    token: HeldToken,
}

impl Hold {
    #[track_caller]
    pub(crate) fn new(token: CancellationToken, what: &'static str) -> Self {
        let location = Location::caller();
        let token = HeldToken::new(token);
        let listed = is_tracked_anywhere().then(|| Listed::new(token.borrow(), what, location));
        Self {
            _listed: listed.flatten(),
            token,
        }
    }

    fn token(&self) -> &CancellationToken {
        self.token.borrow()
    }
}

impl Clone for Hold {
    #[track_caller]
    fn clone(&self) -> Self {
        Self::new(self.token().clone(), "hold")
    }
}

impl Debug for Hold {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(self.token()).finish()
    }
}
