//! The one mechanism under all adapters: a source, a signal, and the shape of every `poll_next`.

use crate::{
    Signal, StopReason,
    fairness::{MAX_READY_RUN, has_budget, spend},
    signal::StreamEnd,
};
use futures_core::Stream;
use pin_project::pin_project;
use std::{
    fmt::{self, Formatter},
    mem,
    pin::{Pin, pin},
    task::{Context, Poll},
};

/// Why a poll returned no item.
pub(crate) enum Halt {
    Pending,
    /// The signal stopped the stream in this poll.
    Stopped,
    /// The source ended in this poll, or the stream was over before.
    Ended,
}

/// Like [`Halt`], with what the source returns at its end.
pub(crate) enum HaltWith<R> {
    Pending,
    Stopped,
    Ended(R),
}

impl<R: Default> HaltWith<R> {
    fn ended() -> Self {
        Self::Ended(R::default())
    }
}

/// What is done with a source before it is dropped, at its end or at a stop.
pub(crate) trait AtEnd<S> {
    /// What the source returns. The default, if the stream is over already.
    type Output: Default;

    /// `stop_reason` is `None` where the source ended or panicked.
    fn at_end(source: Pin<&mut S>, stop_reason: Option<&StopReason>) -> Self::Output;
}

/// For a source that is dropped and returns nothing.
pub(crate) enum Silent {}

impl<S> AtEnd<S> for Silent {
    type Output = ();

    #[inline]
    fn at_end(_: Pin<&mut S>, _: Option<&StopReason>) {}
}

/// Passes on the items of a source until it ends or a signal fires. Then both have been dropped.
#[pin_project]
pub(crate) struct Valve<S, G> {
    #[pin]
    state: State<S, G>,
    run: Run,
}

/// Source and signal exist only while it is `Open`.
#[pin_project(project = StateProjection)]
enum State<S, G> {
    /// The source is dropped before the signal.
    Open(#[pin] S, #[pin] G),
    /// Stopped from outside; no poll has reported it yet.
    Closed(StopReason),
    Over(Option<StopReason>),
}

/// The run of items since the last `Pending`. The signal is checked in full between two segments of it.
struct Run {
    now: Segment,
    /// The length of the first segment: a whole run, or 0 if the signal has to be checked before it.
    first: u16,
    /// How often the stream was pending for fairness since the last item: once after a whole run, and then while the
    /// task has no budget. `BROKEN` after a panic.
    pauses: u16,
    /// How many items may come in this run after this segment. Not set in the first segment.
    left: u32,
    /// The most items of a run.
    longest: u32,
}

/// Every adapter contains one.
const _: () = assert!(size_of::<Run>() == 16);

struct Segment {
    /// How many more items may come in this segment. 0 once the stream is over, or a poll has panicked.
    unchecked: u16,
    /// The items of the whole segment; 0 for the first one of a run.
    length: u16,
}

impl Segment {
    const fn first(items: u16) -> Self {
        Self {
            unchecked: items,
            length: 0,
        }
    }
}

/// How often a stream is pending for fairness before it continues although its task has no budget.
///
/// A merge polls it once for each item of its other streams in one poll of the task. These have 1024 items each, so
/// that this is enough for 64 of them. A caller that polls again and again within one poll of the task, such as a
/// second executor inside it, gets no budget by waiting: without the limit it would hang.
const PATIENCE: u16 = u16::MAX - 1;

const BROKEN: u16 = u16::MAX;

/// A run without a limit.
const ENDLESS: u32 = u32::MAX;

impl<S, G> Valve<S, G> {
    #[inline]
    pub(crate) fn new(source: S, signal: G) -> Self
    where
        G: Signal,
    {
        Self {
            run: Run::new(signal.needs_checks()),
            state: State::Open(source, signal),
        }
    }

    /// Yields after a run of `items` ready items; never for 0.
    pub(crate) fn yield_every(mut self, items: usize) -> Self {
        self.run.end_after(items);
        self
    }

    /// Like [`yield_every`](Self::yield_every), for a valve that is pinned.
    pub(crate) fn set_yield_every(self: Pin<&mut Self>, items: usize) {
        self.project().run.end_after(items);
    }

    /// Drops source and signal, unless they have been dropped. The next poll reports the reason.
    pub(crate) fn close(self: Pin<&mut Self>, reason: StopReason)
    where
        G: Signal,
    {
        let mut this = self.project();
        if let StateProjection::Open(_, signal) = this.state.as_mut().project() {
            this.run.now.unchecked = 0;
            if !this.run.is_broken() {
                signal.note_end(StreamEnd::Stopped(&reason));
            }
            this.state.set(match this.run.is_broken() {
                true => State::Over(None),
                false => State::Closed(reason),
            });
        }
    }

    pub(crate) fn source(&self) -> Option<&S> {
        match &self.state {
            State::Open(source, _) => Some(source),
            State::Closed(_) | State::Over(_) => None,
        }
    }

    pub(crate) fn source_mut(&mut self) -> Option<&mut S> {
        match &mut self.state {
            State::Open(source, _) => Some(source),
            State::Closed(_) | State::Over(_) => None,
        }
    }

    pub(crate) fn source_pin_mut(self: Pin<&mut Self>) -> Option<Pin<&mut S>> {
        match self.project().state.project() {
            StateProjection::Open(source, _) => Some(source),
            StateProjection::Closed(_) | StateProjection::Over(_) => None,
        }
    }

    pub(crate) fn into_source(self) -> Option<S>
    where
        G: Signal,
    {
        match self.state {
            State::Open(source, signal) => {
                pin!(signal).note_end(StreamEnd::TakenBack);
                Some(source)
            }
            State::Closed(_) | State::Over(_) => None,
        }
    }

    pub(crate) fn signal(&self) -> Option<&G> {
        match &self.state {
            State::Open(_, signal) => Some(signal),
            State::Closed(_) | State::Over(_) => None,
        }
    }

    #[cfg(any(feature = "http", all(test, stopcock_loom)))]
    pub(crate) fn signal_pin_mut(self: Pin<&mut Self>) -> Option<Pin<&mut G>> {
        match self.project().state.project() {
            StateProjection::Open(_, signal) => Some(signal),
            StateProjection::Closed(_) | StateProjection::Over(_) => None,
        }
    }

    /// Makes an expensive check of the signal in the next poll, whatever the one before it needed.
    #[cfg(feature = "tokio")]
    pub(crate) fn check_next(mut self) -> Self {
        self.run.first = 0;
        self.run.begin();
        self
    }

    /// Replaces the signal. The new one has to need checks exactly if the old one does.
    pub(crate) fn map_signal<H>(self, map: impl FnOnce(G) -> H) -> Valve<S, H> {
        let Self { state, run } = self;
        let state = match state {
            State::Open(source, signal) => State::Open(source, map(signal)),
            State::Closed(reason) => State::Closed(reason),
            State::Over(reason) => State::Over(reason),
        };
        Valve { state, run }
    }

    pub(crate) fn stop_reason(&self) -> Option<&StopReason> {
        match &self.state {
            State::Open(..) | State::Closed(_) => None,
            State::Over(reason) => reason.as_ref(),
        }
    }

    /// Whether the end has been returned.
    #[inline]
    pub(crate) fn has_ended(&self) -> bool {
        matches!(self.state, State::Over(_))
    }

    pub(crate) fn is_over(&self) -> bool {
        self.run.is_broken() || matches!(self.state, State::Over(_))
    }

    /// The `Debug` of an adapter: source and signal need not implement it.
    pub(crate) fn debug(&self, adapter: &str, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct(adapter)
            .field("is_over", &self.is_over())
            .field("stop_reason", &self.stop_reason())
            .finish()
    }
}

impl<S: Stream, G: Signal> Valve<S, G> {
    /// The upper bound of the remaining items. The lower bound is 0, as the stream can be stopped at any time.
    pub(crate) fn upper_bound(&self) -> Option<usize> {
        match &self.state {
            State::Open(source, _) if !self.run.is_broken() => source.size_hint().1,
            _ => Some(0),
        }
    }

    /// Like [`upper_bound`](Self::upper_bound), with one more for the error of a stop.
    pub(crate) fn upper_bound_with_error(&self) -> Option<usize> {
        match self.is_over() {
            true => Some(0),
            false => self.upper_bound()?.checked_add(1),
        }
    }

    /// Always inlined: a program has several adapters over the same source and signal, and their common function would
    /// be called for each item otherwise.
    #[inline(always)]
    pub(crate) fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Result<S::Item, Halt> {
        self.poll_next_with::<Silent>(cx)
            .map_err(|halt| match halt {
                HaltWith::Pending => Halt::Pending,
                HaltWith::Stopped => Halt::Stopped,
                HaltWith::Ended(()) => Halt::Ended,
            })
    }

    /// Like `poll_next`, for a source that returns something at its end.
    //
    // This is the fast path, small enough to be inlined into each of several callers. The rest is called.
    #[inline(always)]
    pub(crate) fn poll_next_with<E: AtEnd<S>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Result<S::Item, HaltWith<E::Output>> {
        if self.as_mut().project().run.count_down() {
            if let Some(halt) = self.as_mut().begin_segment::<E>(cx) {
                return Err(halt);
            }
        }
        let this = self.as_mut().project();
        let StateProjection::Open(source, mut signal) = this.state.project() else {
            return Err(HaltWith::ended());
        };
        let guard = BreakOnPanic(this.run);
        // The signal is asked first, so that a source which is always ready cannot outrun it.
        if signal.as_mut().is_fired() {
            if let Some(reason) = stop_reason(signal.as_mut(), cx) {
                guard.defuse(());
                return Err(self.end::<E>(Some(reason)));
            }
        }
        match source.poll_next(cx) {
            Poll::Ready(Some(item)) => {
                signal.note_item();
                guard.defuse(Ok(item))
            }
            Poll::Ready(None) => {
                guard.defuse(());
                Err(self.end_with_source::<E>(cx))
            }
            Poll::Pending => {
                guard.0.begin();
                // A signal that fires from now on wakes, and so does one that fired during the poll.
                match guard.defuse(signal.will_wake(cx)) {
                    true => Err(HaltWith::Pending),
                    false => Err(self.wait::<E>(cx)),
                }
            }
        }
    }

    /// The slow path: between two segments, and once the stream is over.
    #[cold]
    #[inline(never)]
    fn begin_segment<E: AtEnd<S>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Option<HaltWith<E::Output>> {
        let this = self.as_mut().project();
        let StateProjection::Open(..) = this.state.project() else {
            return Some(self.report_end::<E>());
        };
        if this.run.is_broken() {
            return Some(self.end::<E>(None));
        }
        let items = this.run.end_segment();
        if this.run.left == 0 {
            if let Some(halt) = self.as_mut().end_run::<E>(cx) {
                return Some(halt);
            }
        }
        let this = self.project();
        if let StateProjection::Open(_, signal) = this.state.project() {
            let guard = BreakOnPanic(this.run);
            let next_check = signal.check_every(items.into());
            guard.0.begin_segment(next_check);
            guard.defuse(());
        }
        None
    }

    /// After as many items as a run may have.
    #[cold]
    #[inline(never)]
    fn end_run<E: AtEnd<S>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Option<HaltWith<E::Output>> {
        let this = self.as_mut().project();
        let StateProjection::Open(_, mut signal) = this.state.project() else {
            return Some(HaltWith::ended());
        };
        let guard = BreakOnPanic(this.run);
        // A false alarm is no reason not to yield.
        if signal.as_mut().is_fired() {
            if let Some(reason) = stop_reason(signal, cx) {
                guard.defuse(());
                return Some(self.end::<E>(Some(reason)));
            }
        }
        let is_pausing = guard.0.pause(cx);
        guard.defuse(is_pausing.then_some(HaltWith::Pending))
    }

    /// For a source that is pending, and a signal that does not wake for certain yet.
    #[inline(never)]
    fn wait<E: AtEnd<S>>(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> HaltWith<E::Output> {
        let this = self.as_mut().project();
        let StateProjection::Open(_, signal) = this.state.project() else {
            return HaltWith::ended();
        };
        let guard = BreakOnPanic(this.run);
        // A signal that fired during the poll is noticed here.
        let fired = signal.poll_fired_since(cx);
        guard.defuse(());
        match fired {
            Poll::Ready(reason) => self.end::<E>(Some(reason)),
            Poll::Pending => HaltWith::Pending,
        }
    }

    /// Handles the end of the source. An adapter below may have ended it for the same signal: then it is a stop, as a
    /// stop must not look like a natural end.
    #[cold]
    #[inline(never)]
    fn end_with_source<E: AtEnd<S>>(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> HaltWith<E::Output> {
        let this = self.as_mut().project();
        let StateProjection::Open(_, signal) = this.state.project() else {
            return HaltWith::ended();
        };
        let guard = BreakOnPanic(this.run);
        let reason = match guard.defuse(signal.poll_fired_at_end(cx)) {
            Poll::Ready(reason) => Some(reason),
            Poll::Pending => None,
        };
        self.end::<E>(reason)
    }

    /// Ends the stream as the end of the source does.
    pub(crate) fn finish(self: Pin<&mut Self>) {
        self.end::<Silent>(None);
    }

    /// Polls a stream that is not open any more.
    fn report_end<E: AtEnd<S>>(mut self: Pin<&mut Self>) -> HaltWith<E::Output> {
        if let State::Closed(reason) = &self.state {
            let reason = reason.clone();
            return self.end::<E>(Some(reason));
        }
        self.as_mut().project().run.now.unchecked = 0;
        HaltWith::ended()
    }

    #[cold]
    #[inline(never)]
    fn end<E: AtEnd<S>>(self: Pin<&mut Self>, reason: Option<StopReason>) -> HaltWith<E::Output> {
        let mut this = self.project();
        this.run.now.unchecked = 0;
        let was_broken = this.run.is_broken();
        let mut output = E::Output::default();
        if let StateProjection::Open(source, signal) = this.state.as_mut().project() {
            let guard = BreakOnPanic(this.run);
            output = E::at_end(source, reason.as_ref());
            guard.defuse(());
            match &reason {
                Some(reason) => signal.note_end(StreamEnd::Stopped(reason)),
                // A source that has panicked has not ended.
                None if was_broken => {}
                None => signal.note_end(StreamEnd::Natural),
            }
        }
        let halt = match reason {
            Some(_) => HaltWith::Stopped,
            None => HaltWith::Ended(output),
        };
        this.state.set(State::Over(reason));
        halt
    }
}

impl Run {
    /// The run of a stream that has not been polled.
    fn new(needs_checks: bool) -> Self {
        let first = match needs_checks {
            true => 0,
            false => MAX_READY_RUN,
        };
        Self {
            now: Segment::first(first),
            first,
            pauses: 0,
            left: 0,
            longest: MAX_READY_RUN.into(),
        }
    }

    /// Counts one poll, whatever it returns: only after an item does the same segment continue. Returns whether none
    /// was left.
    #[inline]
    fn count_down(&mut self) -> bool {
        let (unchecked, was_used_up) = self.now.unchecked.overflowing_sub(1);
        self.now.unchecked = unchecked;
        was_used_up
    }

    #[inline]
    fn is_broken(&self) -> bool {
        self.pauses == BROKEN
    }

    fn end_after(&mut self, items: usize) {
        self.longest = match u32::try_from(items) {
            Ok(0) | Err(_) => ENDLESS,
            Ok(items) => items,
        };
        // The current run may be longer than that already.
        self.first = 0;
        if !self.is_broken() {
            self.pauses = 0;
        }
        self.begin();
    }

    #[inline]
    fn begin(&mut self) {
        self.now = Segment::first(self.first);
    }

    /// Ends the current segment and returns its length.
    #[inline]
    fn end_segment(&mut self) -> u16 {
        self.now.unchecked = 0;
        if self.now.length == 0 {
            self.now.length = self.first;
            self.left = self.longest - u32::from(self.now.length);
        }
        self.now.length
    }

    /// After a whole run: wakes the task and returns `true` if the stream has to be pending once more. Begins another
    /// run otherwise.
    #[cold]
    #[inline(never)]
    fn pause(&mut self, cx: &mut Context<'_>) -> bool {
        if self.longest != ENDLESS {
            let may_go_on = match self.pauses {
                0 => {
                    spend(self.longest, cx);
                    false
                }
                PATIENCE => true,
                // Polled again within one poll of the task, as by a merge whose other streams may be pending as well.
                _ => has_budget(),
            };
            if !may_go_on {
                self.pauses += 1;
                cx.waker().wake_by_ref();
                return true;
            }
        }
        self.pauses = 0;
        self.left = self.longest;
        false
    }

    #[inline(always)]
    fn begin_segment(&mut self, next_check: u32) {
        let whole = u32::from(MAX_READY_RUN);
        let length = if next_check < whole {
            self.first = 0;
            // The item at hand is the first, whatever was answered.
            next_check.max(1)
        } else {
            self.first = self.longest.min(whole) as u16;
            whole
        };
        let length = length.min(self.left);
        self.left -= length;
        let length = length as u16;
        self.now = Segment {
            unchecked: length - 1,
            length,
        };
    }
}

/// The reason of a signal that has fired.
#[cold]
#[inline(never)]
fn stop_reason<G: Signal>(signal: Pin<&mut G>, cx: &mut Context<'_>) -> Option<StopReason> {
    match signal.poll_fired(cx) {
        Poll::Ready(reason) => Some(reason),
        Poll::Pending => None,
    }
}

/// Ends the stream at a panic of the source or the signal: neither is polled again.
///
/// They are dropped at the next poll and not while the panic unwinds, where a second one would abort the process.
struct BreakOnPanic<'a>(&'a mut Run);

impl BreakOnPanic<'_> {
    fn defuse<R>(self, result: R) -> R {
        mem::forget(self);
        result
    }
}

impl Drop for BreakOnPanic<'_> {
    fn drop(&mut self) {
        self.0.now.unchecked = 0;
        self.0.pauses = BROKEN;
    }
}
