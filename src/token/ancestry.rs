//! Whom a node descends from, and the ways up.

#[cfg(feature = "tokio")]
use super::deadline::TimerSlot;
use super::{
    deadline::OwnDeadline,
    listeners::NO_KEY,
    tree::{Listener, Node},
};
use crate::sync::{AtomicU64, Ordering};
use std::{collections::BTreeMap, mem, slice, sync::Arc};

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
    links: Links,
    pub(super) own_deadline: Option<OwnDeadline>,
    /// The ancestor whose timer reports the deadline, where the node's own one is later.
    // Dropped after the links, which keep it: it is never the last handle.
    #[cfg_attr(
        not(feature = "tokio"),
        expect(dead_code, reason = "without a clock there are no deadlines")
    )]
    pub(super) reporter: Option<Arc<Node>>,
    #[cfg(feature = "tokio")]
    pub(super) timer: TimerSlot,
}

impl Special {
    pub(super) fn new(
        links: Links,
        own_deadline: Option<OwnDeadline>,
        reporter: Option<Arc<Node>>,
    ) -> Self {
        Self {
            links,
            own_deadline,
            reporter,
            #[cfg(feature = "tokio")]
            timer: TimerSlot::default(),
        }
    }
}

/// From the parent of the highest level to that of the lowest, as a walk goes.
pub(super) enum Links {
    None,
    /// Of one with a deadline of its own: without an allocation.
    One(Link),
    Several(Box<[Link]>),
}

impl Links {
    pub(super) fn to(parents: &[&Arc<Node>]) -> Self {
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
    fn unlist(self) -> Arc<Node> {
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
            Self::Other(Some(special)) => special.links.as_slice(),
            Self::Other(None) => &[],
        }
    }

    /// Takes the node out of its parents' lists and hands those over: one, and the rest. A chain has no rest, so that
    /// its depth costs no memory.
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
    frontier: Option<Frontier<'a>>,
}

/// So many ways need no allocation.
const INLINE_CAPACITY: usize = 16;

impl<'a> Ancestors<'a> {
    #[inline]
    pub(super) fn of(node: &'a Node) -> Self {
        Self {
            node: Some(node),
            frontier: None,
        }
    }

    /// Leaves out what is above the node that came last, unless another way leads there.
    pub(super) fn skip_parents(&mut self) {
        self.node = None;
    }

    /// Whether one more way may need an allocation.
    pub(super) fn is_full(&self) -> bool {
        let frontier = self.frontier.as_ref();
        frontier.is_some_and(|frontier| frontier.count + 1 >= INLINE_CAPACITY)
    }

    #[inline(never)]
    fn next_from_frontier(&mut self, links: &'a [Link]) -> Option<&'a Arc<Node>> {
        let frontier = self.frontier.get_or_insert_default();
        frontier.push(links);
        frontier.pop()
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
        let node = match (links, &mut self.frontier) {
            ([link], None) => Some(&link.parent),
            ([], None) => None,
            _ => self.next_from_frontier(links),
        };
        self.node = node.map(|node| &**node);
        node
    }
}

/// The parents of a node that a walk has still to go to, from the highest level to the lowest.
type Parents<'a> = &'a [Link];

/// Where a walk has to go on. No two ways go on at the same node.
#[derive(Default)]
struct Frontier<'a> {
    /// The last one of them at the highest level.
    inline: [Parents<'a>; INLINE_CAPACITY],
    count: usize,
    /// Those that came when there was no room.
    overflow: BTreeMap<(u32, *const Node), Parents<'a>>,
}

impl<'a> Frontier<'a> {
    fn push(&mut self, mut parents: Parents<'a>) {
        while let [link, others @ ..] = parents {
            let inline = &self.inline[..self.count];
            let level = link.parent.level;
            let key = (level, Arc::as_ptr(&link.parent));
            let is_queued = |earlier: &Parents<'_>| Arc::ptr_eq(&earlier[0].parent, &link.parent);
            if inline.iter().any(is_queued) || self.overflow.contains_key(&key) {
                // Another way goes on there.
                parents = others;
                continue;
            }
            if self.count < INLINE_CAPACITY {
                let place = inline.partition_point(|earlier| earlier[0].parent.level < level);
                self.inline.copy_within(place..self.count, place + 1);
                self.inline[place] = parents;
                self.count += 1;
            } else {
                self.overflow.insert(key, parents);
            }
            return;
        }
    }

    fn pop(&mut self) -> Option<&'a Arc<Node>> {
        let inline_level = self.inline[..self.count]
            .last()
            .map(|parents| parents[0].parent.level);
        let overflow_level = self.overflow.last_key_value().map(|((level, _), _)| *level);
        let parents = if inline_level >= overflow_level {
            self.count = self.count.checked_sub(1)?;
            self.inline[self.count]
        } else {
            self.overflow.pop_last()?.1
        };
        let (link, others) = parents.split_first()?;
        self.push(others);
        Some(&link.parent)
    }
}
