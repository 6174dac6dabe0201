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
/// level. Nothing is allocated until a second such node comes.
pub(super) struct Edges<'a> {
    /// What is being climbed.
    node: Option<&'a Arc<Node>>,
    /// The node of several parents that is being gone through, and its links that are left.
    joint: Option<(&'a Arc<Node>, slice::Iter<'a, Link>)>,
    /// Those that wait for that.
    joints: Vec<&'a Arc<Node>>,
    seen: BTreeSet<*const Node>,
}

impl<'a> Edges<'a> {
    pub(super) fn above(node: &'a Arc<Node>) -> Self {
        Self {
            node: Some(node),
            joint: None,
            joints: Vec::new(),
            seen: BTreeSet::new(),
        }
    }

    /// Leaves out what is above the parent that came last, unless another way leads there.
    pub(super) fn turn_back(&mut self) {
        self.node = None;
    }
}

impl<'a> Iterator for Edges<'a> {
    type Item = (&'a Arc<Node>, &'a Link);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(node) = self.node.take() {
                match node.ancestry.links() {
                    [] => {}
                    [link] => {
                        self.node = Some(&link.parent);
                        return Some((node, link));
                    }
                    // The first one is above no other that is still to come.
                    links if self.joint.is_none() => self.joint = Some((node, links.iter())),
                    _ if self.seen.insert(Arc::as_ptr(node)) => self.joints.push(node),
                    _ => {}
                }
            }
            let (joint, links) = self.joint.as_mut()?;
            if let Some(link) = links.next() {
                self.node = Some(&link.parent);
                return Some((joint, link));
            }
            let joint = self.joints.pop()?;
            self.joint = Some((joint, joint.ancestry.links().iter()));
        }
    }
}
