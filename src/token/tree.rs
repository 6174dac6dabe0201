//! The tree behind [`CancellationToken`](super::CancellationToken): one node for each token, listeners in it.
//!
//! # A check pulls, a cancel does not push
//!
//! A token is cancelled when its own node is, **or an ancestor's**. The other way, a cancel that walks down and flags
//! every node, makes a check one load at any depth, but then a cancel is as long as its walk. Two overlapping ones (a
//! parent's and a child's) see each other's half-done work, and a `cancel()` that lost returns while the winner is still
//! on its way: the caller then finds a grandchild that is not cancelled. Waiting for the winner would mend that and could
//! deadlock, since a waker is free to cancel.
//!
//! Pulled, one store cancels the whole subtree in one instant, so nothing is ever half cancelled. A child is just an
//! allocation until something waits on it: making and dropping one takes no lock.
//!
//! # A check walks up once, and again after a cancel
//!
//! A check that walks up costs more at each level. So each tree has a count of its cancels, which a cancel raises before
//! and after it closes its node, and a node notes the count at which its last walk found nothing. As long as the count is
//! the same, a check is two loads and two comparisons, at whatever depth. A root needs no count, as it has no ancestors.
//!
//! Most tokens that are cancelled never had a child: no other node has to hear of it, and so the cancel is not counted.
//! That leaves few. Trees may share a count, see `counts`: what happens in another tree can cost a walk, never an answer.
//!
//! Counts are pulled as well: nothing is stored in the nodes below, whose number does not matter to a cancel. What a
//! check reads of a node stands on a cache line that others do not write, and a count on one that only counted cancels
//! write. So making and dropping tokens and adapters on one core does not disturb the checks on another.
//!
//! In instructions, as measured: a check is 4 at a root and 12 at any depth below, of the 8 and 16 of a loop around it; a
//! child made and dropped is 331, where tokio-util's, which is linked at once, is 714.
//!
//! A walk over several parents is ordered by levels, see `Ancestors`. It leaves notes as well, so that what lies above
//! several tokens is walked once for all of them.
//!
//! # What can be stopped from more than one side
//!
//! A node of several parents has the outcome of the first of them, and one with a deadline that of whichever comes
//! first, an ancestor's cancel or the time. A outcome says when it came into force. So it matters neither when a check
//! comes, nor in which order cancels come by, nor whether a check had seen that the time was over: a child of several
//! parents, too, is just an allocation until something waits on it.
//!
//! # Invariants
//!
//! 1. A node's outcome is given once, under its lock, and `state` says `CANCELLED` from then on.
//! 2. A outcome travels from a node to its child and nowhere else: a node gets that of its nearest cancelled ancestor
//!    (of several parents, the earliest one), and every node between them gets it first. So no node can be given a
//!    outcome that the nodes between disagree with, whichever look or cancel comes to it first. A deadline that has
//!    passed is such a outcome, for the node whose it is.
//! 3. At most one node is locked at a time, and no foreign code runs under a lock: no waker is cloned, woken or
//!    dropped there, no callback is run or dropped there, no error is dropped there.
//! 4. A child owns its parents; a parent knows its children weakly. A child is listed in its parents once there is
//!    somebody to be told in it or below it, and stays listed until it goes.
//! 5. The list of a node is taken only under the lock under which the node is found or made cancelled, and nothing
//!    enters it afterwards; or when the node goes. So a listener that got in while the node was open is always taken by
//!    someone, once.
//! 6. Once a node has a key in a parent, the parent either lists it or has had its list taken by a cancel, which will
//!    come to the node. `is_connected` says so of all the edges above. With 5: a listener that got into its node's
//!    list, and then found the node connected or connected it, is told by a cancel of any ancestor.
//! 7. Every walk is a loop: up the parents, down the listeners, and along the parents that a drop releases. A check of
//!    very many ways at once nests a few of them.
//! 8. Where a node has noted a count, no cancel of it or of a node above has ended at that count or before. So it is if
//!    the count was read before the walk: a cancel that had ended by then is found closed, by its `Release` of the count
//!    and the `Acquire` of the reader, or stops the walk at a note, which is of a count that is no older. A count at which
//!    a cancel is under way is not noted. A node that is closed gets no note: it is closed by a
//!    read-modify-write, and a note is a compare-exchange from the open state of before the walk.
//! 9. A cancel is counted unless its node has no child: `HAS_CHILDREN` and `CLOSED` are bits of one word, whose changes
//!    have one order. Either the cancel finds the first child made and counts, or whatever is made below finds the node
//!    closed, on its first walk, and notes nothing ever. A outcome that comes from a parent is not counted again.
//!
//! # Why a check may rely on a note (T1 to T5)
//!
//! Say that a cancel of an ancestor happened before a check, or that the thread has seen the ancestor closed. Either way
//! the cancel had begun, and that it begins is counted before its node is closed. So the check reads a count that has it.
//! If the count is the one noted, then the note was made when that cancel had begun, and had ended, as no other count is
//! noted: against 8. So the check walks, and finds the node closed: a cancel that has returned, won or lost, has cancelled
//! all below (T3), callbacks find all below cancelled (T4), and what was once seen cancelled stays so (T1). The reason is
//! given under the lock, before the state says `CLOSED` (T2). A child starts without a note, and so is born cancelled if
//! its parent is (T5).

use super::{
    Callback,
    ancestry::{Ancestors, Ancestry, Link, Links, Special},
    counts::{Counts, NOTES, START, Trees},
    holders::Tracking,
    listeners::{Listeners, Taken},
    moment::{self, Moment, OwnDeadline},
    settling::{Settlers, Settling},
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

/// In a node's `state`, from when its first child is made.
const HAS_CHILDREN: u64 = 0b1;

/// In a node's `state`, see invariant 6.
const IS_CONNECTED: u64 = 0b100;

/// In a node's `state`, from when it is cancelled.
const CLOSED: u64 = 0b1000;

/// In the `state` of a node that has noted no count yet, of all but roots.
const NO_COUNT: u64 = 0b1_0000;

const _: () = assert!(NOTES == HAS_CHILDREN | IS_CONNECTED && START > NOTES | CLOSED | NO_COUNT);

/// How many levels apart are the nodes that a walk leaves notes in.
const NEAR: u32 = 8;

/// How deep the walks of a check are nested at most, where very many ways are gone up.
const NESTED: u32 = 4;

/// Much is written at its front, and what a check reads stands at its end: on another cache line, so that a check of
/// this node does not mind what is made and dropped below it.
#[repr(C)]
pub(super) struct Node {
    pub(super) settling: Settling,
    guarded: Mutex<Guarded>,
    pub(super) ancestry: Ancestry,
    /// The earliest of its own and its ancestors'.
    deadline: Option<Moment>,
    /// One more than the highest of its parents' levels, 0 at a root: so a node is above none of its own level.
    // So deep that it wrapped no chain fits into memory.
    pub(super) level: u32,
    trees: Trees,
    /// Whether it lists its holders.
    // ORDERING: `Relaxed`, stored under the lock. Whoever finds it set locks the node after that.
    pub(super) is_tracking: AtomicBool,
    /// `CLOSED` or not; and of an open node that is no root, the count at which it and all above it were found open, see
    /// invariant 8. The bits of `NOTES` are the node's own, `HAS_CHILDREN` and `IS_CONNECTED`.
    // ORDERING: `CLOSED` is set with `Release` under the lock, and loaded with `Acquire` without it. The pair makes what
    // came before a cancel visible to whoever sees the cancel, by whichever node below. A count is noted with `Release`
    // and loaded with `Acquire` as well: what uses it reads counts that are no older. The others publish nothing and
    // are `Relaxed`: invariant 6 rests on the order of critical sections alone, and invariant 9 on that of this word.
    state: AtomicU64,
}

#[derive(Default)]
#[repr(C)]
pub(super) struct Guarded {
    listeners: Listeners<Listener, Rare>,
    /// `Some` from when `state` is `CLOSED`.
    outcome: Option<Arc<Outcome>>,
}

/// What most nodes do without.
#[derive(Default)]
pub(super) struct Rare {
    pub(super) settlers: Settlers,
    pub(super) tracking: Option<Box<Tracking>>,
    /// The token of tokio-util's that is cancelled with this node, once somebody has asked for one.
    #[cfg(feature = "tokio-util")]
    pub(super) theirs: Option<Arc<tokio_util::sync::CancellationToken>>,
}

impl Guarded {
    /// Lists a listener, or gives it back if the node is cancelled.
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
        self.listeners.beside()
    }

    pub(super) fn tracking(&mut self) -> Option<&mut Tracking> {
        self.listeners.get_beside()?;
        self.listeners.beside().tracking.as_deref_mut()
    }

    #[cfg(feature = "tokio-util")]
    pub(super) fn theirs(&self) -> Option<Arc<tokio_util::sync::CancellationToken>> {
        self.listeners.get_beside()?.theirs.clone()
    }
}

pub(super) enum Listener {
    Waker(Waker),
    Child(Weak<Node>),
    Callback(Callback),
}

/// What stopped a node. All that were stopped by the same share it.
pub(super) struct Outcome {
    /// A deadline's is its own point in time, whenever somebody sees that it is over. `None` without a clock.
    at: Option<Moment>,
    /// Of two of the same moment, of which neither overlapped the other, the earlier one has the lower number. A
    /// deadline has the lowest: at that moment it is over.
    order: u64,
    pub(super) reason: StopReason,
    /// Of the cancel, or of what made the deadline.
    pub(super) location: &'static Location<'static>,
}

impl Outcome {
    fn new(reason: StopReason, location: &'static Location<'static>) -> Arc<Self> {
        // ORDERING: `Relaxed`. That of two cancels where one happened before the other is the order of the two.
        static ORDER: atomic::AtomicU64 = atomic::AtomicU64::new(1);
        Arc::new(Self {
            at: moment::now(),
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

/// Where a outcome comes from.
#[derive(Clone, Copy)]
enum Given {
    /// A cancel of the node, or its own deadline; or it may be.
    Here,
    /// A parent, which has it already.
    Above,
}

impl Node {
    pub(super) fn root() -> Arc<Self> {
        Self::new(IS_CONNECTED, 0, Trees::next(), None, Ancestry::ROOT)
    }

    /// Nothing is asked of the parent: what it is, or becomes, the child sees when it is looked at.
    pub(super) fn child(self: &Arc<Self>) -> Arc<Self> {
        self.note_child();
        let level = self.level.wrapping_add(1);
        let ancestry = Ancestry::Child(Link::to(self));
        Self::new(NO_COUNT, level, self.trees, self.deadline, ancestry)
    }

    /// A child of all of them.
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

    /// A child of `parent`, or a root, that is cancelled at a point in time, or never. An earlier deadline of the parent
    /// comes first, with its own cause.
    #[cfg(feature = "tokio")]
    #[track_caller]
    pub(super) fn with_deadline(
        parent: Option<&Arc<Self>>,
        at: Option<Moment>,
        cause: Option<StopReason>,
    ) -> Arc<Self> {
        moment::require_runtime();
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
        if moment::is_over(at) {
            // It cannot have been before the node was: a parent that is cancelled already was first.
            let inherited = parent.and_then(|parent| parent.outcome());
            let outcome = inherited.unwrap_or_else(|| Outcome::new(reason, made_at));
            drop(node.give(&mut node.lock(), &outcome, Given::Here));
        } else {
            moment::set_timer(at, &node);
        }
        node
    }

    /// A child whose own deadline is not before an ancestor's. It relies on the timer of that one for as long as its
    /// runtime lives, and stands by to set one of this runtime then.
    #[cfg(feature = "tokio")]
    fn with_later_deadline(parent: Option<&Arc<Self>>, at: Moment) -> Arc<Self> {
        let reporter = parent.and_then(|parent| parent.reporter(at));
        let node = Self::special(parent.as_slice(), None, reporter.cloned());
        // First: a timer that is lost from now on is heard of.
        moment::stand_by(&node);
        if node.is_connected() && !moment::is_over(at) && !node.is_reported_to() {
            moment::set_timer(at, &node);
        }
        node
    }

    /// Whose deadline `at` is, which is the earliest above: this node's, or an ancestor's.
    ///
    /// A node that relies on one knows it. So in a chain of these, each finds it one step above.
    #[cfg(feature = "tokio")]
    fn reporter(self: &Arc<Self>, at: Moment) -> Option<&Arc<Self>> {
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

    /// Whether a runtime that lives reports the deadline of an ancestor to this node, which has a later one.
    #[cfg(feature = "tokio")]
    pub(super) fn is_reported_to(&self) -> bool {
        let special = self.ancestry.special();
        let reporter = special.and_then(|special| special.reporter.as_ref()?.ancestry.special());
        reporter.is_some_and(|special| special.timer.has_timer())
    }

    /// The nodes that are listed here.
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

    /// Nothing is asked of the parents here either, so that the depth costs nothing.
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
            parent.note_child();
        }
        let trees = parents.iter().map(|parent| parent.trees);
        let trees = trees.reduce(Trees::and).unwrap_or_else(Trees::next);
        let deadlines = parents.iter().filter_map(|parent| parent.deadline);
        let own = own_deadline.as_ref().and_then(OwnDeadline::at);
        let deadline = deadlines.chain(own).min();
        let special = Special::new(links, own_deadline, reporter);
        let ancestry = Ancestry::Other(Some(Box::new(special)));
        Self::new(NO_COUNT, level.unwrap_or(0), trees, deadline, ancestry)
    }

    /// See invariant 9.
    #[inline(always)]
    fn note_child(&self) {
        if self.state.load(Ordering::Relaxed) & (HAS_CHILDREN | CLOSED) == 0 {
            self.state.fetch_or(HAS_CHILDREN, Ordering::Relaxed);
        }
    }

    #[inline(always)]
    fn new(
        state: u64,
        level: u32,
        trees: Trees,
        deadline: Option<Moment>,
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

    /// Whether this node or an ancestor has been cancelled, or is over its deadline. That costs a read of the clock.
    #[inline]
    pub(super) fn is_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        if state <= NOTES {
            return false;
        }
        if !self.trees.is_count(state | NOTES) && self.walk_up(state) {
            return true;
        }
        // What is seen is fixed, so that whatever comes later sees nothing else.
        self.deadline.is_some() && self.is_over() && self.expire().is_some()
    }

    /// Like [`is_cancelled`](Self::is_cancelled), without the read of the clock.
    #[inline]
    pub(super) fn is_known_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state > NOTES && !self.trees.is_count(state | NOTES) && self.walk_up(state)
    }

    /// Whether this node, of which this is the state, is cancelled or one above it. Walks up to the first that is known to
    /// be open, and leaves notes for later walks if it has found nothing.
    #[inline(never)]
    fn walk_up(&self, state: u64) -> bool {
        self.walk_up_nested(state, 0)
    }

    fn walk_up_nested(&self, state: u64, nested: u32) -> bool {
        if state & CLOSED != 0 {
            return true;
        }
        // Before the walk: invariant 8.
        let count = self.trees.count();
        if count == Some(state | NOTES) {
            return false;
        }
        let mut node = self;
        let mut open = 0;
        loop {
            match node.ancestry.links() {
                [] => break,
                [link] => node = &link.parent,
                _ if node.is_any_closed_above(nested) => return true,
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
            self.note(state, count);
            if open > 0 {
                self.note_above(open, count);
            }
        }
        false
    }

    /// Leaves notes in so many nodes above, of which each has one parent. They are of the same trees.
    fn note_above(&self, open: u32, count: u64) {
        let mut node = self;
        for _ in 0..open {
            let [link] = node.ancestry.links() else {
                break;
            };
            node = &link.parent;
            if node.level % NEAR == 0 {
                node.note(node.state.load(Ordering::Relaxed), count);
            }
        }
    }

    /// Whether an open node needs no walk, by its `state`.
    #[inline(always)]
    fn is_known_open(&self, state: u64) -> bool {
        state <= NOTES
            || self.trees.is_count(state | NOTES)
            || (self.trees.are_several() && self.trees.count() == Some(state | NOTES))
    }

    /// Notes in an open node of this state the count of before a walk that has found it open, and all above.
    fn note(&self, state: u64, count: u64) {
        if state > NOTES && state & CLOSED == 0 {
            let noted = (count & !NOTES) | (state & NOTES);
            // Not if it has been closed since: invariant 8. Whatever else it is, it need not be noted.
            _ = self
                .state
                .compare_exchange(state, noted, Ordering::Release, Ordering::Relaxed);
        }
    }

    /// For a node of several parents: whether one above it is cancelled.
    #[cold]
    fn is_any_closed_above(&self, nested: u32) -> bool {
        let counts = Counts::now();
        let mut above = Ancestors::of(self);
        while let Some(node) = above.next() {
            let state = node.state.load(Ordering::Acquire);
            if state & CLOSED != 0 {
                return true;
            }
            if node.is_known_open(state) {
                above.turn_back();
            } else if above.is_full() && nested < NESTED && counts.of(node.trees).is_some() {
                // Goes up this way at once, so that it takes no room. What it walks it notes, so that it is walked once.
                if node.walk_up_nested(state, nested + 1) {
                    return true;
                }
                above.turn_back();
            }
        }
        let mut above = Ancestors::of(self);
        while let Some(node) = above.next() {
            let state = node.state.load(Ordering::Acquire);
            if node.is_known_open(state) {
                above.turn_back();
                continue;
            }
            if node.ancestry.links().len() > 1 || node.level % NEAR == 0 {
                let count = counts.of(node.trees);
                count.into_iter().for_each(|count| node.note(state, count));
            }
            // A cancel elsewhere may have come meanwhile, so that the ways are more than before. Notes need not be made.
            if above.is_full() {
                above.turn_back();
            }
        }
        false
    }

    /// Whether this very node is cancelled.
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
    pub(super) fn deadline(&self) -> Option<Moment> {
        self.deadline
    }

    #[inline]
    pub(super) fn has_deadline(&self) -> bool {
        self.deadline.is_some()
    }

    fn is_over(&self) -> bool {
        self.deadline.is_some_and(moment::is_over)
    }

    /// The outcome, if there is one: of the nearest cancelled ancestor, and from now on the node's own.
    pub(super) fn outcome(&self) -> Option<Arc<Outcome>> {
        // The way up is only noted, on the heap, once there is something to bring down.
        if self.is_known_cancelled() {
            self.fix()
        } else if self.is_over() {
            self.expire()
        } else {
            None
        }
    }

    /// The outcome of a node that is over its deadline, and was not found cancelled.
    fn expire(&self) -> Option<Arc<Outcome>> {
        let Some(deadline) = self.own_deadline() else {
            return self.fix();
        };
        // The deadlines above are later, or it would have none of its own. So nothing there comes before it.
        let expiry = Outcome::of_deadline(deadline);
        let mut guarded = self.lock();
        let earlier = self.give(&mut guarded, &expiry, Given::Here);
        drop(guarded);
        Some(earlier.unwrap_or(expiry))
    }

    fn own_deadline(&self) -> Option<&OwnDeadline> {
        self.ancestry.special()?.own_deadline.as_ref()
    }

    /// Brings the outcomes down, from the top, to each node what those above it really have: invariant 2.
    fn fix(&self) -> Option<Arc<Outcome>> {
        match self.own_verdict() {
            None => self.fix_all_but(&mut Fixed::default()),
            outcome => outcome,
        }
    }

    fn fix_all_but(&self, fixed: &mut Fixed) -> Option<Arc<Outcome>> {
        if !self.is_closed() {
            let mut open = Vec::new();
            let mut above = Ancestors::of(self);
            while let Some(node) = above.next() {
                if node.is_closed() || fixed.contains(node) {
                    above.turn_back();
                } else {
                    open.push(node);
                }
            }
            for node in open.into_iter().rev() {
                node.inherit();
                fixed.note(node);
            }
            self.inherit();
        }
        self.own_verdict()
    }

    /// Gives the earliest of the parents' outcomes, and of the node's own deadline.
    fn inherit(&self) {
        let parents = self.ancestry.links().iter();
        let outcomes = parents.filter_map(|link| link.parent.own_verdict());
        let earliest = outcomes
            .chain(self.expiry())
            .min_by_key(|outcome| (outcome.at, outcome.order));
        if let Some(outcome) = earliest {
            let given = match self.own_deadline() {
                Some(_) => Given::Here,
                None => Given::Above,
            };
            drop(self.give(&mut self.lock(), &outcome, given));
        }
    }

    /// The outcome of the node's own deadline, once it is over.
    fn expiry(&self) -> Option<Arc<Outcome>> {
        let deadline = self.own_deadline()?;
        deadline.is_over().then(|| Outcome::of_deadline(deadline))
    }

    /// Cancels the subtree, tells every listener in it, and says whether this call is what cancelled this node.
    pub(super) fn cancel(
        self: &Arc<Self>,
        reason: StopReason,
        location: &'static Location<'static>,
    ) -> bool {
        self.cancel_and(reason, location, &mut Foreign::run)
    }

    /// The same, with `run` for what runs code of others.
    pub(super) fn cancel_and(
        self: &Arc<Self>,
        reason: StopReason,
        location: &'static Location<'static>,
        run: &mut Run<'_>,
    ) -> bool {
        // The outcome of an ancestor that is cancelled already comes first. A reason that loses to it, or to another
        // cancel of this node, is kept until all listeners are notified, as its error may panic when it is dropped.
        let (outcome, _lost) = match self.outcome() {
            Some(inherited) => (inherited, Some(reason)),
            None => (Outcome::new(reason, location), None),
        };
        self.close_and_tell(outcome, run)
    }

    /// Cancels a node that is over its deadline, as its timer does.
    pub(super) fn expire_and(&self, run: &mut Run<'_>) {
        let outcome = match self.is_known_cancelled() {
            true => self.fix(),
            false => self.expire(),
        };
        if let Some(outcome) = outcome {
            self.close_and_tell(outcome, run);
        }
    }

    fn close_and_tell(&self, outcome: Arc<Outcome>, run: &mut Run<'_>) -> bool {
        let (earlier, listeners) = self.close(&outcome, Given::Here);
        let won = earlier.is_none();
        // A loser tells too: a look may have fixed the outcome, and a look tells nobody.
        let in_force = earlier.unwrap_or_else(|| Arc::clone(&outcome));
        tell(in_force, listeners, run);
        won
    }

    /// Gives `outcome` unless there is an earlier one, which is the answer, and takes the listeners.
    #[inline]
    fn close(
        &self,
        outcome: &Arc<Outcome>,
        given: Given,
    ) -> (Option<Arc<Outcome>>, Taken<Listener>) {
        let mut guarded = self.lock();
        let earlier = self.give(&mut guarded, outcome, given);
        let listeners = guarded.listeners.take();
        drop(guarded);
        #[cfg(feature = "tokio")]
        if let Some(special) = self.ancestry.special() {
            special.timer.empty();
        }
        (earlier, listeners)
    }

    /// Gives `outcome` unless there is an earlier one, which is the answer.
    #[inline]
    fn give(
        &self,
        guarded: &mut Guarded,
        outcome: &Arc<Outcome>,
        given: Given,
    ) -> Option<Arc<Outcome>> {
        if let Some(earlier) = &guarded.outcome {
            return Some(Arc::clone(earlier));
        }
        guarded.outcome = Some(Arc::clone(outcome));
        match given {
            Given::Here => self.set_closed(),
            Given::Above => self.set_closed_uncounted(),
        }
        None
    }

    fn set_closed(&self) {
        let mut state = self.state.load(Ordering::Relaxed);
        while state & HAS_CHILDREN == 0 {
            // Invariant 9: if it gets its first child meanwhile, this fails.
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

    /// The outcome given in this very node.
    fn own_verdict(&self) -> Option<Arc<Outcome>> {
        if !self.is_closed() {
            return None;
        }
        self.lock().outcome.clone()
    }

    /// Lists a listener here, or gives it back if this node is cancelled.
    #[inline(always)]
    pub(super) fn insert(&self, listener: Listener) -> Result<u64, Listener> {
        self.lock().insert(listener)
    }

    /// Lists a listener that a cancel of this node or of any ancestor tells, or gives it back if there was one.
    #[inline(always)]
    pub(super) fn add(self: &Arc<Self>, listener: Listener) -> Result<u64, Listener> {
        let key = self.insert(listener)?;
        if self.ensure_connected() {
            return Ok(key);
        }
        // Unless a cancel has taken it.
        self.remove(key).map_or(Ok(key), Err)
    }

    /// Makes sure that a cancel of any ancestor comes by here; `false` if one has been cancelled.
    #[inline(always)]
    pub(super) fn ensure_connected(self: &Arc<Self>) -> bool {
        self.is_connected() || self.connect()
    }

    /// Takes a listener out, for the caller to drop it without the lock.
    #[must_use = "a listener is dropped where no lock is held"]
    #[inline]
    pub(super) fn remove(&self, key: u64) -> Option<Listener> {
        self.lock().listeners.remove(key)
    }

    /// Puts a listener in another's place, and answers with that one for the caller to drop; or gives it back if a
    /// cancel has taken the other.
    pub(super) fn replace(&self, key: u64, listener: Listener) -> Result<Listener, Listener> {
        self.lock().listeners.replace(key, listener)
    }

    #[inline(never)]
    fn connect(self: &Arc<Self>) -> bool {
        let is_listed = |node: &Arc<Self>| node.ancestry.links().iter().all(|link| link.list(node));
        if !self.unconnected().all(is_listed) {
            return false;
        }
        // So that the next listener is not walked up for.
        self.unconnected().for_each(|node| node.set_connected());
        true
    }

    /// This node and those above it, without what is connected and all that is above that.
    fn unconnected(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        let mut next = Some(self);
        let mut above = Ancestors::of(self);
        iter::from_fn(move || {
            loop {
                let node = next.take().or_else(|| above.next())?;
                if !node.is_connected() {
                    return Some(node);
                }
                above.turn_back();
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
        let parent = self.leave(&mut rest).and_then(Arc::into_inner);
        if parent.is_some() || !rest.is_empty() {
            drop_all(parent, rest);
        }
    }
}

/// Drops a node whose last handle was below it, and so on, up the tree, in a loop.
#[cold]
fn drop_all(first: Option<Node>, mut rest: Vec<Arc<Node>>) {
    let mut parent = first.and_then(|node| node.into_parent(&mut rest));
    while let Some(handle) = parent.or_else(|| rest.pop()) {
        parent = Arc::into_inner(handle).and_then(|node| node.into_parent(&mut rest));
    }
}

impl Node {
    fn into_parent(mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let parent = self.leave(rest);
        // Nothing else in it has to be dropped, and it need not leave twice.
        let guarded = mem::take(&mut self.guarded);
        mem::forget(self);
        drop(guarded);
        parent
    }

    /// For a node that is dropped: takes it out of its parents' lists, and hands those over.
    #[inline(always)]
    fn leave(&mut self, rest: &mut Vec<Arc<Self>>) -> Option<Arc<Self>> {
        let guarded = self.guarded.get_mut();
        let listeners = &mut guarded.unwrap_or_else(PoisonError::into_inner).listeners;
        if !listeners.is_empty() {
            let listeners = listeners.take();
            return self.leave_with(listeners, rest);
        }
        self.ancestry.leave(rest)
    }

    #[cold]
    fn leave_with(
        &mut self,
        listeners: Taken<Listener>,
        rest: &mut Vec<Arc<Self>>,
    ) -> Option<Arc<Self>> {
        let mut panic = FirstPanic::default();
        panic.catch(|| self.drop_listeners(listeners));
        let parent = self.ancestry.leave(rest);
        panic.resume();
        parent
    }

    /// Callbacks whom no cancel came to are told, if there was one: a look or a deadline tells nobody, and a walk
    /// finds nobody here any more.
    fn drop_listeners(&self, listeners: Taken<Listener>) {
        let mut parents = self.ancestry.links().iter();
        let is_known = self.is_closed() || parents.any(|link| link.parent.is_known_cancelled());
        let outcome = match is_known || self.is_over() {
            true => self.fix(),
            false => None,
        };
        if let Some(outcome) = outcome {
            return tell(outcome, listeners, &mut Foreign::run);
        }
        let mut panic = FirstPanic::default();
        for listener in listeners {
            panic.catch(|| drop(listener));
        }
        panic.resume();
    }
}

/// Where a cancel has brought the outcomes down already, so that it does so once however many nodes of several parents
/// it comes to. Whatever is cancelled above one of these since then has come later than the cancel.
#[derive(Default)]
struct Fixed {
    /// A dropped node's address is not used for another one meanwhile. `None` in place of an empty map, which has a drop.
    nodes: Option<BTreeMap<*const Node, Weak<Node>>>,
}

impl Fixed {
    fn contains(&self, node: &Arc<Node>) -> bool {
        let nodes = self.nodes.as_ref();
        nodes.is_some_and(|nodes| nodes.contains_key(&Arc::as_ptr(node)))
    }

    /// Notes a node of several parents, and of a chain one of so many.
    fn note(&mut self, node: &Arc<Node>) {
        let links = node.ancestry.links().len();
        if links > 1 || (links == 1 && node.level % NEAR == 0) {
            let (place, node) = (Arc::as_ptr(node), Arc::downgrade(node));
            self.nodes.get_or_insert_default().insert(place, node);
        }
    }
}

/// What a cancel comes to that runs code of others, wakers aside: the timer driver must not run it.
pub(super) enum Foreign {
    /// With the outcome that it is called with.
    Callback(Callback, Arc<Outcome>),
    /// A node without a handle. As it is dropped, so are the callbacks of ancestors that nobody else keeps.
    Last(Node),
}

impl Foreign {
    /// Drops a handle of a node, unless it is the last one.
    pub(super) fn of_handle(node: Arc<Node>) -> Option<Self> {
        Arc::into_inner(node).map(Self::Last)
    }

    /// Runs it on the thread that cancels.
    fn run(self) {
        match self {
            Self::Callback(callback, outcome) => callback.run(&outcome.reason),
            Self::Last(node) => drop(node),
        }
    }
}

/// What a cancel does with these.
pub(super) type Run<'a> = dyn FnMut(Foreign) + 'a;

/// Tells everybody below: their subtree first, then the next in line.
fn tell(outcome: Arc<Outcome>, listeners: Taken<Listener>, run: &mut Run<'_>) {
    let mut panic = FirstPanic::default();
    // Who is still to be told above, with the outcome there if it is not the one at hand.
    let mut above: Vec<(Option<Arc<Outcome>>, Taken<Listener>)> = Vec::new();
    let mut fixed = Fixed::default();
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
                    child.fix_all_but(&mut fixed);
                }
                // A chain has no rest, so that its depth costs no memory.
                if !listeners.is_empty() {
                    above.push((None, mem::take(&mut listeners)));
                }
                let earlier;
                (earlier, listeners) = child.close(&outcome, Given::Above);
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
                        let told = mem::replace(&mut outcome, outcome_above);
                        panic.catch(|| drop(told));
                    }
                }
                None => break,
            },
        }
    }
    panic.catch(|| drop(outcome));
    panic.resume();
}
