//! Whom a node descends from, and the ways up.

use super::{
    listeners::NO_KEY,
    moment::Moment,
    tree::{Listener, Node},
};
use crate::sync::{AtomicU64, Ordering};
use std::{collections::BTreeSet, mem, slice, sync::Arc};

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
    pub(super) links: Box<[Link]>,
    /// The earliest of its own and its ancestors'.
    pub(super) deadline: Option<Moment>,
}

impl Special {
    pub(super) fn own_deadline(&self) -> Option<Moment> {
        // That of a node with several parents is one of theirs.
        self.deadline.filter(|_| self.links.len() < 2)
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

/// The edges above a node, each from a child to a parent of it.
///
/// A node of several parents is gone through once, however many ways lead to it: their number can double with each
/// level.
pub(super) struct Edges<'a> {
    /// What is being climbed.
    node: Option<&'a Arc<Node>>,
    joints: Option<Joints<'a>>,
}

impl<'a> Edges<'a> {
    #[inline]
    pub(super) fn above(node: &'a Arc<Node>) -> Self {
        Self {
            node: Some(node),
            joints: None,
        }
    }

    /// Leaves out what is above the parent that came last, unless another way leads there.
    pub(super) fn turn_back(&mut self) {
        self.node = None;
    }
}

impl<'a> Iterator for Edges<'a> {
    type Item = (&'a Arc<Node>, &'a Link);

    #[inline]
    fn next(&mut self) -> Option<Self::Item> {
        let edge = match self.node.take().map(|node| (node, node.ancestry.links())) {
            Some((node, [link])) => Some((node, link)),
            Some((_, [])) => self.joints.as_mut()?.next_edge(),
            Some((joint, _)) => {
                let joints = self.joints.get_or_insert_default();
                joints.meet(joint);
                joints.next_edge()
            }
            None => self.joints.as_mut()?.next_edge(),
        };
        self.node = edge.map(|(_, link)| &link.parent);
        edge
    }
}

/// The nodes of several parents that a walk has come to, in that order.
#[derive(Default)]
struct Joints<'a> {
    /// The first ones, so that a walk that meets no more does not allocate.
    few: [Option<&'a Arc<Node>>; 8],
    rest: Vec<&'a Arc<Node>>,
    /// The rest, to be found.
    seen: BTreeSet<*const Node>,
    /// How many it has come to.
    met: usize,
    /// How many of them have been gone through.
    done: usize,
    /// How many links of the next one have been gone through.
    links: usize,
}

impl<'a> Joints<'a> {
    #[cold]
    fn meet(&mut self, joint: &'a Arc<Node>) {
        if self.few.iter().flatten().any(|few| Arc::ptr_eq(few, joint)) {
            return;
        }
        match self.few.get_mut(self.met) {
            Some(place) => *place = Some(joint),
            None if self.seen.insert(Arc::as_ptr(joint)) => self.rest.push(joint),
            None => return,
        }
        self.met += 1;
    }

    fn next_edge(&mut self) -> Option<(&'a Arc<Node>, &'a Link)> {
        while self.done < self.met {
            let joint = match self.few.get(self.done) {
                Some(joint) => (*joint)?,
                None => self.rest[self.done - self.few.len()],
            };
            if let Some(link) = joint.ancestry.links().get(self.links) {
                self.links += 1;
                return Some((joint, link));
            }
            self.done += 1;
            self.links = 0;
        }
        None
    }
}
