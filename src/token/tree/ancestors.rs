//! The ancestors of a node, and how to walk them.

use super::node::{Link, Node};
use std::{collections::BTreeMap, sync::Arc};

/// An iterator over the ancestors of a node, which visits each of them once, and after all of its visited descendants.
///
/// Many paths may lead to the same ancestor: their number can double with each level. A walk always continues from the
/// highest [level](Node::level) in its frontier. So branches that meet reach the common node at the same time, and
/// continue as one: a walk stores only its frontier, not the nodes that it has visited. Since ancestry is immutable,
/// the order is the same in each walk.
///
/// A walk allocates nothing as long as its frontier has no more than [`INLINE_CAPACITY`] branches, which holds for all
/// but very wide ancestries. The parents of a node are one branch, which is walked one parent at a time.
pub(crate) struct Ancestors<'a> {
    /// The node whose parents come next.
    node: Option<&'a Node>,
    /// The other branches. `None` as long as there have been none.
    frontier: Option<Frontier<'a>>,
}

/// How many branches need no allocation.
const INLINE_CAPACITY: usize = 16;

impl<'a> Ancestors<'a> {
    #[inline]
    pub(crate) fn of(node: &'a Node) -> Self {
        Self {
            node: Some(node),
            frontier: None,
        }
    }

    /// Skips the ancestors of the last node, unless another branch leads to them.
    pub(crate) fn skip_parents(&mut self) {
        self.node = None;
    }

    /// Whether one more branch may need an allocation.
    pub(crate) fn is_full(&self) -> bool {
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
