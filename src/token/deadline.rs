//! The deadline of a node, and the slot for its timer. Without a clock, no value of these types exists.

#[cfg(feature = "tokio")]
pub(super) use timed::{OwnDeadline, Timer, TimerSlot, require_runtime};
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
    use super::{Instant, has_passed};
    use crate::{
        StopReason, clock,
        sync::{AtomicBool, Mutex, Ordering},
    };
    use std::{
        mem,
        panic::{AssertUnwindSafe, Location},
        pin::Pin,
        sync::PoisonError,
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
    pub(in super::super) enum Timer {
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
        /// Drops the timer that was in it before.
        pub(in super::super) fn set(&self, timer: Timer) {
            drop(self.replace(Some(timer)));
        }

        pub(in super::super) fn clear(&self) {
            drop(self.replace(None));
        }

        fn replace(&self, timer: Option<Timer>) -> Option<Timer> {
            let mut slot = self.timer.lock().unwrap_or_else(PoisonError::into_inner);
            mem::replace(&mut slot, timer)
        }

        /// The runtime of a node on standby.
        pub(in super::super) fn runtime(&self) -> Option<Handle> {
            match &*self.timer.lock().unwrap_or_else(PoisonError::into_inner) {
                Some(Timer::StandsBy(runtime)) => Some(runtime.clone()),
                Some(Timer::Set(_)) | None => None,
            }
        }

        pub(in super::super) fn has_timer(&self) -> bool {
            self.has_timer.load(Ordering::Relaxed)
        }

        pub(in super::super) fn set_has_timer(&self, has_timer: bool) {
            self.has_timer.store(has_timer, Ordering::Relaxed);
        }
    }

    #[track_caller]
    pub(in super::super) fn require_runtime() {
        clock::require_runtime(
            "a token with a deadline must be made in the context of a Tokio 1.x runtime. Make it in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` meanwhile",
        );
    }
}
