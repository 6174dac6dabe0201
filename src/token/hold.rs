use super::{CancellationToken, HeldToken};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
};

/// Keeps [`settled`](CancellationToken::settled) waiting until it is dropped: what [`CancellationToken::hold`] makes.
///
/// It keeps the token, as a clone does. A clone is a hold of its own.
#[must_use = "a hold that is dropped at once holds nothing"]
pub struct Hold(HeldToken);

impl Hold {
    pub(crate) fn new(token: CancellationToken) -> Self {
        Self(HeldToken::new(token))
    }

    fn token(&self) -> &CancellationToken {
        self.0.borrow()
    }
}

impl Clone for Hold {
    fn clone(&self) -> Self {
        Self::new(self.token().clone())
    }
}

impl Debug for Hold {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Hold").field(self.token()).finish()
    }
}
