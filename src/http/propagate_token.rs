use super::{
    BoxError,
    call::Call,
    grpc_timeout,
    propagate_body::{PropagateTokenBody, WHAT},
    propagate_future::PropagateTokenFuture,
};
#[cfg(doc)]
use crate::StopReason;
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

/// Passes the token in a request's extensions on to the call.
///
/// It is for clients, such as tonic's channels, and hyper's and reqwest's clients as tower services. In Go this is
/// `http.NewRequestWithContext`; the deadline propagates as in gRPC for Go.
///
/// The token is a [`CancellationToken`], usually that of the incoming request for which the call is made, which
/// [`RequestTokenLayer`](super::RequestTokenLayer) has made. So a handler inserts its token into the extensions of each
/// request that it sends. A request without a token passes unchanged.
///
/// # Guarantees
///
/// - **Deadline.** If the token has a [`deadline`](CancellationToken::deadline), the `grpc-timeout` header is set to
///   the remaining time, rounded down. A shorter `grpc-timeout` of the request is kept.
/// - **Stopped.** When the token is cancelled, the call is dropped, which resets it, and the error is the
///   [`StopReason`]. If the token is already cancelled, the call is not made.
/// - **Ends with an error.** When the token is cancelled, the body of a response ends with an error, which is the
///   [`StopReason`]. The thread that cancels drops the body, even if nothing polls it.
/// - **Unchanged.** Length, trailers and `is_end_stream` of the body pass through. Neither the end of a call nor its
///   drop cancels the token.
/// - **Settled.** [`settled`](CancellationToken::settled) of the token waits until calls and bodies have been dropped.
///
/// # Errors
///
/// The client's errors, boxed, or a [`StopReason`]. [`StopReason::find_in`] distinguishes them, also in an error that
/// was made from a `StopReason`, such as a `tonic::Status`.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response};
/// use http_body_util::Full;
/// use std::{convert::Infallible, time::Duration};
/// use stopcock::{CancellationToken, StopReason, http::PropagateTokenLayer};
/// use tower::{Layer, ServiceExt, service_fn};
///
/// // In place of a client.
/// async fn send(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
///     assert_eq!(request.headers()["grpc-timeout"], "5000000u");
///     std::future::pending().await
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let client = PropagateTokenLayer::new().layer(service_fn(send));
///
/// let mut request = Request::new(());
/// request.extensions_mut().insert(CancellationToken::with_timeout(Duration::from_secs(5)));
/// let error = client.oneshot(request).await.unwrap_err();
/// assert!(matches!(StopReason::find_in(&*error), Some(StopReason::DeadlineExceeded)));
/// # }
/// ```
#[must_use = "a layer does nothing unless a service is put under it"]
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
