//! The paused clock of a harness, with the current-thread runtime that it belongs to.

#[cfg(feature = "tokio")]
pub(super) use paused::{Clock, tick};

#[cfg(not(feature = "tokio"))]
pub(super) use absent::Clock;

#[cfg(feature = "tokio")]
mod paused {
    use std::{
        fmt::{self, Debug, Formatter},
        future::{Future, poll_fn},
        pin::pin,
        sync::Arc,
        task::{Context, Poll, Waker},
        time::Duration,
    };
    use tokio::{
        runtime::{Builder, EnterGuard, Handle, Runtime},
        task::yield_now,
        time::{Instant, advance, sleep_until},
    };

    /// Enough for a long chain of tasks that wake each other, and cheap enough for each step of a test.
    const TURNS: usize = 64;

    const MILLISECOND: Duration = Duration::from_millis(1);

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
                "a harness has a clock and a runtime of its own, and cannot be used inside another runtime: use it in a \
                 plain `#[test]`"
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

        /// Streams, tokens and timers use this clock while the guard exists.
        pub(in crate::testing) fn enter(&self) -> EnterGuard<'_> {
            self.runtime.enter()
        }

        /// Fires the timers whose time has come, and runs the tasks that are ready.
        pub(in crate::testing) fn turn(&self) {
            // In the first turn tasks run, then timers fire. In the second the tasks run that the timers have woken.
            self.take_turns(2);
        }

        /// Runs tasks and fires timers until no task is ready any more, up to a limit.
        pub(in crate::testing) fn settle(&self) {
            self.take_turns(TURNS);
        }

        fn take_turns(&self, turns: usize) {
            self.runtime.block_on(async {
                for _ in 0..turns {
                    yield_now().await;
                }
            });
        }

        /// Lets time pass until `until`, timer by timer, or until `poll` is ready. Returns whether `until` was reached.
        pub(in crate::testing) fn pass(
            &self,
            until: Instant,
            mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>,
        ) -> bool {
            // Tokio's timers fire at whole milliseconds, and the paused clock advances by whole ones.
            if self.past_millisecond(Instant::now()) > Duration::ZERO {
                let rest = MILLISECOND - self.past_millisecond(Instant::now());
                tick(rest.min(until - Instant::now()));
                self.settle();
            }
            let whole = until - self.past_millisecond(until);
            let was_ready = self.runtime.block_on(async {
                let mut sleep = pin!(sleep_until(whole));
                poll_fn(|cx| match poll(cx) {
                    Poll::Ready(()) => Poll::Ready(true),
                    Poll::Pending if Instant::now() >= whole => Poll::Ready(false),
                    Poll::Pending => sleep.as_mut().poll(cx).map(|()| false),
                })
                .await
            });
            if !was_ready {
                tick(until - Instant::now());
                self.settle();
            }
            !was_ready
        }

        /// Advances to the next whole millisecond, at which tokio's timers are exact.
        pub(in crate::testing) fn align(&self) {
            tick(MILLISECOND - self.past_millisecond(Instant::now()));
        }

        fn past_millisecond(&self, at: Instant) -> Duration {
            let past = (at - self.start).as_nanos() % MILLISECOND.as_nanos();
            Duration::from_nanos(past as u64)
        }
    }

    /// Advances the clock without firing timers.
    pub(in crate::testing) fn tick(by: Duration) {
        // Its first poll advances the clock, the second would fire timers.
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
    /// Without the feature `tokio` there is no clock.
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

        pub(in crate::testing) fn settle(&self) {}

        pub(in crate::testing) fn align(&self) {}
    }
}
