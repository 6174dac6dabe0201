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

/// If a poll is late by more than this and by more than a sixteenth of the timeout, the consumer counts as having been
/// away.
const AWAY_AFTER: Duration = Duration::from_millis(10);

/// The signal of [`with_idle_timeout`](crate::CancelStreamExt::with_idle_timeout): fires when no item comes for too
/// long.
//
// Only the clock decides whether the timeout has passed. The timer only wakes the task.
pub struct Idle {
    timeout: Duration,
    /// When the timeout passes. `None` until the source is pending; `Some(None)` if the clock cannot count to that.
    over_at: Option<Option<Instant>>,
    /// The consumer was away when the timeout passed, so the timeout was restarted.
    was_away: bool,
    /// Set for an earlier `over_at`. It is reset only when it fires.
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

    /// Wakes this waker at `at`, or earlier.
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
        // It has fired in this poll, for an earlier time.
        timer.as_mut().reset(at);
        if timer.as_mut().poll(waker).is_ready() {
            waker.wake_by_ref();
        }
    }

    /// Whether the consumer was away when the timeout passed, `late` ago, for the first time since the last item.
    fn is_away(&mut self, late: Duration) -> bool {
        let is_late = late > AWAY_AFTER && late > self.timeout / 16;
        !mem::replace(&mut self.was_away, is_late) && is_late
    }
}

impl Signal for Idle {
    /// The source is always polled first: an item wins.
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        false
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        // The source may be pending only because the task has no budget left. Then the task is polled again at once.
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
            // The source may have had no chance to yield an item: only this stream polls it.
            over_at = now + timeout;
            self.over_at = Some(Some(over_at));
        }
        self.wake_at(over_at, cx.waker());
        Poll::Pending
    }

    /// The clock is read only when the source is pending.
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
