use super::{Event, Moment, Record};
use crate::{CancellationToken, IntoSignal, signal::TokenSignal};
use std::{
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

#[cfg(feature = "tokio")]
use super::clock::tick;
#[cfg(feature = "tokio")]
use std::{sync::OnceLock, time::Duration};
#[cfg(feature = "tokio")]
use tokio::{runtime::Handle, time::Instant};

/// How long a deadline is away at first.
#[cfg(feature = "tokio")]
const AWAY: Duration = Duration::from_secs(3600);

/// What stops the stream under test. Take from it the one thing that the stream wants for a stop: a token, a point in
/// time, or a length of time.
///
/// Firing it cancels the token. Where [`deadline`](Self::deadline) or [`timeout`](Self::timeout) was asked for, it
/// moves the paused clock there instead.
#[derive(Clone, Debug)]
pub struct Stop {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    token: CancellationToken,
    is_fired: AtomicBool,
    at: Mutex<StopPoint>,
    wakes: AtomicUsize,
    /// Whether the token was asked for.
    is_token_taken: AtomicBool,
    record: Record,
    /// Once it was asked for: `None` for one that never comes.
    #[cfg(feature = "tokio")]
    deadline: OnceLock<Option<Instant>>,
    /// Where the clock of the deadline is: it may be fired from elsewhere.
    #[cfg(feature = "tokio")]
    clock: OnceLock<Handle>,
}

/// When the stop is fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopPoint {
    /// Whenever [`Harness::stop`](super::Harness::stop) is called, or the clock comes to the deadline.
    ByHand,
    /// Never.
    Never,
    /// Before the stream is made.
    AtBirth,
    /// Before this poll of the stream, counted from 0. If it is pending, then before the source wakes it.
    Before(usize),
    /// From inside of this poll of the source, counted from 0.
    During(usize),
    /// From inside of this wake-up of the stream, counted from 0.
    InWaker(usize),
    /// From inside of the source's `Drop`.
    InDrop,
}

impl From<Moment> for StopPoint {
    fn from(moment: Moment) -> Self {
        match moment {
            Moment::Poll(poll) => Self::During(poll),
            Moment::Drop => Self::InDrop,
        }
    }
}

impl Stop {
    pub(super) fn new(at: StopPoint, record: &Record) -> Self {
        Self {
            shared: Arc::new(Shared {
                token: CancellationToken::new(),
                is_fired: AtomicBool::new(false),
                at: Mutex::new(at),
                wakes: AtomicUsize::new(0),
                is_token_taken: AtomicBool::new(false),
                record: record.clone(),
                #[cfg(feature = "tokio")]
                deadline: OnceLock::new(),
                #[cfg(feature = "tokio")]
                clock: OnceLock::new(),
            }),
        }
    }

    /// The token that it cancels, for a stream that takes one, of this crate or of another:
    /// [`cancelled_owned`](CancellationToken::cancelled_owned) is a future, and what wants to be called is called by
    /// [`on_cancel`](CancellationToken::on_cancel).
    pub fn token(&self) -> CancellationToken {
        self.shared.is_token_taken.store(true, SeqCst);
        self.shared.token.clone()
    }

    /// The point in time that it moves the clock to.
    ///
    /// In an hour of the paused clock; [at birth](StopPoint::AtBirth) now, and [never](StopPoint::Never) in decades.
    ///
    /// A law has to know by when the stream is made that it is a point in time, and panics otherwise.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn deadline(&self) -> Instant {
        let decades = 24 * 365 * 30;
        self.set_deadline()
            .unwrap_or_else(|| Instant::now() + AWAY * decades)
    }

    /// How far away [`deadline`](Self::deadline) is; [`Duration::MAX`] if it [never](StopPoint::Never) comes.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn timeout(&self) -> Duration {
        self.set_deadline()
            .map_or(Duration::MAX, |at| at - Instant::now())
    }

    /// Whether it was fired.
    pub fn is_fired(&self) -> bool {
        self.shared.is_fired.load(SeqCst)
    }

    /// Fires it, unless that is done; on any thread.
    ///
    /// # Panics
    ///
    /// As the cancel of a token does: if a waker or a callback panics.
    pub fn fire(&self) {
        if self.shared.is_fired.swap(true, SeqCst) {
            return;
        }
        self.shared.record.add(Event::Stopping);
        let fired = catch_unwind(AssertUnwindSafe(|| self.stop()));
        self.shared.record.add(Event::Stopped);
        if let Err(panic) = fired {
            self.shared.record.add(Event::StopPanicked);
            resume_unwind(panic);
        }
    }

    #[cfg(feature = "tokio")]
    fn stop(&self) {
        let _context = self.shared.clock.get().map(Handle::enter);
        match self.instant() {
            Some(deadline) => tick(deadline - Instant::now()),
            None => self.shared.token.cancel(),
        }
    }

    #[cfg(not(feature = "tokio"))]
    fn stop(&self) {
        self.shared.token.cancel();
    }

    /// Fires it, if it is to be fired here.
    pub(super) fn reached(&self, point: StopPoint) {
        if self.at() == point {
            self.fire();
        }
    }

    pub(super) fn is_due(&self, point: StopPoint) -> bool {
        self.at() == point && !self.is_fired()
    }

    pub(super) fn set(&self, at: StopPoint) {
        *self.lock_at() = at;
    }

    fn at(&self) -> StopPoint {
        *self.lock_at()
    }

    fn lock_at(&self) -> MutexGuard<'_, StopPoint> {
        let at = self.shared.at.lock();
        at.unwrap_or_else(PoisonError::into_inner)
    }

    /// What a stream did with it that it should not have, in words.
    pub(super) fn misuse(&self) -> Option<&'static str> {
        match (self.shared.is_token_taken.load(SeqCst), self.is_timed()) {
            (true, false) | (false, true) => None,
            (false, false) => Some(
                "the stream has taken nothing of its stop, so that nothing can stop it: give it the token, the \
                 deadline or the timeout, or hold it against the laws of any stream with `check_stream`",
            ),
            (true, true) => Some(
                "the stream has taken both the token and a point in time of its stop, of which only the latter comes: \
                 give it one of them",
            ),
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.shared.token.is_cancelled()
    }

    /// A waker of the stream is woken.
    pub(super) fn woken(&self) {
        let wake = self.shared.wakes.fetch_add(1, SeqCst);
        self.reached(StopPoint::InWaker(wake));
    }

    #[cfg(feature = "tokio")]
    fn set_deadline(&self) -> Option<Instant> {
        if let Ok(clock) = Handle::try_current() {
            self.shared.clock.get_or_init(|| clock);
        }
        *self.shared.deadline.get_or_init(|| match self.at() {
            StopPoint::Never => None,
            StopPoint::AtBirth => Some(Instant::now()),
            _ => Some(Instant::now() + AWAY),
        })
    }

    /// The deadline, if it was asked for and comes.
    #[cfg(feature = "tokio")]
    pub(super) fn instant(&self) -> Option<Instant> {
        self.shared.deadline.get().copied().flatten()
    }

    /// Whether it is a point in time.
    #[cfg(feature = "tokio")]
    pub(super) fn is_timed(&self) -> bool {
        self.shared.deadline.get().is_some()
    }

    #[cfg(not(feature = "tokio"))]
    pub(super) fn is_timed(&self) -> bool {
        false
    }

    /// Fires if the clock has reached the deadline by itself.
    #[cfg(feature = "tokio")]
    pub(super) fn check_clock(&self) {
        if self.instant().is_some_and(|at| at <= Instant::now()) {
            self.fire();
        }
    }
}

/// Its token.
impl IntoSignal for Stop {
    type Signal = TokenSignal;

    fn into_signal(self) -> TokenSignal {
        self.token().into_signal()
    }
}

/// Its token.
impl IntoSignal for &Stop {
    type Signal = TokenSignal;

    fn into_signal(self) -> TokenSignal {
        self.token().into_signal()
    }
}
