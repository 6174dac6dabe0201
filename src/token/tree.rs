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
//! 6. Once `listed` is set, the parent either lists the node or has had its list taken by a cancel, which will come
//!    to the node. With 5: a waiter that got into its node's list, and then found each ancestor listed or listed it,
//!    is woken by a cancel of any of them.
//! 7. Every walk is a loop: up the parents, down the listeners, and along the parents that a drop lets go of.

use crate::{
    StopReason,
    sync::{AtomicU8, AtomicUsize, Mutex, MutexGuard, Ordering},
    waker_id::WakerId,
};
use std::{
    any::Any,
    collections::{BTreeMap, btree_map},
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
    // before a cancel visible to whoever sees the cancel, by whichever node of the subtree.
    state: AtomicU8,
    /// The key under which `parent` lists this node, or `NO_KEY`.
    // ORDERING: `Relaxed`. It publishes nothing: invariant 6 rests on the order of critical sections alone.
    listed: AtomicUsize,
    parent: Option<Arc<Self>>,
    guarded: Mutex<Guarded>,
}

#[derive(Default)]
struct Guarded {
    /// `Some` from when `state` is `CANCELLED`.
    reason: Option<StopReason>,
    listeners: Listeners,
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
            listed: AtomicUsize::new(NO_KEY),
            parent,
            guarded: Mutex::new(Guarded::default()),
        })
    }

    /// Whether this node or an ancestor has been cancelled: a load for each level, one for a root.
    #[inline]
    pub(super) fn is_cancelled(&self) -> bool {
        let mut node = self;
        loop {
            match node.state.load(Ordering::Acquire) {
                OPEN_ROOT => return false,
                OPEN_CHILD => match &node.parent {
                    Some(parent) => node = parent,
                    None => return false,
                },
                _ => return true,
            }
        }
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
            (_, reason) = node.settle(node.lock(), reason);
        }
        Some(reason)
    }

    /// Cancels the subtree, tells every listener in it, and says whether this call is what cancelled this node.
    pub(super) fn cancel(&self, reason: StopReason) -> bool {
        // An ancestor that is cancelled already has its say first.
        let inherited = self.stop_reason();
        let was_open = inherited.is_none();
        let (won, reason, listeners) = self.close(inherited.unwrap_or(reason));
        // A loser tells too: a look may have fixed the reason, and a look tells nobody.
        tell(reason, listeners);
        was_open && won
    }

    /// Fixes `reason` unless one is fixed already, and takes the listeners.
    fn close(&self, reason: StopReason) -> (bool, StopReason, Entries) {
        let mut guarded = self.lock();
        let listeners = mem::take(&mut guarded.listeners.entries);
        let (won, reason) = self.settle(guarded, reason);
        (won, reason, listeners)
    }

    /// Fixes `reason` unless one is fixed already; whether it did, and the reason in force.
    fn settle(
        &self,
        mut guarded: MutexGuard<'_, Guarded>,
        reason: StopReason,
    ) -> (bool, StopReason) {
        if let Some(earlier) = guarded.reason.clone() {
            // Before `reason` goes, whose error may run anything when it is dropped.
            drop(guarded);
            return (false, earlier);
        }
        guarded.reason = Some(reason.clone());
        self.state.store(CANCELLED, Ordering::Release);
        (true, reason)
    }

    /// The reason fixed in this very node.
    fn own_reason(&self) -> Option<StopReason> {
        if self.state.load(Ordering::Acquire) != CANCELLED {
            return None;
        }
        self.lock().reason.clone()
    }

    /// Lists a listener here, or gives it back if this node is cancelled.
    fn insert(&self, listener: Listener) -> Result<usize, Listener> {
        let mut guarded = self.lock();
        match guarded.reason {
            None => Ok(guarded.listeners.insert(listener)),
            Some(_) => Err(listener),
        }
    }

    /// Puts a listener in another's place and answers with that one, or gives it back if there is none.
    fn replace(&self, key: usize, listener: Listener) -> Result<Listener, Listener> {
        match self.lock().listeners.entries.get_mut(&key) {
            Some(entry) => Ok(mem::replace(entry, listener)),
            None => Err(listener),
        }
    }

    /// Takes a listener out. Whoever calls drops it, and holds no lock by then.
    fn remove(&self, key: usize) -> Option<Listener> {
        self.lock().listeners.entries.remove(&key)
    }

    /// Makes sure that a cancel of any ancestor comes by here; `false` if one has been cancelled.
    fn list_up_to_root(self: &Arc<Self>) -> bool {
        let mut node = self;
        while let Some(parent) = &node.parent {
            if node.listed.load(Ordering::Relaxed) == NO_KEY {
                let Ok(key) = parent.insert(Listener::Child(Arc::downgrade(node))) else {
                    return false;
                };
                let first =
                    node.listed
                        .compare_exchange(NO_KEY, key, Ordering::Relaxed, Ordering::Relaxed);
                if first.is_err() {
                    // Another thread has listed it meanwhile. Neither of the two has to wait for the other.
                    drop(parent.remove(key));
                }
            }
            // Up to the root even where a node is listed: the thread that listed it may not be there yet.
            node = parent;
        }
        true
    }

    /// For a node that goes.
    fn leave_parent(&mut self) -> Option<Arc<Self>> {
        let parent = self.parent.take()?;
        let key = self.listed.load(Ordering::Relaxed);
        if key != NO_KEY {
            drop(parent.remove(key));
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
fn tell(reason: StopReason, listeners: Entries) {
    let mut panic = FirstPanic::default();
    let mut above = Vec::new();
    let mut reason = reason;
    let mut listeners = listeners.into_iter();
    loop {
        match listeners.next() {
            Some((_, Listener::Waker(waker))) => panic.catch(|| waker.wake()),
            Some((_, Listener::Child(child))) => {
                let Some(child) = child.upgrade() else {
                    continue;
                };
                let (_, childs_reason, childs_listeners) = child.close(reason.clone());
                // It may be the last handle.
                panic.catch(|| drop(child));
                let rest = mem::replace(&mut listeners, childs_listeners.into_iter());
                let rest_reason = mem::replace(&mut reason, childs_reason);
                // A chain has no rest, so that its depth costs no memory.
                if rest.len() > 0 {
                    above.push((rest_reason, rest));
                }
            }
            None => match above.pop() {
                Some(next) => (reason, listeners) = next,
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
                // Not dropped: a payload may panic in its `Drop` as well.
                Some(_) => mem::forget(payload),
            }
        }
    }

    fn resume(self) {
        match self.0 {
            // A second panic while one unwinds would abort the process.
            Some(payload) if thread::panicking() => mem::forget(payload),
            Some(payload) => panic::resume_unwind(payload),
            None => {}
        }
    }
}

/// A future's place in a node's list.
#[derive(Default)]
pub(super) struct Waiter {
    key: usize,
    /// The clone that is listed. A poll that finds the node open finds it listed, so that these addresses are its own
    /// and no later waker's.
    registered: WakerId,
}

impl Waiter {
    /// Ready once the node is cancelled; until then `cx`'s waker, the latest one, is listed.
    #[inline]
    pub(super) fn poll(&mut self, node: &Arc<Node>, cx: &Context<'_>) -> Poll<()> {
        if node.is_cancelled() {
            return Poll::Ready(());
        }
        if self.registered == WakerId::of(cx.waker()) {
            return Poll::Pending;
        }
        self.register(node, cx.waker())
    }

    #[inline(never)]
    fn register(&mut self, node: &Arc<Node>, waker: &Waker) -> Poll<()> {
        // Cloned here and the earlier one dropped below, both without the lock: they may run anything.
        let waker = waker.clone();
        let id = WakerId::of(&waker);
        if self.key == NO_KEY {
            let Ok(key) = node.insert(Listener::Waker(waker)) else {
                return Poll::Ready(());
            };
            self.key = key;
            if !node.list_up_to_root() {
                self.leave(node);
                return Poll::Ready(());
            }
        } else {
            // Refused once a cancel has taken the earlier one.
            let Ok(earlier) = node.replace(self.key, Listener::Waker(waker)) else {
                return Poll::Ready(());
            };
            drop(earlier);
        }
        self.registered = id;
        Poll::Pending
    }

    /// Leaves the list.
    pub(super) fn leave(&mut self, node: &Node) {
        let key = mem::take(&mut self.key);
        if key != NO_KEY {
            self.registered = WakerId::default();
            drop(node.remove(key));
        }
    }
}

type Entries = BTreeMap<usize, Listener>;

/// Who is to be told, in the order in which they came.
///
/// A map and not a slab: whatever order they leave in, and however many there were, it holds memory only for those
/// that are there.
#[derive(Default)]
struct Listeners {
    last_key: usize,
    entries: Entries,
}

enum Listener {
    Waker(Waker),
    Child(Weak<Node>),
}

/// No entry has this key.
const NO_KEY: usize = 0;

impl Listeners {
    fn insert(&mut self, listener: Listener) -> usize {
        loop {
            self.last_key = self.last_key.wrapping_add(1);
            match self.entries.entry(self.last_key) {
                btree_map::Entry::Vacant(entry) if self.last_key != NO_KEY => {
                    entry.insert(listener);
                    return self.last_key;
                }
                // Only after a wrap-around, which takes a 32-bit machine and a patient program.
                _ => {}
            }
        }
    }
}
