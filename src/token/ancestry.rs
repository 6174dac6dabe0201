//! Whom a node descends from, and the ways up.

use super::{
    listeners::NO_KEY,
    moment::Moment,
    tree::{Listener, Node},
};
#[cfg(feature = "tokio")]
use crate::sync::AtomicBool;
use crate::sync::{AtomicU64, Ordering};
use std::{cmp, collections::BinaryHeap, mem, slice, sync::Arc};

/// Set when the node is made, and left alone until it goes.
///
/// Of two variants, so that a look need not ask for more than the parent's pointer.
pub(super) enum Ancestry {
    /// Of one parent, and without a deadline of its own: nearly all that are no roots.
    Child(Link),
    /// A root, or what is special.
    Other(Option<Box<Special>>),
}

/// Of several parents, or with a deadline of its own.
pub(super) struct Special {
    /// From the parent of the highest level to that of the lowest, as a walk goes.
    pub(super) links: Box<[Link]>,
    /// The earliest of its own and its ancestors'.
    pub(super) deadline: Option<Moment>,
    /// That is its own.
    is_own: bool,
    /// Whether it has a timer for the deadline, of a runtime that lives.
    // ORDERING: `Relaxed`. Whoever misses that a timer is gone has listed a node below before the walk that follows
    // comes by, or finds it gone after the lock of a node where the walk has been.
    #[cfg(feature = "tokio")]
    has_timer: AtomicBool,
}

impl Special {
    pub(super) fn new(links: Box<[Link]>, deadline: Option<Moment>, is_own: bool) -> Self {
        Self {
            links,
            deadline,
            is_own,
            #[cfg(feature = "tokio")]
            has_timer: AtomicBool::new(false),
        }
    }

    pub(super) fn own_deadline(&self) -> Option<Moment> {
        self.deadline.filter(|_| self.is_own)
    }

    #[cfg(feature = "tokio")]
    pub(super) fn set_has_timer(&self, has_timer: bool) {
        self.has_timer.store(has_timer, Ordering::Relaxed);
    }

    #[cfg(feature = "tokio")]
    pub(super) fn has_timer_for(&self, at: Moment) -> bool {
        self.deadline == Some(at) && self.has_timer.load(Ordering::Relaxed)
    }
}

/// A parent.
pub(super) struct Link {
    pub(super) parent: Arc<Node>,
    /// The key under which the parent lists the node, or `NO_KEY`.
    // ORDERING: `Relaxed`. It publishes nothing: invariant 6 rests on the order of critical sections alone.
    listed_as: AtomicU64,
}

impl Link {
    #[inline]
    pub(super) fn to(parent: &Arc<Node>) -> Self {
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
            // Another thread has listed it meanwhile. Neither of the two has to wait for the other.
            drop(self.parent.remove(key));
        }
        true
    }

    /// For a node that goes.
    #[inline(always)]
    fn cut(self) -> Arc<Node> {
        match self.listed_as.load(Ordering::Relaxed) {
            NO_KEY => {}
            key => drop(self.parent.remove(key)),
        }
        self.parent
    }
}

impl Ancestry {
    pub(super) const ROOT: Self = Self::Other(None);

    #[inline]
    pub(super) fn is_root(&self) -> bool {
        matches!(self, Self::Other(None))
    }

    pub(super) fn special(&self) -> Option<&Special> {
        match self {
            Self::Other(special) => special.as_deref(),
            Self::Child(_) => None,
        }
    }

    #[inline(always)]
    pub(super) fn links(&self) -> &[Link] {
        match self {
            Self::Child(link) => slice::from_ref(link),
            Self::Other(Some(special)) => &special.links,
            Self::Other(None) => &[],
        }
    }

    /// Takes the node out of its parents' lists and hands those over: one, and the rest. A chain has no rest, so that
    /// its depth costs no memory.
    #[inline(always)]
    pub(super) fn leave(&mut self, rest: &mut Vec<Arc<Node>>) -> Option<Arc<Node>> {
        match mem::replace(self, Self::ROOT) {
            Self::Child(link) => Some(link.cut()),
            Self::Other(None) => None,
            Self::Other(Some(special)) => {
                rest.extend(special.links.into_iter().map(Link::cut));
                rest.pop()
            }
        }
    }
}

/// The nodes above a node: each of them once, and after all of those below it.
///
/// However many ways lead to a node: their number can double with each level. A walk always goes on from the highest
/// [level](Node::level) that it has come to. So ways that meet are at the same node at the same time, and go on as one:
/// a walk need not remember where it has been, but only where it is. As ancestry is immutable, the order is the same
/// at each walk.
///
/// As long as there are no more ways than [`FEW`] at once, which is so of all but very wide ancestries, a walk
/// allocates nothing. Of a node's parents it takes one at a time, so that their number is not the number of ways.
pub(super) struct Ancestors<'a> {
    /// Whose parents come next.
    node: Option<&'a Node>,
    /// Where else the walk has to go on.
    ways: Option<Ways<'a>>,
}

/// So many ways need no allocation.
const FEW: usize = 16;

impl<'a> Ancestors<'a> {
    #[inline]
    pub(super) fn of(node: &'a Node) -> Self {
        Self {
            node: Some(node),
            ways: None,
        }
    }

    /// Leaves out what is above the node that came last, unless another way leads there.
    pub(super) fn turn_back(&mut self) {
        self.node = None;
    }

    #[inline(never)]
    fn next_way(&mut self, links: &'a [Link]) -> Option<&'a Arc<Node>> {
        let ways = self.ways.get_or_insert_default();
        ways.push(Way(links));
        ways.pop()
    }
}

impl<'a> Iterator for Ancestors<'a> {
    type Item = &'a Arc<Node>;

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let links = self
            .node
            .take()
            .map_or(&[][..], |node| node.ancestry.links());
        let node = match (links, &mut self.ways) {
            ([link], None) => Some(&link.parent),
            ([], None) => None,
            _ => self.next_way(links),
        };
        self.node = node.map(|node| &**node);
        node
    }
}

/// The parents of a node that a walk has still to go to, from the highest level to the lowest.
#[derive(Clone, Copy, Default)]
struct Way<'a>(&'a [Link]);

impl<'a> Way<'a> {
    /// The lowest for one that is over.
    fn rank(self) -> Option<Rank> {
        self.0.first().map(|link| rank(&link.parent))
    }

    fn step(self) -> (Option<&'a Arc<Node>>, Self) {
        match self.0 {
            [link, others @ ..] => (Some(&link.parent), Way(others)),
            [] => (None, self),
        }
    }
}

type Rank = (u32, *const Node);

/// Where a node is in the order of all walks.
pub(super) fn rank(node: &Arc<Node>) -> Rank {
    (node.level, Arc::as_ptr(node))
}

impl PartialEq for Way<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Way<'_> {}

impl PartialOrd for Way<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Way<'_> {
    fn cmp(&self, other: &Self) -> cmp::Ordering {
        self.rank().cmp(&other.rank())
    }
}

#[derive(Default)]
struct Ways<'a> {
    /// No two of them go on at the same node, and the last one of them at the highest level.
    few: [Way<'a>; FEW],
    count: usize,
    /// Those that came when there was no room. Of these several may go on at the same node.
    rest: BinaryHeap<Way<'a>>,
    /// Where the walk has been last.
    last: Option<*const Node>,
}

impl<'a> Ways<'a> {
    fn push(&mut self, mut way: Way<'a>) {
        while let Some(rank) = way.rank() {
            let few = &self.few[..self.count];
            let place = few.partition_point(|earlier| earlier.rank() < Some(rank));
            if few
                .get(place)
                .is_some_and(|earlier| earlier.rank() == Some(rank))
            {
                // Another way goes on there.
                (_, way) = way.step();
            } else if self.count < FEW {
                self.few.copy_within(place..self.count, place + 1);
                self.few[place] = way;
                self.count += 1;
                return;
            } else {
                self.rest.push(way);
                return;
            }
        }
    }

    fn pop(&mut self) -> Option<&'a Arc<Node>> {
        loop {
            let of_few = self.count.checked_sub(1).map(|last| self.few[last]);
            let way = match self.rest.peek() {
                Some(of_rest) if Some(*of_rest) > of_few => self.rest.pop(),
                _ => {
                    self.count = self.count.saturating_sub(1);
                    of_few
                }
            };
            let (node, others) = way?.step();
            self.push(others);
            let place = node.map(Arc::as_ptr);
            if place != self.last {
                self.last = place;
                return node;
            }
        }
    }
}
