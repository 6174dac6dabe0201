//! Handlers, bodies, and probes for their ends.

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, Frame};
use http_body_util::{BodyExt, combinators::UnsyncBoxBody};
use std::{
    convert::Infallible,
    error::Error,
    fmt::{self, Display, Formatter},
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
};
use stopcock::{CancellationToken, StopReason};
use tower::{Service, service_fn};

pub(crate) type BoxError = Box<dyn Error + Send + Sync>;

/// The body of the services in these tests, before the layer.
pub(crate) type TestBody = UnsyncBoxBody<Bytes, TestError>;

/// An error with a source.
// Not a box: with a `dyn Error` in the type of a body, the compiler does not find a future to be `Send`.
#[derive(Debug)]
pub(crate) struct TestError(BoxError);

impl From<BoxError> for TestError {
    fn from(error: BoxError) -> Self {
        Self(error)
    }
}

impl Display for TestError {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        Display::fmt(&self.0, f)
    }
}

impl Error for TestError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(&*self.0)
    }
}

pub(crate) fn boxed<B>(body: B) -> TestBody
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<BoxError>,
{
    body.map_err(|error| TestError(error.into())).boxed_unsync()
}

pub(crate) fn empty() -> TestBody {
    TestBody::default()
}

pub(crate) fn full(text: &'static str) -> TestBody {
    boxed(http_body_util::Full::new(Bytes::from_static(
        text.as_bytes(),
    )))
}

/// A service with a handler that gets the request's token.
pub(crate) fn handler<F, Fut, B>(
    handle: F,
) -> impl Service<
    Request<B>,
    Response = Response<TestBody>,
    Error = Infallible,
    Future: Future<Output = Result<Response<TestBody>, Infallible>> + Send,
> + Clone
+ Send
+ Sync
+ 'static
where
    F: Fn(CancellationToken) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<TestBody>> + Send + 'static,
    B: Send + 'static,
{
    service_fn(move |request: Request<B>| {
        let token = token_of(&request);
        let response = handle(token);
        async move { Ok(response.await) }
    })
}

pub(crate) fn token_of<B>(request: &Request<B>) -> CancellationToken {
    let token = request.extensions().get();
    CancellationToken::clone(token.expect("a request without a token"))
}

/// Counts the values that are alive.
#[derive(Clone, Default)]
pub(crate) struct Alive(Arc<AtomicUsize>);

impl Alive {
    pub(crate) fn one(&self) -> One {
        self.0.fetch_add(1, Ordering::SeqCst);
        One(self.clone())
    }

    pub(crate) fn count(&self) -> usize {
        self.0.load(Ordering::SeqCst)
    }
}

pub(crate) struct One(Alive);

impl Drop for One {
    fn drop(&mut self) {
        self.0.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// The reason in an error, displayed.
pub(crate) fn reason_in(error: &(dyn Error + 'static)) -> StopReason {
    StopReason::find_in(error)
        .unwrap_or_else(|| panic!("no reason in {error:?}"))
        .clone()
}

/// A body of scripted frames, with or without a known length and end; then pending, or the end.
pub(crate) struct Script {
    pub(crate) frames: std::collections::VecDeque<Frame<Bytes>>,
    pub(crate) then: Then,
    pub(crate) size: http_body::SizeHint,
    pub(crate) knows_its_end: bool,
    pub(crate) alive: Option<One>,
}

#[derive(Clone, Copy, PartialEq)]
pub(crate) enum Then {
    Ends,
    Waits,
    Fails,
}

impl Script {
    pub(crate) fn new<const N: usize>(data: [&'static str; N], then: Then) -> Self {
        let frame = |data: &'static str| Frame::data(Bytes::from_static(data.as_bytes()));
        Self {
            frames: data.into_iter().map(frame).collect(),
            then,
            size: http_body::SizeHint::default(),
            knows_its_end: false,
            alive: None,
        }
    }

    pub(crate) fn with_trailer(mut self, name: &'static str, value: &'static str) -> Self {
        let mut trailers = http::HeaderMap::new();
        trailers.insert(name, http::HeaderValue::from_static(value));
        self.frames.push_back(Frame::trailers(trailers));
        self
    }

    pub(crate) fn counted(mut self, alive: &Alive) -> Self {
        self.alive = Some(alive.one());
        self
    }
}

impl Body for Script {
    type Data = Bytes;
    type Error = TestError;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, TestError>>> {
        match (self.frames.pop_front(), self.then) {
            (Some(frame), _) => Poll::Ready(Some(Ok(frame))),
            (None, Then::Ends) => Poll::Ready(None),
            (None, Then::Fails) => Poll::Ready(Some(Err(TestError("the body fails".into())))),
            (None, Then::Waits) => Poll::Pending,
        }
    }

    fn is_end_stream(&self) -> bool {
        self.knows_its_end && self.frames.is_empty()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.size
    }
}
