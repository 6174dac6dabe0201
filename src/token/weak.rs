use super::{CancellationToken, tree::Node};
use std::sync::{Arc, Weak};

/// A handle that does not keep the token alive: for a task that watches a signal, and ends when the last handle is
/// dropped.
pub(crate) struct WeakToken(Weak<Node>);

impl WeakToken {
    pub(crate) fn of(token: &CancellationToken) -> Self {
        Self(Arc::downgrade(&token.node))
    }

    /// `None` once the last handle of the token and of its descendants has been dropped.
    pub(crate) fn upgrade(&self) -> Option<CancellationToken> {
        self.0.upgrade().map(|node| CancellationToken { node })
    }
}
