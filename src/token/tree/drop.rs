//! Dropping a node, and the ancestors that it alone keeps alive, in a loop.

use super::{
    cancel::{Foreign, notify},
    node::{Listener, Node},
};
use crate::{first_panic::FirstPanic, token::listeners::Taken};
use std::{
    mem,
    sync::{Arc, PoisonError},
};

impl Drop for Node {
    fn drop(&mut self) {
        let mut rest = Vec::new();
        let parent = self.unlink(&mut rest).and_then(Arc::into_inner);
        if parent.is_some() || !rest.is_empty() {
            drop_chain(parent, rest);
        }
    }
}

/// Drops a node whose last handle was in a child, then its parents if that was the last handle of these, and so on up
/// the tree, in a loop.
#[cold]
fn drop_chain(first: Option<Node>, mut rest: Vec<Arc<Node>>) {
    let mut parent = first.and_then(|node| node.into_parent(&mut rest));
    while let Some(handle) = parent.or_else(|| rest.pop()) {
        parent = Arc::into_inner(handle).and_then(|node| node.into_parent(&mut rest));
    }
}

impl Node {
    fn into_parent(mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let parent = self.unlink(rest);
        // Nothing else in it has to be dropped, and it must not be unlinked twice.
        let guarded = mem::take(&mut self.guarded);
        mem::forget(self);
        drop(guarded);
        parent
    }

    /// For a node that is being dropped: removes it from its parents' lists, and returns the parents: one as the
    /// result, the others in `rest`.
    #[inline(always)]
    fn unlink(&mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let guarded = self.guarded.get_mut();
        let listeners = &mut guarded.unwrap_or_else(PoisonError::into_inner).listeners;
        if !listeners.is_empty() {
            let listeners = listeners.take();
            return self.unlink_with(listeners, rest);
        }
        self.ancestry.unlink(rest)
    }

    #[cold]
    fn unlink_with(
        &mut self,
        listeners: Taken<Listener>,
        rest: &mut Vec<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let mut panic = FirstPanic::default();
        panic.catch(|| self.drop_listeners(listeners));
        let parent = self.ancestry.unlink(rest);
        panic.resume();
        parent
    }

    /// Drops the listeners of a node that is being dropped. If the node was cancelled, but no cancel has reached its
    /// callbacks yet, they run here: a check or a deadline notifies no listener, and the walk of a cancel no longer
    /// finds this node.
    fn drop_listeners(&self, listeners: Taken<Listener>) {
        let mut parents = self.ancestry.links().iter();
        let is_known = self.is_closed() || parents.any(|link| link.parent.is_known_cancelled());
        let outcome = match is_known || self.is_past_deadline() {
            true => self.resolve_outcome(),
            false => None,
        };
        if let Some(outcome) = outcome {
            return notify(outcome, listeners, &mut Foreign::run);
        }
        let mut panic = FirstPanic::default();
        for listener in listeners {
            panic.catch(|| drop(listener));
        }
        panic.resume();
    }
}
