//! The ancestors of a node, and how to walk them.

#[cfg(feature = "tokio")]
use super::deadline::TimerSlot;
use super::{
    deadline::OwnDeadline,
    listeners::NO_KEY,
    tree::{Listener, Node},
};
use crate::sync::{AtomicU64, Ordering};
use std::{collections::BTreeMap, mem, slice, sync::Arc};

/// The parents of a node. Set when the node is made, and not changed until it is dropped.
///
/// It has two variants, so that a check needs only the parent's pointer.
pub(super) enum Ancestry {
    /// One parent, and no deadline of the node's own: nearly all nodes that are not roots.
    Child(Link),
    /// A root (`None`), or a special node.
    Other(Option<Box<Special>>),
}

/// For a node with several parents, or with a deadline of its own.
pub(super) struct Special {
    links: Links,
    pub(super) own_deadline: Option<OwnDeadline>,
    /// The ancestor whose timer reports the deadline, if the node's own one is not earlier.
    // Dropped after the links, which keep the ancestor alive: this is never the last handle.
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

/// Links to the parents, from the highest level to the lowest, which is the order of a walk.
pub(super) enum Links {
    None,
    /// For a child with a deadline of its own, without an allocation.
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

/// A link to a parent.
pub(super) struct Link {
    pub(super) parent: Arc<Node>,
    /// The key under which the parent lists the node, or `NO_KEY`.
    // ORDERING: `Relaxed`. It publishes nothing: invariant 6 relies on the order of critical sections only.
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

/// An iterator over the ancestors of a node, which visits each of them once, and after all of its visited descendants.
///
/// Many paths may lead to the same ancestor: their number can double with each level. A walk always continues from the
/// highest [level](Node::level) in its frontier. So branches that meet reach the common node at the same time, and
/// continue as one: a walk stores only its frontier, not the nodes that it has visited. Since ancestry is immutable,
/// the order is the same in each walk.
///
/// A walk allocates nothing as long as its frontier has no more than [`INLINE_CAPACITY`] branches, which holds for all
/// but very wide ancestries. The parents of a node are one branch, which is walked one parent at a time.
pub(super) struct Ancestors<'a> {
    /// The node whose parents come next.
    node: Option<&'a Node>,
    /// The other branches. `None` as long as there have been none.
    frontier: Option<Frontier<'a>>,
}

/// How many branches need no allocation.
const INLINE_CAPACITY: usize = 16;

impl<'a> Ancestors<'a> {
    #[inline]
    pub(super) fn of(node: &'a Node) -> Self {
        Self {
            node: Some(node),
            frontier: None,
        }
    }

    /// Skips the ancestors of the last node, unless another branch leads to them.
    pub(super) fn skip_parents(&mut self) {
        self.node = None;
    }

    /// Whether one more branch may need an allocation.
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

/// A branch of a walk: the parents of a node that have not been visited, from the highest level to the lowest.
type Parents<'a> = &'a [Link];

/// The branches from which a walk has to continue. No two of them continue at the same node.
#[derive(Default)]
struct Frontier<'a> {
    /// Sorted by level. The last one has the highest.
    inline: [Parents<'a>; INLINE_CAPACITY],
    count: usize,
    /// Branches that were pushed while `inline` was full.
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
                // Another branch continues there.
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
