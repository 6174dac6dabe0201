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

/// The signal of [`with_deadline`](crate::CancelStreamExt::with_deadline) and its family: a point in time.
//
// Sleeping is left to a timer, which is set when the source is first pending. While items come in a row no timer of
// this thread can run, so the clock is read, at the `Pace` of the items.
//
// A pace can change, above all if the consumer begins to wait between two items. So for a row of more than `STRIDE`
// items the timer sets a flag. It cannot while items come in a row, but while the consumer waits it does, and every
// item asks for it.
pub struct Deadline {
    alarm: Alarm,
    /// What the timer wakes, if not the task itself.
    flag: Option<Arc<WakeFlag>>,
    pace: Pace,
}

enum Alarm {
    Never,
    At(Instant),
    Set(Pin<Box<Timer>>),
    Over,
}

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self::new(Alarm::At(at))
    }

    /// Counts from now. What no clock can count to is never.
    pub(crate) fn after(timeout: Duration) -> Self {
        let at = Instant::now().checked_add(timeout);
        Self::new(at.map_or(Alarm::Never, Alarm::At))
    }

    fn new(alarm: Alarm) -> Self {
        Self {
            alarm,
            flag: None,
            pace: Pace::default(),
        }
    }

    /// Whether the time is over; else the timer wakes this waker.
    fn poll_alarm(&mut self, waker: &Waker) -> Poll<()> {
        if let Alarm::At(at) = self.alarm {
            self.alarm = Alarm::Set(Box::pin(Timer::new(at)));
        }
        match &mut self.alarm {
            Alarm::Set(timer) => timer.as_mut().poll(waker),
            Alarm::Over => Poll::Ready(()),
            Alarm::Never | Alarm::At(_) => Poll::Pending,
        }
    }

    fn poll_bell(&mut self) -> Poll<()> {
        let flag = self.flag.get_or_insert_with(WakeFlag::new);
        if !flag.is_set() {
            return Poll::Pending;
        }
        flag.clear();
        let waker = flag.waker();
        self.poll_alarm(&waker)
    }

    /// Not after a `Pending`.
    #[inline(never)]
    fn check_in_row(&mut self, at: Instant, items: u32) -> u32 {
        match self.pace.read_in_row(at, items) {
            None => self.end(),
            Some(next_check) if self.flag.is_some() => next_check,
            Some(next_check) => self.provide_flag(next_check),
        }
    }

    #[inline(never)]
    fn check_without_timer(&mut self, items: u32) -> u32 {
        let Alarm::At(at) = self.alarm else {
            return match self.alarm {
                Alarm::Over => 1,
                _ => u32::MAX,
            };
        };
        if items > 0 {
            return self.check_in_row(at, items);
        }
        let Some(next_check) = self.pace.begin_row(at) else {
            return self.end();
        };
        // At the first poll, so that the mistake shows before the day when the source is slow.
        require_runtime(
            "a stream with a deadline must be polled from the context of a Tokio 1.x runtime. Poll it in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` while polling",
        );
        next_check
    }

    #[cold]
    fn end(&mut self) -> u32 {
        self.alarm = Alarm::Over;
        self.flag = None;
        1
    }

    /// Makes the flag once more items came in a row than may come without one.
    #[inline(never)]
    fn provide_flag(&mut self, next_check: u32) -> u32 {
        match STRIDE.saturating_sub(self.pace.row) {
            0 if self.poll_bell().is_ready() => self.end(),
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
            None => matches!(self.alarm, Alarm::Over),
        }
    }

    #[inline]
    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let polled = match &self.flag {
            None if self.will_wake(cx) => Poll::Pending,
            None => self.poll_alarm(cx.waker()),
            Some(flag) => {
                flag.wake_when_set(cx);
                self.poll_bell()
            }
        };
        polled.map(|()| StopReason::DeadlineExceeded)
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        match (&self.flag, &self.alarm) {
            (None, Alarm::Set(timer)) => timer.will_wake(cx.waker()),
            (_, Alarm::Never) => true,
            _ => false,
        }
    }

    /// By the clock, and without a timer: it may be due, and not have gone off.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        let is_over = match &self.alarm {
            Alarm::Never => false,
            Alarm::At(at) => *at <= Instant::now(),
            Alarm::Set(timer) => timer.at <= Instant::now(),
            Alarm::Over => true,
        };
        match is_over {
            true => Poll::Ready(StopReason::DeadlineExceeded),
            false => Poll::Pending,
        }
    }

    #[inline]
    fn check_every(mut self: Pin<&mut Self>, items: u32) -> u32 {
        let Alarm::Set(timer) = &self.alarm else {
            return self.check_without_timer(items);
        };
        let at = timer.at;
        if items > 0 {
            return self.check_in_row(at, items);
        }
        match self.pace.begin_row(at) {
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
