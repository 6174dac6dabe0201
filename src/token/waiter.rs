use super::{
    listeners::NO_KEY,
    tree::{Listener, Node},
};
use crate::waker_id::WakerId;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A future's place in a node's list.
#[derive(Default)]
pub(super) struct Waiter {
    key: u64,
    /// The waker of which a clone is listed; marked, if the node has a deadline. A poll that finds the node open finds the
    /// clone still there.
    registered: WakerId,
}

impl Waiter {
    /// Ready once the node is cancelled; until then `cx`'s waker, the latest one, is listed.
    #[inline]
    pub(super) fn poll(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        if node.is_cancelled() {
            Poll::Ready(())
        } else if self.registered.is_of(cx.waker()) {
            Poll::Pending
        } else {
            self.register(node, cx.waker())
        }
    }

    /// Like `poll`, if a check in this very poll of the stream has found the node open, all the way up.
    ///
    /// It need not be checked again. A waker that gets into the list is woken by whatever cancel comes, or is on its way:
    /// invariants 5 and 6 of the tree. Where a cancel of the node or of an ancestor has been here already, or cannot come
    /// here, the waker does not get in.
    ///
    /// That is for cancels, as with [`will_wake`](Self::will_wake).
    #[inline(always)]
    pub(super) fn poll_after_check(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        match node.has_deadline() {
            true => self.poll_with_clock(node, cx),
            false => self.register(node, cx.waker()),
        }
    }

    /// The same as `poll`, not in each place that has no use for it.
    #[inline(never)]
    fn poll_with_clock(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        self.poll(node, cx)
    }

    /// Whether a cancel wakes this waker, if a check in this very poll has found the node open, all the way up.
    ///
    /// The waker has been listed by an earlier poll, so that a cancel of the node or of an ancestor takes it, once, and
    /// wakes it after that; and before that, it has closed the node that it cancels. If the wake-up came before this
    /// poll began, the poll has seen what was done before it: the check would have found that node closed. So the
    /// wake-up is still to come, or has come since the poll began, and is the reason for another poll.
    ///
    /// That is for cancels. A deadline may pass with nobody to wake, once its runtime has ended: it is never so of a node
    /// that has one.
    #[inline]
    pub(super) fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.registered == WakerId::of(cx.waker())
    }

    #[inline(never)]
    fn register(&mut self, node: &Arc<Node>, waker: &Waker) -> Poll<()> {
        // Cloned here and the earlier one dropped at the end, both without the lock: they may run anything.
        let clone = waker.clone();
        let id = match node.has_deadline() {
            false => WakerId::kept_by(&clone, waker),
            true => WakerId::kept_by(&clone, waker).marked(),
        };
        if self.key == NO_KEY {
            match node.add(Listener::Waker(clone)) {
                Ok(key) => self.key = key,
                Err(_) => return Poll::Ready(()),
            }
            self.registered = id;
        } else {
            let replaced = node.replace(self.key, Listener::Waker(clone));
            // Taken by a cancel.
            if replaced.is_err() {
                return Poll::Ready(());
            }
            // Before the earlier waker goes, whose drop may panic.
            self.registered = id;
        }
        Poll::Pending
    }

    /// Leaves the list, as the last thing.
    #[inline]
    pub(super) fn leave(&self, node: &Node) {
        if self.key != NO_KEY {
            leave_list(self.key, node);
        }
    }
}

#[inline(never)]
fn leave_list(key: u64, node: &Node) {
    // The cancel takes the list, if it has not already. (A check that finds a deadline over does not.)
    if node.is_closed() && !node.has_deadline() {
        return;
    }
    let listener = node.remove(key);
    // What it is as a rule, without the question which of all it is.
    if let Some(Listener::Waker(waker)) = listener {
        drop(waker);
    }
}
