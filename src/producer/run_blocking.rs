use super::thread::spawn;
use crate::{
    CancellationToken, IntoSignal, Signal, StopReason,
    first_panic::discard,
    future::FutureValve,
    signal::TokenSignal,
    sync::{Mutex, MutexGuard},
    token::Hold,
};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    mem,
    panic::{AssertUnwindSafe, catch_unwind, resume_unwind},
    pin::Pin,
    sync::{Arc, PoisonError},
    task::{Context, Poll, Waker, ready},
    thread,
};

/// Runs a blocking call on a thread of its own, and waits for it until `signal` fires.
///
/// ```text
/// call     ------------a      dropped
/// signal   -------X
/// output   -------X
/// ```
///
/// The call begins at once, and needs no runtime. When the signal fires or the future is dropped, the call is abandoned:
/// it runs on in the background until it returns, and its result is dropped there. If it has not begun, its captures
/// are dropped at once. Neither other blocking work nor the shutdown of a runtime waits for an abandoned call, as it
/// has a thread of its own, named `stopcock`.
///
/// If the signal is a token, [`CancellationToken::settled`] of the cancelled token waits until the call has returned,
/// abandoned or not, and a late result has been dropped. The future checks the signal itself, so no task watches it.
///
/// # Cost
///
/// A thread per call: some tens of microseconds. For many short calls use the pool of the runtime,
/// `spawn_blocking(..).with_cancellation(&token)`. There an abandoned call keeps occupying a thread of the pool, and the
/// shutdown of the runtime waits for it.
///
/// # Paused clock
///
/// Unlike `spawn_blocking`, a call does not stop tokio's paused clock: see
/// [`blocking_generator`](crate::blocking_generator()#paused-clock).
///
/// # Errors
///
/// Why the call was abandoned. If the system cannot start a thread, a [`StopReason::Custom`] with the
/// [`io::Error`](std::io::Error).
///
/// # Panics
///
/// The future panics if the call panics, with the same payload.
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
/// # futures::executor::block_on(async {
/// let token = CancellationToken::new();
/// let answer = run_blocking(&token, || legacy(7, Duration::ZERO)).await;
/// assert_eq!(answer.unwrap(), 7);
///
/// // Takes longer than the caller wants to wait.
/// let answer = run_blocking(&token, || legacy(7, Duration::from_secs(3600)));
/// token.cancel();
/// assert!(matches!(answer.await, Err(StopReason::Cancelled)));
/// # });
/// ```
#[track_caller]
pub fn run_blocking<T, G, F>(signal: G, call: F) -> RunBlocking<T, G::Signal>
where
    T: Send + 'static,
    G: IntoSignal,
    F: FnOnce() -> T + Send + 'static,
{
    let signal = signal.into_signal_of("future of run_blocking");
    let token = signal.as_token();
    let is_stopped = token.is_some_and(CancellationToken::is_cancelled);
    let call = if is_stopped {
        CallFuture::None
    } else {
        #[expect(
            clippy::manual_map,
            reason = "a closure would be the caller that is tracked"
        )]
        let hold = match token {
            Some(token) => Some(Hold::new(token.clone(), "run_blocking")),
            None => None,
        };
        let call = Call::new(call);
        let running = Arc::clone(&call);
        let started = spawn(move || {
            running.run();
            drop(running);
            drop(hold);
        });
        match started {
            Ok(()) => CallFuture::Awaited(call),
            Err(reason) => CallFuture::Failed(reason),
        }
    };
    RunBlocking {
        valve: FutureValve::Open(call, signal),
    }
}

/// The future of [`run_blocking`].
#[pin_project]
#[must_use = "dropping the future abandons the call"]
pub struct RunBlocking<T, G = TokenSignal> {
    #[pin]
    valve: FutureValve<CallFuture<T>, G>,
}

impl<T, G: Signal> Future for RunBlocking<T, G> {
    type Output = Result<T, StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let result = ready!(self.project().valve.poll(cx));
        Poll::Ready(result.and_then(|result| result))
    }
}

impl<T, G> Debug for RunBlocking<T, G> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        self.valve.debug("RunBlocking", f)
    }
}

/// The future of a call's result.
enum CallFuture<T> {
    Awaited(Arc<Call<T>>),
    /// The call could not begin.
    Failed(StopReason),
    /// The signal had fired before the call could begin.
    None,
}

impl<T> Future for CallFuture<T> {
    type Output = Result<T, StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &*self {
            Self::Awaited(call) => call.poll(cx).map(Ok),
            Self::Failed(reason) => Poll::Ready(Err(reason.clone())),
            Self::None => Poll::Pending,
        }
    }
}

impl<T> Drop for CallFuture<T> {
    fn drop(&mut self) {
        if let Self::Awaited(call) = self {
            call.abandon();
        }
    }
}

/// A call, shared by its thread and the future of its result.
pub(crate) struct Call<T> {
    inside: Mutex<Inside<T>>,
}

struct Inside<T> {
    stage: Stage<T>,
    /// The task of the future.
    waker: Option<Waker>,
}

enum Stage<T> {
    New(Box<dyn FnOnce() -> T + Send>),
    Running,
    Done(thread::Result<T>),
    /// Abandoned, or the result has been taken.
    Over,
}

impl<T> Call<T> {
    pub(crate) fn new(call: impl FnOnce() -> T + Send + 'static) -> Arc<Self> {
        Arc::new(Self {
            inside: Mutex::new(Inside {
                stage: Stage::New(Box::new(call)),
                waker: None,
            }),
        })
    }

    /// Makes the call, unless it has been abandoned. A late result is dropped before this returns.
    pub(crate) fn run(&self) {
        let mut inside = self.lock();
        let call = match mem::replace(&mut inside.stage, Stage::Running) {
            Stage::New(call) => call,
            stage => {
                inside.stage = stage;
                return;
            }
        };
        drop(inside);
        let result = catch_unwind(AssertUnwindSafe(call));
        let mut inside = self.lock();
        if let Stage::Running = inside.stage {
            inside.stage = Stage::Done(result);
            let waker = inside.waker.take();
            drop(inside);
            waker.into_iter().for_each(Waker::wake);
        } else {
            drop(inside);
            drop_result(result);
        }
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        // Cloned and dropped without the lock: it may run foreign code.
        let waker = cx.waker().clone();
        let mut inside = self.lock();
        if let Stage::New(_) | Stage::Running = inside.stage {
            let former = inside.waker.replace(waker);
            drop(inside);
            drop(former);
            return Poll::Pending;
        }
        let stage = mem::replace(&mut inside.stage, Stage::Over);
        drop(inside);
        match stage {
            Stage::Done(Ok(result)) => Poll::Ready(result),
            Stage::Done(Err(payload)) => resume_unwind(payload),
            _ => panic!(
                "a future of `run_blocking` was polled after it was ready: poll it in an `async` block, or `fuse` it"
            ),
        }
    }

    /// Drops the captures of a call that has not begun, or the result of one that has returned. Otherwise its thread
    /// drops the result.
    pub(crate) fn abandon(&self) {
        let mut inside = self.lock();
        let stage = mem::replace(&mut inside.stage, Stage::Over);
        let waker = inside.waker.take();
        drop(inside);
        drop(waker);
        if let Stage::Done(result) = stage {
            drop_result(result);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        // Nothing panics under the lock.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_result<T>(result: thread::Result<T>) {
    match result {
        Ok(result) => drop(result),
        Err(payload) => discard(payload),
    }
}
