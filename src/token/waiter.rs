use super::{
    listeners::NO_KEY,
    tree::{Listener, Node},
};
use crate::waker_id::WakerId;
use std::{
    mem,
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// A future's place in a node's list.
#[derive(Default)]
pub(super) struct Waiter {
    key: u64,
    /// The waker of which a clone is listed. A poll that finds the node open finds the clone still there.
    registered: WakerId,
}

impl Waiter {
    /// Ready once the node is cancelled; until then `cx`'s waker, the latest one, is listed.
    #[inline]
    pub(super) fn poll(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        if self.registered == WakerId::of(cx.waker()) && !node.is_cancelled() {
            return Poll::Pending;
        }
        self.register(node, cx.waker())
    }

    #[inline(never)]
    fn register(&mut self, node: &Arc<Node>, waker: &Waker) -> Poll<()> {
        if node.is_too_late_to_add() {
            return Poll::Ready(());
        }
        // Cloned here and the earlier one dropped at the end, both without the lock: they may run anything.
        let clone = waker.clone();
        let id = WakerId::kept_by(&clone, waker);
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

    /// Leaves the list.
    #[inline]
    pub(super) fn leave(&mut self, node: &Node) {
        if self.key != NO_KEY {
            self.leave_list(node);
        }
    }

    #[inline(never)]
    fn leave_list(&mut self, node: &Node) {
        let key = mem::take(&mut self.key);
        self.registered = WakerId::default();
        let listener = node.remove(key);
        // What it is as a rule, without the question which of all it is.
        if let Some(Listener::Waker(waker)) = listener {
            drop(waker);
        }
    }
}
