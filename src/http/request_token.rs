use super::{
    call::Call,
    grpc_timeout,
    in_flight::InFlight,
    on_stop::{DefaultOnStop, OnStop},
    request_body::RequestTokenBody,
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

/// How a request shows among the [`holders`](CancellationToken::holders) of the server's token.
pub(super) const WHAT: &str = "RequestTokenLayer";

/// Gives every request of a server a [`CancellationToken`], for as long as the request is under way.
///
/// The token is in the request's extensions: `Extension<CancellationToken>` in axum, `request.extensions()` in tonic. It is
/// a child of the server's token, and is cancelled
///
/// | when | reason |
/// |---|---|
/// | the client hangs up: the server drops the response's future or its body | [`ConsumerDropped`](StopReason::ConsumerDropped) |
/// | the [`timeout`](Self::timeout) has passed, or that of [`grpc_timeout`](Self::grpc_timeout) | [`DeadlineExceeded`](StopReason::DeadlineExceeded) |
/// | the server's token is cancelled | its reason |
/// | the response is complete, or there is none as the service or the body has failed | [`Cancelled`](StopReason::Cancelled) |
///
/// A handler that cancels the token stops its own request, with its own reason.
///
/// # Guarantees
///
/// - **Stopped.** If the token is cancelled before the handler has responded, the handler's future is dropped, and the
///   client gets the response of [`on_stop`](Self::on_stop). A request that is stopped beforehand does not reach the handler.
/// - **Cut as an error.** If it is cancelled after that, the body ends with an error, which is the [`StopReason`]. The
///   client sees that the response is not complete: HTTP/1 closes the connection, HTTP/2 resets the stream.
/// - **Dropped unpolled.** The body is dropped by the thread that cancels, even if the client does not read and the server
///   does not poll. [`drop_on_cancel`](crate::TryWithCancellation::drop_on_cancel) has where it is dropped at a deadline.
/// - **Dropped first.** The handler's future is dropped before its response is handed on, and before the token is cancelled
///   if the client hangs up. So is the body, unless it is complete by its length: then nothing stops it any more.
/// - **Left as it is.** The length, the trailers and `is_end_stream` of the body pass through. A complete response is never
///   cut.
/// - **Complete** is a response whose body has returned its end, or says so by `is_end_stream`, or has given as many bytes
///   as its `content-length` or its exact length: a server need not poll it again then. One without a body is complete
///   with its head: `HEAD`, 1xx, 204, 304.
/// - **Other protocols.** After a 101, or a 2xx to a `CONNECT`, only the server's token cancels the request's. The timeout
///   does not count any more.
/// - **Settled.** [`settled`](CancellationToken::settled) of the server's token waits until the handlers and bodies of all
///   requests have been dropped, and [`holders`](CancellationToken::holders) lists them, with the line that made the layer.
/// - **Nested.** If the request has a token already, of a layer further out or of its connection, that one stops it as well.
///   So a route may have a layer with a shorter timeout.
///
/// # When a server sees a hang-up
///
/// On HTTP/2, always: as a reset or the end of the connection. On HTTP/1, hyper sees it only where it reads: not while the
/// handler has not read the whole body of the request, nor while a further request waits in the connection (pipelining). A
/// client that closes its sending half alone has hung up as well, unless the server is built with `half_close(true)`: then
/// a hang-up shows only when a write fails. And a client that is there but does not read has not hung up. So set a
/// [`timeout`](Self::timeout).
///
/// # Costs
///
/// A child token for each request, and for its body, if it is not complete with its head, what `drop_on_cancel` costs. A
/// timeout adds that of [`child_with_timeout`](CancellationToken::child_with_timeout).
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

/// What its requests have in common.
#[derive(Clone, Debug)]
struct Settings {
    server: CancellationToken,
    timeout: Option<Duration>,
    has_grpc_timeout: bool,
    /// Where the layer was made.
    made_at: &'static Location<'static>,
}

impl RequestTokenLayer {
    /// Makes a layer whose requests have children of `server` for tokens.
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
    /// Stops a request whose response is not complete after this time, counted from when the layer gets the request.
    ///
    /// It is the [`deadline`](CancellationToken::deadline) of the request's token, except for a request that may become
    /// another protocol, by `upgrade` or `CONNECT`. Endless responses, such as server-sent events, are stopped by it as well:
    /// give their routes a layer of their own without.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Stops a request after the time in its header `grpc-timeout` as well. The earlier one of this and
    /// [`timeout`](Self::timeout) counts.
    ///
    /// A header that is malformed counts as none.
    pub fn grpc_timeout(mut self) -> Self {
        self.settings.has_grpc_timeout = true;
        self
    }

    /// Makes the response to a request that was stopped before its handler had responded, in place of
    /// [`DefaultOnStop`]'s.
    ///
    /// It replaces the one for gRPC as well.
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
            // That of a layer further out, or of the connection.
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

    /// The earlier one of the layer's timeout and the request's own.
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
