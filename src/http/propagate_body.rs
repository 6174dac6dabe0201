use super::{BoxError, stoppable_body::StoppableBody};
use crate::{CancellationToken, signal::TokenSignal};
use http_body::{Body, Frame, SizeHint};
use std::{
    fmt::{self, Debug, Formatter},
    panic::Location,
    pin::Pin,
    task::{Context, Poll},
};

/// The name of a call in the [`holders`](CancellationToken::holders) of its token.
pub(super) const WHAT: &str = "PropagateTokenLayer";

/// The body of a response under [`PropagateTokenLayer`](super::PropagateTokenLayer).
pub struct PropagateTokenBody<B>(StoppableBody<B>);

impl<B: Body> PropagateTokenBody<B> {
    pub(super) fn begin(
        body: B,
        token: Option<&CancellationToken>,
        made_at: &'static Location<'static>,
    ) -> Self
    where
        B: Send + 'static,
    {
        Self(match token {
            Some(token) => {
                StoppableBody::guarded(body, || TokenSignal::made_at(token.clone(), WHAT, made_at))
            }
            None => StoppableBody::unguarded(body),
        })
    }
}

impl<B> Body for PropagateTokenBody<B>
where
    B: Body,
    B::Error: Into<BoxError>,
{
    type Data = B::Data;
    type Error = BoxError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, BoxError>>> {
        self.0.poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.0.size_hint()
    }
}

/// The default body, which nothing stops: for an outer layer that makes responses of its own.
impl<B: Body + Default> Default for PropagateTokenBody<B> {
    fn default() -> Self {
        Self(StoppableBody::unguarded(B::default()))
    }
}

impl<B> Debug for PropagateTokenBody<B> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("PropagateTokenBody")
            .field("is_over", &self.0.is_over())
            .finish_non_exhaustive()
    }
}
