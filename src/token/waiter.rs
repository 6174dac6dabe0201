use super::{
    listeners::NO_KEY,
    tree::{Listener, Node},
};
use crate::waker_id::WakerId;
use std::{
    sync::Arc,
    task::{Context, Poll, Waker},
};

/// The registration of a future's waker in a node.
#[derive(Default)]
pub(super) struct Waiter {
    key: u64,
    /// The id of the waker whose clone is registered; marked, if the node has a deadline. As long as a poll finds the
    /// node open, the clone is still registered.
    registered: WakerId,
}

impl Waiter {
    /// Ready once the node is cancelled; until then `cx`'s waker, the latest one, is registered.
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

    /// Like `poll`, for a caller whose check in the same poll of the stream has found the node and all its ancestors
    /// open.
    ///
    /// There is no need to check again. A waker that gets into the list is woken by any later cancel, and by one that
    /// is under way: invariants 5 and 6 of the tree. If a cancel of the node or of an ancestor has already taken the
    /// node's list, or can no longer reach the node, the waker does not get into the list.
    ///
    /// This holds for cancels only, as with [`will_wake`](Self::will_wake).
    #[inline(always)]
    pub(super) fn poll_after_check(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        match node.has_deadline() {
            true => self.poll_with_clock(node, cx),
            false => self.register(node, cx.waker()),
        }
    }

    /// The same as `poll`, but not inlined into callers that hardly ever need it.
    #[inline(never)]
    fn poll_with_clock(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        self.poll(node, cx)
    }

    /// Whether a cancel wakes this waker, for a caller whose check in the same poll has found the node and all its
    /// ancestors open.
    ///
    /// An earlier poll has registered the waker. A cancel of the node or of an ancestor first closes the node that it
    /// cancels, then takes the waker, once, and then wakes it. If the wake-up came before this poll began, the poll
    /// sees what happened before the wake-up, so the check would have found that node closed. So the wake-up is still
    /// to come, or has come since the poll began, and causes another poll.
    ///
    /// This holds for cancels only. Once its runtime has ended, a deadline may pass without waking any task. So for a
    /// node with a deadline the result is always `false`.
    #[inline]
    pub(super) fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.registered == WakerId::of(cx.waker())
    }

    #[inline(never)]
    fn register(&mut self, node: &Arc<Node>, waker: &Waker) -> Poll<()> {
        // The waker is cloned here and the earlier one dropped at the end, both without the lock: they run foreign
        // code.
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
            // A cancel has taken the earlier one.
            if replaced.is_err() {
                return Poll::Ready(());
            }
            // Set before the earlier waker is dropped, as that drop may panic.
            self.registered = id;
        }
        Poll::Pending
    }

    /// Removes the registration, if there is one. Called by the drop.
    #[inline]
    pub(super) fn unregister(&self, node: &Node) {
        if self.key != NO_KEY {
            unregister_key(self.key, node);
        }
    }
}

#[inline(never)]
fn unregister_key(key: u64, node: &Node) {
    // A cancel takes the list, if it has not done so already. (A check that finds a passed deadline does not.)
    if node.is_closed() && !node.has_deadline() {
        return;
    }
    let listener = node.remove(key);
    // Always a waker: the match avoids the code that drops the other variants.
    if let Some(Listener::Waker(waker)) = listener {
        drop(waker);
    }
}
