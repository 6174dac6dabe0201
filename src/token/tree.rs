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
//! making and dropping a child is 312, and 718 in tokio-util, which links a child at once.
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

mod ancestors;
mod cancel;
mod check;
mod connect;
mod counts;
mod drop;
mod node;
mod outcome;
mod resolve;

pub(super) use {
    ancestors::Ancestors,
    cancel::Foreign,
    node::{Ancestry, Listener, Node},
};
