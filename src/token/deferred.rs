//! The callbacks of a cancel that runs none: a timer's, as what they do would not do in the driver of all timers.

use super::{
    Callback,
    tree::{Node, Verdict},
};
use crate::{StopReason, first_panic::FirstPanic};
use std::{mem, panic::Location, sync::Arc};

/// Callbacks in the order of their turns. They run when this is dropped, wherever that is: so a task that owns it runs
/// them, and a runtime that drops the task unrun cannot lose them.
#[derive(Default)]
pub(super) struct Deferred(Vec<(Box<dyn Callback>, Arc<Verdict>)>);

impl Deferred {
    /// Cancels a node, tells all others, and adds its callbacks to these.
    // A deadline that is over has its reason and its location from the node: these are of no account then.
    #[track_caller]
    pub(super) fn cancel(&mut self, node: &Arc<Node>, reason: StopReason) {
        node.cancel_and(reason, Location::caller(), &mut |callback, verdict| {
            self.0.push((callback, Arc::clone(verdict)));
        });
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl Drop for Deferred {
    fn drop(&mut self) {
        let mut panic = FirstPanic::default();
        for (callback, verdict) in mem::take(&mut self.0) {
            // The verdict as well: this may be the last that has it, and its error may panic when it is dropped.
            panic.catch(move || callback.run_at_deadline(&verdict.reason));
        }
        panic.resume();
    }
}

#[cfg(all(test, stopcock_loom))]
impl super::CancellationToken {
    /// Cancels it as a timer does. What comes back is what a task is to drop.
    pub(crate) fn cancel_as_a_timer(&self, reason: &'static str) -> impl Send + 'static {
        let mut deferred = Deferred::default();
        deferred.cancel(&self.node, reason.into());
        deferred
    }
}
