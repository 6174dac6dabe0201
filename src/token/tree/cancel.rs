//! Cancelling a node, and notifying the listeners in and below it.

use super::{
    node::{Listener, Node},
    outcome::Outcome,
    resolve::{Origin, Resolved},
};
use crate::{
    StopReason,
    first_panic::FirstPanic,
    token::{Callback, listeners::Taken},
};
use std::{mem, panic::Location, sync::Arc};

impl Node {
    /// Cancels the subtree and notifies every listener in it. Returns whether this call won.
    pub(crate) fn cancel(
        self: &Arc<Self>,
        reason: StopReason,
        location: &'static Location<'static>,
    ) -> bool {
        self.cancel_and(reason, location, &mut Foreign::run)
    }

    /// The same, with `run` to run foreign code.
    pub(crate) fn cancel_and(
        self: &Arc<Self>,
        reason: StopReason,
        location: &'static Location<'static>,
        run: &mut Run<'_>,
    ) -> bool {
        // If an ancestor is cancelled already, its outcome comes first. A reason that loses to it, or to another cancel
        // of this node, is kept until all listeners are notified, as its error may panic when it is dropped.
        let (outcome, _lost) = match self.outcome() {
            Some(inherited) => (inherited, Some(reason)),
            None => (Outcome::new(reason, location), None),
        };
        self.close_and_notify(outcome, run)
    }

    /// Cancels a node whose deadline has passed. Called by its timer.
    pub(crate) fn expire_and(&self, run: &mut Run<'_>) {
        let outcome = match self.is_known_cancelled() {
            true => self.resolve_outcome(),
            false => self.expire(),
        };
        if let Some(outcome) = outcome {
            self.close_and_notify(outcome, run);
        }
    }

    fn close_and_notify(&self, outcome: Arc<Outcome>, run: &mut Run<'_>) -> bool {
        let (earlier, listeners) = self.close(&outcome, Origin::Own);
        let won = earlier.is_none();
        // A cancel that lost notifies as well: the outcome may come from a check, which notifies no listener.
        let in_force = earlier.unwrap_or_else(|| Arc::clone(&outcome));
        notify(in_force, listeners, run);
        won
    }

    /// Sets `outcome`, unless the node has an earlier one, which is returned. Takes the listeners.
    #[inline]
    fn close(
        &self,
        outcome: &Arc<Outcome>,
        origin: Origin,
    ) -> (Option<Arc<Outcome>>, Taken<Listener>) {
        let mut guarded = self.lock();
        let earlier = self.set_outcome(&mut guarded, outcome, origin);
        let listeners = guarded.listeners.take();
        drop(guarded);
        #[cfg(feature = "tokio")]
        if let Some(special) = self.ancestry.special() {
            special.timer.clear();
        }
        (earlier, listeners)
    }
}

/// Foreign code that a cancel runs, except wakers. The timer driver must not run it.
pub(crate) enum Foreign {
    /// A callback, and the outcome with whose reason it is called.
    Callback(Callback, Arc<Outcome>),
    /// A node whose last handle the cancel had. Its drop also drops the callbacks of ancestors that it alone keeps
    /// alive.
    LastHandle(Node),
}

impl Foreign {
    /// Drops a handle of a node, or returns the node if it is the last one.
    pub(crate) fn of_handle(node: Arc<Node>) -> Option<Self> {
        Arc::into_inner(node).map(Self::LastHandle)
    }

    /// Runs it on the current thread, which cancels.
    pub(super) fn run(self) {
        match self {
            Self::Callback(callback, outcome) => callback.run(&outcome.reason),
            Self::LastHandle(node) => drop(node),
        }
    }
}

/// Called by a cancel for each of these.
pub(crate) type Run<'a> = dyn FnMut(Foreign) + 'a;

/// Notifies all listeners of a subtree, depth first: of a child all its descendants, then the next listener.
pub(super) fn notify(outcome: Arc<Outcome>, listeners: Taken<Listener>, run: &mut Run<'_>) {
    let mut panic = FirstPanic::default();
    // The rest of the listeners of the nodes above, each with the outcome there if it is not the current one.
    let mut above: Vec<(Option<Arc<Outcome>>, Taken<Listener>)> = Vec::new();
    let mut resolved = Resolved::default();
    let mut outcome = outcome;
    let mut listeners = listeners;
    loop {
        match listeners.next() {
            Some(Listener::Waker(waker)) => panic.catch(|| waker.wake()),
            Some(Listener::Callback(callback)) => {
                let callback = Foreign::Callback(callback, Arc::clone(&outcome));
                panic.catch(|| run(callback));
            }
            Some(Listener::Child(child)) => {
                let Some(child) = child.upgrade() else {
                    continue;
                };
                if child.ancestry.special().is_some() {
                    // Its deadline or another parent may have come first.
                    child.resolve_outcome_except(&mut resolved);
                }
                // A chain has no further listeners, so its depth costs no memory.
                if !listeners.is_empty() {
                    above.push((None, mem::take(&mut listeners)));
                }
                let earlier;
                (earlier, listeners) = child.close(&outcome, Origin::Parent);
                if let Some(last) = Foreign::of_handle(child) {
                    panic.catch(|| run(last));
                }
                if let Some(earlier) = earlier {
                    let outcome_above = mem::replace(&mut outcome, earlier);
                    match above.last_mut() {
                        Some((saved @ None, _)) => *saved = Some(outcome_above),
                        _ => panic.catch(|| drop(outcome_above)),
                    }
                }
            }
            None => match above.pop() {
                Some((outcome_above, rest)) => {
                    listeners = rest;
                    if let Some(outcome_above) = outcome_above {
                        let done = mem::replace(&mut outcome, outcome_above);
                        panic.catch(|| drop(done));
                    }
                }
                None => break,
            },
        }
    }
    panic.catch(|| drop(outcome));
    panic.resume();
}
