use super::{
    BoxError,
    body_signal::BodySignal,
    body_stream::{BodyFrame, BodyStream, Remaining},
};
use crate::{DropOnCancel, StopReason, WithCancellation, signal::TokenSignal, stream::HasValve};
use futures_core::Stream;
use http_body::{Body, Frame, SizeHint};
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The mechanism behind both bodies: passes frames on until the end or until a stop, which it reports as an error.
//
// `remaining` is read from the body once per frame and stored here. So it is available while a cancelling thread has
// the body, and a body that such a thread has dropped does not look complete before the error is reported.
pub(super) struct StoppableBody<B> {
    source: Source<B>,
    remaining: Remaining,
}

enum Source<B> {
    /// Dropped when the token is cancelled.
    Guarded(DropOnCancel<WithCancellation<BodyStream<B>, BodySignal>>),
    Unguarded(Pin<Box<BodyStream<B>>>),
    Over,
}

impl<B: Body> StoppableBody<B> {
    /// A body that `signal` stops.
    pub(super) fn guarded(body: B, signal: impl FnOnce() -> TokenSignal) -> Self
    where
        B: Send + 'static,
    {
        Self::new(body, |body_stream| {
            let signal = BodySignal::Armed(signal());
            Source::Guarded(WithCancellation::new(body_stream, signal).drop_on_cancel())
        })
    }

    /// A body that nothing stops.
    pub(super) fn unguarded(body: B) -> Self {
        Self::new(body, |body_stream| Source::Unguarded(Box::pin(body_stream)))
    }

    /// Drops a body that is not to be sent. Its length is kept: a `HEAD` request asks for it.
    pub(super) fn dropped(body: B) -> Self {
        Self::new(body, |_| Source::Over)
    }

    fn new(body: B, source: impl FnOnce(BodyStream<B>) -> Source<B>) -> Self {
        let remaining = Remaining::of(&body);
        let source = match remaining.is_end {
            true => Source::Over,
            false => source(BodyStream(body)),
        };
        Self { source, remaining }
    }

    /// From now on nothing stops it.
    pub(super) fn release(&mut self) {
        if let Source::Guarded(stream) = &mut self.source {
            stream.release(|adapter| {
                let signal = adapter.valve_mut().signal_pin_mut();
                signal
                    .into_iter()
                    .for_each(|signal| signal.get_mut().release());
            });
        }
    }

    pub(super) fn poll_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>>
    where
        B::Error: Into<BoxError>,
    {
        let Some(body_frame) = ready!(self.source.poll_body_frame(cx)) else {
            self.end();
            return Poll::Ready(None);
        };
        let frame = match body_frame {
            Ok(BodyFrame {
                frame: Ok(frame),
                remaining,
            }) => {
                self.remaining = remaining;
                if self.remaining.is_end {
                    self.end();
                }
                return Poll::Ready(Some(Ok(frame)));
            }
            Ok(BodyFrame {
                frame: Err(error), ..
            }) => error.into(),
            Err(reason) => reason.into(),
        };
        // An error is the last frame.
        self.end();
        Poll::Ready(Some(Err(frame)))
    }

    fn end(&mut self) {
        self.source = Source::Over;
        self.remaining = Remaining::none();
    }
}

impl<B> StoppableBody<B> {
    /// Whether the source has been dropped, and all its frames have been passed on.
    pub(super) fn is_over(&self) -> bool {
        matches!(self.source, Source::Over)
    }

    pub(super) fn is_end_stream(&self) -> bool {
        self.remaining.is_end
    }

    #[allow(clippy::clone_on_copy, reason = "older versions are not `Copy`")]
    pub(super) fn size_hint(&self) -> SizeHint {
        self.remaining.size.clone()
    }
}

impl<B: Body> Source<B> {
    #[expect(
        clippy::type_complexity,
        reason = "what a poll of a stream of results is"
    )]
    fn poll_body_frame(
        &mut self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<BodyFrame<B::Data, B::Error>, StopReason>>> {
        match self {
            Self::Guarded(stream) => Pin::new(stream).poll_next(cx),
            Self::Unguarded(body_stream) => body_stream
                .as_mut()
                .poll_next(cx)
                .map(|body_frame| body_frame.map(Ok)),
            Self::Over => Poll::Ready(None),
        }
    }
}
