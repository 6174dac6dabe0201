mod listeners;
mod tree;

use crate::{IntoSignal, Signal, StopReason};
use std::{
    borrow::Borrow,
    fmt::{self, Debug, Formatter},
    future::Future,
    hash::{Hash, Hasher},
    pin::Pin,
    ptr,
    sync::Arc,
    task::{Context, Poll},
};
use tree::{Node, Waiter};

/// Stops what was handed it, and all that was handed one of its children, for a reason.
///
/// A drop-in for the token of tokio-util, with the same method names: changing the import compiles. Clones are the
/// same token. A child is cancelled with its parent, never the other way.
///
/// # What a look costs
///
/// [`is_cancelled`](Self::is_cancelled) takes no lock: one load for a root, and one more for each level between a
/// token and its root. A child is a single allocation, and its parent does not know of it until somebody waits on
/// it or below it.
///
/// A token keeps its ancestors: in a loop of `token = token.child_token()` each turn adds a node of some hundred
/// bytes and a level to each look, until the last token of the chain is dropped. Where the earlier tokens are no
/// longer needed, make all of the children from one parent.
///
/// # Races
///
/// Of several cancels exactly one wins, and its reason is the token's for ever. When a call returns, the winner's or
/// a loser's, the whole subtree is cancelled, with its reason unless some of it had one already. What waits is woken
/// by the cancelling thread, in the order in which it came, with no lock held.
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
    /// Makes a token that nothing but its own handles can cancel.
    pub fn new() -> Self {
        Self { node: Node::root() }
    }

    /// Makes a token that is cancelled with this one, and may be cancelled before it.
    ///
    /// The child of a cancelled token is born cancelled, with its reason.
    pub fn child_token(&self) -> Self {
        Self {
            node: self.node.child(),
        }
    }

    /// Cancels this token and its descendants with [`StopReason::Cancelled`].
    ///
    /// # Panics
    ///
    /// As [`cancel_with`](Self::cancel_with).
    pub fn cancel(&self) {
        self.cancel_with(StopReason::Cancelled);
    }

    /// Cancels this token and its descendants, and says whether it was this call that cancelled this token.
    ///
    /// # Panics
    ///
    /// If a waker that it wakes panics: after all of them have been woken, with the first one's panic. During an
    /// unwinding nothing is thrown.
    pub fn cancel_with(&self, reason: impl Into<StopReason>) -> bool {
        self.node.cancel(reason.into())
    }

    /// Whether this token or an ancestor has been cancelled. Takes no lock.
    #[inline]
    pub fn is_cancelled(&self) -> bool {
        self.node.is_cancelled()
    }

    /// Why this token is cancelled, if it is.
    ///
    /// The answer never changes. It is the reason of the nearest cancelled ancestor at the first look.
    pub fn stop_reason(&self) -> Option<StopReason> {
        self.node.stop_reason()
    }

    /// For `token.check()?` between two steps of work that awaits nothing.
    ///
    /// # Errors
    ///
    /// The [`stop_reason`](Self::stop_reason), once there is one.
    pub fn check(&self) -> Result<(), StopReason> {
        match self.stop_reason() {
            None => Ok(()),
            Some(reason) => Err(reason),
        }
    }

    /// Waits for this token to be cancelled.
    ///
    /// # Cancel safety
    ///
    /// Dropping the future leaves the token as it was, and nothing behind in it.
    pub fn cancelled(&self) -> Cancelled<'_> {
        Cancelled(Listening::new(self))
    }

    /// Waits for this token to be cancelled, and owns it meanwhile.
    ///
    /// # Cancel safety
    ///
    /// As [`cancelled`](Self::cancelled).
    pub fn cancelled_owned(self) -> CancelledOwned {
        CancelledOwned(Listening::new(self))
    }

    /// Makes a guard that cancels this token when dropped.
    pub fn drop_guard(self) -> DropGuard {
        DropGuard { token: Some(self) }
    }
}

impl Default for CancellationToken {
    fn default() -> Self {
        Self::new()
    }
}

impl Debug for CancellationToken {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("CancellationToken")
            .field("stop_reason", &self.stop_reason())
            .finish()
    }
}

/// The same token: a clone is equal, a child is not.
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

/// The future of [`CancellationToken::cancelled`].
#[must_use = "futures do nothing unless polled"]
pub struct Cancelled<'a>(Listening<&'a CancellationToken>);

impl Future for Cancelled<'_> {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

impl Debug for Cancelled<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Cancelled").field(self.0.token).finish()
    }
}

/// The future of [`CancellationToken::cancelled_owned`], and the [`Signal`] that a token is.
#[must_use = "futures do nothing unless polled"]
pub struct CancelledOwned(Listening<CancellationToken>);

impl Future for CancelledOwned {
    type Output = ();

    #[inline]
    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.poll(cx)
    }
}

impl Signal for CancelledOwned {
    #[inline]
    fn is_fired(self: Pin<&mut Self>) -> bool {
        self.0.token.is_cancelled()
    }

    #[inline]
    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        match self.0.poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) => Poll::Ready(self.0.reason()),
        }
    }
}

impl Debug for CancelledOwned {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CancelledOwned")
            .field(&self.0.token)
            .finish()
    }
}

impl IntoSignal for CancellationToken {
    type Signal = CancelledOwned;

    fn into_signal(self) -> CancelledOwned {
        self.cancelled_owned()
    }
}

impl IntoSignal for &CancellationToken {
    type Signal = CancelledOwned;

    fn into_signal(self) -> CancelledOwned {
        self.clone().cancelled_owned()
    }
}

/// A token and a place among its listeners: what both futures are.
struct Listening<T: Borrow<CancellationToken>> {
    token: T,
    waiter: Waiter,
}

impl<T: Borrow<CancellationToken>> Listening<T> {
    fn new(token: T) -> Self {
        Self {
            token,
            waiter: Waiter::default(),
        }
    }

    #[inline]
    fn poll(&mut self, cx: &Context<'_>) -> Poll<()> {
        self.waiter.poll(&self.token.borrow().node, cx)
    }

    #[cold]
    fn reason(&self) -> StopReason {
        match self.token.borrow().stop_reason() {
            Some(reason) => reason,
            None => unreachable!("a cancelled token has a reason"),
        }
    }
}

impl<T: Borrow<CancellationToken>> Drop for Listening<T> {
    #[inline]
    fn drop(&mut self) {
        self.waiter.leave(&self.token.borrow().node);
    }
}

/// Cancels its token when dropped: what [`CancellationToken::drop_guard`] makes.
#[derive(Debug)]
#[must_use = "a guard that is dropped at once cancels at once"]
pub struct DropGuard {
    /// `None` once disarmed.
    token: Option<CancellationToken>,
}

impl DropGuard {
    /// Gives the token back, not cancelled by this guard any more.
    pub fn disarm(mut self) -> CancellationToken {
        match self.token.take() {
            Some(token) => token,
            None => unreachable!("only `disarm` takes the token, and it takes the guard as well"),
        }
    }
}

impl Drop for DropGuard {
    fn drop(&mut self) {
        if let Some(token) = &self.token {
            token.cancel();
        }
    }
}
