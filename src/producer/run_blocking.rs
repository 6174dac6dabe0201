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

/// Makes a call that blocks on a thread of its own, and waits for it until `signal` fires.
///
/// ```text
/// call     ------------a      dropped
/// signal   -------X
/// output   -------X
/// ```
///
/// The call begins now, and needs no runtime. Giving up on it, at the signal or by dropping the future, does not wait:
/// the call goes on in the background to its end, and its late answer is dropped there. If it had not begun, what it
/// captured is dropped at once. A call that was given up delays nothing else: it runs on a thread of its own, named
/// `stopcock`, so neither other blocking work nor the shutdown of a runtime waits for it.
///
/// Under a token it counts for [`CancellationToken::settled`] until the call is done, given up or not, and a late
/// answer dropped. The future itself asks the signal, whatever that is, so no other task watches it.
///
/// # Cost
///
/// A thread per call: some tens of microseconds, which a call that is worth giving up on does not notice. For many
/// short ones there is the pool of the runtime, `spawn_blocking(..).with_cancellation(&token)`, where a call that is
/// given up keeps its place, and the runtime's shutdown waits for it.
///
/// # Paused clock
///
/// Unlike `spawn_blocking`, a call does not hold tokio's paused clock, as the tests of timeouts have it: see
/// [`blocking_generator`](crate::blocking_generator()#paused-clock).
///
/// # Errors
///
/// Why it was given up. If the system has no more threads, [`StopReason::Custom`] of the [`io::Error`](std::io::Error).
///
/// # Panics
///
/// The future panics with the panic of the call.
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
/// // Hangs for longer than the caller wants to wait.
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
    let answer = if is_stopped {
        Answer::None
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
            Ok(()) => Answer::Awaited(call),
            Err(reason) => Answer::Failed(reason),
        }
    };
    RunBlocking {
        valve: FutureValve::Open(answer, signal),
    }
}

/// The future of [`run_blocking`].
#[pin_project]
#[must_use = "dropping the future gives up on the call"]
pub struct RunBlocking<T, G = TokenSignal> {
    #[pin]
    valve: FutureValve<Answer<T>, G>,
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

/// The answer of a call.
enum Answer<T> {
    Awaited(Arc<Call<T>>),
    /// The call could not begin.
    Failed(StopReason),
    /// The signal had fired before the call could begin, and answers in its place.
    None,
}

impl<T> Future for Answer<T> {
    type Output = Result<T, StopReason>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &*self {
            Self::Awaited(call) => call.poll(cx).map(Ok),
            Self::Failed(reason) => Poll::Ready(Err(reason.clone())),
            Self::None => Poll::Pending,
        }
    }
}

impl<T> Drop for Answer<T> {
    fn drop(&mut self) {
        if let Self::Awaited(call) = self {
            call.give_up();
        }
    }
}

/// A call, between its thread and the future of its answer.
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
    /// Given up, or the answer has been taken.
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

    /// Makes the call, unless it has been given up. A late answer is dropped before this returns.
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
        let answer = catch_unwind(AssertUnwindSafe(call));
        let mut inside = self.lock();
        if let Stage::Running = inside.stage {
            inside.stage = Stage::Done(answer);
            let waker = inside.waker.take();
            drop(inside);
            waker.into_iter().for_each(Waker::wake);
        } else {
            drop(inside);
            drop_answer(answer);
        }
    }

    pub(crate) fn poll(&self, cx: &Context<'_>) -> Poll<T> {
        // Cloned without the lock, and dropped without: it may run anything.
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
            Stage::Done(Ok(answer)) => Poll::Ready(answer),
            Stage::Done(Err(payload)) => resume_unwind(payload),
            _ => panic!(
                "a future of `run_blocking` was polled after it was ready: poll it in an `async` block, or `fuse` it"
            ),
        }
    }

    /// Drops what the call has captured, if it has not begun, or its answer, if it is done. Else its thread drops that.
    pub(crate) fn give_up(&self) {
        let mut inside = self.lock();
        let stage = mem::replace(&mut inside.stage, Stage::Over);
        let waker = inside.waker.take();
        drop(inside);
        drop(waker);
        if let Stage::Done(answer) = stage {
            drop_answer(answer);
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inside<T>> {
        // Nothing panics under the lock.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn drop_answer<T>(answer: thread::Result<T>) {
    match answer {
        Ok(answer) => drop(answer),
        Err(payload) => discard(payload),
    }
}
