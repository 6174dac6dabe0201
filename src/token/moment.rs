//! The only file of the tree that knows whether there is a clock.

#[cfg(feature = "tokio")]
pub(super) use timed::{OwnDeadline, TimerSlot, require_runtime, set_timer, stand_by};
#[cfg(feature = "tokio")]
pub(super) use tokio::time::{Instant as Moment, Instant as Stamp};

/// A point in time that is only ever shown.
#[cfg(not(feature = "tokio"))]
pub(super) use std::time::Instant as Stamp;
#[cfg(not(feature = "tokio"))]
pub(super) use timeless::{Moment, OwnDeadline};

#[cfg(feature = "tokio")]
pub(super) fn now() -> Option<Moment> {
    Some(Moment::now())
}

#[cfg(not(feature = "tokio"))]
pub(super) fn now() -> Option<Moment> {
    None
}

pub(super) fn is_over(at: Moment) -> bool {
    now() >= Some(at)
}

/// Without a clock there is no point in time, and nothing to wait for.
#[cfg(not(feature = "tokio"))]
mod timeless {
    use crate::StopReason;
    use std::panic::Location;

    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(in super::super) enum Moment {}

    pub(in super::super) enum OwnDeadline {}

    impl OwnDeadline {
        pub(in super::super) fn at(&self) -> Option<Moment> {
            match *self {}
        }

        pub(in super::super) fn made_at(&self) -> &'static Location<'static> {
            match *self {}
        }

        pub(in super::super) fn is_over(&self) -> bool {
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
        Moment, is_over,
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
        Plain(Made),
        /// With a reason of its own, boxed, as most have none.
        // It is never changed: a token is unwind safe whatever the error in it.
        WithCause(Box<(Made, AssertUnwindSafe<StopReason>)>),
    }

    /// When it is over, and where it was made.
    #[derive(Clone, Copy)]
    pub(in super::super) struct Made(Moment, &'static Location<'static>);

    /// A cause takes no room where there is none.
    const _: () = assert!(size_of::<Option<OwnDeadline>>() == size_of::<Made>());

    impl OwnDeadline {
        #[track_caller]
        pub(in super::super) fn new(at: Moment, cause: Option<StopReason>) -> Self {
            let made = Made(at, Location::caller());
            match cause {
                None => Self::Plain(made),
                Some(cause) => {
                    Self::WithCause(Box::new((made, AssertUnwindSafe(cause.into_timeout()))))
                }
            }
        }

        fn made(&self) -> Made {
            match self {
                Self::Plain(made) => *made,
                Self::WithCause(deadline) => deadline.0,
            }
        }

        /// `None` without a clock.
        pub(in super::super) fn at(&self) -> Option<Moment> {
            Some(self.made().0)
        }

        pub(in super::super) fn made_at(&self) -> &'static Location<'static> {
            self.made().1
        }

        pub(in super::super) fn is_over(&self) -> bool {
            self.at().is_some_and(is_over)
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
        #[expect(dead_code, reason = "kept until it goes off or is dropped")]
        Set(Pin<Box<Sleep>>),
        /// None as yet: where to set one, once an ancestor's is lost.
        StandsBy(Handle),
    }

    /// The timer of a node, until the node is cancelled.
    ///
    /// Locked for a moment only, and with nothing else locked.
    #[derive(Default)]
    pub(in super::super) struct TimerSlot {
        timer: Mutex<Option<Timer>>,
        /// Whether it has a timer for its deadline, of a runtime that lives.
        // ORDERING: `Relaxed`. A thread that misses that a timer is lost has listed a node below before the walk that
        // follows comes by, or finds it lost after the lock of a node where the walk has been.
        has_timer: AtomicBool,
    }

    impl TimerSlot {
        fn replace(&self, timer: Option<Timer>) -> Option<Timer> {
            let mut slot = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            std::mem::replace(&mut slot, timer)
        }

        /// Drops the timer of a node that has been cancelled. `put` drops one that comes later, as it checks the node
        /// afterwards.
        pub(in super::super) fn empty(&self) {
            drop(self.replace(None));
        }

        /// The runtime of a node that stands by.
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

    /// Stands by to set a timer of this runtime, once an ancestor's is lost.
    pub(in super::super) fn stand_by(node: &Arc<Node>) {
        put(node, Timer::StandsBy(Handle::current()));
    }

    /// Puts a timer in the place of the one that the node has, unless it is cancelled.
    fn put(node: &Arc<Node>, timer: Timer) {
        if let Some(special) = node.ancestry.special() {
            drop(special.timer.replace(Some(timer)));
            // The node is listed once it has its timer: a cancel of an ancestor comes by, and so does a search for nodes
            // that stand by. A cancel empties the slot after it has closed the node: if that was before this, the node is
            // found closed.
            if !node.ensure_connected() || node.is_closed() {
                special.timer.empty();
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

    /// Cancels a node when its time is over. The timer's wake-up is the cancel: it takes a task only if there are
    /// callbacks.
    #[track_caller]
    pub(in super::super) fn set_timer(at: Moment, node: &Arc<Node>) {
        let mut timer = Box::pin(clock::sleep(at));
        set_has_timer(node, true);
        let alarm = Alarm {
            at,
            node: Arc::downgrade(node),
            runtime: Handle::current(),
        };
        // If it is over by now, a check sees it.
        let _ = clock::poll_sleep(timer.as_mut(), &Waker::from(Arc::new(alarm)));
        put(node, Timer::Set(timer));
    }

    struct Alarm {
        at: Moment,
        node: Weak<Node>,
        /// The timer's.
        runtime: Handle,
    }

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            let Some(node) = self.node.upgrade() else {
                return;
            };
            let mut deferred = Deferred::default();
            // The driver of all timers runs this: a panic of somebody's waker ends here.
            let cancelled = catch_unwind(AssertUnwindSafe(|| match is_over(self.at) {
                true => deferred.expire(&node),
                // A runtime that shuts down wakes its timers before their time.
                false => hand_over(&node, &mut deferred),
            }));
            deferred.drop_handle(node);
            if let Err(payload) = cancelled {
                discard(payload);
            }
            if !deferred.is_empty() {
                // A runtime that shuts down drops the task at once, which runs them, and keeps their panics.
                self.runtime.spawn(async move { drop(deferred) });
            }
        }
    }

    fn set_has_timer(node: &Node, has_timer: bool) {
        if let Some(special) = node.ancestry.special() {
            special.timer.has_timer.store(has_timer, Ordering::Relaxed);
        }
    }

    /// For a node whose timer is lost: those below that stand by set one of their own runtime.
    fn hand_over(node: &Arc<Node>, deferred: &mut Deferred) {
        set_has_timer(node, false);
        // Kept to the end, so that the address of none is used again meanwhile.
        let mut nodes = vec![Arc::clone(node)];
        let mut seen = BTreeSet::new();
        let mut next = 0;
        while let Some(node) = nodes.get(next) {
            next += 1;
            let mut children = node.listed();
            let special = node.ancestry.special();
            if let Some(runtime) = special.and_then(|special| special.timer.runtime()) {
                let node = Arc::downgrade(node);
                // On a task, as a runtime that is gone as well drops it where a timer would panic.
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
            if node.is_reported_to() {
                return;
            }
            set_timer(at, node);
            if is_over(at) {
                // Nobody waits for a timer that went off before it was polled. This is a task: callbacks run here.
                Deferred::default().expire(node);
            }
        }
    }
}
