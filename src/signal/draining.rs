use super::{Deadline, Signal, StreamEnd};
use crate::{StopReason, clock::require_runtime};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    mem,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

/// The signal of `drain_for`: fires `time` after the first poll that has seen another signal fired, with that signal's
/// reason.
#[pin_project]
pub struct Draining<G> {
    #[pin]
    signal: G,
    time: Duration,
    grace: Option<Grace>,
}

/// The state once the signal has fired.
struct Grace {
    reason: StopReason,
    deadline: Deadline,
    /// Whether the adapter has called `check_every` since the grace began. Until then each `is_fired` reads the clock.
    is_known: bool,
}

impl<G> Draining<G> {
    pub(crate) fn new(signal: G, time: Duration) -> Self {
        Self {
            signal,
            time,
            grace: None,
        }
    }

    /// Has no effect once the grace has begun.
    pub(crate) fn set_time(self: Pin<&mut Self>, time: Duration) {
        *self.project().time = time;
    }
}

impl Grace {
    /// Begins with the first poll that sees the signal.
    #[inline]
    fn begin(fired: Poll<StopReason>, time: Duration) -> Option<Self> {
        match fired {
            Poll::Pending => None,
            Poll::Ready(reason) => Some(Self {
                reason,
                deadline: Deadline::after(time),
                is_known: false,
            }),
        }
    }

    fn is_over(&mut self) -> bool {
        let mut deadline = Pin::new(&mut self.deadline);
        if !self.is_known {
            deadline.as_mut().check_every(0);
        }
        deadline.is_fired()
    }

    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<StopReason> {
        // A grace of zero is over at once.
        self.is_over();
        let deadline = Pin::new(&mut self.deadline);
        deadline.poll_fired(cx).map(|_| self.reason.clone())
    }
}

impl<G: Signal> Signal for Draining<G> {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        let this = self.project();
        match this.grace {
            None => this.signal.is_fired(),
            Some(grace) => grace.is_over(),
        }
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        if this.grace.is_none() {
            *this.grace = Grace::begin(this.signal.poll_fired(cx), *this.time);
        }
        match this.grace {
            None => Poll::Pending,
            Some(grace) => grace.poll_over(cx),
        }
    }

    #[inline]
    fn will_wake(&self, cx: &Context<'_>) -> bool {
        self.grace.is_none() && self.signal.will_wake(cx)
    }

    /// An end within the grace is a natural end, even if this is the first call that sees the signal fired.
    fn poll_fired_at_end(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let this = self.project();
        if this.grace.is_none() {
            *this.grace = Grace::begin(this.signal.poll_fired_at_end(cx), *this.time);
        }
        let Some(grace) = this.grace else {
            return Poll::Pending;
        };
        let deadline = Pin::new(&mut grace.deadline);
        deadline.poll_fired_at_end(cx).map(|_| grace.reason.clone())
    }

    fn note_end(self: Pin<&mut Self>, end: StreamEnd<'_>) {
        self.project().signal.note_end(end);
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        match this.grace {
            None => {
                if items == 0 {
                    // Checked at the first poll, so that a missing runtime shows before the first stop.
                    require_runtime(
                        "a stream that drains must be polled from the context of a Tokio 1.x runtime. Poll it in \
                         `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` while polling",
                    );
                }
                this.signal.check_every(items)
            }
            Some(grace) => {
                // Until now each `is_fired` read the clock. `items` came before the last reading, so they do not show
                // the pace since then.
                let was_known = mem::replace(&mut grace.is_known, true);
                let items = if was_known { items } else { 0 };
                Pin::new(&mut grace.deadline).check_every(items)
            }
        }
    }

    #[inline]
    fn note_item(self: Pin<&mut Self>) {
        self.project().signal.note_item();
    }
}

impl<G> Debug for Draining<G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("Draining")
            .field("time", &self.time)
            .field("is_draining", &self.grace.is_some())
            .finish_non_exhaustive()
    }
}
