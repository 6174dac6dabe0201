use super::valve::Valve;
use crate::{
    CancellationToken, Registration, Signal, StopReason,
    first_panic::FirstPanic,
    home::Home,
    signal::{OnEnd, TokenSignal},
    sync::{Mutex, MutexGuard},
    token::{Callback, SharedCallback},
};
use futures_core::{FusedStream, Stream};
use std::{
    fmt::{self, Debug, Formatter},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker},
};

/// An adapter whose source is dropped when its token is cancelled, even if nothing polls it: the stream of
/// [`TakeUntilCancelled::drop_on_cancel`](crate::TakeUntilCancelled::drop_on_cancel),
/// [`WithCancellation::drop_on_cancel`](crate::WithCancellation::drop_on_cancel) and
/// [`TryWithCancellation::drop_on_cancel`](crate::TryWithCancellation::drop_on_cancel).
#[must_use = "streams do nothing unless polled"]
pub struct DropOnCancel<A> {
    state: State<A>,
}

enum State<A> {
    Open(Open<A>),
    Over(Option<StopReason>),
}

/// In this order they are dropped: the adapter, and then what would have closed it.
struct Open<A> {
    hatch: Arc<Hatch<A>>,
    #[cfg_attr(
        not(feature = "http"),
        expect(dead_code, reason = "kept until the adapter has been dropped")
    )]
    closing: Registration,
}

impl<A> Drop for Open<A> {
    fn drop(&mut self) {
        self.hatch.abandon();
    }
}

/// Where the stream and the canceller find the adapter. Whoever needs it takes it out, so that no lock is held while its
/// source is polled or dropped, and nobody waits for anybody.
struct Hatch<A> {
    /// Where `drop_on_cancel()` was called: what a source needs as it is dropped is found there.
    home: Home,
    inside: Mutex<Inside<A>>,
}

struct Inside<A> {
    /// `None` while somebody has it, and once the stream is gone.
    adapter: Option<Pin<Box<A>>>,
    /// Whoever has the adapter is to close it, for this reason, before it is given back.
    stop: Option<StopReason>,
    /// The stream, if it was polled while somebody else had the adapter.
    waiting: Option<Waker>,
}

/// A public stream over a valve which a token stops.
pub(crate) trait HasValve {
    type Source;
    type Signal: CancelSignal;

    fn valve(&self) -> &Valve<Self::Source, Self::Signal>;

    fn valve_mut(self: Pin<&mut Self>) -> Pin<&mut Valve<Self::Source, Self::Signal>>;
}

/// A signal with which there is `drop_on_cancel`: that of a token of this crate.
///
/// It is implemented for the signal of a token, and for what `on_end` makes of it.
#[diagnostic::on_unimplemented(
    message = "`drop_on_cancel` needs a `CancellationToken` of this crate for a signal",
    label = "not the signal of a token",
    note = "another signal only wakes the task that polls: pass `CancellationToken::from_signal(signal)` in its place",
    note = "a stream that drains keeps its source after the cancel: it has `drain_for` or `drop_on_cancel`, not both"
)]
pub trait CancelSignal: Signal {
    #[doc(hidden)]
    fn token(&self) -> &CancellationToken;
}

impl CancelSignal for TokenSignal {
    fn token(&self) -> &CancellationToken {
        self.token()
    }
}

impl<F: FnOnce(Result<(), &StopReason>)> CancelSignal for OnEnd<TokenSignal, F> {
    fn token(&self) -> &CancellationToken {
        self.signal().token()
    }
}

impl<A: HasValve> Hatch<A> {
    /// Lends the adapter out, and closes it afterwards if that was asked for meanwhile. `None` if somebody else has it.
    fn lend<R>(&self, borrow: impl FnOnce(Pin<&mut A>) -> R) -> Option<Lent<R>> {
        let adapter = self.lock().adapter.take()?;
        let mut loan = Loan {
            hatch: self,
            adapter: Some(adapter),
        };
        let answer = borrow(loan.adapter.as_mut()?.as_mut());
        let was_closed = loan.end();
        Some(Lent { answer, was_closed })
    }

    /// Closes the adapter, or has whoever has it at the moment do so.
    fn close(&self, reason: StopReason) {
        self.lock().stop = Some(reason);
        self.lend(|_| {});
    }
}

/// What the cancel does.
impl<A> SharedCallback for Hatch<A>
where
    A: HasValve + Send + 'static,
{
    fn run(self: Arc<Self>, reason: &StopReason) {
        self.close(reason.clone());
    }

    /// Not from the timer to the source's runtime at once: should that be gone, the source is dropped here, on a task
    /// of the deadline's, and not by the timer.
    fn run_at_deadline(self: Arc<Self>, reason: &StopReason) {
        let hatch = Arc::clone(&self);
        self.home.drop_on_task(CloseOnDrop {
            hatch,
            reason: Some(reason.clone()),
        });
    }
}

/// Closes the adapter when it is dropped, as part of a task that has run or has been dropped unrun.
struct CloseOnDrop<A: HasValve> {
    hatch: Arc<Hatch<A>>,
    reason: Option<StopReason>,
}

impl<A: HasValve> Drop for CloseOnDrop<A> {
    fn drop(&mut self) {
        self.reason
            .take()
            .into_iter()
            .for_each(|reason| self.hatch.close(reason));
    }
}

/// The adapter in the hands of somebody, who gives it back even if the source panics.
struct Loan<'a, A: HasValve> {
    hatch: &'a Hatch<A>,
    /// `None` once it is back.
    adapter: Option<Pin<Box<A>>>,
}

impl<A: HasValve> Loan<'_, A> {
    /// Whether the adapter has been closed before.
    #[inline]
    fn end(&mut self) -> bool {
        let mut inside = self.hatch.lock();
        if inside.stop.is_some() || inside.waiting.is_some() {
            drop(inside);
            return self.end_with_more();
        }
        inside.adapter = self.adapter.take();
        false
    }

    #[cold]
    fn end_with_more(&mut self) -> bool {
        let mut panic = FirstPanic::default();
        let mut was_closed = false;
        let waiting = loop {
            let mut inside = self.hatch.lock();
            match (inside.stop.take(), &mut self.adapter) {
                (Some(reason), Some(adapter)) => {
                    drop(inside);
                    let close = || adapter.as_mut().valve_mut().close(reason);
                    panic.catch(|| self.hatch.home.run(close));
                    was_closed = true;
                }
                _ => {
                    inside.adapter = self.adapter.take();
                    break inside.waiting.take();
                }
            }
        };
        panic.catch(|| waiting.into_iter().for_each(Waker::wake));
        panic.resume();
        was_closed
    }
}

impl<A: HasValve> Drop for Loan<'_, A> {
    #[inline]
    fn drop(&mut self) {
        if self.adapter.is_some() {
            self.end();
        }
    }
}

/// What somebody made of the adapter while it was lent.
struct Lent<R> {
    answer: R,
    /// It was closed after that.
    was_closed: bool,
}

impl<A> Hatch<A> {
    /// Wakes the stream once the adapter is back; `false` if it is already.
    fn wait(&self, cx: &Context<'_>) -> bool {
        // Cloned here and the earlier one dropped at the end, both without the lock: they may run anything.
        let waker = cx.waker().clone();
        let mut inside = self.lock();
        if inside.adapter.is_some() {
            return false;
        }
        let earlier = inside.waiting.replace(waker);
        drop(inside);
        drop(earlier);
        true
    }

    /// Drops the adapter. If the canceller has it at the moment, it goes with the hatch, and its source is gone by then.
    fn abandon(&self) {
        let mut inside = self.lock();
        let (adapter, waiting) = (inside.adapter.take(), inside.waiting.take());
        drop(inside);
        drop(waiting);
        drop(adapter);
    }

    fn lock(&self) -> MutexGuard<'_, Inside<A>> {
        // Nothing panics under the lock.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<A> Open<A>
where
    A: HasValve + Send + 'static,
{
    fn new(adapter: A, token: &CancellationToken) -> Self {
        let hatch = Arc::new(Hatch {
            home: Home::here(),
            inside: Mutex::new(Inside {
                adapter: Some(Box::pin(adapter)),
                stop: None,
                waiting: None,
            }),
        });
        let closing = Arc::<Hatch<A>>::clone(&hatch);
        Self {
            hatch,
            closing: Registration::new(token, Callback::Shared(closing)),
        }
    }
}

impl<A> DropOnCancel<A> {
    /// Why it was stopped: `Some` from the poll that reported it, `None` while it runs and after a natural end.
    pub fn stop_reason(&self) -> Option<&StopReason> {
        match &self.state {
            State::Open(_) => None,
            State::Over(reason) => reason.as_ref(),
        }
    }
}

#[allow(private_bounds, reason = "no stream but this crate's has a valve")]
impl<A: HasValve> DropOnCancel<A> {
    pub(crate) fn new(adapter: A) -> Self
    where
        A: Send + 'static,
    {
        let valve = adapter.valve();
        let state = match valve.signal() {
            Some(signal) => {
                let token = signal.token().clone();
                State::Open(Open::new(adapter, &token))
            }
            None => State::Over(valve.stop_reason().cloned()),
        };
        Self { state }
    }

    /// Leaves the source alone from now on when the token is cancelled, unless it is being cancelled. `release` does the
    /// same for polls.
    #[cfg(feature = "http")]
    pub(crate) fn release(&mut self, release: impl FnOnce(Pin<&mut A>)) {
        if let State::Open(open) = &mut self.state {
            open.closing.leave();
            open.hatch.lend(release);
        }
    }

    /// Yields after so many items in a row, in place of 1024; never for 0.
    ///
    /// As [`TakeUntilCancelled::yield_every`](crate::TakeUntilCancelled::yield_every).
    pub fn yield_every(self, items: usize) -> Self {
        if let State::Open(open) = &self.state {
            let set = |adapter: Pin<&mut A>| adapter.valve_mut().set_yield_every(items);
            // Who has it otherwise is about to close it.
            open.hatch.lend(set);
        }
        self
    }
}

impl<A: HasValve + Stream> Stream for DropOnCancel<A> {
    type Item = A::Item;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<A::Item>> {
        let State::Open(open) = &self.state else {
            return Poll::Ready(None);
        };
        loop {
            let poll = |mut adapter: Pin<&mut A>| {
                let polled = adapter.as_mut().poll_next(cx);
                let valve = adapter.valve();
                (
                    polled,
                    valve.is_over().then(|| valve.stop_reason().cloned()),
                )
            };
            match open.hatch.lend(poll) {
                Some(Lent { answer, was_closed }) => match answer {
                    (Poll::Pending, _) if was_closed => {}
                    (polled, None) => return polled,
                    (polled, Some(outcome)) => {
                        self.state = State::Over(outcome);
                        return polled;
                    }
                },
                None => {
                    if open.hatch.wait(cx) {
                        return Poll::Pending;
                    }
                }
            }
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let State::Open(open) = &self.state else {
            return (0, Some(0));
        };
        let hint = open.hatch.lend(|adapter| adapter.size_hint());
        hint.map_or((0, None), |hint| hint.answer)
    }
}

impl<A: HasValve + Stream> FusedStream for DropOnCancel<A> {
    fn is_terminated(&self) -> bool {
        match &self.state {
            State::Open(open) => {
                let inside = open.hatch.lock();
                let adapter = inside.adapter.as_ref();
                adapter.is_some_and(|adapter| adapter.valve().is_over())
            }
            State::Over(_) => true,
        }
    }
}

impl<A> Debug for DropOnCancel<A> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("DropOnCancel")
            .field("is_over", &matches!(self.state, State::Over(_)))
            .field("stop_reason", &self.stop_reason())
            .finish()
    }
}
