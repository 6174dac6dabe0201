use super::valve::Valve;
use crate::{
    CancellationToken, Registration, Signal, StopReason,
    first_panic::FirstPanic,
    runtime_context::RuntimeContext,
    signal::{OnEnd, TokenSignal},
    sync::{AtomicU64, Mutex, MutexGuard, Ordering},
    token::{Callback, SharedCallback},
};
use futures_core::{FusedStream, Stream};
use std::{
    fmt::{self, Debug, Formatter},
    mem,
    pin::Pin,
    sync::{Arc, PoisonError, TryLockError},
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

/// The adapter is dropped first, then the registration that would have closed it.
struct Open<A> {
    shared: Arc<Shared<A>>,
    #[cfg_attr(
        not(any(feature = "http", all(test, stopcock_loom))),
        expect(dead_code, reason = "kept until the adapter has been dropped")
    )]
    closing: Registration,
}

impl<A> Drop for Open<A> {
    fn drop(&mut self) {
        self.shared.abandon();
    }
}

/// The adapter, shared by the stream and the thread that cancels. Neither waits for the other: a thread that finds the
/// adapter borrowed leaves a note for the thread that has borrowed it.
struct Shared<A> {
    /// The runtime in which `drop_on_cancel()` was called: the source is dropped in its context.
    context: RuntimeContext,
    /// The lock serves as a borrow flag: threads only try it and never wait for it, so that it may be held while the
    /// source is polled or dropped. `None` once the stream is dropped.
    adapter: Mutex<Option<Pin<Box<A>>>>,
    /// Not 0 if there may be a note in `notes`.
    //
    // ORDERING: `AcqRel`, and a read-modify-write on both sides. One side leaves a note, sets this flag, and then tries
    // the borrow. The other side gives the borrow back and then reads the flag. The later of the two accesses sees what
    // came before the earlier one. So either the first side finds the adapter free, or the second finds the note.
    has_notes: AtomicU64,
    notes: Mutex<Notes>,
}

/// What the thread that has borrowed the adapter has to do when it gives it back.
#[derive(Default)]
struct Notes {
    /// Close the adapter, for this reason.
    stop: Option<StopReason>,
    /// Wake the task of the stream, which was polled meanwhile.
    waiting: Option<Waker>,
}

/// A public adapter whose valve is stopped by a token.
pub(crate) trait HasValve {
    type Source;
    type Signal: CancelSignal;

    fn valve(&self) -> &Valve<Self::Source, Self::Signal>;

    fn valve_mut(self: Pin<&mut Self>) -> Pin<&mut Valve<Self::Source, Self::Signal>>;
}

/// A signal that `drop_on_cancel` can be used with: that of a token of this crate, also after `on_end`.
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

type Adapter<A> = Option<Pin<Box<A>>>;

impl<A> Shared<A> {
    /// `None` if another thread has borrowed the adapter.
    #[inline]
    fn try_borrow(&self) -> Option<MutexGuard<'_, Adapter<A>>> {
        match self.adapter.try_lock() {
            Ok(adapter) => Some(adapter),
            // The source has panicked. The adapter has recorded that it is over.
            Err(TryLockError::Poisoned(poisoned)) => Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) => None,
        }
    }

    /// Whether there may be notes. Read after the adapter is given back.
    #[inline]
    fn has_notes(&self) -> bool {
        let unchanged = self
            .has_notes
            .compare_exchange(0, 0, Ordering::AcqRel, Ordering::Acquire);
        unchanged.is_err()
    }

    /// The caller has to try to borrow the adapter afterwards.
    fn note<R>(&self, note: impl FnOnce(&mut Notes) -> R) -> R {
        let noted = note(&mut self.notes());
        self.has_notes.fetch_or(1, Ordering::AcqRel);
        noted
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        // Nothing panics under the lock.
        self.notes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leaves a note to wake the stream once the adapter is given back. `false` if that has happened already.
    #[cold]
    fn wait(&self, cx: &Context<'_>) -> bool {
        // Cloned here and the earlier one dropped at the end, both without the lock: they run foreign code.
        let waker = cx.waker().clone();
        let earlier = self.note(|notes| notes.waiting.replace(waker));
        drop(earlier);
        if self.try_borrow().is_none() {
            return true;
        }
        let waker = self.notes().waiting.take();
        drop(waker);
        false
    }

    /// Drops the adapter. If a thread that cancels has borrowed it, the adapter is dropped together with this, after its
    /// source.
    fn abandon(&self) {
        let adapter = self.try_borrow().and_then(|mut adapter| adapter.take());
        if self.has_notes() {
            let waiting = self.notes().waiting.take();
            drop(waiting);
        }
        drop(adapter);
    }
}

impl<A: HasValve> Shared<A> {
    /// Borrows the adapter, then acts on the notes. `None` if another thread has borrowed it.
    fn with_adapter<R>(&self, borrow: impl FnOnce(Pin<&mut A>) -> R) -> Option<R> {
        // Dropped after the borrow.
        let _notes = ActOnNotes(self);
        let mut borrowed = self.try_borrow()?;
        let adapter = borrowed.as_mut()?;
        Some(borrow(adapter.as_mut()))
    }

    /// Closes the adapter, or leaves a note to do so for the thread that has borrowed it.
    fn close(&self, reason: StopReason) {
        let earlier = self.note(|notes| notes.stop.replace(reason));
        self.act_on_notes();
        drop(earlier);
    }

    /// Acts on the notes, unless another thread has borrowed the adapter: that thread will.
    #[cold]
    #[inline(never)]
    fn act_on_notes(&self) {
        let mut panic = FirstPanic::default();
        while let Some(mut adapter) = self.try_borrow() {
            // Before the notes are taken: a note that is left after that sets the flag again.
            self.has_notes.fetch_and(0, Ordering::AcqRel);
            let Notes { stop, waiting } = mem::take(&mut *self.notes());
            if let (Some(reason), Some(adapter)) = (stop, adapter.as_mut()) {
                let close = || adapter.as_mut().valve_mut().close(reason);
                panic.catch(|| self.context.run(close));
            }
            drop(adapter);
            panic.catch(|| waiting.into_iter().for_each(Waker::wake));
            if !self.has_notes() {
                break;
            }
        }
        panic.resume();
    }
}

/// The callback that a cancel runs.
impl<A> SharedCallback for Shared<A>
where
    A: HasValve + Send + 'static,
{
    fn run(self: Arc<Self>, reason: &StopReason) {
        self.close(reason.clone());
    }

    /// The timer does not spawn on the source's runtime directly: if that has shut down, the source is dropped here, in
    /// a task of the deadline's runtime, and not by the timer.
    fn run_at_deadline(self: Arc<Self>, reason: &StopReason) {
        let shared = Arc::clone(&self);
        self.context.drop_on_task(CloseOnDrop {
            shared,
            reason: Some(reason.clone()),
        });
    }
}

/// Closes the adapter when it is dropped: with a task that has run, or that was dropped before it ran.
struct CloseOnDrop<A: HasValve> {
    shared: Arc<Shared<A>>,
    reason: Option<StopReason>,
}

impl<A: HasValve> Drop for CloseOnDrop<A> {
    fn drop(&mut self) {
        self.reason
            .take()
            .into_iter()
            .for_each(|reason| self.shared.close(reason));
    }
}

/// Acts on the notes when it is dropped, after the adapter is given back, even if the source panics.
struct ActOnNotes<'a, A: HasValve>(&'a Shared<A>);

impl<A: HasValve> Drop for ActOnNotes<'_, A> {
    fn drop(&mut self) {
        if self.0.has_notes() {
            self.0.act_on_notes();
        }
    }
}

impl<A> Open<A>
where
    A: HasValve + Send + 'static,
{
    fn new(adapter: A, token: &CancellationToken) -> Self {
        let shared = Arc::new(Shared {
            context: RuntimeContext::current(),
            adapter: Mutex::new(Some(Box::pin(adapter))),
            has_notes: AtomicU64::new(0),
            notes: Mutex::new(Notes::default()),
        });
        let closing = Arc::<Shared<A>>::clone(&shared);
        Self {
            shared,
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

    /// From now on a cancel does not drop the source, unless it is running already. `release` has to do the same for
    /// polls.
    #[cfg(any(feature = "http", all(test, stopcock_loom)))]
    pub(crate) fn release(&mut self, release: impl FnOnce(Pin<&mut A>)) {
        if let State::Open(open) = &mut self.state {
            open.closing.leave();
            open.shared.with_adapter(release);
        }
    }

    /// Yields after a run of `items` ready items, instead of 1024; never for 0.
    ///
    /// Like [`TakeUntilCancelled::yield_every`](crate::TakeUntilCancelled::yield_every).
    pub fn yield_every(self, items: usize) -> Self {
        if let State::Open(open) = &self.state {
            let set = |adapter: Pin<&mut A>| adapter.valve_mut().set_yield_every(items);
            // If another thread has borrowed the adapter, that thread is about to close it.
            open.shared.with_adapter(set);
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
        let shared = &*open.shared;
        loop {
            let notes = ActOnNotes(shared);
            let Some(mut borrowed) = shared.try_borrow() else {
                mem::forget(notes);
                if shared.wait(cx) {
                    return Poll::Pending;
                }
                continue;
            };
            let Some(adapter) = &mut *borrowed else {
                unreachable!("the adapter exists until the stream is dropped")
            };
            let polled = adapter.as_mut().poll_next(cx);
            if polled.is_ready() && adapter.valve().has_ended() {
                let outcome = adapter.valve().stop_reason().cloned();
                drop(borrowed);
                drop(notes);
                self.state = State::Over(outcome);
                return polled;
            }
            drop(borrowed);
            mem::forget(notes);
            if shared.has_notes() {
                shared.act_on_notes();
                // The adapter has been closed, or is about to be.
                if polled.is_pending() {
                    continue;
                }
            }
            return polled;
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        let State::Open(open) = &self.state else {
            return (0, Some(0));
        };
        let hint = open.shared.with_adapter(|adapter| adapter.size_hint());
        hint.unwrap_or((0, None))
    }
}

impl<A: HasValve + Stream> FusedStream for DropOnCancel<A> {
    fn is_terminated(&self) -> bool {
        match &self.state {
            State::Open(open) => {
                let is_over = open
                    .shared
                    .with_adapter(|adapter| adapter.valve().is_over());
                is_over.unwrap_or(false)
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
