//! The only file of the tree that knows whether there is a clock.

#[cfg(feature = "tokio")]
pub(super) use timed::Timer;
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
        super::{first_panic::discard, tree::Node},
        Moment, is_over,
    };
    use crate::{StopReason, clock::within_reach};
    use std::{
        future::Future,
        panic::{AssertUnwindSafe, catch_unwind},
        pin::{Pin, pin},
        sync::{Arc, Weak},
        task::{Context, Wake, Waker},
    };
    use tokio::{
        runtime::Handle,
        task::unconstrained,
        time::{Sleep, sleep_until},
    };

    /// Cancels a node when its time is over. Dropping it releases the timer of the runtime.
    ///
    /// No task of its own: the timer's wake-up is the cancel.
    pub(in super::super) struct Timer {
        _sleep: Pin<Box<Sleep>>,
    }

    impl Timer {
        #[track_caller]
        pub(in super::super) fn require_runtime() {
            assert!(
                Handle::try_current().is_ok(),
                "there is no runtime for the timer: a token with a deadline must be made in the context of a Tokio \
                 1.x runtime. Make it in `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` \
                 meanwhile",
            );
        }

        #[track_caller]
        pub(in super::super) fn set(at: Moment, node: Weak<Node>) -> Self {
            let mut sleep = Box::pin(sleep_until(within_reach(at)));
            let waker = Waker::from(Arc::new(Alarm { at, node }));
            // A spent budget would leave the timer unregistered. If it is over by now, whoever looks sees it.
            let _ = pin!(unconstrained(sleep.as_mut())).poll(&mut Context::from_waker(&waker));
            Self { _sleep: sleep }
        }
    }

    struct Alarm {
        at: Moment,
        node: Weak<Node>,
    }

    impl Wake for Alarm {
        fn wake(self: Arc<Self>) {
            // A runtime that shuts down wakes its timers before their time.
            if !is_over(self.at) {
                return;
            }
            // The driver of all timers runs this: a panic of somebody's waker or callback ends here.
            let cancelled = catch_unwind(AssertUnwindSafe(|| {
                if let Some(node) = self.node.upgrade() {
                    node.cancel(StopReason::DeadlineExceeded);
                }
            }));
            if let Err(payload) = cancelled {
                discard(payload);
            }
        }
    }
}
