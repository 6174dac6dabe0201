use super::{BoxError, call::Call, propagate_body::PropagateTokenBody};
use crate::CancellationToken;
use http::Response;
use http_body::Body;
use pin_project::pin_project;
use std::{
    fmt::{self, Debug, Formatter},
    future::Future,
    panic::Location,
    pin::Pin,
    task::{Context, Poll, ready},
};

/// The future of [`PropagateToken`](super::PropagateToken).
#[pin_project]
#[must_use = "futures do nothing unless polled"]
pub struct PropagateTokenFuture<Fut> {
    #[pin]
    call: Call<Fut>,
    /// `None` if the request had no token.
    token: Option<CancellationToken>,
    made_at: &'static Location<'static>,
}

impl<Fut> PropagateTokenFuture<Fut> {
    pub(super) fn new(
        call: Call<Fut>,
        token: Option<CancellationToken>,
        made_at: &'static Location<'static>,
    ) -> Self {
        Self {
            call,
            token,
            made_at,
        }
    }
}

impl<Fut, B, E> Future for PropagateTokenFuture<Fut>
where
    Fut: Future<Output = Result<Response<B>, E>>,
    B: Body + Send + 'static,
    E: Into<BoxError>,
{
    type Output = Result<Response<PropagateTokenBody<B>>, BoxError>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let begin_body = |response: Response<B>| {
            response.map(|body| PropagateTokenBody::begin(body, this.token.as_ref(), this.made_at))
        };
        let polled = this.call.poll_then(cx, |output| output.map(begin_body));
        Poll::Ready(match ready!(polled) {
            Ok(output) => output.map_err(Into::into),
            Err(reason) => Err(reason.into()),
        })
    }
}

impl<Fut> Debug for PropagateTokenFuture<Fut> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("PropagateTokenFuture")
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}
