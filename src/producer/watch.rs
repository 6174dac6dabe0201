//! The token of a producer, whatever its signal is.

use crate::{CancellationToken, Signal, StopReason};
use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll, Wake, Waker},
};
#[cfg(feature = "tokio")]
use {std::future::poll_fn, tokio::runtime::Handle};

/// A token that is cancelled when the signal fires: a child of the signal's, where that is a token. Another signal is
/// watched by a task of the current runtime until the token is cancelled, unless it has fired already, or never will.
#[track_caller]
pub(super) fn token_of<G>(signal: G) -> CancellationToken
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
    // What has fired already shall not be overtaken by the body.
    match poll_signal(signal.as_mut(), &mut Context::from_waker(&waker)) {
        Poll::Ready(reason) => {
            token.cancel_with(reason);
        }
        Poll::Pending => {
            drop(waker);
            if probe.may_be_woken() {
                watch(signal, token.clone());
            }
        }
    }
    token
}

/// A waker that finds out whether a signal can fire at all. One that is pending, and has neither kept a clone of the
/// waker nor woken it, cannot: it would have nobody to wake. That is how [`never()`](fn@crate::signal::never) is
/// recognised, also as a part of another signal.
#[derive(Default)]
struct Probe {
    is_woken: AtomicBool,
}

impl Probe {
    /// Whether it was woken, or can still be.
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
fn watch<G>(mut signal: Pin<Box<G>>, token: CancellationToken)
where
    G: Signal + Send + 'static,
{
    let Ok(handle) = Handle::try_current() else {
        panic!(
            "there is no runtime: a signal that is not a token of this crate is watched by a task. Make the producer in \
             `Runtime::block_on` or in a task, or hold the guard of `Handle::enter` meanwhile; or pass a \
             `CancellationToken`, and cancel that when the signal fires"
        );
    };
    // Dropped with the task, when the runtime shuts down or the signal panics: nothing else could stop the producer.
    let guard = token.clone().drop_guard();
    handle.spawn(async move {
        let _guard = guard;
        let fired = poll_fn(|cx| poll_signal(signal.as_mut(), cx));
        if let Some(reason) = token.run_until_cancelled(fired).await {
            token.cancel_with(reason);
        }
        // A token that is a part of the signal has not settled before the body is gone.
        token.settled().await;
        drop(signal);
    });
}

#[cfg(not(feature = "tokio"))]
#[track_caller]
fn watch<G>(_: Pin<Box<G>>, _: CancellationToken) {
    panic!(
        "a signal that is not a token of this crate is watched by a task of tokio: enable the feature `tokio` of \
         `stopcock`, or pass a `CancellationToken`, and cancel that when the signal fires"
    );
}

/// A signal that is not asked for each item.
fn poll_signal<G: Signal>(mut signal: Pin<&mut G>, cx: &mut Context<'_>) -> Poll<StopReason> {
    signal.as_mut().check_every(0);
    if signal.as_mut().is_fired() {
        if let Poll::Ready(reason) = signal.as_mut().poll_fired(cx) {
            return Poll::Ready(reason);
        }
    }
    signal.poll_fired(cx)
}
