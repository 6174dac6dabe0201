//! The paused clock of a harness, which keeps a runtime of one thread for it.

#[cfg(feature = "tokio")]
pub(super) use paused::{Clock, tick};

#[cfg(not(feature = "tokio"))]
pub(super) use absent::Clock;

#[cfg(feature = "tokio")]
mod paused {
    use std::{
        fmt::{self, Debug, Formatter},
        future::Future,
        pin::pin,
        sync::Arc,
        task::{Context, Waker},
        time::Duration,
    };
    use tokio::{
        runtime::{Builder, EnterGuard, Handle, Runtime},
        task::yield_now,
        time::{Instant, advance},
    };

    #[derive(Clone)]
    pub(in crate::testing) struct Clock {
        runtime: Arc<Runtime>,
        start: Instant,
    }

    impl Clock {
        #[track_caller]
        pub(in crate::testing) fn new() -> Self {
            assert!(
                Handle::try_current().is_err(),
                "a harness brings a clock and a runtime of its own, and cannot be used inside of another runtime: \
                 call it from a plain `#[test]`"
            );
            let mut builder = Builder::new_current_thread();
            let runtime = match builder.enable_time().start_paused(true).build() {
                Ok(runtime) => runtime,
                Err(error) => panic!("a harness needs a runtime for its clock: {error}"),
            };
            let start = {
                let _context = runtime.enter();
                Instant::now()
            };
            Self {
                runtime: Arc::new(runtime),
                start,
            }
        }

        /// Where streams, tokens and timers find this clock.
        pub(in crate::testing) fn enter(&self) -> EnterGuard<'_> {
            self.runtime.enter()
        }

        /// Lets the timers that are over fire, and tasks that are ready run.
        pub(in crate::testing) fn turn(&self) {
            self.runtime.block_on(yield_now());
        }

        /// Goes on to the next whole millisecond, at which tokio's timers are exact.
        pub(in crate::testing) fn align(&self) {
            let past = (Instant::now() - self.start).subsec_nanos() % 1_000_000;
            tick(Duration::from_nanos(u64::from(1_000_000 - past)));
        }
    }

    /// Moves the clock on the spot, and lets no timer run yet.
    pub(in crate::testing) fn tick(by: Duration) {
        // Its first poll moves the clock, the second would be for the timers.
        let _ = pin!(advance(by)).poll(&mut Context::from_waker(Waker::noop()));
    }

    impl Debug for Clock {
        fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
            f.debug_struct("Clock").finish_non_exhaustive()
        }
    }
}

#[cfg(not(feature = "tokio"))]
mod absent {
    /// There is nothing that keeps time.
    #[derive(Clone, Debug)]
    pub(in crate::testing) struct Clock;

    #[derive(Debug)]
    pub(in crate::testing) struct Entered;

    impl Clock {
        pub(in crate::testing) fn new() -> Self {
            Self
        }

        pub(in crate::testing) fn enter(&self) -> Entered {
            Entered
        }

        pub(in crate::testing) fn turn(&self) {}

        pub(in crate::testing) fn align(&self) {}
    }
}
