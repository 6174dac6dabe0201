use crate::{
    CancellationToken, IntoSignal, Signal, StopReason, future::FutureValve, signal::TokenSignal,
    token::HeldToken,
};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    panic::resume_unwind,
    pin::Pin,
    task::{Context, Poll, ready},
};
use tokio::task::{JoinError, JoinHandle, spawn_blocking};

/// Makes a call that blocks on the runtime's blocking pool, and waits for it until `signal` fires.
///
/// ```text
/// call     ------------a      dropped
/// signal   -------!
/// output   -------E
/// ```
///
/// The call begins now. Giving up on it, at the signal or by dropping the future, does not wait: the call goes on in the
/// background to its end, and its late answer is dropped there. One that is still in the pool's queue never begins.
///
/// It counts for [`CancellationToken::settled`] until the call is done, given up or not, and a late answer dropped.
///
/// # Errors
///
/// Why it was given up. If the runtime shuts down before the call begins, [`StopReason::Cancelled`].
///
/// # Panics
///
/// Outside of a tokio runtime. The future panics with the panic of the call.
///
/// # Examples
///
/// ```
/// use std::{thread::sleep, time::Duration};
/// use stopcock::{CancellationToken, StopReason, run_blocking};
///
/// fn legacy(answer: u32, time: Duration) -> u32 {
///     sleep(time);
///     answer
/// }
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() {
/// let token = CancellationToken::new();
/// let answer = run_blocking(&token, || legacy(7, Duration::ZERO)).await;
/// assert_eq!(answer.unwrap(), 7);
///
/// let token = CancellationToken::with_timeout(Duration::from_millis(1));
/// let answer = run_blocking(&token, || legacy(7, Duration::from_millis(100))).await;
/// assert!(matches!(answer, Err(StopReason::DeadlineExceeded)));
/// # }
/// ```
#[track_caller]
pub fn run_blocking<T, G, F>(signal: G, call: F) -> RunBlocking<T, G::Signal>
where
    T: Send + 'static,
    G: IntoSignal,
    F: FnOnce() -> T + Send + 'static,
{
    let signal = signal.into_signal();
    let token = signal.as_token();
    let is_stopped = token.is_some_and(CancellationToken::is_cancelled);
    let held = token.cloned().map(HeldToken::new);
    let call = (!is_stopped).then(|| {
        // In this order they are dropped, if nobody wants the answer.
        spawn_blocking(move || (call(), held))
    });
    RunBlocking {
        valve: FutureValve::Open(Call(call), signal),
    }
}

/// The future of [`run_blocking`].
#[pin_project]
#[must_use = "dropping the future gives up on the call"]
pub struct RunBlocking<T, G = TokenSignal> {
    #[pin]
    valve: FutureValve<Call<T>, G>,
}

impl<T, G: Signal> Future for RunBlocking<T, G> {
    type Output = Result<T, StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let answer = ready!(self.project().valve.poll(cx));
        Poll::Ready(answer.and_then(|answer| answer))
    }
}

impl<T, G> Debug for RunBlocking<T, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("RunBlocking", f)
    }
}

/// A call on the blocking pool; none if it was stopped before it could begin.
struct Call<T>(Option<JoinHandle<(T, Option<HeldToken>)>>);

impl<T> Future for Call<T> {
    type Output = Result<T, StopReason>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(call) = &mut self.0 else {
            return Poll::Pending;
        };
        let answer = ready!(Pin::new(call).poll(cx));
        match answer.map_err(JoinError::try_into_panic) {
            Ok((answer, _held)) => Poll::Ready(Ok(answer)),
            Err(Ok(payload)) => resume_unwind(payload),
            // The runtime shuts down.
            Err(Err(_)) => Poll::Ready(Err(StopReason::Cancelled)),
        }
    }
}

impl<T> Drop for Call<T> {
    fn drop(&mut self) {
        if let Some(call) = &self.0 {
            // Of use if it is still in the pool's queue.
            call.abort();
        }
    }
}
