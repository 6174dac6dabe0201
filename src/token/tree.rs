//! The tree behind [`CancellationToken`](super::CancellationToken): one node per token, with a list of listeners.
//!
//! # A check pulls, a cancel does not push
//!
//! A token is cancelled when its own node **or an ancestor's** is closed. The alternative is a cancel that walks down
//! and sets a flag in every node. Then a check is one load at any depth, but a cancel takes as long as its walk. Two
//! overlapping cancels, of a parent and of a child, see each other's unfinished work, and a `cancel()` that lost
//! returns while the winner is still walking: its caller can find a grandchild that is not cancelled. Waiting for the
//! winner would fix that, but could deadlock, since a waker may cancel.
//!
//! With pulling, one store cancels the whole subtree at once, so it is never half cancelled. A child is just an
//! allocation until something waits on it: making and dropping one takes no lock.
//!
//! # A check walks up once, and again after a cancel
//!
//! A check that walks up costs more with each level. So each tree has a count of its cancels. A cancel changes the
//! count before and after it closes its node, and a node caches the count at which its last walk found no closed node.
//! As long as the count is the same, a check is two loads and two comparisons at any depth. A root needs no count, as
//! it has no ancestors.
//!
//! Most cancelled tokens never had a child. Such a cancel affects no other node and is not counted, so counted cancels
//! are rare. Trees may share a count, see `counts`: a cancel in another tree can cost a walk, but never changes a
//! result.
//!
//! Counts are pulled as well: a cancel stores nothing in the nodes below, so its cost does not depend on their number.
//! The fields that a check reads are on a cache line that other threads do not write, and each count is on one that
//! only counted cancels write. So making and dropping tokens and adapters on one core does not slow down checks on
//! another.
//!
//! In instructions, as measured: a check is 4 at a root and 12 at any depth below (8 and 16 with the loop around it);
//! making and dropping a child is 331, and 714 in tokio-util, which links a child at once.
//!
//! A walk over several parents goes by levels, see `Ancestors`. It caches counts as well, so that ancestors which
//! several tokens share are walked once for all of them.
//!
//! # Nodes with several causes
//!
//! A node with several parents gets the outcome of the first one that was cancelled. A node with a deadline gets the
//! outcome of an ancestor's cancel or of its deadline, whichever came first. An outcome has a time stamp. So the result
//! depends neither on when a check is made, nor on the order in which cancels reach the node, nor on whether a check
//! had seen that the deadline passed. A child of several parents, too, is just an allocation until something waits on
//! it.
//!
//! # Invariants
//!
//! 1. A node's outcome is set once, under its lock, and `state` has `CLOSED` from then on.
//! 2. An outcome passes from a node to its children only: a node gets that of its nearest cancelled ancestor (of
//!    several parents, the earliest one), and every node between them gets it first. So no node gets an outcome that
//!    contradicts the nodes between, whichever check or cancel reaches it first. A passed deadline is such an outcome,
//!    for the node that has the deadline.
//! 3. At most one node is locked at a time, and no foreign code runs under a lock: no waker is cloned, woken or
//!    dropped there, no callback is run or dropped there, no error is dropped there.
//! 4. A child owns its parents; a parent has weak references to its children. A child is listed in its parents once
//!    there is a listener to notify in it or below it, and stays listed until it is dropped.
//! 5. The list of a node is taken only under the lock under which the node is found or made closed, and nothing enters
//!    it afterwards; or when the node is dropped. So a listener that was inserted while the node was open is taken
//!    exactly once, unless it was removed before.
//! 6. Once a node has a key in a parent, the parent either lists it or has had its list taken by a cancel, which will
//!    reach the node. `is_connected` means that this holds for all edges above. With 5: a listener that was inserted
//!    into its node's list, and after that found the node connected or connected it, is notified by a cancel of any
//!    ancestor.
//! 7. Every walk is a loop: up the parents, down the listeners, and along the parents that a drop releases. A check of
//!    very many branches at once nests a few of them.
//! 8. If a node has a cached count, no cancel of it or of an ancestor has ended at that count or before. This holds
//!    because the count is read before the walk: a cancel that had ended by then is found closed, by its `Release` of
//!    the count and the `Acquire` of the reader, unless the walk stops at a node whose cached count is not older. A
//!    count at which a cancel is in progress is not cached. A closed node gets no cached count: it is closed by a
//!    read-modify-write, and a count is cached by a compare-exchange from the open state of before the walk.
//! 9. A cancel is counted unless its node has no child: `HAS_CHILDREN` and `CLOSED` are bits of one word, whose changes
//!    have one order. Either the cancel sees that a first child was made, and counts, or any node made below finds this
//!    node closed on its first walk, and never caches a count. An outcome that comes from a parent is not counted
//!    again.
//!
//! # Why a check may rely on a cached count (T1 to T5)
//!
//! Assume that a cancel of an ancestor happened before a check, or that the thread has seen the ancestor closed. In
//! both cases the cancel had begun, and its start is counted before its node is closed. So the check reads a count that
//! includes it. If that is the cached count, then the count was cached after that cancel had begun, and after it had
//! ended, since no other count is cached: this contradicts 8. So the check walks, and finds the node closed: a cancel
//! that has returned, won or lost, has cancelled the whole subtree (T3), callbacks find the whole subtree cancelled
//! (T4), and what was once seen cancelled stays cancelled (T1). The outcome is set under the lock, before the state has
//! `CLOSED` (T2). A child starts without a cached count, and so is cancelled from the start if its parent is (T5).

use super::{
    Callback,
    ancestry::{Ancestors, Ancestry, Link, Links, Special},
    counts::{Counts, FLAGS, START, Trees},
    deadline::{self, Instant, OwnDeadline},
    holders::Tracking,
    listeners::{Listeners, Taken},
    settling::{SettleWaiters, Settling},
};
use crate::{
    StopReason,
    first_panic::FirstPanic,
    sync::{AtomicBool, AtomicU64, Mutex, MutexGuard, Ordering},
};
use std::{
    cmp::Reverse,
    collections::{BTreeMap, BTreeSet},
    iter, mem,
    panic::Location,
    sync::{Arc, PoisonError, Weak, atomic},
    task::Waker,
};

/// In a node's `state`: set when its first child is made.
const HAS_CHILDREN: u64 = 0b1;

/// In a node's `state`: see invariant 6.
const IS_CONNECTED: u64 = 0b100;

/// In a node's `state`: set when it is cancelled.
const CLOSED: u64 = 0b1000;

/// In a node's `state`: no count is cached yet. Not used in roots.
const NO_COUNT: u64 = 0b1_0000;

const _: () = assert!(FLAGS == HAS_CHILDREN | IS_CONNECTED && START > FLAGS | CLOSED | NO_COUNT);

/// A walk caches the count in the nodes of every level that is a multiple of this.
const CACHE_INTERVAL: u32 = 8;

/// The greatest depth to which the walks of one check are nested, where there are very many branches.
const MAX_NESTING: u32 = 4;

/// The fields that are often written come first, those that a check reads last: on another cache line, so that making
/// and dropping tokens below this node does not slow down a check of it.
#[repr(C)]
pub(super) struct Node {
    pub(super) settling: Settling,
    guarded: Mutex<Guarded>,
    pub(super) ancestry: Ancestry,
    /// The earliest of its own and its ancestors'.
    deadline: Option<Instant>,
    /// One more than the highest of its parents' levels, 0 at a root: so no node is an ancestor of one of its own
    /// level.
    // It never wraps: a chain that deep does not fit into memory.
    pub(super) level: u32,
    trees: Trees,
    /// Whether it lists its holders.
    // ORDERING: `Relaxed`, stored under the lock. A thread that finds it set locks the node after that.
    pub(super) is_tracking: AtomicBool,
    /// `CLOSED` or not. In an open node that is not a root also the cached count, at which the node and all its
    /// ancestors were found open, see invariant 8. The bits of `FLAGS` are the node's own: `HAS_CHILDREN` and
    /// `IS_CONNECTED`.
    // ORDERING: `CLOSED` is set with `Release` under the lock, and loaded with `Acquire` without it. The pair makes the
    // writes before a cancel visible to each thread that sees the cancel, through any node below. A count is cached
    // with `Release` and loaded with `Acquire` as well: a thread that uses it then reads counts that are not older. All
    // other accesses publish nothing and are `Relaxed`: invariant 6 relies on the order of critical sections only, and
    // invariant 9 on the modification order of this word.
    state: AtomicU64,
}

#[derive(Default)]
#[repr(C)]
pub(super) struct Guarded {
    listeners: Listeners<Listener, Rare>,
    /// `Some` once `state` has `CLOSED`.
    outcome: Option<Arc<Outcome>>,
}

/// The state that few nodes need.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) settle_waiters: SettleWaiters,
    pub(super) tracking: Option<Box<Tracking>>,
    /// The token of tokio-util that is cancelled with this node, from the first conversion on.
    #[cfg(feature = "tokio-util")]
    pub(super) theirs: Option<Arc<tokio_util::sync::CancellationToken>>,
}

impl Guarded {
    /// Inserts a listener, or returns it as an `Err` if the node is cancelled.
    #[inline(always)]
    pub(super) fn insert(&mut self, listener: Listener) -> Result<u64, Listener> {
        match self.outcome {
            None => Ok(self.listeners.insert(listener)),
            Some(_) => Err(listener),
        }
    }
}

impl Guarded {
    pub(super) fn rare(&mut self) -> &mut Rare {
        self.listeners.extra_mut()
    }

    pub(super) fn tracking(&mut self) -> Option<&mut Tracking> {
        self.listeners.extra()?;
        self.listeners.extra_mut().tracking.as_deref_mut()
    }

    #[cfg(feature = "tokio-util")]
    pub(super) fn theirs(&self) -> Option<Arc<tokio_util::sync::CancellationToken>> {
        self.listeners.extra()?.theirs.clone()
    }
}

pub(super) enum Listener {
    Waker(Waker),
    Child(Weak<Node>),
    Callback(Callback),
}

/// Why, when and where a node was stopped. All nodes that the same event stopped share it.
pub(super) struct Outcome {
    /// The time of the cancel; for a deadline its own point in time, even if it is seen later. `None` without a clock.
    at: Option<Instant>,
    /// Orders outcomes of the same time: of two cancels that did not overlap, the earlier one has the lower number. A
    /// deadline has the lowest: at that time it has passed.
    order: u64,
    pub(super) reason: StopReason,
    /// The line that cancelled, or that made the deadline.
    pub(super) location: &'static Location<'static>,
}

impl Outcome {
    fn new(reason: StopReason, location: &'static Location<'static>) -> Arc<Self> {
        // ORDERING: `Relaxed`. If one cancel happened before another, their numbers have that order.
        static ORDER: atomic::AtomicU64 = atomic::AtomicU64::new(1);
        Arc::new(Self {
            at: deadline::now(),
            order: ORDER.fetch_add(1, Ordering::Relaxed),
            reason,
            location,
        })
    }

    fn of_deadline(deadline: &OwnDeadline) -> Arc<Self> {
        Arc::new(Self {
            at: deadline.at(),
            order: 0,
            reason: deadline.reason(),
            location: deadline.made_at(),
        })
    }
}

/// Where an outcome comes from, which decides whether it is counted.
#[derive(Clone, Copy)]
enum Origin {
    /// Perhaps the node itself: a cancel of it, or its own deadline.
    Own,
    /// A parent, which already has the outcome.
    Parent,
}

impl Node {
    pub(super) fn root() -> Arc<Self> {
        Self::new(IS_CONNECTED, 0, Trees::for_root(), None, Ancestry::ROOT)
    }

    /// Does not check the parent: each check of the child does, so it sees an earlier or a later cancel.
    pub(super) fn child(self: &Arc<Self>) -> Arc<Self> {
        self.set_has_children();
        let level = self.level.wrapping_add(1);
        let ancestry = Ancestry::Child(Link::to(self));
        Self::new(NO_COUNT, level, self.trees, self.deadline, ancestry)
    }

    /// A child of all these parents.
    pub(super) fn linked(mut parents: Vec<&Arc<Self>>) -> Arc<Self> {
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

    /// A child of `parent`, or a root, that is cancelled at the point in time `at`, or never if there is none. An
    /// earlier deadline of the parent comes first, with its own cause.
    #[cfg(feature = "tokio")]
    #[track_caller]
    pub(super) fn with_deadline(
        parent: Option<&Arc<Self>>,
        at: Option<Instant>,
        cause: Option<StopReason>,
    ) -> Arc<Self> {
        deadline::require_runtime();
        let Some(at) = at else {
            return parent.map_or_else(Self::root, Self::child);
        };
        let parents_deadline = parent.and_then(|parent| parent.deadline);
        if let Some(earlier) = parents_deadline.filter(|earlier| *earlier <= at) {
            return Self::with_later_deadline(parent, earlier);
        }
        let own_deadline = OwnDeadline::new(at, cause);
        let (reason, made_at) = (own_deadline.reason(), own_deadline.made_at());
        let node = Self::special(parent.as_slice(), Some(own_deadline), None);
        if deadline::has_passed(at) {
            // The deadline of a new node cannot precede the node: a parent that is cancelled already came first.
            let inherited = parent.and_then(|parent| parent.outcome());
            let outcome = inherited.unwrap_or_else(|| Outcome::new(reason, made_at));
            drop(node.set_outcome(&mut node.lock(), &outcome, Origin::Own));
        } else {
            deadline::set_timer(at, &node);
        }
        node
    }

    /// A child whose own deadline is not earlier than an ancestor's. It relies on the ancestor's timer for as long as
    /// the runtime of that timer lives, and is on standby to set a timer of the current runtime after that.
    #[cfg(feature = "tokio")]
    fn with_later_deadline(parent: Option<&Arc<Self>>, at: Instant) -> Arc<Self> {
        let reporter = parent.and_then(|parent| parent.reporter(at));
        let node = Self::special(parent.as_slice(), None, reporter.cloned());
        // Before the check below: from now on the node is notified if the timer is lost.
        deadline::stand_by(&node);
        if node.is_connected() && !deadline::has_passed(at) && !node.has_live_reporter() {
            deadline::set_timer(at, &node);
        }
        node
    }

    /// The node whose own deadline is `at`, the earliest deadline of this node and its ancestors.
    ///
    /// A node that relies on a reporter stores it. So in a chain of such nodes, each one finds it one step up.
    #[cfg(feature = "tokio")]
    fn reporter(self: &Arc<Self>, at: Instant) -> Option<&Arc<Self>> {
        let mut node = self;
        loop {
            if let Some(special) = node.ancestry.special() {
                if special.own_deadline.as_ref().and_then(OwnDeadline::at) == Some(at) {
                    return Some(node);
                }
                if special.reporter.is_some() {
                    return special.reporter.as_ref();
                }
            }
            let mut parents = node.ancestry.links().iter().map(|link| &link.parent);
            node = parents.find(|parent| parent.deadline == Some(at))?;
        }
    }

    /// Whether this node relies on an ancestor's deadline, and the runtime of that deadline's timer is still alive.
    #[cfg(feature = "tokio")]
    pub(super) fn has_live_reporter(&self) -> bool {
        let special = self.ancestry.special();
        let reporter = special.and_then(|special| special.reporter.as_ref()?.ancestry.special());
        reporter.is_some_and(|special| special.timer.has_timer())
    }

    /// The children in the list.
    #[cfg(feature = "tokio")]
    pub(super) fn listed(&self) -> Vec<Arc<Self>> {
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
    fn special(
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
            settling: Settling::default(),
            guarded: Mutex::new(Guarded::default()),
            ancestry,
            deadline,
            level,
            trees,
            is_tracking: AtomicBool::new(false),
            state: AtomicU64::new(state),
        })
    }

    /// Whether this node or an ancestor has been cancelled, or its deadline has passed. A deadline costs a read of the
    /// clock.
    #[inline]
    pub(super) fn is_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        if state <= FLAGS {
            return false;
        }
        if !self.trees.is_count(state | FLAGS) && self.walk_up(state) {
            return true;
        }
        // The outcome that was seen is made final, so that no later check sees another one.
        self.deadline.is_some() && self.is_past_deadline() && self.expire().is_some()
    }

    /// Like [`is_cancelled`](Self::is_cancelled), without the read of the clock.
    #[inline]
    pub(super) fn is_known_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state > FLAGS && !self.trees.is_count(state | FLAGS) && self.walk_up(state)
    }

    /// Whether this node, whose state is `state`, or an ancestor is closed. Walks up to the first node that is known to
    /// be open, and caches the count for later walks if it has found no closed node.
    #[inline(never)]
    fn walk_up(&self, state: u64) -> bool {
        self.walk_up_nested(state, 0)
    }

    fn walk_up_nested(&self, state: u64, nesting: u32) -> bool {
        if state & CLOSED != 0 {
            return true;
        }
        // Before the walk: invariant 8.
        let count = self.trees.count();
        if count == Some(state | FLAGS) {
            return false;
        }
        let mut node = self;
        let mut open = 0;
        loop {
            match node.ancestry.links() {
                [] => break,
                [link] => node = &link.parent,
                _ if node.is_any_ancestor_closed(nesting) => return true,
                _ => break,
            }
            let state = node.state.load(Ordering::Acquire);
            if state & CLOSED != 0 {
                return true;
            }
            if node.is_known_open(state) {
                break;
            }
            open += 1;
        }
        if let Some(count) = count {
            self.cache_count(state, count);
            if open > 0 {
                self.cache_count_above(open, count);
            }
        }
        false
    }

    /// Caches the count in some of the next `open` ancestors. Each of these has one parent, so they are in the same
    /// trees.
    fn cache_count_above(&self, open: u32, count: u64) {
        let mut node = self;
        for _ in 0..open {
            let [link] = node.ancestry.links() else {
                break;
            };
            node = &link.parent;
            if node.level % CACHE_INTERVAL == 0 {
                node.cache_count(node.state.load(Ordering::Relaxed), count);
            }
        }
    }

    /// Whether the `state` of an open node shows that its ancestors are open too, so that no walk is needed.
    #[inline(always)]
    fn is_known_open(&self, state: u64) -> bool {
        state <= FLAGS
            || self.trees.is_count(state | FLAGS)
            || (self.trees.are_several() && self.trees.count() == Some(state | FLAGS))
    }

    /// Caches a count in an open node. `count` and `state` were read before a walk that found it and all its ancestors
    /// open.
    fn cache_count(&self, state: u64, count: u64) {
        if state > FLAGS && state & CLOSED == 0 {
            let cached = (count & !FLAGS) | (state & FLAGS);
            // Must fail if the node has been closed since: invariant 8. After any other change it need not succeed.
            _ = self
                .state
                .compare_exchange(state, cached, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// For a node of several parents: whether an ancestor is closed.
    #[cold]
    fn is_any_ancestor_closed(&self, nesting: u32) -> bool {
        let counts = Counts::now();
        let mut above = Ancestors::of(self);
        while let Some(node) = above.next() {
            let state = node.state.load(Ordering::Acquire);
            if state & CLOSED != 0 {
                return true;
            }
            if node.is_known_open(state) {
                above.skip_parents();
            } else if above.is_full() && nesting < MAX_NESTING && counts.of(node.trees).is_some() {
                // Walks up this branch at once, so that it takes no room in the frontier. The nested walk caches
                // counts, so the branch is walked only once.
                if node.walk_up_nested(state, nesting + 1) {
                    return true;
                }
                above.skip_parents();
            }
        }
        let mut above = Ancestors::of(self);
        while let Some(node) = above.next() {
            let state = node.state.load(Ordering::Acquire);
            if node.is_known_open(state) {
                above.skip_parents();
                continue;
            }
            if node.ancestry.links().len() > 1 || node.level % CACHE_INTERVAL == 0 {
                let count = counts.of(node.trees);
                count
                    .into_iter()
                    .for_each(|count| node.cache_count(state, count));
            }
            // A cancel elsewhere in the meantime may have made cached counts stale, so that there are more branches
            // than before. Not all counts have to be cached.
            if above.is_full() {
                above.skip_parents();
            }
        }
        false
    }

    /// Whether this node itself has an outcome.
    #[inline]
    pub(super) fn is_closed(&self) -> bool {
        self.state.load(Ordering::Acquire) & CLOSED != 0
    }

    fn is_connected(&self) -> bool {
        self.state.load(Ordering::Relaxed) & IS_CONNECTED != 0
    }

    fn set_connected(&self) {
        self.state.fetch_or(IS_CONNECTED, Ordering::Relaxed);
    }

    /// The earliest deadline of the node's own and its ancestors'.
    #[cfg(feature = "tokio")]
    #[inline]
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    #[inline]
    pub(super) fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    fn is_past_deadline(&self) -> bool {
        self.deadline.is_some_and(deadline::has_passed)
    }

    /// The outcome, if there is one: of the nearest cancelled ancestor, and from now on the node's own.
    pub(super) fn outcome(&self) -> Option<Arc<Outcome>> {
        // The ancestors are collected, on the heap, only if there is an outcome to pass down.
        if self.is_known_cancelled() {
            self.resolve_outcome()
        } else if self.is_past_deadline() {
            self.expire()
        } else {
            None
        }
    }

    /// The outcome of a node whose deadline has passed, and that was not found cancelled.
    fn expire(&self) -> Option<Arc<Outcome>> {
        let Some(deadline) = self.own_deadline() else {
            return self.resolve_outcome();
        };
        // The ancestors' deadlines are later, or the node would have none of its own. So no outcome there is earlier.
        let expiry = Outcome::of_deadline(deadline);
        let mut guarded = self.lock();
        let earlier = self.set_outcome(&mut guarded, &expiry, Origin::Own);
        drop(guarded);
        Some(earlier.unwrap_or(expiry))
    }

    fn own_deadline(&self) -> Option<&OwnDeadline> {
        self.ancestry.special()?.own_deadline.as_ref()
    }

    /// Passes outcomes down from the top, so that each node gets what its ancestors have: invariant 2.
    fn resolve_outcome(&self) -> Option<Arc<Outcome>> {
        match self.own_outcome() {
            None => self.resolve_outcome_except(&mut Resolved::default()),
            outcome => outcome,
        }
    }

    fn resolve_outcome_except(&self, resolved: &mut Resolved) -> Option<Arc<Outcome>> {
        if !self.is_closed() {
            let mut open = Vec::new();
            let mut above = Ancestors::of(self);
            while let Some(node) = above.next() {
                if node.is_closed() || resolved.contains(node) {
                    above.skip_parents();
                } else {
                    open.push(node);
                }
            }
            for node in open.into_iter().rev() {
                node.inherit();
                resolved.insert(node);
            }
            self.inherit();
        }
        self.own_outcome()
    }

    /// Sets the earliest of the parents' outcomes and that of the node's own deadline.
    fn inherit(&self) {
        let parents = self.ancestry.links().iter();
        let outcomes = parents.filter_map(|link| link.parent.own_outcome());
        let earliest = outcomes
            .chain(self.expiry())
            .min_by_key(|outcome| (outcome.at, outcome.order));
        if let Some(outcome) = earliest {
            let origin = match self.own_deadline() {
                Some(_) => Origin::Own,
                None => Origin::Parent,
            };
            drop(self.set_outcome(&mut self.lock(), &outcome, origin));
        }
    }

    /// The outcome of the node's own deadline, once it has passed.
    fn expiry(&self) -> Option<Arc<Outcome>> {
        let deadline = self.own_deadline()?;
        deadline
            .has_passed()
            .then(|| Outcome::of_deadline(deadline))
    }

    /// Cancels the subtree and notifies every listener in it. Returns whether this call won.
    pub(super) fn cancel(
        self: &Arc<Self>,
        reason: StopReason,
        location: &'static Location<'static>,
    ) -> bool {
        self.cancel_and(reason, location, &mut Foreign::run)
    }

    /// The same, with `run` to run foreign code.
    pub(super) fn cancel_and(
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
    pub(super) fn expire_and(&self, run: &mut Run<'_>) {
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

    /// Sets `outcome`, unless the node has an earlier one, which is returned.
    #[inline]
    fn set_outcome(
        &self,
        guarded: &mut Guarded,
        outcome: &Arc<Outcome>,
        origin: Origin,
    ) -> Option<Arc<Outcome>> {
        if let Some(earlier) = &guarded.outcome {
            return Some(Arc::clone(earlier));
        }
        guarded.outcome = Some(Arc::clone(outcome));
        match origin {
            Origin::Own => self.set_closed(),
            Origin::Parent => self.set_closed_uncounted(),
        }
        None
    }

    fn set_closed(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & HAS_CHILDREN == 0 {
            // Invariant 9: this fails if the first child is made in the meantime.
            let closed = self.state.compare_exchange(
                state,
                state | CLOSED,
                Ordering::Release,
                Ordering::Relaxed,
            );
            match closed {
                Ok(_) => return,
                Err(now) => state = now,
            }
        }
        self.trees.count_cancel(|| self.set_closed_uncounted());
    }

    #[inline(always)]
    fn set_closed_uncounted(&self) {
        self.state.fetch_or(CLOSED, Ordering::Release);
    }

    /// The outcome of this node itself.
    fn own_outcome(&self) -> Option<Arc<Outcome>> {
        if !self.is_closed() {
            return None;
        }
        self.lock().outcome.clone()
    }

    /// Inserts a listener into this node's list, or returns it as an `Err` if this node is cancelled.
    #[inline(always)]
    pub(super) fn insert(&self, listener: Listener) -> Result<u64, Listener> {
        self.lock().insert(listener)
    }

    /// Inserts a listener that a cancel of this node or of any ancestor notifies, or returns it as an `Err` if one of
    /// them is cancelled.
    #[inline(always)]
    pub(super) fn add(self: &Arc<Self>, listener: Listener) -> Result<u64, Listener> {
        let key = self.insert(listener)?;
        if self.ensure_connected() {
            return Ok(key);
        }
        // If a cancel has taken the listener already, that cancel notifies it.
        self.remove(key).map_or(Ok(key), Err)
    }

    /// Makes sure that a cancel of any ancestor reaches this node; `false` if one has been cancelled.
    #[inline(always)]
    pub(super) fn ensure_connected(self: &Arc<Self>) -> bool {
        self.is_connected() || self.connect()
    }

    /// Removes a listener and returns it, so that the caller drops it without the lock.
    #[must_use = "a listener is dropped where no lock is held"]
    #[inline]
    pub(super) fn remove(&self, key: u64) -> Option<Listener> {
        self.lock().listeners.remove(key)
    }

    /// Replaces the listener under `key` and returns it, so that the caller drops it without the lock. If a cancel has
    /// taken that one, returns the new listener as an `Err`.
    pub(super) fn replace(&self, key: u64, listener: Listener) -> Result<Listener, Listener> {
        self.lock().listeners.replace(key, listener)
    }

    #[inline(never)]
    fn connect(self: &Arc<Self>) -> bool {
        let is_listed = |node: &Arc<Self>| node.ancestry.links().iter().all(|link| link.list(node));
        if !self.unconnected().all(is_listed) {
            return false;
        }
        // So that the next listener needs no walk.
        self.unconnected().for_each(|node| node.set_connected());
        true
    }

    /// This node and its ancestors, except connected nodes and all the ancestors of those.
    fn unconnected(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        let mut next = Some(self);
        let mut above = Ancestors::of(self);
        iter::from_fn(move || {
            loop {
                let node = next.take().or_else(|| above.next())?;
                if !node.is_connected() {
                    return Some(node);
                }
                above.skip_parents();
            }
        })
    }

    #[inline(always)]
    pub(super) fn lock(&self) -> MutexGuard<'_, Guarded> {
        // Nothing panics under the lock.
        self.guarded.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let mut rest = Vec::new();
        let parent = self.unlink(&mut rest).and_then(Arc::into_inner);
        if parent.is_some() || !rest.is_empty() {
            drop_chain(parent, rest);
        }
    }
}

/// Drops a node whose last handle was in a child, then its parents if that was the last handle of these, and so on up
/// the tree, in a loop.
#[cold]
fn drop_chain(first: Option<Node>, mut rest: Vec<Arc<Node>>) {
    let mut parent = first.and_then(|node| node.into_parent(&mut rest));
    while let Some(handle) = parent.or_else(|| rest.pop()) {
        parent = Arc::into_inner(handle).and_then(|node| node.into_parent(&mut rest));
    }
}

impl Node {
    fn into_parent(mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let parent = self.unlink(rest);
        // Nothing else in it has to be dropped, and it must not be unlinked twice.
        let guarded = mem::take(&mut self.guarded);
        mem::forget(self);
        drop(guarded);
        parent
    }

    /// For a node that is being dropped: removes it from its parents' lists, and returns the parents: one as the
    /// result, the others in `rest`.
    #[inline(always)]
    fn unlink(&mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let guarded = self.guarded.get_mut();
        let listeners = &mut guarded.unwrap_or_else(PoisonError::into_inner).listeners;
        if !listeners.is_empty() {
            let listeners = listeners.take();
            return self.unlink_with(listeners, rest);
        }
        self.ancestry.unlink(rest)
    }

    #[cold]
    fn unlink_with(
        &mut self,
        listeners: Taken<Listener>,
        rest: &mut Vec<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let mut panic = FirstPanic::default();
        panic.catch(|| self.drop_listeners(listeners));
        let parent = self.ancestry.unlink(rest);
        panic.resume();
        parent
    }

    /// Drops the listeners of a node that is being dropped. If the node was cancelled, but no cancel has reached its
    /// callbacks yet, they run here: a check or a deadline notifies no listener, and the walk of a cancel no longer
    /// finds this node.
    fn drop_listeners(&self, listeners: Taken<Listener>) {
        let mut parents = self.ancestry.links().iter();
        let is_known = self.is_closed() || parents.any(|link| link.parent.is_known_cancelled());
        let outcome = match is_known || self.is_past_deadline() {
            true => self.resolve_outcome(),
            false => None,
        };
        if let Some(outcome) = outcome {
            return notify(outcome, listeners, &mut Foreign::run);
        }
        let mut panic = FirstPanic::default();
        for listener in listeners {
            panic.catch(|| drop(listener));
        }
        panic.resume();
    }
}

/// The nodes to which a cancel has passed outcomes down already, so that it does so once, however many nodes of several
/// parents it reaches. Any cancel above one of these nodes since then is later than this cancel.
#[derive(Default)]
struct Resolved {
    /// The `Weak` keeps the address of a dropped node from being used for another one. `None` instead of an empty map,
    /// so that there is nothing to drop.
    nodes: Option<BTreeMap<*const Node, Weak<Node>>>,
}

impl Resolved {
    fn contains(&self, node: &Arc<Node>) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.is_some_and(|nodes| nodes.contains_key(&Arc::as_ptr(node)))
    }

    /// Inserts a node of several parents, and in a chain one node in every `CACHE_INTERVAL`.
    fn insert(&mut self, node: &Arc<Node>) {
        let links = node.ancestry.links().len();
        if links > 1 || (links == 1 && node.level % CACHE_INTERVAL == 0) {
            let (place, node) = (Arc::as_ptr(node), Arc::downgrade(node));
            self.nodes.get_or_insert_default().insert(place, node);
        }
    }
}

/// Foreign code that a cancel runs, except wakers. The timer driver must not run it.
pub(super) enum Foreign {
    /// A callback, and the outcome with whose reason it is called.
    Callback(Callback, Arc<Outcome>),
    /// A node whose last handle the cancel had. Its drop also drops the callbacks of ancestors that it alone keeps
    /// alive.
    LastHandle(Node),
}

impl Foreign {
    /// Drops a handle of a node, or returns the node if it is the last one.
    pub(super) fn of_handle(node: Arc<Node>) -> Option<Self> {
        Arc::into_inner(node).map(Self::LastHandle)
    }

    /// Runs it on the current thread, which cancels.
    fn run(self) {
        match self {
            Self::Callback(callback, outcome) => callback.run(&outcome.reason),
            Self::LastHandle(node) => drop(node),
        }
    }
}

/// Called by a cancel for each of these.
pub(super) type Run<'a> = dyn FnMut(Foreign) + 'a;

/// Notifies all listeners of a subtree, depth first: of a child all its descendants, then the next listener.
fn notify(outcome: Arc<Outcome>, listeners: Taken<Listener>, run: &mut Run<'_>) {
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
