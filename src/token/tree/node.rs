//! A node and its links to its parents: the data of the tree, and the steps that concern one node or one link.

use super::{
    counts::{FLAGS, START, Trees},
    outcome::Outcome,
};
use crate::{
    sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
    token::{
        Callback,
        deadline::{self, Instant, OwnDeadline},
        holder_count::{HolderCount, SettleWaiters},
        holders::Tracking,
        listeners::{Listeners, NO_KEY},
    },
};
use std::{
    cmp::Reverse,
    collections::BTreeSet,
    mem, slice,
    sync::{Arc, PoisonError, Weak},
    task::Waker,
};

#[cfg(feature = "tokio")]
use crate::token::deadline::TimerSlot;

/// In a node's `state`: set when its first child is made.
pub(super) const HAS_CHILDREN: u64 = 0b1;

/// In a node's `state`: see invariant 6.
pub(super) const IS_CONNECTED: u64 = 0b100;

/// In a node's `state`: set when it is cancelled.
pub(super) const CLOSED: u64 = 0b1000;

/// In a node's `state`: no count is cached yet. Not used in roots.
const NO_COUNT: u64 = 0b1_0000;

const _: () = assert!(FLAGS == HAS_CHILDREN | IS_CONNECTED && START > FLAGS | CLOSED | NO_COUNT);

/// In a chain, a walk caches and remembers what it finds for the nodes of every level that is a multiple of this.
pub(super) const CACHE_INTERVAL: u32 = 8;

/// The fields that are often written come first, those that a check reads last: on another cache line, so that making
/// and dropping tokens below this node does not slow down a check of it.
#[repr(C)]
pub(crate) struct Node {
    pub(crate) holders: HolderCount,
    pub(super) guarded: Mutex<Guarded>,
    pub(crate) ancestry: Ancestry,
    /// The earliest of its own and its ancestors'.
    deadline: Option<Instant>,
    /// One more than the highest of its parents' levels, 0 at a root: so no node is an ancestor of one of its own
    /// level.
    // It never wraps: a chain that deep does not fit into memory.
    pub(super) level: u32,
    pub(super) trees: Trees,
    /// Whether it lists its holders.
    // ORDERING: `Relaxed`, stored under the lock. A thread that finds it set locks the node after that.
    pub(crate) is_tracking: AtomicBool,
    /// `CLOSED` or not. In an open node that is not a root also the cached count, at which the node and all its
    /// ancestors were found open, see invariant 8. The bits of `FLAGS` are the node's own: `HAS_CHILDREN` and
    /// `IS_CONNECTED`.
    // ORDERING: `CLOSED` is set with `Release` under the lock, and loaded with `Acquire` without it. The pair makes the
    // writes before a cancel visible to each thread that sees the cancel, through any node below. A count is cached
    // with `Release` and loaded with `Acquire` as well: a thread that uses it then reads counts that are not older. All
    // other accesses publish nothing and are `Relaxed`: invariant 6 relies on the order of critical sections only, and
    // invariant 9 on the modification order of this word.
    pub(super) state: AtomicU64,
}

#[derive(Default)]
#[repr(C)]
pub(crate) struct Guarded {
    pub(super) listeners: Listeners<Listener, Rare>,
    /// `Some` once `state` has `CLOSED`.
    pub(super) outcome: Option<Arc<Outcome>>,
}

/// The state that few nodes need.
#[derive(Default)]
pub(crate) struct Rare {
    pub(crate) settle_waiters: SettleWaiters,
    pub(crate) tracking: Option<Box<Tracking>>,
    /// The token of tokio-util that is cancelled with this node, from the first conversion on.
    #[cfg(feature = "tokio-util")]
    pub(crate) theirs: Option<Arc<tokio_util::sync::CancellationToken>>,
}

impl Guarded {
    /// Inserts a listener, or returns it as an `Err` if the node is cancelled.
    #[inline(always)]
    pub(crate) fn insert(&mut self, listener: Listener) -> Result<u64, Listener> {
        match self.outcome {
            None => Ok(self.listeners.insert(listener)),
            Some(_) => Err(listener),
        }
    }

    pub(crate) fn rare(&mut self) -> &mut Rare {
        self.listeners.extra_mut()
    }

    pub(crate) fn tracking(&mut self) -> Option<&mut Tracking> {
        self.listeners.extra()?;
        self.listeners.extra_mut().tracking.as_deref_mut()
    }

    #[cfg(feature = "tokio-util")]
    pub(crate) fn theirs(&self) -> Option<Arc<tokio_util::sync::CancellationToken>> {
        self.listeners.extra()?.theirs.clone()
    }
}

pub(crate) enum Listener {
    Waker(Waker),
    Child(Weak<Node>),
    Callback(Callback),
}

impl Node {
    pub(crate) fn root() -> Arc<Self> {
        Self::new(IS_CONNECTED, 0, Trees::for_root(), None, Ancestry::ROOT)
    }

    /// Does not check the parent: each check of the child does, so it sees an earlier or a later cancel.
    pub(crate) fn child(self: &Arc<Self>) -> Arc<Self> {
        self.set_has_children();
        let level = self.level.wrapping_add(1);
        let ancestry = Ancestry::Child(Link::to(self));
        Self::new(NO_COUNT, level, self.trees, self.deadline, ancestry)
    }

    /// A child of all these parents.
    pub(crate) fn linked(mut parents: Vec<&Arc<Self>>) -> Arc<Self> {
        let mut seen = BTreeSet::new();
        parents.retain(|parent| seen.insert(Arc::as_ptr(parent)));
        parents.sort_by_key(|parent| Reverse(parent.level));
        match parents[..] {
            [] => return Self::root(),
            [parent] => return parent.child(),
            _ => {}
        }
        Self::special(&parents, None, None)
    }

    /// The children in the list.
    #[cfg(feature = "tokio")]
    pub(crate) fn listed(&self) -> Vec<Arc<Self>> {
        let guarded = self.lock();
        let children = guarded
            .listeners
            .iter()
            .filter_map(|listener| match listener {
                Listener::Child(child) => child.upgrade(),
                Listener::Waker(_) | Listener::Callback(_) => None,
            });
        children.collect()
    }

    /// Does not check the parents either, so that the cost does not depend on the depth.
    pub(crate) fn special(
        parents: &[&Arc<Self>],
        own_deadline: Option<OwnDeadline>,
        reporter: Option<Arc<Self>>,
    ) -> Arc<Self> {
        let links = Links::to(parents);
        let level = parents
            .iter()
            .map(|parent| parent.level.wrapping_add(1))
            .max();
        for parent in parents {
            parent.set_has_children();
        }
        let trees = parents.iter().map(|parent| parent.trees);
        let trees = trees.reduce(Trees::union).unwrap_or_else(Trees::for_root);
        let deadlines = parents.iter().filter_map(|parent| parent.deadline);
        let own = own_deadline.as_ref().and_then(OwnDeadline::at);
        let deadline = deadlines.chain(own).min();
        let special = Special::new(links, own_deadline, reporter);
        let ancestry = Ancestry::Other(Some(Box::new(special)));
        Self::new(NO_COUNT, level.unwrap_or(0), trees, deadline, ancestry)
    }

    /// See invariant 9.
    #[inline(always)]
    fn set_has_children(&self) {
        if self.state.load(Ordering::Relaxed) & (HAS_CHILDREN | CLOSED) == 0 {
            self.state.fetch_or(HAS_CHILDREN, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn new(
        state: u64,
        level: u32,
        trees: Trees,
        deadline: Option<Instant>,
        ancestry: Ancestry,
    ) -> Arc<Self> {
        Arc::new(Self {
            holders: HolderCount::default(),
            guarded: Mutex::new(Guarded::default()),
            ancestry,
            deadline,
            level,
            trees,
            is_tracking: AtomicBool::new(false),
            state: AtomicU64::new(state),
        })
    }

    /// Whether this node itself has an outcome.
    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    pub(crate) fn is_connected(&self) -> bool {
        self.state.load(Ordering::Relaxed) & IS_CONNECTED != 0
    }

    pub(super) fn set_connected(&self) {
        self.state.fetch_or(IS_CONNECTED, Ordering::Relaxed);
    }

    /// The earliest deadline of the node's own and its ancestors'.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(crate) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    #[inline]
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    pub(super) fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(deadline::has_passed)
    }

    pub(super) fn own_deadline(&self) -> Option<&OwnDeadline> {
        self.ancestry.special()?.own_deadline.as_ref()
    }

    /// The outcome of this node itself.
    pub(super) fn own_outcome(&self) -> Option<Arc<Outcome>> {
        if !self.is_closed() {
            return None;
        }
        self.lock().outcome.clone()
    }

    /// Inserts a listener into this node's list, or returns it as an `Err` if this node is cancelled.
    #[inline(always)]
    pub(crate) fn insert(&self, listener: Listener) -> Result<u64, Listener> {
        self.lock().insert(listener)
    }

    /// Removes a listener and returns it, so that the caller drops it without the lock.
    #[must_use = "a listener is dropped where no lock is held"]
    #[inline]
    pub(crate) fn remove(&self, key: u64) -> Option<Listener> {
        self.lock().listeners.remove(key)
    }

    /// Replaces the listener under `key` and returns it, so that the caller drops it without the lock. If a cancel has
    /// taken that one, returns the new listener as an `Err`.
    pub(crate) fn replace(&self, key: u64, listener: Listener) -> Result<Listener, Listener> {
        self.lock().listeners.replace(key, listener)
    }

    #[inline(always)]
    pub(crate) fn lock(&self) -> MutexGuard<'_, Guarded> {
        // Nothing panics under the lock.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The parents of a node. Set when the node is made, and not changed until it is dropped.
///
/// It has two variants, so that a check needs only the parent's pointer.
pub(crate) enum Ancestry {
    /// One parent, and no deadline of the node's own: nearly all nodes that are not roots.
    Child(Link),
    /// A root (`None`), or a special node.
    Other(Option<Box<Special>>),
}

/// For a node with several parents, or with a deadline of its own.
pub(crate) struct Special {
    links: Links,
    pub(crate) own_deadline: Option<OwnDeadline>,
    /// The ancestor whose timer reports the deadline, if the node's own one is not earlier.
    // Dropped after the links, which keep the ancestor alive: this is never the last handle.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "without a clock there are no deadlines")
    )]
    pub(crate) reporter: Option<Arc<Node>>,
    #[cfg(feature = "tokio")]
    pub(crate) timer: TimerSlot,
}

impl Special {
    fn new(links: Links, own_deadline: Option<OwnDeadline>, reporter: Option<Arc<Node>>) -> Self {
        Self {
            links,
            own_deadline,
            reporter,
            #[cfg(feature = "tokio")]
            timer: TimerSlot::default(),
        }
    }
}

/// Links to the parents, from the highest level to the lowest, which is the order of a walk.
enum Links {
    None,
    /// For a child with a deadline of its own, without an allocation.
    One(Link),
    Several(Box<[Link]>),
}

impl Links {
    fn to(parents: &[&Arc<Node>]) -> Self {
        match parents {
            [] => Self::None,
            [parent] => Self::One(Link::to(parent)),
            _ => Self::Several(parents.iter().map(|parent| Link::to(parent)).collect()),
        }
    }

    fn as_slice(&self) -> &[Link] {
        match self {
            Self::None => &[],
            Self::One(link) => slice::from_ref(link),
            Self::Several(links) => links,
        }
    }
}

/// A link to a parent.
pub(crate) struct Link {
    pub(crate) parent: Arc<Node>,
    /// The key under which the parent lists the node, or `NO_KEY`.
    // ORDERING: `Relaxed`. It publishes nothing: invariant 6 relies on the order of critical sections only.
    listed_as: AtomicU64,
}

impl Link {
    #[inline]
    fn to(parent: &Arc<Node>) -> Self {
        Self {
            parent: Arc::clone(parent),
            listed_as: AtomicU64::new(NO_KEY),
        }
    }

    /// Makes sure that the parent lists `child`, whose link this is; `false` if it is cancelled.
    pub(super) fn list(&self, child: &Arc<Node>) -> bool {
        if self.listed_as.load(Ordering::Relaxed) != NO_KEY {
            return true;
        }
        let Ok(key) = self.parent.insert(Listener::Child(Arc::downgrade(child))) else {
            return false;
        };
        let listed =
            self.listed_as
                .compare_exchange(NO_KEY, key, Ordering::Relaxed, Ordering::Relaxed);
        if listed.is_err() {
            // Another thread has listed it in the meantime. Neither thread has to wait for the other.
            drop(self.parent.remove(key));
        }
        true
    }

    /// For a node that is being dropped: removes it from the parent's list, and returns the parent.
    #[inline(always)]
    fn unlist(self) -> Arc<Node> {
        match self.listed_as.load(Ordering::Relaxed) {
            NO_KEY => {}
            key => drop(self.parent.remove(key)),
        }
        self.parent
    }
}

impl Ancestry {
    const ROOT: Self = Self::Other(None);

    #[inline]
    pub(crate) fn is_root(&self) -> bool {
        matches!(self, Self::Other(None))
    }

    pub(crate) fn special(&self) -> Option<&Special> {
        match self {
            Self::Other(special) => special.as_deref(),
            Self::Child(_) => None,
        }
    }

    #[inline(always)]
    pub(crate) fn links(&self) -> &[Link] {
        match self {
            Self::Child(link) => slice::from_ref(link),
            Self::Other(Some(special)) => special.links.as_slice(),
            Self::Other(None) => &[],
        }
    }

    /// Removes the node from its parents' lists, and returns the parents: one as the result, the others in `rest`. A
    /// chain has no others, so its depth costs no memory.
    #[inline(always)]
    pub(super) fn unlink(&mut self, rest: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        match mem::replace(self, Self::ROOT) {
            Self::Child(link) => Some(link.unlist()),
            Self::Other(None) => None,
            Self::Other(Some(special)) => match special.links {
                Links::None => None,
                Links::One(link) => Some(link.unlist()),
                Links::Several(links) => {
                    rest.extend(links.into_iter().map(Link::unlist));
                    rest.pop()
                }
            },
        }
    }
}
