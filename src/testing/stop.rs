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

/// How far away a deadline is at first.
#[cfg(feature = "tokio")]
const AWAY: Duration = Duration::from_secs(3600);

/// Stops the stream under test. Take from it the one thing that the stream needs: a token, a point in time, or a length
/// of time.
///
/// Firing it cancels the token. If [`deadline`](Self::deadline) or [`timeout`](Self::timeout) has been called, it
/// advances the paused clock to that time instead.
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
    /// Whether the token has been requested.
    is_token_taken: AtomicBool,
    record: Record,
    /// Set once it has been requested: `None` for a deadline that never comes.
    #[cfg(feature = "tokio")]
    deadline: OnceLock<Option<Instant>>,
    /// The runtime with the clock of the deadline: another thread may fire the stop.
    #[cfg(feature = "tokio")]
    clock: OnceLock<Handle>,
}

/// When the stop is fired.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum StopPoint {
    /// When [`Harness::stop`](super::Harness::stop) is called, or the clock reaches the deadline.
    ByHand,
    /// Never.
    Never,
    /// Before the stream is made.
    AtBirth,
    /// Before this poll of the stream, counted from 0. If the stream is pending, before the source wakes it.
    Before(usize),
    /// Inside this poll of the source, counted from 0.
    During(usize),
    /// Inside this wake-up of the stream, counted from 0.
    InWaker(usize),
    /// Inside the source's `Drop`.
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

    /// The token that it cancels. For a stream of another crate, [`cancelled_owned`](CancellationToken::cancelled_owned)
    /// of it is a future, and [`on_cancel`](CancellationToken::on_cancel) calls a function.
    pub fn token(&self) -> CancellationToken {
        self.shared.is_token_taken.store(true, SeqCst);
        self.shared.token.clone()
    }

    /// The point in time to which it advances the clock.
    ///
    /// It is an hour away on the paused clock; for [`AtBirth`](StopPoint::AtBirth) it is now, and for
    /// [`Never`](StopPoint::Never) it is decades away.
    ///
    /// With the laws, it has to be called while the stream is made, not in a poll: a later call panics.
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn deadline(&self) -> Instant {
        let decades = 24 * 365 * 30;
        self.set_deadline()
            .unwrap_or_else(|| Instant::now() + AWAY * decades)
    }

    /// The time until [`deadline`](Self::deadline); [`Duration::MAX`] for [`Never`](StopPoint::Never).
    #[cfg(feature = "tokio")]
    #[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
    pub fn timeout(&self) -> Duration {
        self.set_deadline()
            .map_or(Duration::MAX, |at| at - Instant::now())
    }

    /// Whether it has been fired.
    pub fn is_fired(&self) -> bool {
        self.shared.is_fired.load(SeqCst)
    }

    /// Fires it, once. It may be called on any thread.
    ///
    /// # Panics
    ///
    /// If a waker or a callback panics, like the cancel of a token.
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

    /// Fires it, if it is to be fired at this point.
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

    /// How the stream has misused it, if it has.
    pub(super) fn misuse(&self) -> Option<&'static str> {
        match (self.shared.is_token_taken.load(SeqCst), self.is_timed()) {
            (true, false) | (false, true) => None,
            (false, false) => Some(
                "the stream has taken nothing from its stop, so that nothing can stop it: give it the token, the \
                 deadline or the timeout, or check it against the laws of any stream with `check_stream`",
            ),
            (true, true) => Some(
                "the stream has taken both the token and a point in time from its stop, which only does the latter: \
                 give it one of them",
            ),
        }
    }

    pub(super) fn is_cancelled(&self) -> bool {
        self.shared.token.is_cancelled()
    }

    /// Called when a waker of the stream is woken.
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

    /// The deadline, if it has been requested and comes.
    #[cfg(feature = "tokio")]
    pub(super) fn instant(&self) -> Option<Instant> {
        self.shared.deadline.get().copied().flatten()
    }

    /// Whether the stop is a point in time.
    #[cfg(feature = "tokio")]
    pub(super) fn is_timed(&self) -> bool {
        self.shared.deadline.get().is_some()
    }

    #[cfg(not(feature = "tokio"))]
    pub(super) fn is_timed(&self) -> bool {
        false
    }

    /// Fires it if the clock has reached the deadline.
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
