//! What the cancel of a timer leaves to a task: callbacks and drops of others may do what the timer driver cannot bear.

use super::tree::{Foreign, Node};
use crate::{StopReason, first_panic::FirstPanic};
use std::{mem, panic::Location, sync::Arc};

/// In the order of their turns. They run when this is dropped, wherever that is: so a task that owns it runs them, and a
/// runtime that drops the task unrun cannot lose them.
#[derive(Default)]
pub(super) struct Deferred(Vec<Foreign>);

impl Deferred {
    /// Cancels a node, wakes its waiters, and adds its callbacks to these.
    // A deadline that is over has its reason and its location from the node: these are of no account then.
    #[track_caller]
    pub(super) fn cancel(&mut self, node: &Arc<Node>, reason: StopReason) {
        let add = &mut |foreign| self.0.push(foreign);
        node.cancel_and(reason, Location::caller(), add);
    }

    /// Drops a handle of a node. If it is the last one, the node is dropped with these.
    #[cfg(any(feature = "tokio", stopcock_loom))]
    pub(super) fn drop_handle(&mut self, node: Arc<Node>) {
        self.0.extend(Foreign::of_handle(node));
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let mut panic = FirstPanic::default();
        for foreign in mem::take(&mut self.0) {
            panic.catch(|| match foreign {
                // The outcome as well: this may be the last that has it, and its error may panic when it is dropped.
                Foreign::Callback(callback, outcome) => callback.run_at_deadline(&outcome.reason),
                Foreign::Last(node) => drop(node),
            });
        }
        panic.resume();
    }
}

#[cfg(all(test, stopcock_loom))]
impl super::CancellationToken {
    /// Cancels it as a timer does, and drops this handle. What comes back is what a task is to drop.
    pub(crate) fn cancel_as_a_timer(self, reason: &'static str) -> impl Send + 'static {
        let mut deferred = Deferred::default();
        deferred.cancel(&self.node, reason.into());
        deferred.drop_handle(self.node);
        deferred
    }
}
