use super::Signal;
use crate::{
    StopReason,
    clock::{Timer, require_runtime},
    fairness::poll_budget,
};
use std::{
    fmt::{self, Debug, Formatter},
    mem,
    pin::Pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use tokio::time::Instant;

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
        if timer.is_elapsed() {
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
