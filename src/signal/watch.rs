//! Tokens that are cancelled by any signal.

#[cfg(feature = "tokio")]
use super::IntoSignal;
use super::Signal;
use crate::{CancellationToken, StopReason};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
#[cfg(feature = "tokio")]
use {crate::token::WeakToken, std::future::poll_fn, tokio::runtime::Handle};

#[cfg(feature = "tokio")]
#[cfg_attr(docsrs, doc(cfg(feature = "tokio")))]
impl CancellationToken {
    /// Makes a token that is cancelled when `signal` fires, with the signal's reason.
    ///
    /// It makes the root of a tree from any event that ends a program or a part of it: Ctrl-C, a oneshot, a `watch`.
    /// With [`signal::when(ctrl_c())`](fn@crate::signal::when) it is Go's `signal.NotifyContext`.
    ///
    /// This call checks the signal once: if it has fired already, the token is cancelled from the start. Otherwise a
    /// task of the current runtime watches the signal. That task ends when the token is cancelled, or when the last
    /// handle of the token and of all its descendants has been dropped. Then it drops the signal; if the token was
    /// cancelled, after the token has [settled](Self::settled).
    ///
    /// Only its own handles and the signal can cancel the token. If the signal is a token of this crate, however, or
    /// its [`cancelled_owned`](Self::cancelled_owned) future, the result is a [child](Self::child_token) of that token,
    /// and no task is spawned. Convert a token of tokio-util by `From` instead (feature `tokio-util`), which spawns no
    /// task either.
    ///
    /// # Termination
    ///
    /// If the runtime shuts down before the signal has fired, or the signal panics in the task, the token is cancelled
    /// with [`StopReason::Cancelled`], because nothing watches the signal any more.
    ///
    /// # Panics
    ///
    /// Outside of a tokio runtime, unless the signal is a token, has fired already, or can never fire. A panic of the
    /// signal in this call passes through.
    ///
    /// # Examples
    ///
    /// ```
    /// use stopcock::{CancellationToken, signal};
    /// use tokio::sync::oneshot;
    ///
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() {
    /// let (stop, stopped) = oneshot::channel::<()>();
    /// let server = CancellationToken::from_signal(signal::when(stopped));
    /// let connection = server.child_token();
    ///
    /// stop.send(()).unwrap();
    /// connection.cancelled().await;
    /// # }
    /// ```
    #[track_caller]
    pub fn from_signal<G>(signal: G) -> Self
    where
        G: IntoSignal<Signal: Send + 'static>,
    {
        token_of(signal.into_signal())
    }
}

/// A token that is cancelled when the signal fires. If the signal is a token, the result is a child of it. Any other
/// signal is watched by a task of the current runtime until the token is cancelled or dropped, unless the signal has
/// fired already or can never fire.
#[track_caller]
pub(crate) fn token_of<G>(signal: G) -> CancellationToken
where
    G: Signal + Send + 'static,
{
    if let Some(token) = signal.as_token() {
        return token.child_token();
    }
    let token = CancellationToken::new();
    let mut signal = Box::pin(signal);
    let probe = Arc::<Probe>::default();
    let waker = Waker::from(Arc::clone(&probe));
    // Checked here, so that the body of a producer does not start before a signal that has already fired is seen.
    match poll_signal(signal.as_mut(), &mut Context::from_waker(&waker)) {
        Poll::Ready(reason) => {
            token.cancel_with(reason);
        }
        Poll::Pending => {
            drop(waker);
            if probe.may_be_woken() {
                watch(signal, &token);
            }
        }
    }
    token
}

/// A waker that finds out whether a signal can fire at all. A pending signal that has neither kept a clone of the waker
/// nor woken it cannot: it has no task to wake. That is how [`never()`](fn@crate::signal::never) is recognised, also as
/// a part of another signal.
#[derive(Default)]
struct Probe {
    is_woken: AtomicBool,
}

impl Probe {
    /// Whether the waker was woken, or can still be woken.
    fn may_be_woken(self: Arc<Self>) -> bool {
        // Another thread may just have woken it and dropped its clone. `into_inner` synchronises with that drop, so
        // that the wake is seen.
        match Arc::into_inner(self) {
            Some(probe) => probe.is_woken.into_inner(),
            None => true,
        }
    }
}

impl Wake for Probe {
    fn wake(self: Arc<Self>) {
        self.is_woken.store(true, Ordering::Relaxed);
    }
}

/// Watches the signal by a task, which cancels the token when the signal fires.
#[cfg(feature = "tokio")]
#[track_caller]
fn watch<G>(mut signal: Pin<Box<G>>, token: &CancellationToken)
where
    G: Signal + Send + 'static,
{
    let Ok(handle) = Handle::try_current() else {
        panic!(
            "there is no runtime: a signal that is not a token of this crate is watched by a task. Call this in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` meanwhile; or use a \
             `CancellationToken`, and cancel that when the signal fires"
        );
    };
    let watched = Watched {
        token: WeakToken::of(token),
        wakes_task: false,
    };
    handle.spawn(async move {
        let mut watched = watched;
        if let Some(token) = poll_fn(|cx| watched.poll_stopped(signal.as_mut(), cx)).await {
            // A token that is a part of the signal does not settle before the streams of `token` have been dropped.
            token.settled().await;
        }
        drop(signal);
    });
}

/// The token of a task that watches a signal. If the task is dropped, because the runtime shuts down or the signal
/// panics, this cancels the token: nothing watches the signal any more.
#[cfg(feature = "tokio")]
struct Watched {
    token: WeakToken,
    /// Whether the token wakes the task, when it is cancelled and when it is dropped.
    wakes_task: bool,
}

#[cfg(feature = "tokio")]
impl Watched {
    /// Ready with the token once it is cancelled, and with `None` once it has been dropped. Cancels it when the signal
    /// has fired.
    fn poll_stopped<G: Signal>(
        &mut self,
        signal: Pin<&mut G>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<CancellationToken>> {
        let Some(token) = self.token.upgrade() else {
            return Poll::Ready(None);
        };
        if !self.wakes_task {
            self.wakes_task = true;
            // The waker of a task stays the same.
            let wakes_task = WakesWhenDropped(cx.waker().clone());
            token.on_cancel(move |_| drop(wakes_task)).detach();
        }
        if !token.is_cancelled() {
            match poll_signal(signal, cx) {
                // If this is the last handle by now, its drop wakes the task once more.
                Poll::Pending => return Poll::Pending,
                Poll::Ready(reason) => token.cancel_with(reason),
            };
        }
        Poll::Ready(Some(token))
    }
}

#[cfg(feature = "tokio")]
impl Drop for Watched {
    fn drop(&mut self) {
        if let Some(token) = self.token.upgrade() {
            token.cancel();
        }
    }
}

/// Owned by a callback, it wakes the task when the token runs the callback, and also when the token drops it.
#[cfg(feature = "tokio")]
struct WakesWhenDropped(Waker);

#[cfg(feature = "tokio")]
impl Drop for WakesWhenDropped {
    fn drop(&mut self) {
        self.0.wake_by_ref();
    }
}

#[cfg(not(feature = "tokio"))]
#[track_caller]
fn watch<G>(_: Pin<Box<G>>, _: &CancellationToken) {
    panic!(
        "a signal that is not a token of this crate is watched by a task of tokio: enable the feature `tokio` of \
         `stopcock`, or pass a `CancellationToken`, and cancel that when the signal fires"
    );
}

/// Polls a signal outside of a stream, where no items are counted.
fn poll_signal<G: Signal>(mut signal: Pin<&mut G>, cx: &mut Context<'_>) -> Poll<StopReason> {
    signal.as_mut().check_every(0);
    if signal.as_mut().is_fired() {
        if let Poll::Ready(reason) = signal.as_mut().poll_fired(cx) {
            return Poll::Ready(reason);
        }
    }
    signal.poll_fired(cx)
}
