//! Points in time, when to read the clock, and the timer.

use crate::waker_id::WakerId;
use pin_project::pin_project;
use std::{
    future::Future,
    pin::{Pin, pin},
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    task::unconstrained,
    time::{Instant, Sleep, sleep_until},
};

/// How many items at most may come between two reads of the clock.
pub(crate) const STRIDE: u8 = 64;

/// How late a read of the clock may be, judged by the pace of the last items.
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

/// How often to read the clock while items come in a run.
///
/// Before the first item, after each `Pending`, and after each stride. A stride is 1 item at first, at most twice as
/// many as the last one, and so few that at the pace of the last one they take no longer than [`SLACK`].
pub(crate) struct Pace {
    last_read: Option<Instant>,
    stride: u8,
    /// How many items have come in this run, as of the last read.
    pub(crate) run: u8,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            last_read: None,
            stride: 1,
            run: 0,
        }
    }
}

impl Pace {
    /// Reads the clock, after `items` that came in this run since it was last read: how many may come until it is to be
    /// read again, or `None` if it is `at` or later.
    #[inline]
    pub(crate) fn read(&mut self, at: Instant, items: u32) -> Option<u32> {
        match items {
            0 => self.begin_run(at),
            _ => self.read_in_run(at, items),
        }
    }

    #[inline]
    pub(crate) fn read_in_run(&mut self, at: Instant, items: u32) -> Option<u32> {
        let now = Instant::now();
        if now >= at {
            return None;
        }
        match self.last_read.replace(now) {
            // As a rule, in a long run: the next stride is as long as this one.
            Some(last_read)
                if items == STRIDE.into() && self.stride == STRIDE && now <= last_read + SLACK =>
            {
                self.run = STRIDE;
            }
            last_read => {
                self.end_stride(items, last_read.map(|last_read| now - last_read));
            }
        }
        Some(self.stride.into())
    }

    /// The same before the first item of a run.
    #[inline]
    pub(crate) fn begin_run(&mut self, at: Instant) -> Option<u32> {
        let now = Instant::now();
        if now >= at {
            return None;
        }
        self.last_read = Some(now);
        self.run = 0;
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
        self.run = self.run.saturating_add(items);
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
pub(crate) struct Timer {
    pub(crate) at: Instant,
    #[pin]
    sleep: Sleep,
    /// A clone of the waker that it was last polled with, and that waker's id.
    registered: Option<(Waker, WakerId)>,
}

impl Timer {
    pub(crate) fn new(at: Instant) -> Self {
        Self {
            at,
            sleep: sleep(at),
            registered: None,
        }
    }

    /// `false` once it has fired, or its runtime has shut down: that wake-up may have been spent on an item.
    #[inline]
    pub(crate) fn will_wake(&self, waker: &Waker) -> bool {
        matches!(&self.registered, Some((_, id)) if *id == WakerId::of(waker))
            && !self.sleep.is_elapsed()
    }

    pub(crate) fn is_elapsed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    pub(crate) fn reset(self: Pin<&mut Self>, at: Instant) {
        let this = self.project();
        *this.at = at;
        *this.registered = None;
        this.sleep.reset(within_reach(at));
    }

    pub(crate) fn poll(self: Pin<&mut Self>, waker: &Waker) -> Poll<()> {
        let this = self.project();
        let clone = waker.clone();
        let id = WakerId::kept_by(&clone, waker);
        *this.registered = Some((clone, id));
        poll_sleep(this.sleep, waker)
    }
}
