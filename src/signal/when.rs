use super::Signal;
use crate::{StopReason, fairness::MAX_READY_RUN, wake_flag::WakeFlag};
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, Waker, ready},
};

/// The signal of [`when`](fn@super::when).
#[pin_project]
pub struct When<Fut: Future, R = StopReason> {
    #[pin]
    state: WhenState<Fut>,
    /// `None` once it has fired.
    reason: Option<R>,
    flag: StreamFlag,
    /// Sets the flag. The future is polled with it.
    waker: Waker,
    /// The length of the current run of ready items. Another signal of the same stream may shorten the intervals
    /// between checks, so a check alone does not mean that the adapter has yielded.
    run_length: u32,
}

#[pin_project(project = WhenProjection)]
enum WhenState<Fut: Future> {
    Waiting(#[pin] Fut),
    /// The output is dropped with the signal: after the source.
    Fired(StopReason, Fut::Output),
}

/// The wake flag of a stream. Dropping it drops the waker of the stream's task, so that a clone of the future's waker
/// does not keep that task alive.
struct StreamFlag(Arc<WakeFlag>);

impl Drop for StreamFlag {
    fn drop(&mut self) {
        self.0.forget_stream();
    }
}

impl<Fut: Future> When<Fut> {
    pub(super) fn new(future: Fut) -> Self {
        let flag = WakeFlag::new();
        Self {
            state: WhenState::Waiting(future),
            reason: Some(StopReason::Cancelled),
            waker: flag.waker(),
            flag: StreamFlag(flag),
            run_length: 0,
        }
    }

    /// Sets the reason with which the signal fires.
    ///
    /// # Examples
    ///
    /// A deadline with the timer of any runtime:
    ///
    /// ```
    /// use futures::{StreamExt, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, StopReason, signal};
    ///
    /// let timer = std::future::ready(());
    /// let over = signal::when(timer).with_reason(StopReason::DeadlineExceeded);
    /// let mut numbers = stream::iter(0..).with_cancellation(over);
    /// assert!(matches!(block_on(numbers.next()), Some(Err(StopReason::DeadlineExceeded))));
    /// ```
    pub fn with_reason(mut self, reason: impl Into<StopReason>) -> Self {
        self.reason = Some(reason.into());
        self
    }

    /// Makes the reason from the future's output, by calling `reason` when the future is ready.
    ///
    /// # Examples
    ///
    /// ```
    /// use futures::{StreamExt, channel::oneshot, executor::block_on, stream};
    /// use stopcock::{CancelStreamExt, signal};
    ///
    /// let (stop, stopped) = oneshot::channel::<String>();
    /// let stopped = signal::when(stopped).map_reason(|sent| match sent {
    ///     Ok(reason) => reason.clone(),
    ///     Err(oneshot::Canceled) => "the operator has left".to_owned(),
    /// });
    /// let mut numbers = stream::iter(0..).with_cancellation(stopped);
    ///
    /// stop.send("maintenance".to_owned()).unwrap();
    /// let error = block_on(numbers.next()).unwrap().unwrap_err();
    /// assert_eq!(error.to_string(), "maintenance");
    /// ```
    pub fn map_reason<F, R>(self, reason: F) -> When<Fut, MapReason<F>>
    where
        F: FnOnce(&Fut::Output) -> R,
        R: Into<StopReason>,
    {
        let Self {
            state,
            reason: _,
            flag,
            waker,
            run_length,
        } = self;
        When {
            state,
            reason: Some(MapReason(reason)),
            flag,
            waker,
            run_length,
        }
    }
}

/// Makes the reason of a [`When`] from its future's output.
trait Reason<T> {
    fn of(self, output: &T) -> StopReason;
}

impl<T> Reason<T> for StopReason {
    fn of(self, _: &T) -> StopReason {
        self
    }
}

/// The closure of [`When::map_reason`].
pub struct MapReason<F>(F);

impl<T, F, R> Reason<T> for MapReason<F>
where
    F: FnOnce(&T) -> R,
    R: Into<StopReason>,
{
    fn of(self, output: &T) -> StopReason {
        (self.0)(output).into()
    }
}

impl<F> Debug for MapReason<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapReason").finish_non_exhaustive()
    }
}

#[allow(
    private_bounds,
    reason = "a reason is a `StopReason`, or made by the closure of `map_reason`"
)]
impl<Fut: Future, R: Reason<Fut::Output>> When<Fut, R> {
    #[inline(never)]
    fn poll_future(self: Pin<&mut Self>) -> Poll<StopReason> {
        let mut this = self.project();
        let future = match this.state.as_mut().project() {
            WhenProjection::Waiting(future) => future,
            WhenProjection::Fired(reason, _) => return Poll::Ready(reason.clone()),
        };
        let flag = &this.flag.0;
        flag.clear();
        let output = ready!(future.poll(&mut Context::from_waker(this.waker)));
        // Never cleared again, so that an item has to check this flag only.
        flag.set();
        let Some(reason) = this.reason.take() else {
            unreachable!("a signal has a reason until it fires");
        };
        let reason = reason.of(&output);
        this.state.set(WhenState::Fired(reason.clone(), output));
        Poll::Ready(reason)
    }
}

impl<Fut: Future, R: Reason<Fut::Output>> Signal for When<Fut, R> {
    #[inline]
    fn is_fired(mut self: Pin<&mut Self>) -> bool {
        self.as_mut().project().flag.0.is_set() && self.poll_future().is_ready()
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<StopReason> {
        let flag = &self.as_mut().project().flag.0;
        flag.wake_when_set(cx);
        match flag.is_set() {
            true => self.poll_future(),
            false => Poll::Pending,
        }
    }

    /// Polls the future even if it has not called its waker: an event that makes many futures ready wakes their tasks
    /// one after the other, and may not have come to this one yet.
    fn poll_fired_at_end(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<StopReason> {
        self.poll_future()
    }

    fn check_every(self: Pin<&mut Self>, items: u32) -> u32 {
        let this = self.project();
        *this.run_length = match items {
            0 => 0,
            _ => this.run_length.saturating_add(items),
        };
        // The run is complete, so the adapter has yielded.
        if *this.run_length >= MAX_READY_RUN.into() {
            *this.run_length = 0;
            this.flag.0.set();
        }
        u32::MAX
    }
}

impl<Fut: Future, R> Debug for When<Fut, R> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("When")
            .field("has_fired", &matches!(self.state, WhenState::Fired(..)))
            .finish_non_exhaustive()
    }
}
