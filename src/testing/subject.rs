//! What the laws and the harness need of a stream under test.

#[cfg(feature = "tokio")]
use crate::SpawnedGenerator;
use crate::{
    BlockingGenerator, DropOnCancel, Generator, GeneratorBody, Signal, StopError, StopOutput,
    StopReason, TakeUntilCancelled, TryGenerator, TryWithCancellation, WithCancellation,
};
use futures_core::{FusedStream, Stream};
use pin_project::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll},
};

/// An item of a stream under test, as the letter that it has in the script.
///
/// A [`Source`](super::Source) yields `char`s, and most wrappers yield these or `Result`s of them. Otherwise, `map` the
/// items back to `char`s.
#[diagnostic::on_unimplemented(
    message = "the items of `{Self}` are not letters of a script",
    note = "`map` the items back to the `char`s of the source, or drive the stream with `Harness::new`"
)]
pub trait Letter {
    /// The letter, or `None` for the `Err` with which a stream reports its stop.
    fn letter(&self) -> Option<char>;
}

impl Letter for char {
    fn letter(&self) -> Option<char> {
        Some(*self)
    }
}

impl<T: Letter, E> Letter for Result<T, E> {
    fn letter(&self) -> Option<char> {
        self.as_ref().ok().and_then(T::letter)
    }
}

/// A stream that reports why it was stopped.
///
/// # Examples
///
/// An adapter that reports its stop:
///
/// ```
/// use futures::stream::{FusedStream, Stream};
/// use stopcock::{StopReason, testing::Stoppable};
/// # use std::{pin::Pin, task::{Context, Poll}};
///
/// struct Mine { reason: Option<StopReason> }
/// # impl Stream for Mine {
/// #     type Item = char;
/// #     fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<char>> { Poll::Ready(None) }
/// # }
/// # impl FusedStream for Mine {
/// #     fn is_terminated(&self) -> bool { true }
/// # }
///
/// impl Stoppable for Mine {
///     fn stop_reason(&self) -> Option<&StopReason> {
///         self.reason.as_ref()
///     }
/// }
/// # assert!(Mine { reason: None }.stop_reason().is_none());
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` does not report why it was stopped",
    note = "use `laws::check_stop`, which needs no reason, or implement `Stoppable`"
)]
pub trait Stoppable: FusedStream {
    /// Why the stream was stopped: `Some` from the poll in which it stopped, `None` while it runs and after a natural end.
    fn stop_reason(&self) -> Option<&StopReason>;
}

impl<S: Stoppable + ?Sized> Stoppable for Pin<Box<S>> {
    fn stop_reason(&self) -> Option<&StopReason> {
        S::stop_reason(self)
    }
}

impl<S: Stream, G: Signal> Stoppable for TakeUntilCancelled<S, G> {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<S: Stream, G: Signal, M: StopOutput> Stoppable for WithCancellation<S, G, M> {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<A> Stoppable for DropOnCancel<A>
where
    Self: FusedStream,
{
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<S, G, M, T, E> Stoppable for TryWithCancellation<S, G, M>
where
    S: Stream<Item = Result<T, E>>,
    G: Signal,
    M: StopError<E>,
{
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<T, B, G> Stoppable for Generator<T, B, G>
where
    B: for<'a> GeneratorBody<'a, T>,
    G: Signal,
{
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

#[cfg(feature = "tokio")]
impl<T, F: FnOnce(Result<(), &StopReason>)> Stoppable for SpawnedGenerator<T, F> {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<T, F: FnOnce(Result<(), &StopReason>)> Stoppable for BlockingGenerator<T, F> {
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

impl<T, E, B, G, M> Stoppable for TryGenerator<T, E, B, G, M>
where
    B: for<'a> GeneratorBody<'a, T, Result<(), E>>,
    M: StopError<E>,
    G: Signal,
{
    fn stop_reason(&self) -> Option<&StopReason> {
        self.stop_reason()
    }
}

/// Whether a stream is terminated, and why it was stopped, if it is `Stoppable`.
pub(super) type Outcome = Option<(bool, Option<StopReason>)>;

/// The outcome of a `Stoppable` stream.
pub(super) fn outcome_of<S: Stoppable>(stream: &S) -> Outcome {
    Some((stream.is_terminated(), stream.stop_reason().cloned()))
}

/// A stream under test of any type, with its items as letters.
pub(super) trait Subject: Stream<Item = Option<char>> {
    fn outcome(&self) -> Outcome;
}

/// A stream, with its items as letters.
#[pin_project]
pub(super) struct Lettered<S> {
    #[pin]
    stream: S,
    outcome: fn(&S) -> Outcome,
}

impl<S: Stream> Lettered<S> {
    pub(super) fn new(stream: S) -> Self {
        Self {
            stream,
            outcome: |_| None,
        }
    }

    pub(super) fn stoppable(stream: S) -> Self
    where
        S: Stoppable,
    {
        Self {
            stream,
            outcome: outcome_of,
        }
    }
}

impl<S> Stream for Lettered<S>
where
    S: Stream,
    S::Item: Letter,
{
    type Item = Option<char>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Option<char>>> {
        let polled = self.project().stream.poll_next(cx);
        polled.map(|item| item.map(|item| item.letter()))
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        self.stream.size_hint()
    }
}

impl<S> Subject for Lettered<S>
where
    S: Stream,
    S::Item: Letter,
{
    fn outcome(&self) -> Outcome {
        (self.outcome)(&self.stream)
    }
}

/// Stands for a stream whose construction panicked.
pub(super) struct Unmade;

impl Stream for Unmade {
    type Item = Option<char>;

    fn poll_next(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Option<char>>> {
        Poll::Pending
    }
}

impl Subject for Unmade {
    fn outcome(&self) -> Outcome {
        None
    }
}
