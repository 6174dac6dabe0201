//! When to look at the clock, and the timer.

use crate::{Signal, StopReason, fairness::poll_budget, wake_flag::WakeFlag, waker_id::WakerId};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    mem,
    pin::{Pin, pin},
    sync::Arc,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// How many items at most may come between two looks at the clock.
const STRIDE: u8 = 64;

/// How late a look may be, as far as the pace of the last items can tell.
const SLACK: Duration = Duration::from_millis(1);

/// What can be turned into a point in time: whatever is `Into<tokio::time::Instant>`, as `std`'s `Instant` is.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a point in time",
    label = "expected an `Instant`",
    note = "for a length of time use the method that is named `timeout`: `with_timeout` in place of `with_deadline`"
)]
pub trait IntoDeadline {
    /// The point in time.
    fn into_deadline(self) -> Instant;
}

#[diagnostic::do_not_recommend]
impl<T: Into<Instant>> IntoDeadline for T {
    fn into_deadline(self) -> Instant {
        self.into()
    }
}

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

/// How late a poll may be before its consumer counts as having been away: a sixteenth of the timeout, and this.
const AWAY_AFTER: Duration = Duration::from_millis(10);

/// The signal of [`with_idle_timeout`](crate::CancelStreamExt::with_idle_timeout): no item for too long.
//
// Only the clock says that the time is over. The timer does nothing but wake.
pub struct Idle {
    timeout: Duration,
    /// When it is over, once the source is pending; `Some(None)` if no clock can count to that.
    over_at: Option<Option<Instant>>,
    /// The consumer was away when the time was over, so that it was started anew.
    was_away: bool,
    /// Set for some earlier `over_at`, and for the next one only when it goes off.
    timer: Option<Pin<Box<Timer>>>,
}

impl Idle {
    pub(crate) fn new(timeout: Duration) -> Self {
        Self {
            timeout,
            over_at: None,
            was_away: false,
            timer: None,
        }
    }

    /// Wakes this waker then, or before.
    fn wake_at(&mut self, at: Instant, waker: &Waker) {
        let timer = self.timer.get_or_insert_with(|| {
            require_runtime(
                "a stream with an idle timeout must be polled from the context of a Tokio 1.x runtime. Poll it in \
                 `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` while polling",
            );
            Box::pin(Timer::new(at))
        });
        if timer.will_wake(waker) {
            return;
        }
        if timer.sleep.is_elapsed() {
            timer.as_mut().reset(at);
        }
        if timer.as_mut().poll(waker).is_pending() {
            return;
        }
        // It has gone off in this very poll, which was for an earlier time.
        timer.as_mut().reset(at);
        if timer.as_mut().poll(waker).is_ready() {
            waker.wake_by_ref();
        }
    }

    /// Whether a time that is over by so much was over while nobody polled, for the first time since the last item.
    fn is_away(&mut self, late: Duration) -> bool {
        let is_late = late > AWAY_AFTER && late > self.timeout / 16;
        !mem::replace(&mut self.was_away, is_late) && is_late
    }
}

impl Signal for Idle {
    /// The source is always asked first: an item wins.
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        false
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        // It may be for want of budget alone that the source is pending. It has its turn again at once.
        if poll_budget(cx).is_pending() {
            return Poll::Pending;
        }
        let now = Instant::now();
        let timeout = self.timeout;
        let over_at = *self.over_at.get_or_insert_with(|| now.checked_add(timeout));
        let Some(mut over_at) = over_at else {
            return Poll::Pending;
        };
        if over_at <= now {
            if !self.is_away(now - over_at) {
                return Poll::Ready(StopReason::IdleTimeout);
            }
            // The source may have had no chance to give anything: it is polled by nobody else.
            over_at = now + timeout;
            self.over_at = Some(Some(over_at));
        }
        self.wake_at(over_at, cx.waker());
        Poll::Pending
    }

    /// The clock is read when the source is pending.
    #[inline]
    fn needs_checks(&self) -> bool {
        false
    }

    /// An end counts as an item.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        Poll::Pending
    }

    #[inline]
    fn note_item(mut self: Pin<&mut Self>) {
        self.over_at = None;
        self.was_away = false;
    }
}

impl Debug for Idle {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Idle")
            .field("timeout", &self.timeout)
            .finish_non_exhaustive()
    }
}

/// How often to read the clock while items come in a row.
///
/// Before the first item, after each `Pending`, and after each stride. A stride is 1 item at first, at most twice as
/// many as the last one, and so few that at the pace of the last one they take no longer than [`SLACK`].
pub(crate) struct Pace {
    last_look: Option<Instant>,
    stride: u8,
    /// How many items have come in this row, as far as looked at.
    row: u8,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last_look: None,
            stride: 1,
            row: 0,
        }
    }
}

impl Pace {
    /// Reads the clock, after `items` that came in a row since it was last read: how many may come until it is to be
    /// read again, or `None` if it is `at` or later.
    #[inline]
    pub(crate) fn read(&mut self, at: Instant, items: u32) -> Option<u32> {
        match items {
            0 => self.begin_row(at),
            _ => self.read_in_row(at, items),
        }
    }

    #[inline]
    fn read_in_row(&mut self, at: Instant, items: u32) -> Option<u32> {
        let now = Instant::now();
        if now >= at {
            return None;
        }
        match self.last_look.replace(now) {
            // As a rule, in a long run: the next stride is as long as this one.
            Some(last_look)
                if items == STRIDE.into() && self.stride == STRIDE && now <= last_look + SLACK =>
            {
                self.row = STRIDE;
            }
            last_look => {
                self.end_stride(items, last_look.map(|last_look| now - last_look));
            }
        }
        Some(self.stride.into())
    }

    /// The same before the first item of a row.
    #[inline]
    fn begin_row(&mut self, at: Instant) -> Option<u32> {
        let now = Instant::now();
        if now >= at {
            return None;
        }
        self.last_look = Some(now);
        self.row = 0;
        Some(self.stride.into())
    }

    /// Sets the length of the next stride, if the last one took so long: one item where that is not known.
    #[inline(never)]
    fn end_stride(&mut self, items: u32, took: Option<Duration>) {
        let nanos = |time: Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
        let took = took.map_or(u64::MAX, nanos);
        let fitting = nanos(SLACK) * u64::from(items) / took.max(1);
        // The pace of a few says little of many.
        let most = items.saturating_mul(2).min(STRIDE.into());
        self.stride = fitting.clamp(1, most.into()) as u8;

        let items = u8::try_from(items).unwrap_or(STRIDE);
        self.row = self.row.saturating_add(items);
    }
}

#[track_caller]
pub(crate) fn require_runtime(mistake: &str) {
    assert!(
        Handle::try_current().is_ok(),
        "there is no runtime for the timer: {mistake}",
    );
}

/// A sleep until this point in time, or a little before, if it is so late that tokio, which rounds up to a millisecond,
/// would panic.
#[track_caller]
pub(crate) fn sleep(at: Instant) -> Sleep {
    sleep_until(within_reach(at))
}

fn within_reach(at: Instant) -> Instant {
    const MILLISECOND: Duration = Duration::from_millis(1);
    match at.checked_add(MILLISECOND) {
        Some(_) => at,
        None => at - MILLISECOND,
    }
}

/// Without budget: where it is spent the sleep would stay unregistered, and a timer is no work of the task.
pub(crate) fn poll_sleep(sleep: Pin<&mut Sleep>, waker: &Waker) -> Poll<()> {
    pin!(unconstrained(sleep)).poll(&mut Context::from_waker(waker))
}

/// A `Sleep` that is polled once for each waker.
#[pin_project]
struct Timer {
    at: Instant,
    #[pin]
    sleep: Sleep,
    /// A clone of the waker that it was last polled with, and that waker's id.
    registered: Option<(Waker, WakerId)>,
}

impl Timer {
    fn new(at: Instant) -> Self {
        Self {
            at,
            sleep: sleep(at),
            registered: None,
        }
    }

    /// Not once it has gone off, or its runtime is gone: that wake-up may have been spent on an item.
    #[inline]
    fn will_wake(&self, waker: &Waker) -> bool {
        matches!(&self.registered, Some((_, id)) if *id == WakerId::of(waker))
            && !self.sleep.is_elapsed()
    }

    fn reset(self: Pin<&mut Self>, at: Instant) {
        let this = self.project();
        *this.at = at;
        *this.registered = None;
        this.sleep.reset(within_reach(at));
    }

    fn poll(self: Pin<&mut Self>, waker: &Waker) -> Poll<()> {
        let this = self.project();
        let clone = waker.clone();
        let id = WakerId::kept_by(&clone, waker);
        *this.registered = Some((clone, id));
        poll_sleep(this.sleep, waker)
    }
}
