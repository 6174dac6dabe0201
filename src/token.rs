mod cancelled;
#[cfg(feature = "tokio-util")]
mod convert;
mod deadline;
#[cfg_attr(
    not(feature = "tokio"),
    allow(dead_code, reason = "without a clock there are no deadlines")
)]
mod deferred;
mod guard;
mod hold;
mod holder_count;
mod holders;
mod listed;
mod listeners;
mod registration;
mod settling;
#[cfg(feature = "tokio")]
mod timer;
mod tree;
mod waiter;
#[cfg(any(feature = "tokio", feature = "tokio-util"))]
mod weak;

use crate::StopReason;
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    hash::{Hash, Hasher},
    panic::Location,
    ptr,
    sync::Arc,
    task::Waker,
};
use tree::{Listener, Node};

#[cfg(feature = "tokio")]
use crate::clock::IntoDeadline;
#[cfg(feature = "tokio")]
use std::time::Duration;
#[cfg(feature = "tokio")]
use tokio::time::Instant;

pub(crate) use cancelled::Listening;
pub use cancelled::{Cancelled, CancelledOwned};
pub use guard::{DropGuard, DropGuardRef};
pub use hold::Hold;
pub use holders::Holder;
pub(crate) use holders::is_tracked_anywhere;
pub(crate) use listed::Listed;
pub use registration::Registration;
pub(crate) use registration::{Callback, SharedCallback};
pub(crate) use settling::HeldToken;
pub use settling::Settled;
#[cfg(feature = "tokio")]
pub(crate) use weak::WeakToken;

/// A cancellation token in a tree, with a reason: stops the streams, futures and producers that were made with it or
/// with one of its descendants.
///
/// Its methods have the names of tokio-util's, so that changing the import compiles. Clones are the same token. A child
/// is cancelled with its parent; a parent is never cancelled by its child.
///
/// # Coming from tokio-util
///
/// The differences:
///
/// - Cancellation wins at every poll of [`run_until_cancelled`](Self::run_until_cancelled).
/// - A token keeps its ancestors alive.
/// - The futures of [`cancelled`](Self::cancelled) and [`cancelled_owned`](Self::cancelled_owned) are called
///   [`Cancelled`] and [`CancelledOwned`]; tokio-util's are `WaitForCancellationFuture` and
///   `WaitForCancellationFutureOwned`.
/// - The methods of tokio-util's `FutureExt`, such as `with_cancellation_token`, take tokio-util's token only. Use
///   [`CancelFutureExt::with_cancellation`](crate::CancelFutureExt::with_cancellation).
/// - `TaskTracker` counts tasks. [`settled`](Self::settled) counts streams, producers and futures, and needs no tracker
///   to be passed along. Neither sees what the other counts.
///
/// With the feature `tokio-util` each token converts into the other: `CancellationToken::from(theirs)` is cancelled
/// with tokio-util's token, and `token.to_tokio_util()` makes a tokio-util token that is cancelled with this one.
/// Neither spawns a task.
///
/// # Costs
///
/// [`is_cancelled`](Self::is_cancelled) takes no lock and costs a few loads at any depth. When a token with children is
/// cancelled elsewhere in the same tree, the next check of each token walks up to its root once. A child is a single
/// allocation, and is registered in its parent only when something waits on it or on a descendant.
///
/// A token keeps its ancestors alive: in a loop of `token = token.child_token()` each iteration adds a node of about a
/// hundred bytes, and a level to each of those walks, until the last token of the chain is dropped. Where the earlier
/// tokens are no longer needed, make all of the children from one parent.
///
/// # Deadlines and runtimes
///
/// The timer of a deadline belongs to the runtime in which the token was made. Once that runtime has ended, checks
/// still see the deadline, but waiting tasks are not woken by it: see `with_deadline`.
///
/// # Races
///
/// If several threads cancel a token, exactly one wins, and its reason never changes. When any of the calls returns,
/// even one that lost, the whole subtree is cancelled, with the winner's reason except where a part of it had a reason
/// already. The cancelling thread wakes the waiting tasks in the order in which they registered, and holds no lock
/// while it does.
///
/// # Examples
///
/// ```
/// use stopcock::CancellationToken;
///
/// let server = CancellationToken::new();
/// let connection = server.child_token();
///
/// server.cancel_with("shutting down");
/// assert!(connection.is_cancelled());
/// assert_eq!(connection.check().unwrap_err().to_string(), "shutting down");
/// ```
#[derive(Clone)]
pub struct CancellationToken {
    node: Arc<Node>,
}

impl CancellationToken {
    /// Makes a root token, which only its own handles can cancel.
    ///
    /// In Go this is `context.WithCancel(context.Background())`.
    pub fn new() -> Self {
        Self { node: Node::root() }
    }

    /// Makes a token that is cancelled with this one, and can be cancelled alone.
    ///
    /// The child of a cancelled token is cancelled from the start, with the same reason. In Go this is
    /// `context.WithCancel(parent)`.
    pub fn child_token(&self) -> Self {
        Self {
            node: self.node.child(),
        }
    }

    /// Makes a child of several tokens, which is cancelled with the first of them, with the same reason.
    ///
    /// If several are cancelled already, the one that was cancelled first counts. A token that is passed twice counts
    /// once. Without any tokens this makes a root, like [`new`](Self::new).
    ///
    /// Like any child, it is registered in its parents only if something waits on it or on a descendant. A check of it
    /// checks one parent after the other.
    ///
    /// C# calls this `CancellationTokenSource.CreateLinkedTokenSource`. In Go it takes a `context.AfterFunc` for each
    /// further parent.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::CancellationToken;
    ///
    /// let server = CancellationToken::new();
    /// let client = CancellationToken::new();
    /// let request = CancellationToken::linked([&server, &client]);
    ///
    /// client.cancel_with("the client hung up");
    /// server.cancel_with("shutting down");
    /// assert_eq!(request.stop_reason().unwrap().to_string(), "the client hung up");
    /// ```
    pub fn linked<I>(tokens: I) -> Self
    where
        I: IntoIterator,
        I::Item: Borrow<Self>,
    {
        let tokens: Vec<_> = tokens.into_iter().collect();
        let parents = tokens.iter().map(|token| &token.borrow().node).collect();
        Self {
            node: Node::linked(parents),
        }
    }

    /// Cancels this token and its descendants with [`StopReason::Cancelled`].
    ///
    /// Go's counterpart is the `CancelFunc` that `context.WithCancel` returns.
    ///
    /// # Panics
    ///
    /// Like [`cancel_with`](Self::cancel_with).
    #[track_caller]
    pub fn cancel(&self) {
        self.cancel_with(StopReason::Cancelled);
    }

    /// Cancels this token and its descendants with a reason. Returns whether this call won, which means that the token
    /// was not cancelled before.
    ///
    /// Go's counterpart is the `CancelCauseFunc` that `context.WithCancelCause` returns.
    ///
    /// # Panics
    ///
    /// If a waker or a callback panics. All of the others run first; then the first panic resumes. It does not panic on
    /// a thread that is already panicking.
    #[track_caller]
    pub fn cancel_with(&self, reason: impl Into<StopReason>) -> bool {
        self.node.cancel(reason.into(), Location::caller())
    }

    /// Whether this token or an ancestor has been cancelled. Takes no lock, except when it finds that a deadline has
    /// passed.
    ///
    /// In Go this is `ctx.Err() != nil`; in Kotlin `job.isCancelled`.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.node.is_cancelled()
    }

    /// Wakes it when the token is cancelled, which may be now. Until then the token keeps it.
    pub(crate) fn wake_when_cancelled(&self, waker: Waker) {
        let listener = Listener::Waker(waker);
        let listed = match self.is_cancelled() {
            true => Err(listener),
            false => self.node.add(listener),
        };
        if let Err(Listener::Waker(waker)) = listed {
            waker.wake();
        }
    }

    /// Whether it has a deadline, its own or an ancestor's.
    #[inline]
    pub(crate) fn has_deadline(&self) -> bool {
        self.node.has_deadline()
    }

    /// Like [`is_cancelled`](Self::is_cancelled), without reading the clock.
    #[inline]
    pub(crate) fn is_known_cancelled(&self) -> bool {
        self.node.is_known_cancelled()
    }

    /// Why this token is cancelled, if it is.
    ///
    /// This is the token's own reason, or else that of the nearest cancelled ancestor; of several parents, the one that
    /// was cancelled first counts. Once it is `Some`, it never changes. Go calls this `context.Cause(ctx)`.
    pub fn stop_reason(&self) -> Option<StopReason> {
        let outcome = self.node.outcome()?;
        Some(outcome.reason.clone())
    }

    /// The source line that stopped this token, if it is cancelled: that of the winning `cancel` call, or the one that
    /// made the drop guard or the deadline.
    ///
    /// Like the [`stop_reason`](Self::stop_reason), it is inherited from the cancelled ancestor, and never changes once
    /// it is `Some`. The token's `Debug` output shows it. Where this crate itself cancels, as
    /// [`cancel_on_drop`](crate::CancelStreamExt::cancel_on_drop) does, it is a line of this crate.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::CancellationToken;
    ///
    /// let server = CancellationToken::new();
    /// let connection = server.child_token();
    ///
    /// server.cancel();
    /// let line = connection.stop_location().unwrap();
    /// println!("the connection was closed by {line}");
    /// assert_eq!(line.file(), file!());
    /// ```
    pub fn stop_location(&self) -> Option<&'static Location<'static>> {
        let outcome = self.node.outcome()?;
        Some(outcome.location)
    }

    /// Returns an error once this token is cancelled. Use `token.check()?` between the steps of work that does not
    /// await.
    ///
    /// Go calls this `ctx.Err()`, Kotlin `ensureActive()`.
    ///
    /// # Errors
    ///
    /// The [`stop_reason`](Self::stop_reason), once the token is cancelled.
    pub fn check(&self) -> Result<(), StopReason> {
        match self.stop_reason() {
            None => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    /// Waits for this token to be cancelled.
    ///
    /// In Go this is `<-ctx.Done()`.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future does not cancel the token. It also unregisters the waiting task.
    pub fn cancelled(&self) -> Cancelled<'_> {
        Cancelled::new(self)
    }

    /// Waits for this token to be cancelled. The future owns the token.
    ///
    /// # Cancel safety
    ///
    /// Like [`cancelled`](Self::cancelled).
    pub fn cancelled_owned(self) -> CancelledOwned {
        CancelledOwned::new(self)
    }

    /// Makes a guard that cancels this token when it is dropped.
    ///
    /// In Go this is `defer cancel()`.
    #[track_caller]
    pub fn drop_guard(self) -> DropGuard {
        DropGuard::new(self, StopReason::Cancelled)
    }

    /// Makes a guard that cancels this token with `reason` when it is dropped.
    ///
    /// In Go this is `defer cancel(cause)`, with the `CancelCauseFunc` of `context.WithCancelCause`.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::CancellationToken;
    ///
    /// let request = CancellationToken::new();
    /// let guard = request.clone().drop_guard_with("the handler panicked or returned early");
    /// drop(guard);
    /// assert_eq!(request.stop_reason().unwrap().to_string(), "the handler panicked or returned early");
    /// ```
    #[track_caller]
    pub fn drop_guard_with(self, reason: impl Into<StopReason>) -> DropGuard {
        DropGuard::new(self, reason.into())
    }

    /// Like [`drop_guard`](Self::drop_guard), but borrows this token.
    #[track_caller]
    pub fn drop_guard_ref(&self) -> DropGuardRef<'_> {
        DropGuardRef::new(self)
    }

    /// Runs `callback` with the reason when this token is cancelled, or at once if it is cancelled already.
    ///
    /// Go calls this `context.AfterFunc`, C# `CancellationToken.Register`. Unlike Go's, which runs in a goroutine of
    /// its own, the callback runs on the thread that cancels, once, before its `cancel` call returns. Callbacks and
    /// wakers run in the order of registration, so a callback should be quick. No lock is held: the callback may
    /// cancel, register, unregister, make children, and drop the last handle of this token or of any other.
    ///
    /// A callback that cancels another token runs the callbacks of that token before it returns. So a long sequence of
    /// tokens, in which each one's callback cancels the next, recurses: some thousands of them overflow the stack. Make
    /// such tokens [children](Self::child_token) of one another or [link](Self::linked) them, which takes no stack at
    /// any depth, or cancel the next one from a task.
    ///
    /// Dropping the [`Registration`] unregisters the callback. If all handles of the token are dropped before it is
    /// cancelled, the callback is dropped with them and does not run. So a detached callback that owns a handle of its
    /// own token leaks both, unless the token is cancelled.
    ///
    /// When a timer reports a deadline, the callbacks run on a task of the runtime in which the token with that
    /// deadline was made. They may do whatever a task may do: spawn, set timers, `block_in_place`. If that runtime
    /// shuts down and drops the task, they run while it is dropped. If the last handle is dropped after the deadline
    /// but before a timer has reported it, the thread that drops the handle runs the callbacks.
    ///
    /// # Panics
    ///
    /// If the token is cancelled already, a panic of the callback passes through this call. Otherwise it passes through
    /// the call that cancels, after all other callbacks have run; at a deadline the task panics.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::mpsc;
    /// use stopcock::CancellationToken;
    ///
    /// let (log, logged) = mpsc::channel();
    /// let token = CancellationToken::new();
    /// let registration = token.on_cancel(move |reason| log.send(reason.to_string()).unwrap());
    ///
    /// token.cancel_with("the disk is full");
    /// assert_eq!(logged.recv().unwrap(), "the disk is full");
    /// assert!(!registration.unregister(), "the callback has already run");
    /// ```
    pub fn on_cancel<F>(&self, callback: F) -> Registration
    where
        F: FnOnce(&StopReason) + Send + 'static,
    {
        Registration::new(self, Callback::Boxed(Box::new(callback)))
    }

    /// Makes a hold: until it is dropped, [`settled`](Self::settled) of this token and of its ancestors keeps waiting.
    ///
    /// This is like Go's `WaitGroup.Add(1)`, with the drop as `Done()`, or tokio-util's `TaskTracker::token()`.
    ///
    /// A hold is for work that a shutdown must not cancel but has to wait for, such as a half-written command. The work
    /// is not stopped; it drops the hold when it is done. A hold may be cloned, and each clone counts.
    ///
    /// A hold replaces an `mpsc::Sender` that is cloned into each task only so that `recv()` waits for the last of
    /// them, and most uses of tokio-util's `TaskTracker`. A `TaskTracker` counts tasks; `settled` counts streams,
    /// futures and holds. To count a task as well, move a hold into it:
    /// `tokio::spawn(async move { let _hold = hold; work().await })`.
    ///
    /// A hold that is made after the cancel counts too, as long as the token has not settled. A task that awaits
    /// `settled` while it owns a hold of that token waits forever.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::atomic::{AtomicBool, Ordering};
    /// use stopcock::CancellationToken;
    ///
    /// static IS_WRITTEN: AtomicBool = AtomicBool::new(false);
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let server = CancellationToken::new();
    /// let hold = server.hold();
    /// tokio::spawn(async move {
    ///     let _hold = hold;
    ///     tokio::task::yield_now().await;
    ///     IS_WRITTEN.store(true, Ordering::Relaxed);
    /// });
    ///
    /// server.cancel_and_settle().await;
    /// assert!(IS_WRITTEN.load(Ordering::Relaxed));
    /// # }
    /// ```
    #[track_caller]
    pub fn hold(&self) -> Hold {
        Hold::new(self.clone(), "hold")
    }

    /// From this call on, records what keeps [`settled`](Self::settled) of this token waiting: see
    /// [`holders`](Self::holders).
    ///
    /// Holders that were made before this call are not listed. Tracking cannot be turned off: it ends when the last
    /// handle of the token is dropped.
    ///
    /// # Costs
    ///
    /// A listed holder costs some allocations and a lock of the token when it is made, and a lock when it is dropped.
    /// While any token of the process tracks, making a holder under any other token costs a walk up its ancestors.
    pub fn track_holders(&self) {
        self.node.track_holders();
    }

    /// What keeps [`settled`](Self::settled) of this token waiting, in the order of construction: the adapters,
    /// producers, futures and holds that were made under this token or a descendant since
    /// [`track_holders`](Self::track_holders) was called.
    ///
    /// Log it when a shutdown takes longer than it should.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use stopcock::CancellationToken;
    /// use tokio::time::timeout;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let server = CancellationToken::new();
    /// server.track_holders();
    /// let _hold = server.child_token().hold();
    ///
    /// let settled = server.cancel_and_settle();
    /// if timeout(Duration::from_secs(5), settled).await.is_err() {
    ///     for holder in server.holders() {
    ///         // Such as: hold, made at src/main.rs:8:40, 5.0s ago
    ///         println!("still running: {holder}");
    ///     }
    /// }
    /// # assert_eq!(server.holders().len(), 1);
    /// # }
    /// ```
    pub fn holders(&self) -> Vec<Holder> {
        self.node.holders()
    }

    /// Waits until this token is cancelled and everything that it stops has been dropped.
    ///
    /// A graceful shutdown awaits this. It is like Go's `WaitGroup.Wait` or tokio-util's `TaskTracker::wait`, but the
    /// token counts by itself.
    ///
    /// Every adapter, producer and future that was made with this token or a descendant counts, from its construction
    /// until its source, its body or its future has been dropped. With a borrowed stream, as in `&mut stream`, it counts
    /// until the borrow ends. A [`hold`](Self::hold) counts until it is dropped. Futures that only wait, such as
    /// [`cancelled`](Self::cancelled), do not count. What is made with the token after it has settled counts for later
    /// calls only.
    ///
    /// **Drop or poll your adapters first.** An adapter drops its source when it is polled or dropped. So a task that
    /// awaits `settled` while it owns such an adapter, even one that was never polled, waits forever. The same holds
    /// for a response body whose client does not read, since hyper does not poll it: there, use
    /// [`drop_on_cancel`](crate::TryWithCancellation::drop_on_cancel), which drops the source without a poll. A
    /// producer with a task or a thread of its own needs no poll.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future unregisters the waiting task, and has no other effect.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, stream};
    /// use stopcock::{CancelStreamExt, CancellationToken};
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let server = CancellationToken::new();
    /// let mut events = stream::pending::<u8>().take_until_cancelled(server.child_token());
    /// let connection = tokio::spawn(async move { events.next().await });
    ///
    /// server.cancel_and_settle().await;
    /// // The source of `events` has been dropped.
    /// assert_eq!(connection.await.unwrap(), None);
    /// # }
    /// ```
    pub fn settled(&self) -> Settled {
        Settled::new(self.clone())
    }

    /// Cancels this token at once, in this call, and returns a future that waits like [`settled`](Self::settled).
    ///
    /// Kotlin calls this `cancelAndJoin`. Drop or poll your adapters before you await it: see
    /// [`settled`](Self::settled).
    ///
    /// # Panics
    ///
    /// Like [`cancel`](Self::cancel).
    #[track_caller]
    pub fn cancel_and_settle(&self) -> Settled {
        self.cancel();
        self.settled()
    }
}

/// Deadlines.
#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
impl CancellationToken {
    /// Makes a token that is cancelled at the point in time `at`, with [`StopReason::DeadlineExceeded`], unless it is
    /// cancelled earlier.
    ///
    /// `at` is a point in time; for a length of time use [`with_timeout`](Self::with_timeout). In Go this is
    /// `context.WithDeadline(context.Background(), at)`.
    ///
    /// A timer of the runtime cancels the token and wakes the waiting tasks; a task runs the callbacks, if there are
    /// any. Checks do not depend on that timer: at or after `at` every check of the token or a descendant finds it
    /// cancelled, even if the runtime is too busy to run its timers. From such a check on, the reason is final. A check
    /// wakes no task and runs no callback; the timer or the next cancel does that.
    ///
    /// A check of a token with a deadline, its own or an ancestor's, reads the clock. Adapters read it once in many
    /// items, like [`with_deadline`](crate::CancelStreamExt::with_deadline).
    ///
    /// The timer is released when the token is cancelled or dropped. If the deadline has already passed, no timer is
    /// made.
    ///
    /// # When the runtime ends
    ///
    /// A token may outlive the runtime in which it was made, and so its timer. Checks are still correct, but nothing
    /// reports the deadline any more: a stream, a future or a callback that waits under this token, or under a plain
    /// child of it, is not woken until something cancels the token. For a child that was made with a deadline of its
    /// own, the runtime in which that child was made reports the earliest deadline. So for work on another runtime,
    /// make a child there with [`child_with_deadline`](Self::child_with_deadline).
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime. Where a timer is needed, also in one that was built without `enable_time`.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use stopcock::{CancellationToken, StopReason};
    /// use tokio::time::{Instant, advance};
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let request = CancellationToken::with_deadline(Instant::now() + Duration::from_secs(5));
    /// let query = request.child_token();
    /// assert!(query.check().is_ok());
    ///
    /// advance(Duration::from_secs(5)).await;
    /// assert!(matches!(query.check(), Err(StopReason::DeadlineExceeded)));
    /// # }
    /// ```
    #[track_caller]
    pub fn with_deadline(at: impl IntoDeadline) -> Self {
        Self::of_deadline(None, Some(at.into_deadline()), None)
    }

    /// Like [`with_deadline`](Self::with_deadline), with `timeout` counted from this call.
    ///
    /// A timeout that is too long for the clock, such as [`Duration::MAX`], never passes. In Go this is
    /// `context.WithTimeout(context.Background(), timeout)`.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    #[track_caller]
    pub fn with_timeout(timeout: Duration) -> Self {
        Self::of_deadline(None, Instant::now().checked_add(timeout), None)
    }

    /// Makes a child that is cancelled at the point in time `at`, unless this token is cancelled earlier.
    ///
    /// `at` is a point in time; for a length of time use [`child_with_timeout`](Self::child_with_timeout). In Go this
    /// is `context.WithDeadline(parent, at)`.
    ///
    /// Where this token has an earlier deadline, its own or an ancestor's, the child needs no timer. If the runtime of
    /// the earlier deadline's timer has ended, or ends later, the child is cancelled at that deadline by a timer of the
    /// runtime in which this method was called.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    #[track_caller]
    pub fn child_with_deadline(&self, at: impl IntoDeadline) -> Self {
        Self::of_deadline(Some(self), Some(at.into_deadline()), None)
    }

    /// Like [`child_with_deadline`](Self::child_with_deadline), with `timeout` counted from this call.
    ///
    /// In Go this is `context.WithTimeout(parent, timeout)`.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    #[track_caller]
    pub fn child_with_timeout(&self, timeout: Duration) -> Self {
        Self::of_deadline(Some(self), Instant::now().checked_add(timeout), None)
    }

    /// Like [`child_with_deadline`](Self::child_with_deadline), with a reason of its own, which distinguishes this
    /// deadline from others: "5 s for the query" from "30 s for the request".
    ///
    /// Go calls this `context.WithDeadlineCause`.
    ///
    /// The reason still counts as a timeout: [`is_timeout`](StopReason::is_timeout) is true, and as an `io::Error` its
    /// kind is `TimedOut`. To that end, [`Custom(error)`](StopReason::Custom) becomes
    /// [`TimedOut(error)`](StopReason::TimedOut), and a reason that is not a timeout, such as `Cancelled`, becomes a
    /// `TimedOut` that wraps it.
    ///
    /// The earliest deadline wins, with its own reason: if this token or an ancestor has a deadline that is not later,
    /// `reason` is never used.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    #[track_caller]
    pub fn child_with_deadline_cause(
        &self,
        at: impl IntoDeadline,
        reason: impl Into<StopReason>,
    ) -> Self {
        Self::of_deadline(Some(self), Some(at.into_deadline()), Some(reason.into()))
    }

    /// Like [`child_with_deadline_cause`](Self::child_with_deadline_cause), with `timeout` counted from this call.
    ///
    /// Go calls this `context.WithTimeoutCause`.
    ///
    /// # Panics
    ///
    /// Like [`with_deadline`](Self::with_deadline).
    ///
    /// # Examples
    ///
    /// ```
    /// use std::time::Duration;
    /// use stopcock::CancellationToken;
    ///
    /// # #[tokio::main(flavor = "current_thread", start_paused = true)]
    /// # async fn main() {
    /// let request = CancellationToken::with_timeout(Duration::from_secs(30));
    /// let query = request.child_with_timeout_cause(Duration::from_secs(5), "the query took too long");
    ///
    /// query.cancelled().await;
    /// let reason = query.stop_reason().unwrap();
    /// assert_eq!(reason.to_string(), "the query took too long");
    /// assert!(reason.is_timeout());
    /// assert!(!request.is_cancelled());
    /// # }
    /// ```
    #[track_caller]
    pub fn child_with_timeout_cause(
        &self,
        timeout: Duration,
        reason: impl Into<StopReason>,
    ) -> Self {
        let at = Instant::now().checked_add(timeout);
        Self::of_deadline(Some(self), at, Some(reason.into()))
    }

    #[track_caller]
    fn of_deadline(parent: Option<&Self>, at: Option<Instant>, cause: Option<StopReason>) -> Self {
        Self {
            node: Node::with_deadline(parent.map(|parent| &parent.node), at, cause),
        }
    }

    /// The earliest of this token's own deadline and its ancestors', even if it has passed.
    ///
    /// In Go this is `ctx.Deadline()`.
    #[inline]
    pub fn deadline(&self) -> Option<Instant> {
        self.node.deadline()
    }

    /// The time until the [`deadline`](Self::deadline): zero once it has passed, `None` if there is none.
    ///
    /// In Go this is `time.Until` of the deadline, which is negative once the deadline has passed.
    pub fn remaining(&self) -> Option<Duration> {
        let deadline = self.deadline()?;
        Some(deadline.saturating_duration_since(Instant::now()))
    }
}

impl Default for CancellationToken {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for CancellationToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let mut token = f.debug_struct("CancellationToken");
        token.field("stop_reason", &self.stop_reason());
        if let Some(line) = self.stop_location() {
            token.field("stop_location", &format_args!("{line}"));
        }
        #[cfg(feature = "tokio")]
        token.field("deadline", &self.deadline());
        token.finish()
    }
}

/// Compares by identity: a clone is equal, a child is not.
impl PartialEq for CancellationToken {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.node, &other.node)
    }
}

impl Eq for CancellationToken {}

impl Hash for CancellationToken {
    fn hash<H: Hasher>(&self, state: &mut H) {
        ptr::hash(Arc::as_ptr(&self.node), state);
    }
}
