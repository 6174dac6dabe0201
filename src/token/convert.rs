//! Tokens of tokio-util's, both ways.
//!
//! Theirs is adopted by a future of theirs that is polled once, with a waker that cancels ours. The future is kept in a
//! callback of ours, so that it is dropped, and with it the place among their waiters, when ours is cancelled or dropped.
//!
//! Ours hands out children of a token of theirs that is kept in its node, one for each node, and is itself a child of that
//! of the node's parent. So when a node is dropped, their tree links what was handed out to the parent's, as ours does with
//! the children of a node that has no handles left.

use super::{
    Callback, CancellationToken,
    tree::{Listener, Node},
    weak::WeakToken,
};
use crate::first_panic::discard;
use std::{
    future::Future,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    task::{Context, Wake, Waker},
};
use tokio_util::sync::CancellationToken as Theirs;

/// Makes a root that is cancelled with tokio-util's token, with [`StopReason::Cancelled`](crate::StopReason::Cancelled): by the time that the `cancel()`
/// which cancelled that one returns. Cancelling ours does not cancel theirs.
///
/// It takes no task and no runtime. Callbacks and wakers of ours run inside their `cancel()`, and may use any token of
/// either kind, that one too. A panic of one ends there, with the message of the panic hook, and does not reach the
/// caller. Once ours is cancelled or its last handle is dropped, nothing of it is left in theirs.
///
/// # Examples
///
/// ```
/// use stopcock::CancellationToken;
///
/// let theirs = tokio_util::sync::CancellationToken::new();
/// let client = CancellationToken::new();
/// let request = CancellationToken::linked([&CancellationToken::from(&theirs), &client]);
///
/// theirs.cancel();
/// assert!(request.is_cancelled());
/// ```
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
impl From<Theirs> for CancellationToken {
    fn from(theirs: Theirs) -> Self {
        let token = Self::new();
        let waker = Waker::from(Arc::new(Adopted(WeakToken::of(&token))));
        let mut cancelled = Box::pin(theirs.cancelled_owned());
        let polled = cancelled.as_mut().poll(&mut Context::from_waker(&waker));
        if polled.is_ready() {
            token.cancel();
        } else {
            token.on_cancel(move |_| drop(cancelled)).detach();
        }
        token
    }
}

/// Like the conversion of the token itself.
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
impl From<&Theirs> for CancellationToken {
    fn from(theirs: &Theirs) -> Self {
        Self::from(theirs.clone())
    }
}

/// The waker by which theirs cancels ours.
struct Adopted(WeakToken);

impl Wake for Adopted {
    fn wake(self: Arc<Self>) {
        let cancelled = catch_unwind(AssertUnwindSafe(|| {
            // It may be the last handle by the time that it is dropped here.
            if let Some(token) = self.0.upgrade() {
                token.cancel();
            }
        }));
        if let Err(payload) = cancelled {
            discard(payload);
        }
    }
}

/// Conversion to tokio-util's token.
#[cfg_attr(docsrs, doc(cfg(feature = "tokio-util")))]
impl CancellationToken {
    /// Makes a token of tokio-util's that is cancelled with this one: before the `cancel()` of this one, or of an ancestor,
    /// returns. At a deadline it is cancelled by a task, like a [callback](Self::on_cancel).
    ///
    /// Each call makes a new one. Cancelling it cancels neither this token nor any that another call has made.
    ///
    /// Like a child, it stays linked to this token's ancestors when this token is dropped:
    /// `server.child_token().to_tokio_util()` is cancelled with `server`. Unlike a child it does not keep this token. So
    /// keep a handle of one that is cancelled by itself, by a deadline of its own, by `from_signal` or by `From`, or
    /// that is [linked](Self::linked) to several tokens.
    ///
    /// The first call makes a token of theirs for this token and for each ancestor that has none yet. Later ones leave
    /// nothing behind once what they have made is dropped.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::CancellationToken;
    ///
    /// let server = CancellationToken::new();
    /// let theirs = server.child_token().to_tokio_util();
    ///
    /// server.cancel();
    /// assert!(theirs.is_cancelled());
    /// ```
    pub fn to_tokio_util(&self) -> Theirs {
        let theirs = match self.is_cancelled() {
            true => Theirs::new(),
            false => self.node.theirs().child_token(),
        };
        // Also where a cancel has not come by here yet, or never will, as a check has found a deadline passed.
        if self.is_cancelled() {
            theirs.cancel();
        }
        theirs
    }
}

impl Node {
    /// The token of theirs that is kept here and cancelled with this node. If a cancel of this node or of an ancestor came
    /// first, it may be one that nobody will cancel.
    fn theirs(self: &Arc<Self>) -> Arc<Theirs> {
        let mut theirs = None;
        let mut without = Vec::new();
        let mut next = Some(self);
        while let Some(node) = next {
            theirs = node.lock().theirs();
            if theirs.is_some() {
                break;
            }
            without.push(node);
            // Of several parents any will do, as theirs can have only one.
            next = node.ancestry.links().first().map(|link| &link.parent);
        }
        for node in without.into_iter().rev() {
            let made = match theirs {
                Some(parents) => parents.child_token(),
                None => Theirs::new(),
            };
            theirs = Some(node.keep(made));
        }
        self.ensure_connected();
        theirs.unwrap_or_default()
    }

    /// Keeps `made`, unless there is one already or this node is cancelled.
    fn keep(&self, made: Theirs) -> Arc<Theirs> {
        let made = Arc::new(made);
        let cancelled = Arc::clone(&made);
        let callback = Box::new(move |_: &_| cancelled.cancel());
        let callback = Listener::Callback(Callback::Boxed(callback));
        // What is not needed is dropped without the lock.
        let mut guarded = self.lock();
        if let Some(earlier) = guarded.theirs() {
            return earlier;
        }
        let listed = guarded.insert(callback);
        if listed.is_ok() {
            guarded.rare().theirs = Some(Arc::clone(&made));
        }
        drop(guarded);
        made
    }
}
