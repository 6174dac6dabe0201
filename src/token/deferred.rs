//! The foreign code that the cancel by a timer leaves to a task: callbacks and drops that must not run in the timer
//! driver.

use super::tree::{Foreign, Node};
use crate::first_panic::FirstPanic;
use std::{mem, sync::Arc};

/// Foreign code in the order in which it is to run. It runs when this is dropped, on any thread: so a task that owns
/// this runs it, and it is not lost if a runtime drops the task without running it.
#[derive(Default)]
pub(super) struct Deferred(Vec<Foreign>);

impl Deferred {
    /// Cancels a node whose deadline has passed, wakes its waiters, and adds its callbacks to the list.
    pub(super) fn expire(&mut self, node: &Node) {
        node.expire_and(&mut |foreign| self.0.push(foreign));
    }

    /// Drops a handle of a node. If it is the last one, adds the node to the list, which drops it.
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
                // Drops the outcome inside the `catch` too: this may be its last handle, and its error may panic then.
                Foreign::Callback(callback, outcome) => callback.run_at_deadline(&outcome.reason),
                Foreign::LastHandle(node) => drop(node),
            });
        }
        panic.resume();
    }
}

#[cfg(all(test, stopcock_loom))]
impl super::CancellationToken {
    /// Cancels the token like a timer, and drops this handle. Returns what a task has to drop.
    pub(crate) fn cancel_as_a_timer(self, reason: &'static str) -> impl Send + 'static {
        let mut deferred = Deferred::default();
        let add = &mut |foreign| deferred.0.push(foreign);
        self.node
            .cancel_and(reason.into(), std::panic::Location::caller(), add);
        deferred.drop_handle(self.node);
        deferred
    }
}
