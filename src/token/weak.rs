use super::{CancellationToken, tree::Node};
use std::sync::{Arc, Weak};

/// Does not keep the token: for what watches a token's signal, and ends with the last handle.
pub(crate) struct WeakToken(Weak<Node>);

impl WeakToken {
    pub(crate) fn of(token: &CancellationToken) -> Self {
        Self(Arc::downgrade(&token.node))
    }

    /// `None` once the last handle of the token and of those below it has been dropped.
    pub(crate) fn upgrade(&self) -> Option<CancellationToken> {
        self.0.upgrade().map(|node| CancellationToken { node })
    }
}
