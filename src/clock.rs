//! When to look at the clock, and the timer.

use crate::{Signal, StopReason};
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

/// How many items at most may come between two looks at the clock.
const STRIDE: u32 = 64;

/// How late a look may be, as far as the pace of the items so far can tell.
const SLACK: Duration = Duration::from_millis(1);

/// A point in time as a signal.
///
/// Sleeping is left to a timer, which is made when the source is first pending. While items come in a row no timer
/// of this thread can run, so the clock is read: before the first item and after each `Pending`, then after 1, 2, 4,
/// up to [`STRIDE`] items, so few that at the pace of the last ones they take no longer than [`SLACK`], nor longer
/// than what is left of the time.
///
/// A pace can change, above all if the consumer begins to wait between two items. So a row that has gone on for a
/// stride gets its timer too: it cannot run while items come in a row, but while the consumer waits it does, and
/// every item asks whether it has.
pub(crate) struct Deadline {
    /// `None`: never.
    at: Option<Instant>,
    /// The last look at the clock.
    last_look: Option<Instant>,
    timer: Option<Pin<Box<Timer>>>,
    /// The items before there was a timer.
    untimed: u32,
    /// Set only where there is no timer.
    passed: bool,
}

impl Deadline {
    pub(crate) fn at(at: Instant) -> Self {
        Self::new(Some(at))
    }

    /// Counts from now. What no clock can count to is never.
    pub(crate) fn after(timeout: Duration) -> Self {
        Self::new(Instant::now().checked_add(timeout))
    }

    fn new(at: Option<Instant>) -> Self {
        Self {
            at,
            last_look: None,
            timer: None,
            untimed: 0,
            passed: false,
        }
    }

    fn pass(&mut self) {
        self.timer = None;
        self.passed = true;
    }

    /// Whether the time is over; else the timer wakes `cx`'s waker.
    fn poll_timer(&mut self, at: Instant, cx: &mut Context<'_>) -> Poll<()> {
        self.timer
            .get_or_insert_with(|| Box::pin(Timer::new(at)))
            .as_mut()
            .poll(cx)
    }
}

impl Signal for Deadline {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        match &self.timer {
            Some(timer) => timer.is_elapsed(),
            None => self.passed,
        }
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        if self.passed || self.poll_timer(at, cx).is_ready() {
            return Poll::Ready(StopReason::DeadlineExceeded);
        }
        Poll::Pending
    }

    fn look(mut self: Pin<&mut Self>, items: u32, cx: &mut Context<'_>) -> u32 {
        let Some(at) = self.at else {
            return u32::MAX;
        };
        let now = Instant::now();
        let left = at.saturating_duration_since(now);
        if left.is_zero() {
            self.pass();
            return 1;
        }
        let Some(last_look) = self.last_look.replace(now).filter(|_| items > 0) else {
            if self.timer.is_none() {
                require_runtime();
            }
            return 1;
        };
        self.untimed = self.untimed.saturating_add(items);
        if self.untimed >= STRIDE && self.timer.is_none() && self.poll_timer(at, cx).is_ready() {
            self.pass();
            return 1;
        }
        let took = now.saturating_duration_since(last_look).as_nanos().max(1);
        let fitting = left.min(SLACK).as_nanos() * u128::from(items) / took;
        // Twice as many as those that the pace was taken of, and no more: a short row says little.
        let most = items.saturating_mul(2).min(STRIDE);
        u32::try_from(fitting).unwrap_or(most).clamp(1, most)
    }
}

/// Checked at the first poll, so that the mistake shows before the day when the source is slow.
fn require_runtime() {
    assert!(
        Handle::try_current().is_ok(),
        "there is no runtime for the timer: a stream with a deadline must be polled from the context of a Tokio 1.x \
         runtime. Poll it in `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` while polling",
    );
}

/// A `Sleep` that is polled once for each waker.
#[pin_project]
struct Timer {
    #[pin]
    sleep: Sleep,
    /// Kept, so that it cannot be mistaken for another one at the same address.
    registered: Option<Waker>,
}

impl Timer {
    fn new(at: Instant) -> Self {
        Self {
            sleep: sleep_until(at),
            registered: None,
        }
    }

    #[inline]
    fn is_elapsed(&self) -> bool {
        self.sleep.is_elapsed()
    }

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.sleep.is_elapsed() {
            return Poll::Ready(());
        }
        match this.registered {
            Some(waker) if waker.will_wake(cx.waker()) => return Poll::Pending,
            _ => *this.registered = Some(cx.waker().clone()),
        }
        // A spent budget would leave the timer unregistered, and is no business of the stream's.
        pin!(unconstrained(this.sleep)).poll(cx)
    }
}
