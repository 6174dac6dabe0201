//! Conversions from and to tokio-util's tokens, which are called *theirs* here.
//!
//! *From theirs:* a future of theirs is polled once, with a waker that cancels ours. A callback of ours owns the
//! future, so that the future is dropped, and its waiter unregistered, when our token is cancelled or dropped.
//!
//! *To theirs:* each node keeps one token of theirs, which is a child of the one that the parent node keeps, and hands
//! out children of it. So when a node is dropped, their tree links the children that were handed out to the parent's
//! token, just as the children of a node without handles stay linked to its ancestors in ours.

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

/// Makes a root that is cancelled with tokio-util's token, with
/// [`StopReason::Cancelled`](crate::StopReason::Cancelled).
///
/// It is cancelled before the `cancel()` of tokio-util's token returns. Cancelling it does not cancel tokio-util's
/// token.
///
/// It needs no task and no runtime. Its callbacks and wakers run inside tokio-util's `cancel()`, and may use any token
/// of either crate, including the one that is being cancelled. If one of them panics, the panic hook reports that, and
/// the panic does not reach the caller of `cancel()`. Once the new token is cancelled or its last handle is dropped, it
/// is no longer registered in tokio-util's token.
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

/// A waker that cancels ours when theirs is cancelled.
struct Adopted(WeakToken);

impl Wake for Adopted {
    fn wake(self: Arc<Self>) {
        let cancelled = catch_unwind(AssertUnwindSafe(|| {
            // This may be the last handle by the time that it is dropped here.
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
    /// Makes a token of tokio-util that is cancelled with this one.
    ///
    /// It is cancelled before the `cancel()` of this token or of an ancestor returns. At a deadline a task cancels it,
    /// as it runs a [callback](Self::on_cancel).
    ///
    /// Each call makes a new token. Cancelling it cancels neither this token nor one that another call has made.
    ///
    /// Like a child, it stays linked to this token's ancestors when this token is dropped:
    /// `server.child_token().to_tokio_util()` is cancelled with `server`. Unlike a child, it does not keep this token
    /// alive. So keep a handle of this token if it is cancelled other than by an ancestor: by a deadline of its own, if
    /// it was made by `from_signal` or by `From`, or if it is [linked](Self::linked) to several tokens.
    ///
    /// The first call makes one token of tokio-util for this token, and one for each ancestor that has none yet. Each
    /// lives as long as the token that it was made for. After that, a call leaves no memory behind once its result is
    /// dropped.
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
        // Checked again: a cancel may not have reached this node yet, or never does if only a check has seen the
        // deadline.
        if self.is_cancelled() {
            theirs.cancel();
        }
        theirs
    }
}

impl Node {
    /// The token of theirs that this node keeps, which is cancelled with this node. If a cancel of this node or of an
    /// ancestor came first, it may be one that is never cancelled.
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
            // Of several parents any one will do, as a token of theirs can have only one parent.
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

    /// Keeps `made` in the node, unless it has one already or is cancelled.
    fn keep(&self, made: Theirs) -> Arc<Theirs> {
        let made = Arc::new(made);
        let cancelled = Arc::clone(&made);
        let callback = Box::new(move |_: &_| cancelled.cancel());
        let callback = Listener::Callback(Callback::Boxed(callback));
        // What is not needed is dropped after the lock is released.
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
