use http_body::{Body, Frame, SizeHint};
use pin_project::pin_project;
use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

/// A body as a stream of its frames.
#[pin_project]
pub(super) struct BodyStream<B>(#[pin] pub(super) B);

/// A frame, and what the body reports about its remaining frames.
pub(super) struct BodyFrame<D, E> {
    pub(super) frame: Result<Frame<D>, E>,
    pub(super) remaining: Remaining,
}

/// What a body reports about its remaining frames. It stays true until the next frame.
pub(super) struct Remaining {
    pub(super) size: SizeHint,
    pub(super) is_end: bool,
}

impl Remaining {
    pub(super) fn of<B: Body>(body: &B) -> Self {
        Self {
            size: body.size_hint(),
            is_end: body.is_end_stream(),
        }
    }

    pub(super) fn none() -> Self {
        Self {
            size: SizeHint::with_exact(0),
            is_end: true,
        }
    }
}

impl<B: Body> futures_core::Stream for BodyStream<B> {
    type Item = BodyFrame<B::Data, B::Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let mut body = self.project().0;
        let Some(frame) = ready!(body.as_mut().poll_frame(cx)) else {
            return Poll::Ready(None);
        };
        let remaining = Remaining::of(&*body);
        Poll::Ready(Some(BodyFrame { frame, remaining }))
    }
}
