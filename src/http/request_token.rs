use super::{
    call::Call,
    grpc_timeout,
    in_flight::InFlight,
    on_stop::{DefaultOnStop, OnStop},
    request_body::{RequestTokenBody, WHAT},
    request_future::RequestTokenFuture,
    request_info::RequestInfo,
};
use crate::{CancellationToken, StopReason, signal::TokenSignal};
use http::{Request, Response};
use http_body::Body;
use std::{
    fmt::{self, Debug, Formatter},
    panic::Location,
    task::{Context, Poll},
    time::Duration,
};
use tower_layer::Layer;
use tower_service::Service;

/// Gives every request of a server a [`CancellationToken`], for as long as the request is in flight.
///
/// The token is Go's `r.Context()`. It is in the request's extensions: `Extension<CancellationToken>` in axum,
/// `request.extensions()` in tonic. It is a child of the server's token, and is cancelled
///
/// | when | reason |
/// |---|---|
/// | the client disconnects: the server drops the response's future or its body | [`ConsumerDropped`](StopReason::ConsumerDropped) |
/// | the [`timeout`](Self::timeout), or that of [`grpc_timeout`](Self::grpc_timeout), has passed | [`DeadlineExceeded`](StopReason::DeadlineExceeded) |
/// | the server's token is cancelled | its reason |
/// | the response is complete, or the service or the body has failed | [`Cancelled`](StopReason::Cancelled) |
///
/// A handler that cancels the token stops its own request, with its own reason.
///
/// # Guarantees
///
/// - **Stopped.** If the token is cancelled before the handler has responded, the handler's future is dropped, and the
///   client gets the response of [`on_stop`](Self::on_stop). If it is cancelled before the service is called, the
///   request does not reach the handler.
/// - **Ends with an error.** If the token is cancelled after that, the body ends with an error, which is the
///   [`StopReason`]. The client sees that the response is not complete: HTTP/1 closes the connection, HTTP/2 resets the
///   stream.
/// - **Dropped without a poll.** The thread that cancels drops the body, even if the client does not read and the
///   server does not poll. Where it is dropped at a deadline is documented at
///   [`drop_on_cancel`](crate::TryWithCancellation::drop_on_cancel).
/// - **Dropped first.** The handler's future is dropped before its response is passed on, and, if the client
///   disconnects, before the token is cancelled. So is the body, unless it is complete by its length: then nothing
///   stops it any more.
/// - **Unchanged.** The length, the trailers and `is_end_stream` of the body pass through. A complete response is never
///   truncated.
/// - **Complete.** A response is complete when its body has returned its end, or `is_end_stream` returns `true`, or the
///   body has yielded as many bytes as its `content-length` or its exact length: then a server need not poll it again.
///   A response without a body is complete with its head: `HEAD`, 1xx, 204, 304.
/// - **Other protocols.** After a 101, or a 2xx to a `CONNECT`, only the server's token cancels the request's. The
///   timeout no longer applies.
/// - **Settled.** [`settled`](CancellationToken::settled) of the server's token waits until the handlers and bodies of
///   all requests have been dropped. [`holders`](CancellationToken::holders) lists them, with the line that made the
///   layer.
/// - **Nested.** If the request already has a token, from an outer layer or from its connection, that one stops it as
///   well. So a route may have a layer with a shorter timeout.
///
/// # When a server sees a disconnect
///
/// On HTTP/2, always: as a reset or the end of the connection. On HTTP/1, hyper sees it only while it reads: not before
/// the handler has read the whole body of the request, and not while another request waits in the connection
/// (pipelining). A client that closes only its sending half counts as disconnected, unless the server is built with
/// `half_close(true)`: then a disconnect shows only when a write fails. A client that stays connected but does not read
/// has not disconnected. So set a [`timeout`](Self::timeout).
///
/// # Costs
///
/// Each request costs a child token. A body that is not complete with its head costs what `drop_on_cancel` costs. A
/// timeout adds the cost of [`child_with_timeout`](CancellationToken::child_with_timeout).
///
/// # Panics
///
/// With a timeout, a request panics outside of a tokio runtime.
///
/// # Examples
///
/// ```
/// use bytes::Bytes;
/// use http::{Request, Response, StatusCode};
/// use http_body_util::Full;
/// use std::{convert::Infallible, time::Duration};
/// use stopcock::{CancellationToken, http::RequestTokenLayer};
/// use tokio::time::sleep;
/// use tower::{Layer, ServiceExt, service_fn};
///
/// async fn handle(request: Request<()>) -> Result<Response<Full<Bytes>>, Infallible> {
///     let token = request.extensions().get::<CancellationToken>();
///     println!("{:?} to go", token.unwrap().remaining());
///     sleep(Duration::from_secs(3600)).await;
///     Ok(Response::new(Full::from("done")))
/// }
///
/// # #[tokio::main(flavor = "current_thread", start_paused = true)]
/// # async fn main() {
/// let server = CancellationToken::new();
/// let layer = RequestTokenLayer::new(&server).timeout(Duration::from_secs(30));
/// let service = layer.layer(service_fn(handle));
///
/// let response = service.oneshot(Request::new(())).await.unwrap();
/// assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
/// # }
/// ```
#[must_use = "a layer does nothing unless a service is put under it"]
#[derive(Clone)]
pub struct RequestTokenLayer<F = DefaultOnStop> {
    settings: Settings,
    on_stop: F,
}

/// The settings that all requests share.
#[derive(Clone, Debug)]
struct Settings {
    server: CancellationToken,
    timeout: Option<Duration>,
    has_grpc_timeout: bool,
    /// The line that made the layer.
    made_at: &'static Location<'static>,
}

impl RequestTokenLayer {
    /// Makes a layer whose requests have children of `server` as their tokens.
    ///
    /// Go's counterpart is `BaseContext` of `http.Server`.
    #[track_caller]
    pub fn new(server: &CancellationToken) -> Self {
        let settings = Settings {
            server: server.clone(),
            timeout: None,
            has_grpc_timeout: false,
            made_at: Location::caller(),
        };
        Self {
            settings,
            on_stop: DefaultOnStop,
        }
    }
}

impl<F> RequestTokenLayer<F> {
    /// Stops a request whose response is not complete after `timeout`, counted from when the layer receives the
    /// request.
    ///
    /// Unlike tower-http's `TimeoutLayer` it covers the body as well. It is the
    /// [`deadline`](CancellationToken::deadline) of the request's token, except for a request that may switch to
    /// another protocol, by `upgrade` or `CONNECT`. It stops endless responses too, such as server-sent events: give
    /// their routes a layer of their own, without a timeout.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Also stops a request after the timeout in its `grpc-timeout` header. The shorter one of this and
    /// [`timeout`](Self::timeout) applies.
    ///
    /// A malformed header is ignored. In Go, gRPC servers do this by default.
    pub fn grpc_timeout(mut self) -> Self {
        self.settings.has_grpc_timeout = true;
        self
    }

    /// Sets the function that makes the response to a request which was stopped before its handler responded.
    ///
    /// It replaces [`DefaultOnStop`], for gRPC requests as well.
    ///
    /// # Examples
    ///
    /// ```
    /// use http::{Response, StatusCode, header::RETRY_AFTER};
    /// use stopcock::{CancellationToken, http::RequestTokenLayer};
    ///
    /// let server = CancellationToken::new();
    /// let layer = RequestTokenLayer::new(&server).on_stop(|reason| {
    ///     let response = Response::builder().status(StatusCode::SERVICE_UNAVAILABLE);
    ///     response.header(RETRY_AFTER, "10").body(format!("Come back later: {reason}")).unwrap()
    /// });
    /// # let service = tower::service_fn(async |_: http::Request<()>| Ok::<_, std::convert::Infallible>(Response::new(String::new())));
    /// # server.cancel_with("shutting down");
    /// # let service = tower::Layer::layer(&layer, service);
    /// # let response = tower::ServiceExt::oneshot(service, http::Request::new(()));
    /// # assert_eq!(futures::executor::block_on(response).unwrap().headers()[RETRY_AFTER], "10");
    /// ```
    pub fn on_stop<G, B>(self, on_stop: G) -> RequestTokenLayer<G>
    where
        G: Fn(&StopReason) -> Response<B>,
    {
        RequestTokenLayer {
            settings: self.settings,
            on_stop,
        }
    }
}

impl<S, F: Clone> Layer<S> for RequestTokenLayer<F> {
    type Service = RequestToken<S, F>;

    fn layer(&self, inner: S) -> Self::Service {
        RequestToken {
            inner,
            layer: self.clone(),
        }
    }
}

impl<F> Debug for RequestTokenLayer<F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestTokenLayer")
            .field("server", &self.settings.server)
            .field("timeout", &self.settings.timeout)
            .field("grpc_timeout", &self.settings.has_grpc_timeout)
            .finish_non_exhaustive()
    }
}

/// The service of [`RequestTokenLayer`].
#[derive(Clone)]
pub struct RequestToken<S, F = DefaultOnStop> {
    inner: S,
    layer: RequestTokenLayer<F>,
}

impl<S, F, B, C> Service<Request<B>> for RequestToken<S, F>
where
    S: Service<Request<B>, Response = Response<C>>,
    C: Body + Send + 'static,
    F: OnStop<C> + Clone,
{
    type Response = Response<RequestTokenBody<C>>;
    type Error = S::Error;
    type Future = RequestTokenFuture<S::Future, F>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let RequestTokenLayer { settings, on_stop } = &self.layer;
        let request_info = RequestInfo::of(&request);
        let in_flight = settings.begin(&request, request_info);
        let token = in_flight.token();
        let signal = TokenSignal::made_at(token.clone(), WHAT, settings.made_at);
        request.extensions_mut().insert(token.clone());
        let call = Call::guarded(signal, || self.inner.call(request));
        RequestTokenFuture::new(
            call,
            in_flight,
            request_info,
            on_stop.clone(),
            settings.made_at,
        )
    }
}

impl Settings {
    fn begin<B>(&self, request: &Request<B>, request_info: RequestInfo) -> InFlight {
        let parent = match request.extensions().get() {
            // The token of an outer layer, or of the connection.
            Some(outer) => &CancellationToken::linked([outer, &self.server]),
            None => &self.server,
        };
        match self.timeout_of(request) {
            None => InFlight::new(parent.child_token()),
            Some(timeout) if request_info.may_upgrade() => {
                InFlight::with_timeout(parent.child_token(), timeout)
            }
            Some(timeout) => InFlight::new(parent.child_with_timeout(timeout)),
        }
    }

    /// The shorter one of the layer's timeout and the request's own.
    fn timeout_of<B>(&self, request: &Request<B>) -> Option<Duration> {
        let own = match self.has_grpc_timeout {
            true => grpc_timeout::find(request.headers()),
            false => None,
        };
        own.into_iter().chain(self.timeout).min()
    }
}

impl<S, F> Debug for RequestToken<S, F> {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestToken")
            .field("layer", &self.layer)
            .finish_non_exhaustive()
    }
}
