//! The one mechanism under all adapters: a source, a signal, and the shape of every `poll_next`.

use crate::{Signal, StopReason};
use futures_core::Stream;
use pin_project::pin_project;
use std::{
    fmt::{self, Formatter},
    mem,
    pin::Pin,
    task::{Context, Poll},
};

/// How many items in a row an adapter lets by before it yields to its siblings.
const ITEMS_IN_A_ROW: u32 = 1024;

/// What came of a poll.
pub(crate) enum Flow<T> {
    Item(T),
    /// The signal stopped it, in this very poll.
    Stopped,
    /// It is over: the source ended, or it had been over before.
    Ended,
}

/// Lets the items of a source by until it ends or a signal fires; then it has neither any more.
#[pin_project]
pub(crate) struct Valve<S, G> {
    #[pin]
    state: State<S, G>,
    row: Row,
}

/// Over means gone.
#[pin_project(project = StateProjection)]
enum State<S, G> {
    /// In this order they are dropped.
    Open(#[pin] S, #[pin] G),
    Over(Option<StopReason>),
}

/// The items since the last `Pending`.
struct Row {
    /// How many more may come in this stretch, before the signal is looked at closely or the row is over.
    unwatched: u32,
    /// How many there are in this stretch.
    stretch: u32,
    /// How many may come in this row after this stretch.
    left: u32,
    /// Whether a poll has panicked. Then `unwatched` is 0, and no item has to ask.
    broken: bool,
}

impl<S, G> Valve<S, G> {
    pub(crate) fn new(source: S, signal: G) -> Self {
        Self {
            state: State::Open(source, signal),
            row: Row {
                unwatched: 0,
                stretch: 0,
                left: ITEMS_IN_A_ROW,
                broken: false,
            },
        }
    }

    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        match &self.state {
            State::Open(..) => None,
            State::Over(reason) => reason.as_ref(),
        }
    }

    pub(crate) fn is_over(&self) -> bool {
        self.row.broken || matches!(self.state, State::Over(_))
    }

    /// For the `Debug` of an adapter: neither source nor signal has to have one.
    pub(crate) fn debug(&self, adapter: &str, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct(adapter)
            .field("is_over", &self.is_over())
            .field("stop_reason", &self.stop_reason())
            .finish()
    }
}

impl<S: Stream, G: Signal> Valve<S, G> {
    /// How many items may still come at the most. At the least none do, as it can be stopped at any time.
    pub(crate) fn upper_bound(&self) -> Option<usize> {
        match &self.state {
            State::Open(source, _) if !self.row.broken => source.size_hint().1,
            _ => Some(0),
        }
    }

    #[inline]
    pub(crate) fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Flow<S::Item>> {
        let mut this = self.project();
        let StateProjection::Open(source, mut signal) = this.state.as_mut().project() else {
            return Poll::Ready(Flow::Ended);
        };
        let guard = BreakOnPanic(this.row);
        let row = &mut *guard.0;

        if row.unwatched == 0 {
            match row.begin_stretch(signal.as_mut(), cx) {
                Stretch::Begun => {}
                Stretch::Yield => return guard.defuse(Poll::Pending),
                Stretch::Broken => {
                    this.state.set(State::Over(None));
                    return guard.defuse(Poll::Ready(Flow::Ended));
                }
            }
        }
        // The signal is asked first, so that a source which is always ready cannot outrun it.
        if !signal.as_mut().is_fired() {
            match source.poll_next(cx) {
                Poll::Ready(Some(item)) => {
                    row.unwatched -= 1;
                    return guard.defuse(Poll::Ready(Flow::Item(item)));
                }
                Poll::Ready(None) => {
                    this.state.set(State::Over(None));
                    return guard.defuse(Poll::Ready(Flow::Ended));
                }
                Poll::Pending => {
                    row.begin();
                    row.stretch = 0;
                }
            }
        }
        // Either it has fired or it shall wake the stream: a signal that fired during the poll is noticed here.
        let flow = match signal.poll_fired(cx) {
            Poll::Ready(reason) => {
                this.state.set(State::Over(Some(reason)));
                Poll::Ready(Flow::Stopped)
            }
            Poll::Pending => Poll::Pending,
        };
        guard.defuse(flow)
    }
}

enum Stretch {
    Begun,
    Yield,
    Broken,
}

impl Row {
    fn begin(&mut self) {
        self.unwatched = 0;
        self.left = ITEMS_IN_A_ROW;
    }

    #[inline(never)]
    fn begin_stretch<G: Signal>(
        &mut self,
        mut signal: Pin<&mut G>,
        cx: &mut Context<'_>,
    ) -> Stretch {
        if self.broken {
            return Stretch::Broken;
        }
        if self.left == 0 && !signal.as_mut().is_fired() {
            self.begin();
            cx.waker().wake_by_ref();
            return Stretch::Yield;
        }
        // A fired signal with nothing left is not yielded for; the stretch is never used.
        self.stretch = signal.look(self.stretch, cx).clamp(1, self.left.max(1));
        self.left = self.left.saturating_sub(self.stretch);
        self.unwatched = self.stretch;
        Stretch::Begun
    }
}

/// Ends the stream at a panic of the source or the signal: neither is polled again.
///
/// They are dropped at the next poll and not while the panic unwinds, where a second one would abort the process.
struct BreakOnPanic<'a>(&'a mut Row);

impl BreakOnPanic<'_> {
    fn defuse<R>(self, result: R) -> R {
        mem::forget(self);
        result
    }
}

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        self.0.unwatched = 0;
        self.0.broken = true;
    }
}
