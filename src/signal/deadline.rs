use super::Signal;
use crate::{
    StopReason,
    clock::{Pace, STRIDE, Timer, require_runtime},
    wake_flag::WakeFlag,
};
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

/// The signal of [`with_deadline`](crate::CancelStreamExt::with_deadline) and its variants: fires at a point in time.
//
// A timer wakes the task. It is set when the source is first pending. During a run of ready items no timer of this
// thread can fire, so the clock is read, at the `Pace` of the items.
//
// The pace can change, in particular if the consumer begins to wait between two items. So in a run of more than
// `STRIDE` items the timer sets a flag, which each item checks. It cannot do so during the run, but it does while the
// consumer waits.
pub struct Deadline {
    timer: TimerState,
    /// The flag that the timer sets, if it does not wake the task itself.
    flag: Option<Arc<WakeFlag>>,
    pace: Pace,
}

enum TimerState {
    Never,
    At(Instant),
    Set(Pin<Box<Timer>>),
    Over,
}

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self::new(TimerState::At(at))
    }

    /// Counts from now. A timeout that is too long for the clock never passes.
    pub(crate) fn after(timeout: Duration) -> Self {
        let at = Instant::now().checked_add(timeout);
        Self::new(at.map_or(TimerState::Never, TimerState::At))
    }

    fn new(timer: TimerState) -> Self {
        Self {
            timer,
            flag: None,
            pace: Pace::default(),
        }
    }

    /// Ready once the deadline has passed; until then the timer wakes this waker.
    fn poll_timer(&mut self, waker: &Waker) -> Poll<()> {
        if let TimerState::At(at) = self.timer {
            self.timer = TimerState::Set(Box::pin(Timer::new(at)));
        }
        match &mut self.timer {
            TimerState::Set(timer) => timer.as_mut().poll(waker),
            TimerState::Over => Poll::Ready(()),
            TimerState::Never | TimerState::At(_) => Poll::Pending,
        }
    }

    fn poll_flag(&mut self) -> Poll<()> {
        let flag = self.flag.get_or_insert_with(WakeFlag::new);
        if !flag.is_set() {
            return Poll::Pending;
        }
        flag.clear();
        let waker = flag.waker();
        self.poll_timer(&waker)
    }

    /// A check during a run, not after a `Pending`.
    #[inline(never)]
    fn check_in_run(&mut self, at: Instant, items: u32) -> u32 {
        match self.pace.read_in_run(at, items) {
            None => self.end(),
            Some(next_check) if self.flag.is_some() => next_check,
            Some(next_check) => self.provide_flag(next_check),
        }
    }

    #[inline(never)]
    fn check_without_timer(&mut self, items: u32) -> u32 {
        let TimerState::At(at) = self.timer else {
            return match self.timer {
                TimerState::Over => 1,
                _ => u32::MAX,
            };
        };
        if items > 0 {
            return self.check_in_run(at, items);
        }
        let Some(next_check) = self.pace.begin_run(at) else {
            return self.end();
        };
        // Checked at the first poll, so that a missing runtime shows before the source is first slow.
        require_runtime(
            "a stream with a deadline must be polled from the context of a Tokio 1.x runtime. Poll it in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` while polling",
        );
        next_check
    }

    #[cold]
    fn end(&mut self) -> u32 {
        self.timer = TimerState::Over;
        self.flag = None;
        1
    }

    /// Makes the flag once the run has more items than may come without one.
    #[inline(never)]
    fn provide_flag(&mut self, next_check: u32) -> u32 {
        match STRIDE.saturating_sub(self.pace.run) {
            0 if self.poll_flag().is_ready() => self.end(),
            0 => next_check,
            left => next_check.min(left.into()),
        }
    }
}

impl Signal for Deadline {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        match &self.flag {
            Some(flag) => flag.is_set(),
            None => matches!(self.timer, TimerState::Over),
        }
    }

    #[inline]
    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let polled = match &self.flag {
            None if self.will_wake(cx) => Poll::Pending,
            None => self.poll_timer(cx.waker()),
            Some(flag) => {
                flag.wake_when_set(cx);
                self.poll_flag()
            }
        };
        polled.map(|()| StopReason::DeadlineExceeded)
    }

    /// Without the check whether the timer will wake: the adapter has made it.
    #[inline]
    fn poll_fired_since(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match &self.flag {
            None => self
                .poll_timer(cx.waker())
                .map(|()| StopReason::DeadlineExceeded),
            Some(_) => self.poll_fired(cx),
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        match (&self.flag, &self.timer) {
            (None, TimerState::Set(timer)) => timer.will_wake(cx.waker()),
            (_, TimerState::Never) => true,
            _ => false,
        }
    }

    /// Reads the clock, not the timer, which may be due but not have fired yet.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        let is_over = match &self.timer {
            TimerState::Never => false,
            TimerState::At(at) => *at <= Instant::now(),
            TimerState::Set(timer) => timer.at <= Instant::now(),
            TimerState::Over => true,
        };
        match is_over {
            true => Poll::Ready(StopReason::DeadlineExceeded),
            false => Poll::Pending,
        }
    }

    #[inline]
    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        let TimerState::Set(timer) = &self.timer else {
            return self.check_without_timer(items);
        };
        let at = timer.at;
        if items > 0 {
            return self.check_in_run(at, items);
        }
        match self.pace.begin_run(at) {
            Some(next_check) => next_check,
            None => self.end(),
        }
    }
}

impl Debug for Deadline {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Deadline").finish_non_exhaustive()
    }
}
