//! Which outcome a node has: how outcomes pass from the ancestors down, and when a deadline becomes one.

use super::{
    ancestors::Ancestors,
    counts::FLAGS,
    node::{CACHE_INTERVAL, CLOSED, Guarded, HAS_CHILDREN, Node},
    outcome::Outcome,
};
use crate::sync::Ordering;
use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
};

/// Where an outcome comes from, which decides whether it is counted.
#[derive(Clone, Copy)]
pub(super) enum Origin {
    /// Perhaps the node itself: a cancel of it, or its own deadline.
    Own,
    /// A parent, which already has the outcome.
    Parent,
}

impl Node {
    /// Whether this node or an ancestor has been cancelled, or its deadline has passed. A deadline costs a read of the
    /// clock.
    #[inline]
    pub(crate) fn is_cancelled(&self) -> bool {
        let state = self.state.load(Ordering::Acquire);
        if state <= FLAGS {
            return false;
        }
        if !self.trees.is_count(state | FLAGS) && self.walk_up(state) {
            return true;
        }
        // The outcome that was seen is made final, so that no later check sees another one.
        self.has_deadline() && self.is_past_deadline() && self.expire().is_some()
    }

    /// The outcome, if there is one: of the nearest cancelled ancestor, and from now on the node's own.
    pub(crate) fn outcome(&self) -> Option<Arc<Outcome>> {
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
    pub(super) fn expire(&self) -> Option<Arc<Outcome>> {
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

    /// Stops a new node whose deadline had passed when it was made. A deadline cannot precede the node that has it: a
    /// parent that is cancelled already came first.
    #[cfg(feature = "tokio")]
    pub(crate) fn expire_when_made(&self) {
        let mut parents = self.ancestry.links().iter();
        let inherited = parents.find_map(|link| link.parent.outcome());
        let own = || {
            let deadline = self.own_deadline()?;
            Some(Outcome::new(deadline.reason(), deadline.made_at()))
        };
        if let Some(outcome) = inherited.or_else(own) {
            drop(self.set_outcome(&mut self.lock(), &outcome, Origin::Own));
        }
    }

    /// Passes outcomes down from the top, so that each node gets what its ancestors have: invariant 2.
    pub(super) fn resolve_outcome(&self) -> Option<Arc<Outcome>> {
        match self.own_outcome() {
            None => self.resolve_outcome_except(&mut Resolved::default()),
            outcome => outcome,
        }
    }

    pub(super) fn resolve_outcome_except(&self, resolved: &mut Resolved) -> Option<Arc<Outcome>> {
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

    /// Sets `outcome`, unless the node has an earlier one, which is returned.
    #[inline]
    pub(super) fn set_outcome(
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
}

/// The nodes to which a cancel has passed outcomes down already, so that it does so once, however many nodes of several
/// parents it reaches. Any cancel above one of these nodes since then is later than this cancel.
#[derive(Default)]
pub(super) struct Resolved {
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
