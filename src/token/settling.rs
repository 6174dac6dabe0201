//! Counts what still has to be dropped under a token, and wakes the tasks that wait for it.

use super::{
    CancellationToken, Listening,
    holder_count::Registered,
    listeners::Taken,
    tree::{Ancestors, Ancestry, Node},
};
use crate::first_panic::FirstPanic;
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    future::Future,
    iter,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

/// A holder is counted in its node and in all ancestors, once in each: no step of this can fail or has to wait.
impl Node {
    #[inline(always)]
    fn hold(self: &Arc<Self>) {
        self.any_in_lineage(|node| {
            node.holders.increment();
            false
        });
    }

    #[inline(always)]
    fn release(self: &Arc<Self>) {
        if self.any_in_lineage(|node| node.holders.decrement()) {
            self.wake_settled();
        }
    }

    /// Calls `f` once for this node and once for each ancestor, the same ones in each call, without short-circuiting.
    /// Whether any call returned `true`.
    #[inline(always)]
    fn any_in_lineage(self: &Arc<Self>, f: impl Fn(&Self) -> bool) -> bool {
        let found = f(self);
        match &self.ancestry {
            // Without a loop: most tokens are roots or children of roots.
            Ancestry::Other(None) => found,
            Ancestry::Child(link) if link.parent.ancestry.is_root() => found | f(&link.parent),
            _ => found | self.any_ancestor(f),
        }
    }

    #[inline(never)]
    fn any_ancestor(&self, f: impl Fn(&Self) -> bool) -> bool {
        let mut found = false;
        let mut node = self;
        // The usual case, in fewer instructions than the walk over several parents.
        while let [link] = node.ancestry.links() {
            node = &link.parent;
            found |= f(node);
        }
        Ancestors::of(node).fold(found, |found, node| found | f(node))
    }

    /// Wakes the waiters of this node and of each ancestor that has no holders any more.
    #[cold]
    fn wake_settled(self: &Arc<Self>) {
        let mut panic = FirstPanic::default();
        for node in iter::once(self).chain(Ancestors::of(self)) {
            // If there is a new holder since then, its release comes here as well.
            if node.holders.is_zero_and_awaited() {
                for waker in node.take_settle_waiters() {
                    panic.catch(|| waker.wake());
                }
            }
        }
        panic.resume();
    }

    fn take_settle_waiters(&self) -> Taken<Waker> {
        let mut guarded = self.lock();
        self.holders.clear_awaited();
        guarded.rare().settle_waiters.take()
    }

    /// Ready once there has been a time without holders; until then `waker`, the latest one, is registered.
    fn poll_settled(&self, registered: &mut Option<Registered>, waker: &Waker) -> Poll<()> {
        if self.holders.is_zero() {
            return Poll::Ready(());
        }
        // Cloned without the lock, like the drop of the earlier one: they run foreign code.
        let waker = waker.clone();
        let mut guarded = self.lock();
        let replaced = guarded.rare().settle_waiters.register(registered, waker);
        // Woken: there was a time without holders, even if there is a new holder since.
        let is_settled = replaced.is_err() || self.holders.set_awaited();
        drop(guarded);
        drop(replaced);
        match is_settled {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn remove_settle_waiter(&self, registered: &Registered) {
        let mut guarded = self.lock();
        let waker = guarded.rare().settle_waiters.remove(registered);
        drop(guarded);
        drop(waker);
    }
}

/// The token of a holder: an adapter, a producer, a future or a `Hold`. Counts from construction to drop. To be dropped
/// after what the token stops.
pub(crate) struct HeldToken(CancellationToken);

impl HeldToken {
    #[inline]
    pub(crate) fn new(token: CancellationToken) -> Self {
        token.node.hold();
        Self(token)
    }
}

impl Borrow<CancellationToken> for HeldToken {
    #[inline]
    fn borrow(&self) -> &CancellationToken {
        &self.0
    }
}

impl Drop for HeldToken {
    #[inline(always)]
    fn drop(&mut self) {
        self.0.node.release();
    }
}

/// The future of [`CancellationToken::settled`] and [`cancel_and_settle`](CancellationToken::cancel_and_settle).
#[must_use = "futures do nothing unless polled"]
pub struct Settled {
    cancelled: Listening<CancellationToken>,
    /// `Some` once it has had to wait for a holder.
    registered: Option<Registered>,
}

impl Settled {
    pub(super) fn new(token: CancellationToken) -> Self {
        Self {
            cancelled: Listening::new(token),
            registered: None,
        }
    }
}

impl Future for Settled {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        ready!(this.cancelled.poll(cx));
        let node = &this.cancelled.token.node;
        node.poll_settled(&mut this.registered, cx.waker())
    }
}

impl Drop for Settled {
    fn drop(&mut self) {
        if let Some(registered) = &self.registered {
            self.cancelled.token.node.remove_settle_waiter(registered);
        }
    }
}

impl Debug for Settled {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Settled")
            .field(&self.cancelled.token)
            .finish()
    }
}
