//! Whether a node or an ancestor is closed: cached counts and walks up.

use super::{
    ancestors::Ancestors,
    counts::{Counts, FLAGS},
    node::{CACHE_INTERVAL, CLOSED, Node},
};
use crate::sync::Ordering;

/// The greatest depth to which the walks of one check are nested, where there are very many branches.
const MAX_NESTING: u32 = 4;

impl Node {
    /// Like [`is_cancelled`](Self::is_cancelled), without the read of the clock.
    #[inline]
    pub(crate) fn is_known_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        state > FLAGS && !self.trees.is_count(state | FLAGS) && self.walk_up(state)
    }

    /// Whether this node, whose state is `state`, or an ancestor is closed. Walks up to the first node that is known to
    /// be open, and caches the count for later walks if it has found no closed node.
    #[inline(never)]
    pub(super) fn walk_up(&self, state: u64) -> bool {
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
}
