//! Nodes with a deadline, and the timers that cancel them.

use super::{
    deadline::{Instant, OwnDeadline, Timer, has_passed, require_runtime},
    deferred::Deferred,
    tree::Node,
};
use crate::{StopReason, clock, first_panic::discard};
use std::{
    collections::BTreeSet,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Arc, Weak},
    task::{Wake, Waker},
};
use tokio::runtime::Handle;

impl Node {
    /// A child of `parent`, or a root, that is cancelled at the point in time `at`, or never if there is none. An
    /// earlier deadline of the parent comes first, with its own cause.
    #[track_caller]
    pub(super) fn with_deadline(
        parent: Option<&Arc<Self>>,
        at: Option<Instant>,
        cause: Option<StopReason>,
    ) -> Arc<Self> {
        require_runtime();
        let Some(at) = at else {
            return parent.map_or_else(Self::root, Self::child);
        };
        let parents_deadline = parent.and_then(|parent| parent.deadline());
        if let Some(earlier) = parents_deadline.filter(|earlier| *earlier <= at) {
            return Self::with_later_deadline(parent, earlier);
        }
        let own_deadline = OwnDeadline::new(at, cause);
        let node = Self::special(parent.as_slice(), Some(own_deadline), None);
        match has_passed(at) {
            true => node.expire_when_made(),
            false => set_timer(at, &node),
        }
        node
    }

    /// A child whose own deadline is not earlier than an ancestor's. It relies on the ancestor's timer for as long as
    /// the runtime of that timer lives, and is on standby to set a timer of the current runtime after that.
    fn with_later_deadline(parent: Option<&Arc<Self>>, at: Instant) -> Arc<Self> {
        let reporter = parent.and_then(|parent| parent.reporter(at));
        let node = Self::special(parent.as_slice(), None, reporter.cloned());
        // Before the check below: from now on the node is notified if the timer is lost.
        stand_by(&node);
        if node.is_connected() && !has_passed(at) && !node.has_live_reporter() {
            set_timer(at, &node);
        }
        node
    }

    /// The node whose own deadline is `at`, the earliest deadline of this node and its ancestors.
    ///
    /// A node that relies on a reporter stores it. So in a chain of such nodes, each one finds it one step up.
    fn reporter(self: &Arc<Self>, at: Instant) -> Option<&Arc<Self>> {
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
            node = parents.find(|parent| parent.deadline() == Some(at))?;
        }
    }

    /// Whether this node relies on an ancestor's deadline, and the runtime of that deadline's timer is still alive.
    fn has_live_reporter(&self) -> bool {
        let special = self.ancestry.special();
        let reporter = special.and_then(|special| special.reporter.as_ref()?.ancestry.special());
        reporter.is_some_and(|special| special.timer.has_timer())
    }
}

/// Puts a node on standby: once the ancestor's timer is lost, the node sets a timer of the current runtime.
fn stand_by(node: &Arc<Node>) {
    put_timer(node, Timer::StandsBy(Handle::current()));
}

/// Replaces the node's timer, unless the node is cancelled.
fn put_timer(node: &Arc<Node>, timer: Timer) {
    if let Some(special) = node.ancestry.special() {
        special.timer.set(timer);
        // The node is listed after it has its timer, so that a cancel of an ancestor reaches it, and so does a
        // search for nodes on standby. A cancel clears the slot after it has closed the node: if that was before
        // this, the node is found closed here.
        if !node.ensure_connected() || node.is_closed() {
            special.timer.clear();
        }
    }
}

/// Sets a timer that cancels the node at `at`. The timer's waker cancels; a task is spawned only if there are
/// callbacks.
#[track_caller]
fn set_timer(at: Instant, node: &Arc<Node>) {
    let mut timer = Box::pin(clock::sleep(at));
    set_has_timer(node, true);
    let timer_waker = TimerWaker {
        at,
        node: Arc::downgrade(node),
        runtime: Handle::current(),
    };
    // If `at` has passed by now, checks see it.
    let _ = clock::poll_sleep(timer.as_mut(), &Waker::from(Arc::new(timer_waker)));
    put_timer(node, Timer::Set(timer));
}

struct TimerWaker {
    at: Instant,
    node: Weak<Node>,
    /// The runtime of the timer.
    runtime: Handle,
}

impl Wake for TimerWaker {
    fn wake(self: Arc<Self>) {
        let Some(node) = self.node.upgrade() else {
            return;
        };
        let mut deferred = Deferred::default();
        // The timer driver runs this: a panic of a foreign waker must not reach it.
        let cancelled = catch_unwind(AssertUnwindSafe(|| match has_passed(self.at) {
            true => deferred.expire(&node),
            // A runtime that shuts down wakes its timers early.
            false => fail_over(&node, &mut deferred),
        }));
        deferred.drop_handle(node);
        if let Err(payload) = cancelled {
            discard(payload);
        }
        if !deferred.is_empty() {
            // A runtime that shuts down drops the task at once. That runs the callbacks, and the task catches
            // panics.
            self.runtime.spawn(async move { drop(deferred) });
        }
    }
}

fn set_has_timer(node: &Node, has_timer: bool) {
    if let Some(special) = node.ancestry.special() {
        special.timer.set_has_timer(has_timer);
    }
}

/// For a node whose timer is lost: each descendant on standby sets a timer of its own runtime.
fn fail_over(node: &Arc<Node>, deferred: &mut Deferred) {
    set_has_timer(node, false);
    // All nodes are kept alive to the end, so that no address in `seen` is used again.
    let mut nodes = vec![Arc::clone(node)];
    let mut seen = BTreeSet::new();
    let mut next = 0;
    while let Some(node) = nodes.get(next) {
        next += 1;
        let mut children = node.listed();
        let special = node.ancestry.special();
        if let Some(runtime) = special.and_then(|special| special.timer.runtime()) {
            let node = Arc::downgrade(node);
            // On a task: if that runtime has shut down too, it drops the task, whereas setting a timer would panic.
            runtime.spawn(async move { node.upgrade().iter().for_each(take_over) });
        }
        children.retain(|child| seen.insert(Arc::as_ptr(child)));
        nodes.append(&mut children);
    }
    nodes
        .into_iter()
        .for_each(|node| deferred.drop_handle(node));
}

fn take_over(node: &Arc<Node>) {
    if let Some(at) = node.deadline() {
        if node.has_live_reporter() {
            return;
        }
        set_timer(at, node);
        if has_passed(at) {
            // A timer that fired before its first poll has no waker. This is a task, so callbacks may run here.
            Deferred::default().expire(node);
        }
    }
}
