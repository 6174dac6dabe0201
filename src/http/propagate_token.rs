use super::{
    BoxError, call::Call, grpc_timeout, propagate_body::PropagateTokenBody,
    propagate_future::PropagateTokenFuture,
};
use crate::{CancellationToken, signal::TokenSignal};
use http::{Request, Response};
use http_body::Body;
use std::{
    fmt::{self, Debug, Formatter},
    panic::Location,
    task::{Context, Poll},
};
use tower_layer::Layer;
use tower_service::Service;

/// How a call shows among the [`holders`](CancellationToken::holders) of its token.
pub(super) const WHAT: &str = "PropagateTokenLayer";

/// Stops the calls of a client with the token of the request that they are made for.
#[derive(Clone, Debug)]
pub struct PropagateTokenLayer {
    made_at: &'static Location<'static>,
}

impl PropagateTokenLayer {
    /// Makes a layer.
    #[track_caller]
    pub fn new() -> Self {
        Self {
            made_at: Location::caller(),
        }
    }
}

impl Default for PropagateTokenLayer {
    #[track_caller]
    fn default() -> Self {
        Self::new()
    }
}

impl<S> Layer<S> for PropagateTokenLayer {
    type Service = PropagateToken<S>;

    fn layer(&self, inner: S) -> Self::Service {
        PropagateToken {
            inner,
            made_at: self.made_at,
        }
    }
}

/// The service of [`PropagateTokenLayer`].
#[derive(Clone)]
pub struct PropagateToken<S> {
    inner: S,
    made_at: &'static Location<'static>,
}

impl<S, B, C> Service<Request<B>> for PropagateToken<S>
where
    S: Service<Request<B>, Response = Response<C>>,
    S::Error: Into<BoxError>,
    C: Body + Send + 'static,
{
    type Response = Response<PropagateTokenBody<C>>;
    type Error = BoxError;
    type Future = PropagateTokenFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(cx).map_err(Into::into)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let token = request.extensions().get::<CancellationToken>().cloned();
        let call = match &token {
            Some(token) => {
                if let Some(remaining) = token.remaining() {
                    grpc_timeout::shorten(request.headers_mut(), remaining);
                }
                let signal = TokenSignal::made_at(token.clone(), WHAT, self.made_at);
                Call::guarded(signal, || self.inner.call(request))
            }
            None => Call::Unguarded(self.inner.call(request)),
        };
        PropagateTokenFuture::new(call, token, self.made_at)
    }
}

impl<S> Debug for PropagateToken<S> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("PropagateToken").finish_non_exhaustive()
    }
}
