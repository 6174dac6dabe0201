//! What the cancel of a timer leaves to a task: callbacks and drops of others may do what the timer driver cannot bear.

use super::tree::{Foreign, Node};
use crate::first_panic::FirstPanic;
use std::{mem, sync::Arc};

/// In the order of their turns. They run when this is dropped, wherever that is: so a task that owns it runs them, and a
/// runtime that drops the task unrun cannot lose them.
#[derive(Default)]
pub(super) struct Deferred(Vec<Foreign>);

impl Deferred {
    /// Cancels a node that is over its deadline, wakes its waiters, and adds its callbacks to these.
    pub(super) fn expire(&mut self, node: &Node) {
        node.expire_and(&mut |foreign| self.0.push(foreign));
    }

    /// Drops a handle of a node. If it is the last one, the node is dropped with these.
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
        let add = &mut |foreign| deferred.0.push(foreign);
        self.node
            .cancel_and(reason.into(), std::panic::Location::caller(), add);
        deferred.drop_handle(self.node);
        deferred
    }
}
