use super::{
    asked::Asked,
    call::Call,
    grpc_timeout,
    on_stop::{DefaultOnStop, OnStop},
    request_body::RequestTokenBody,
    request_future::RequestTokenFuture,
    under_way::UnderWay,
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

/// Gives every request of a server a [`CancellationToken`].
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
    /// Makes a layer whose requests are stopped with `server`.
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
    /// Stops a request whose response is not complete after this time.
    pub fn timeout(mut self, timeout: Duration) -> Self {
        self.settings.timeout = Some(timeout);
        self
    }

    /// Stops a request after the time in its header `grpc-timeout` as well, if that is earlier.
    pub fn grpc_timeout(mut self) -> Self {
        self.settings.has_grpc_timeout = true;
        self
    }

    /// Makes the response to a request that was stopped before its handler had responded.
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
        let asked = Asked::by(&request);
        let under_way = settings.begin(&request, asked);
        let token = under_way.token();
        let signal = TokenSignal::made_at(token.clone(), WHAT, settings.made_at);
        request.extensions_mut().insert(token.clone());
        let call = Call::guarded(signal, || self.inner.call(request));
        RequestTokenFuture::new(call, under_way, asked, on_stop.clone(), settings.made_at)
    }
}

impl Settings {
    fn begin<B>(&self, request: &Request<B>, asked: Asked) -> UnderWay {
        let parent = match request.extensions().get() {
            // That of a layer further out, or of the connection.
            Some(outer) => &CancellationToken::linked([outer, &self.server]),
            None => &self.server,
        };
        match self.timeout_of(request) {
            None => UnderWay::new(parent.child_token()),
            Some(timeout) if asked.may_upgrade() => {
                UnderWay::with_timeout(parent.child_token(), timeout)
            }
            Some(timeout) => UnderWay::new(parent.child_with_timeout(timeout)),
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
