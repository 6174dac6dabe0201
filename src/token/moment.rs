//! The only file of the tree that knows whether there is a clock.

#[cfg(feature = "tokio")]
pub(super) use timed::{Timer, require_runtime, set_timer};
#[cfg(feature = "tokio")]
pub(super) use tokio::time::Instant as Moment;

#[cfg(not(feature = "tokio"))]
pub(super) use timeless::{Moment, Timer};

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
    #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub(in super::super) enum Moment {}

    pub(in super::super) enum Timer {}
}

#[cfg(feature = "tokio")]
mod timed {
    use super::{
        super::{deferred::Deferred, tree::Node},
        Moment, is_over,
    };
    use crate::{StopReason, clock, first_panic::discard};
    use std::{
        panic::{AssertUnwindSafe, catch_unwind},
        pin::Pin,
        sync::{Arc, Weak},
        task::{Wake, Waker},
    };
    use tokio::runtime::Handle;

    /// Dropping it releases the timer of the runtime.
    pub(in super::super) type Timer = Pin<Box<clock::Timer>>;

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
    pub(in super::super) fn set_timer(at: Moment, node: Weak<Node>) -> Timer {
        let mut timer = Box::pin(clock::Timer::new(at));
        let runtime = Handle::current();
        let waker = Waker::from(Arc::new(Alarm { at, node, runtime }));
        // If it is over by now, whoever looks sees it.
        let _ = timer.as_mut().poll(&waker);
        timer
    }

    struct Alarm {
        at: Moment,
        node: Weak<Node>,
        /// The timer's.
        runtime: Handle,
    }

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            // A runtime that shuts down wakes its timers before their time.
            if !is_over(self.at) {
                return;
            }
            // The driver of all timers runs this: a panic of somebody's waker ends here.
            let mut deferred = Deferred::default();
            let cancelled = catch_unwind(AssertUnwindSafe(|| {
                if let Some(node) = self.node.upgrade() {
                    deferred.cancel(&node, StopReason::DeadlineExceeded);
                }
            }));
            if let Err(payload) = cancelled {
                discard(payload);
            }
            if !deferred.is_empty() {
                // A runtime that shuts down drops the task at once, which runs them, and keeps their panics.
                self.runtime.spawn(async move { drop(deferred) });
            }
        }
    }
}
