//! The tree behind [`CancellationToken`](super::CancellationToken): one node for each token, listeners in it.
//!
//! # A look pulls, a cancel does not push
//!
//! A token is cancelled when its own node is, **or an ancestor's**: [`Node::is_cancelled`] walks up. The other way,
//! a cancel that walks down and flags every node, makes a look one load at any depth, but then a cancel is as long
//! as its walk. Two overlapping ones (a parent's and a child's) see each other's half-done work, and a `cancel()`
//! that lost returns while the winner is still on its way: the caller then finds a grandchild that is not cancelled.
//! Waiting for the winner would mend that and could deadlock, since a waker is free to cancel.
//!
//! Pulled, one store cancels the whole subtree in one instant, so nothing is ever half cancelled. A child is just an
//! allocation until somebody waits on it: making and dropping one takes no lock. The price is a load for each level
//! of a look. A root's state says that it has no parent, so that its look is a single load.
//!
//! In instructions, as measured: a look is 4 at a root and 12 at its child, of the 8 and 16 of a loop around it; a
//! child made and dropped is 304, where tokio-util's, which is linked at once, is 718.
//!
//! # Invariants
//!
//! 1. A `state` changes once, from open to a reason, under the node's lock. It never changes again.
//! 2. A reason travels from a node to its child and nowhere else: a node gets the reason of its nearest cancelled
//!    ancestor, and every node between them gets it first. So no node can be given a reason that the nodes between
//!    disagree with, whichever look or cancel comes to it first.
//! 3. At most one node is locked at a time, and no foreign code runs under a lock: no waker is cloned, woken or
//!    dropped there, no error is dropped there.
//! 4. A child owns its parent; a parent knows its children weakly. A child is listed in its parent once somebody has
//!    waited on it or below it, and stays listed until it goes.
//! 5. The list of a node is taken only under the lock under which the node is found or made cancelled, and nothing
//!    enters it afterwards. So a listener that got in while the node was open is always taken by someone, once.
//! 6. Once `is_listed` is set, the parent either lists the node or has had its list taken by a cancel, which will come
//!    to the node. With 5: a waiter that got into its node's list, and then found each ancestor listed or listed it,
//!    is woken by a cancel of any of them.
//! 7. Every walk is a loop: up the parents, down the listeners, and along the parents that a drop lets go of.

use super::listeners::{Listeners, NO_KEY, Taken};
use crate::{
    StopReason,
    sync::{AtomicBool, AtomicU8, Mutex, MutexGuard, Ordering},
    waker_id::WakerId,
};
use std::{
    any::Any,
    mem,
    panic::{self, AssertUnwindSafe},
    sync::{Arc, PoisonError, Weak},
    task::{Context, Poll, Waker},
    thread,
};

const OPEN_ROOT: u8 = 0;
const OPEN_CHILD: u8 = 1;
const CANCELLED: u8 = 2;

pub(super) struct Node {
    // ORDERING: stored with `Release` under the lock, loaded with `Acquire` without it. The pair makes what came
    // before a cancel visible to whoever sees the cancel, by whichever node below.
    state: AtomicU8,
    /// Whether `listed_as` is set.
    // ORDERING: `Relaxed`. It publishes nothing: invariant 6 rests on the order of critical sections alone.
    is_listed: AtomicBool,
    parent: Option<Arc<Self>>,
    guarded: Mutex<Guarded>,
}

#[derive(Default)]
struct Guarded {
    /// `Some` from when `state` is `CANCELLED`.
    reason: Option<StopReason>,
    /// The key under which `parent` lists this node, or `NO_KEY`.
    listed_as: u64,
    listeners: Listeners<Listener>,
}

enum Listener {
    Waker(Waker),
    Child(Weak<Node>),
}

impl Node {
    pub(super) fn root() -> Arc<Self> {
        Self::new(OPEN_ROOT, None)
    }

    /// Nothing is asked of the parent: what it is, or becomes, the child sees when it is looked at.
    pub(super) fn child(self: &Arc<Self>) -> Arc<Self> {
        Self::new(OPEN_CHILD, Some(Arc::clone(self)))
    }

    fn new(state: u8, parent: Option<Arc<Self>>) -> Arc<Self> {
        Arc::new(Self {
            state: AtomicU8::new(state),
            is_listed: AtomicBool::new(false),
            parent,
            guarded: Mutex::new(Guarded::default()),
        })
    }

    /// Whether this node or an ancestor has been cancelled: a load for each level, one for a root.
    #[inline]
    pub(super) fn is_cancelled(&self) -> bool {
        // A root and the child of one, which most tokens are, without a loop.
        let state = self.state.load(Ordering::Acquire);
        if state == OPEN_ROOT {
            return false;
        }
        match &self.parent {
            Some(parent) if parent.state.load(Ordering::Acquire) == OPEN_ROOT => state == CANCELLED,
            _ => self.is_cancelled_in_the_depth(),
        }
    }

    #[cold]
    fn is_cancelled_in_the_depth(&self) -> bool {
        let mut node = self;
        while !node.is_closed() {
            match &node.parent {
                Some(parent) => node = parent,
                None => return false,
            }
        }
        true
    }

    /// Whether this very node is cancelled.
    fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) == CANCELLED
    }

    /// The reason, if this node is cancelled: of its nearest cancelled ancestor, and from now on its own.
    pub(super) fn stop_reason(&self) -> Option<StopReason> {
        // The way up is only noted, on the heap, once there is something to bring down.
        if !self.is_cancelled() {
            return None;
        }
        let mut open = Vec::new();
        let mut node = self;
        let mut reason = loop {
            match node.own_reason() {
                Some(reason) => break reason,
                None => open.push(node),
            }
            node = node.parent.as_deref()?;
        };
        // From the top, each with what the one above it really has: invariant 2.
        for node in open.into_iter().rev() {
            (_, reason) = node.settle(&mut node.lock(), &reason);
        }
        Some(reason)
    }

    /// Cancels the subtree, tells every listener in it, and says whether this call is what cancelled this node.
    pub(super) fn cancel(&self, reason: StopReason) -> bool {
        // An ancestor that is cancelled already has its say first.
        let inherited = self.stop_reason();
        let (won, in_force, listeners) = self.close(inherited.as_ref().unwrap_or(&reason));
        // A loser tells too: a look may have fixed the reason, and a look tells nobody. Its own `reason` goes after
        // that, as its error may panic when it is dropped.
        tell(&in_force, listeners);
        won
    }

    /// Fixes `reason` unless one is fixed already, and takes the listeners.
    fn close(&self, reason: &StopReason) -> (bool, StopReason, Taken<Listener>) {
        let mut guarded = self.lock();
        let listeners = guarded.listeners.take();
        let (won, reason) = self.settle(&mut guarded, reason);
        (won, reason, listeners)
    }

    /// Fixes `reason` unless one is fixed already; whether it did, and the reason in force.
    ///
    /// Takes a reference: a reason that lost must not be dropped under the lock.
    fn settle(&self, guarded: &mut Guarded, reason: &StopReason) -> (bool, StopReason) {
        if let Some(earlier) = &guarded.reason {
            return (false, earlier.clone());
        }
        guarded.reason = Some(reason.clone());
        self.state.store(CANCELLED, Ordering::Release);
        (true, reason.clone())
    }

    /// The reason fixed in this very node.
    fn own_reason(&self) -> Option<StopReason> {
        if !self.is_closed() {
            return None;
        }
        self.lock().reason.clone()
    }

    /// Lists a listener here, or gives it back if this node is cancelled.
    #[inline(always)]
    fn insert(&self, listener: Listener) -> Result<u64, Listener> {
        let mut guarded = self.lock();
        match guarded.reason {
            None => Ok(guarded.listeners.insert(listener)),
            Some(_) => Err(listener),
        }
    }

    /// Takes a listener out, and drops it without the lock.
    fn remove(&self, key: u64) {
        let listener = self.lock().listeners.remove(key);
        drop(listener);
    }

    /// Makes sure that a cancel of any ancestor comes by here; `false` if one has been cancelled.
    fn list_up_to_root(self: &Arc<Self>) -> bool {
        let mut node = self;
        while let Some(parent) = &node.parent {
            if !node.is_listed.load(Ordering::Relaxed) {
                let Ok(key) = parent.insert(Listener::Child(Arc::downgrade(node))) else {
                    return false;
                };
                if !node.set_listed(key) {
                    // Another thread has listed it meanwhile. Neither of the two has to wait for the other.
                    parent.remove(key);
                }
            }
            // Up to the root even where a node is listed: the thread that listed it may not be there yet.
            node = parent;
        }
        true
    }

    fn set_listed(&self, key: u64) -> bool {
        let mut guarded = self.lock();
        let is_first = guarded.listed_as == NO_KEY;
        if is_first {
            guarded.listed_as = key;
            self.is_listed.store(true, Ordering::Relaxed);
        }
        is_first
    }

    /// For a node that goes.
    fn leave_parent(&mut self) -> Option<Arc<Self>> {
        let parent = self.parent.take()?;
        if self.is_listed.load(Ordering::Relaxed) {
            let key = self.lock().listed_as;
            parent.remove(key);
        }
        Some(parent)
    }

    fn lock(&self) -> MutexGuard<'_, Guarded> {
        // Nothing panics under the lock.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut parent = self.leave_parent();
        // A parent that this was the last handle of goes here, in the loop, and takes no further one with it.
        while let Some(mut node) = parent.and_then(Arc::into_inner) {
            parent = node.leave_parent();
        }
    }
}

/// Tells everybody below that `reason` stops them: their subtree first, then the next in line.
///
/// It is the reason of everybody who is left to be told: whoever has another one was cancelled by a call of its own,
/// which took its listeners (invariant 5), and a look gives a node what its parent has (invariant 2).
fn tell(reason: &StopReason, listeners: Taken<Listener>) {
    let mut panic = FirstPanic::default();
    let mut above = Vec::new();
    let mut listeners = listeners;
    loop {
        match listeners.next() {
            Some(Listener::Waker(waker)) => panic.catch(|| waker.wake()),
            Some(Listener::Child(child)) => {
                let Some(child) = child.upgrade() else {
                    continue;
                };
                let (_, childs_reason, childs_listeners) = child.close(reason);
                // They may be the last handles.
                panic.catch(|| drop(child));
                panic.catch(|| drop(childs_reason));
                let rest = mem::replace(&mut listeners, childs_listeners);
                // A chain has no rest, so that its depth costs no memory.
                if !rest.is_empty() {
                    above.push(rest);
                }
            }
            None => match above.pop() {
                Some(next) => listeners = next,
                None => break,
            },
        }
    }
    panic.resume();
}

/// Keeps a panic back until everybody has been told.
#[derive(Default)]
struct FirstPanic(Option<Box<dyn Any + Send>>);

impl FirstPanic {
    fn catch(&mut self, foreign: impl FnOnce()) {
        if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(foreign)) {
            match self.0 {
                None => self.0 = Some(payload),
                Some(_) => discard(payload),
            }
        }
    }

    fn resume(self) {
        match self.0 {
            // A second panic while one unwinds would abort the process.
            Some(payload) if thread::panicking() => discard(payload),
            Some(payload) => panic::resume_unwind(payload),
            None => {}
        }
    }
}

/// Drops a payload, which may panic once more. What that panics with is left alone.
fn discard(payload: Box<dyn Any + Send>) {
    if let Err(payload) = panic::catch_unwind(AssertUnwindSafe(|| drop(payload))) {
        mem::forget(payload);
    }
}

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
        if node.is_cancelled() {
            return Poll::Ready(());
        }
        // Cloned here and the earlier one dropped at the end, both without the lock: they may run anything.
        let clone = waker.clone();
        let id = WakerId::kept_by(&clone, waker);
        if self.key == NO_KEY {
            let Ok(key) = node.insert(Listener::Waker(clone)) else {
                return Poll::Ready(());
            };
            self.key = key;
            self.registered = id;
            if !node.list_up_to_root() {
                self.leave(node);
                return Poll::Ready(());
            }
        } else {
            let replaced = node
                .lock()
                .listeners
                .replace(self.key, Listener::Waker(clone));
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
            let key = mem::take(&mut self.key);
            self.registered = WakerId::default();
            node.remove(key);
        }
    }
}
