//! When to look at the clock, and the timer.

use crate::{Signal, StopReason, bell::Bell, waker_id::WakerId};
use pin_project::pin_project;
use std::{
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

/// How late a look may be, in nanoseconds, as far as the pace of the items so far can tell.
const SLACK: u64 = 1_000_000;

/// A point in time as a signal.
///
/// Sleeping is left to a timer, which is made when the source is first pending. While items come in a row no timer
/// of this thread can run, so the clock is read: before the first item, after each `Pending`, and after each stride.
/// A stride is 1 item at first, at most twice as many as the last one, and so few that at the pace of the last one
/// they take no longer than [`SLACK`], nor than what is left of the time.
///
/// A pace can change, above all if the consumer begins to wait between two items. So for a row of more than
/// [`STRIDE`] items the timer rings a bell. It cannot while items come in a row, but while the consumer waits it does,
/// and every item asks for it.
pub(crate) struct Deadline {
    /// `None`: never.
    at: Option<Instant>,
    /// How much time was left at the last look, in nanoseconds.
    left: u64,
    timer: Option<Pin<Box<Timer>>>,
    /// What the timer wakes, if not the task itself.
    bell: Option<Arc<Bell>>,
    stride: u8,
    /// How many items of this row, as far as looked at, came without a bell.
    silent: u8,
    /// Set only where there is no bell.
    has_passed: bool,
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
            left: 0,
            timer: None,
            bell: None,
            stride: 1,
            silent: 0,
            has_passed: false,
        }
    }

    fn pass(&mut self) -> u32 {
        self.bell = None;
        self.timer = None;
        self.has_passed = true;
        1
    }

    fn poll_timer(&mut self, at: Instant, waker: &Waker) -> Poll<()> {
        self.timer
            .get_or_insert_with(|| Box::pin(Timer::new(at)))
            .as_mut()
            .poll(waker)
    }

    fn hang_bell(&mut self, at: Instant) -> Poll<()> {
        let bell = self.bell.insert(Bell::new());
        bell.silence();
        let waker = bell.waker();
        self.poll_timer(at, &waker)
    }

    /// As many as fit into what may pass until the next look, if `items` took `nanos`.
    fn next_stride(&self, items: u32, nanos: u64) -> u8 {
        let fitting = self.left.min(SLACK) * u64::from(items) / nanos.max(1);
        // The pace of a few says little of many.
        let most = items.saturating_mul(2).min(STRIDE.into());
        fitting.clamp(1, most.into()) as u8
    }
}

impl Signal for Deadline {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        match &self.bell {
            Some(bell) => bell.is_rung(),
            None => self.has_passed,
        }
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let Some(at) = self.at else {
            return Poll::Pending;
        };
        let elapsed = match &self.bell {
            _ if self.has_passed => Poll::Ready(()),
            None => self.poll_timer(at, cx.waker()),
            Some(bell) => {
                bell.wake_at_ring(cx);
                if !bell.is_rung() {
                    return Poll::Pending;
                }
                bell.silence();
                let waker = bell.waker();
                self.poll_timer(at, &waker)
            }
        };
        elapsed.map(|()| StopReason::DeadlineExceeded)
    }

    fn look(mut self: Pin<&mut Self>, items: u32, _: &mut Context<'_>) -> u32 {
        let Some(at) = self.at else {
            return u32::MAX;
        };
        let now = Instant::now();
        if now >= at {
            return self.pass();
        }
        let left = u64::try_from((at - now).as_nanos()).unwrap_or(u64::MAX);
        let took = mem::replace(&mut self.left, left).saturating_sub(left);
        if items == 0 {
            if self.timer.is_none() {
                require_runtime();
            }
            self.silent = 0;
            return self.stride.into();
        }
        self.stride = self.next_stride(items, took);
        self.silent = self.silent.saturating_add(items as u8);
        if self.silent >= STRIDE && self.bell.is_none() && self.hang_bell(at).is_ready() {
            return self.pass();
        }
        self.stride.into()
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
    /// A clone of the waker that it was last polled with, and that waker's id.
    registered: Option<(Waker, WakerId)>,
}

impl Timer {
    fn new(at: Instant) -> Self {
        Self {
            sleep: sleep_until(at),
            registered: None,
        }
    }

    fn poll(self: Pin<&mut Self>, waker: &Waker) -> Poll<()> {
        let this = self.project();
        if this.sleep.is_elapsed() {
            return Poll::Ready(());
        }
        match this.registered {
            Some((_, id)) if *id == WakerId::of(waker) => return Poll::Pending,
            _ => {}
        }
        let clone = waker.clone();
        let id = WakerId::kept_by(&clone, waker);
        // A spent budget would leave the timer unregistered, and is no business of the stream's.
        let polled = pin!(unconstrained(this.sleep)).poll(&mut Context::from_waker(waker));
        *this.registered = Some((clone, id));
        polled
    }
}
