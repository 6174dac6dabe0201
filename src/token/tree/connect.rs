//! How a listener is inserted so that a cancel of any ancestor reaches it.

use super::{
    ancestors::Ancestors,
    node::{Listener, Node},
};
use std::{iter, sync::Arc};

impl Node {
    /// Inserts a listener that a cancel of this node or of any ancestor notifies, or returns it as an `Err` if one of
    /// them is cancelled.
    #[inline(always)]
    pub(crate) fn add(self: &Arc<Self>, listener: Listener) -> Result<u64, Listener> {
        let key = self.insert(listener)?;
        if self.ensure_connected() {
            return Ok(key);
        }
        // If a cancel has taken the listener already, that cancel notifies it.
        self.remove(key).map_or(Ok(key), Err)
    }

    /// Makes sure that a cancel of any ancestor reaches this node; `false` if one has been cancelled.
    #[inline(always)]
    pub(crate) fn ensure_connected(self: &Arc<Self>) -> bool {
        self.is_connected() || self.connect()
    }

    #[inline(never)]
    fn connect(self: &Arc<Self>) -> bool {
        let is_listed = |node: &Arc<Self>| node.ancestry.links().iter().all(|link| link.list(node));
        if !self.unconnected().all(is_listed) {
            return false;
        }
        // So that the next listener needs no walk.
        self.unconnected().for_each(|node| node.set_connected());
        true
    }

    /// This node and its ancestors, except connected nodes and all the ancestors of those.
    fn unconnected(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        let mut next = Some(self);
        let mut above = Ancestors::of(self);
        iter::from_fn(move || {
            loop {
                let node = next.take().or_else(|| above.next())?;
                if !node.is_connected() {
                    return Some(node);
                }
                above.skip_parents();
            }
        })
    }
}
