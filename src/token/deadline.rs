//! Deadlines and their timers. The only file of the tree that depends on whether there is a clock.

#[cfg(feature = "tokio")]
pub(super) use timed::{OwnDeadline, TimerSlot, require_runtime, set_timer, stand_by};
#[cfg(feature = "tokio")]
pub(super) use tokio::time::{Instant, Instant as Timestamp};

/// A point in time that is only displayed.
#[cfg(not(feature = "tokio"))]
pub(super) use std::time::Instant as Timestamp;
#[cfg(not(feature = "tokio"))]
pub(super) use timeless::{Instant, OwnDeadline};

#[cfg(feature = "tokio")]
pub(super) fn now() -> Option<Instant> {
    Some(Instant::now())
}

#[cfg(not(feature = "tokio"))]
pub(super) fn now() -> Option<Instant> {
    None
}

pub(super) fn has_passed(at: Instant) -> bool {
    now() >= Some(at)
}

/// Without a clock there are no deadlines.
#[cfg(not(feature = "tokio"))]
mod timeless {
    use crate::StopReason;
    use std::panic::Location;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(in super::super) enum Instant {}

    pub(in super::super) enum OwnDeadline {}

    impl OwnDeadline {
        pub(in super::super) fn at(&self) -> Option<Instant> {
            match *self {}
        }

        pub(in super::super) fn made_at(&self) -> &'static Location<'static> {
            match *self {}
        }

        pub(in super::super) fn has_passed(&self) -> bool {
            match *self {}
        }

        pub(in super::super) fn reason(&self) -> StopReason {
            match *self {}
        }
    }
}

#[cfg(feature = "tokio")]
mod timed {
    use super::{
        super::{deferred::Deferred, tree::Node},
        Instant, has_passed,
    };
    use crate::{
        StopReason, clock,
        first_panic::discard,
        sync::{AtomicBool, Mutex, Ordering},
    };
    use std::{
        collections::BTreeSet,
        panic::{AssertUnwindSafe, Location, catch_unwind},
        pin::Pin,
        sync::{Arc, PoisonError, Weak},
        task::{Wake, Waker},
    };
    use tokio::{runtime::Handle, time::Sleep};

    /// The deadline that a node was made with.
    pub(in super::super) enum OwnDeadline {
        Plain(DeadlineAt),
        /// With a reason of its own, boxed, as most have none.
        // The reason never changes, so a token is unwind safe with any error in it.
        WithCause(Box<(DeadlineAt, AssertUnwindSafe<StopReason>)>),
    }

    /// The point in time, and the line that made the deadline.
    #[derive(Clone, Copy)]
    pub(in super::super) struct DeadlineAt(Instant, &'static Location<'static>);

    // A deadline without a cause takes no extra room.
    const _: () = assert!(size_of::<Option<OwnDeadline>>() == size_of::<DeadlineAt>());

    impl OwnDeadline {
        #[track_caller]
        pub(in super::super) fn new(at: Instant, cause: Option<StopReason>) -> Self {
            let made = DeadlineAt(at, Location::caller());
            match cause {
                None => Self::Plain(made),
                Some(cause) => {
                    Self::WithCause(Box::new((made, AssertUnwindSafe(cause.into_timeout()))))
                }
            }
        }

        fn made(&self) -> DeadlineAt {
            match self {
                Self::Plain(made) => *made,
                Self::WithCause(deadline) => deadline.0,
            }
        }

        /// `None` without a clock.
        pub(in super::super) fn at(&self) -> Option<Instant> {
            Some(self.made().0)
        }

        pub(in super::super) fn made_at(&self) -> &'static Location<'static> {
            self.made().1
        }

        pub(in super::super) fn has_passed(&self) -> bool {
            self.at().is_some_and(has_passed)
        }

        pub(in super::super) fn reason(&self) -> StopReason {
            match self {
                Self::Plain(_) => StopReason::DeadlineExceeded,
                Self::WithCause(deadline) => deadline.1.0.clone(),
            }
        }
    }

    /// Dropping it releases the timer of the runtime.
    enum Timer {
        #[expect(dead_code, reason = "kept until it fires or is dropped")]
        Set(Pin<Box<Sleep>>),
        /// No timer yet: the runtime in which to set one once the ancestor's is lost.
        StandsBy(Handle),
    }

    /// The timer of a node, until the node is cancelled.
    ///
    /// Its lock is held briefly, and never together with another one.
    #[derive(Default)]
    pub(in super::super) struct TimerSlot {
        timer: Mutex<Option<Timer>>,
        /// Whether the node has a timer for its deadline, of a runtime that is alive.
        // ORDERING: `Relaxed`. A thread that misses that the timer is lost has listed its node before the walk of
        // `fail_over` gets there. Otherwise it has locked a node after that walk did, and so sees that the timer is
        // lost.
        has_timer: AtomicBool,
    }

    impl TimerSlot {
        fn replace(&self, timer: Option<Timer>) -> Option<Timer> {
            let mut slot = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut slot, timer)
        }

        /// Drops the timer of a cancelled node. `put_timer` drops one that is put in later, as it checks the node after
        /// that.
        pub(in super::super) fn clear(&self) {
            drop(self.replace(None));
        }

        /// The runtime of a node on standby.
        fn runtime(&self) -> Option<Handle> {
            match &*self.timer.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(Timer::StandsBy(runtime)) => Some(runtime.clone()),
                Some(Timer::Set(_)) | None => None,
            }
        }

        pub(in super::super) fn has_timer(&self) -> bool {
            self.has_timer.load(Ordering::Relaxed)
        }
    }

    /// Puts a node on standby: once the ancestor's timer is lost, the node sets a timer of the current runtime.
    pub(in super::super) fn stand_by(node: &Arc<Node>) {
        put_timer(node, Timer::StandsBy(Handle::current()));
    }

    /// Replaces the node's timer, unless the node is cancelled.
    fn put_timer(node: &Arc<Node>, timer: Timer) {
        if let Some(special) = node.ancestry.special() {
            drop(special.timer.replace(Some(timer)));
            // The node is listed after it has its timer, so that a cancel of an ancestor reaches it, and so does a
            // search for nodes on standby. A cancel clears the slot after it has closed the node: if that was before
            // this, the node is found closed here.
            if !node.ensure_connected() || node.is_closed() {
                special.timer.clear();
            }
        }
    }

    #[track_caller]
    pub(in super::super) fn require_runtime() {
        clock::require_runtime(
            "a token with a deadline must be made in the context of a Tokio 1.x runtime. Make it in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` meanwhile",
        );
    }

    /// Sets a timer that cancels the node at `at`. The timer's waker cancels; a task is spawned only if there are
    /// callbacks.
    #[track_caller]
    pub(in super::super) fn set_timer(at: Instant, node: &Arc<Node>) {
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
            special.timer.has_timer.store(has_timer, Ordering::Relaxed);
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
}
