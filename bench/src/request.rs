//! Requests through the layers for HTTP, without a network.

use crate::{
    case::{Case, Row},
    polling::runtime,
};
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body::Body;
use http_body_util::Full;
use std::{
    convert::Infallible,
    future::{Future, poll_fn},
    hint::black_box,
    pin::pin,
    task::{Context, Poll, Waker},
    time::Duration,
};
use stopcock::{
    CancellationToken,
    http::{PropagateTokenLayer, RequestTokenLayer},
};
use tower::{Layer, Service, layer::util::Identity, service_fn};
use tower_http::timeout::{ResponseBodyDeadlineLayer, TimeoutLayer};

const FAR: Duration = Duration::from_secs(3600);

pub(crate) fn rows() -> Vec<Row> {
    vec![
        Row {
            work: "request, handler pending once, body of one frame".to_owned(),
            has_bare: true,
            counted: Some([2_000, 6_000]),
            timed: 100_000,
            cases: vec![
                Case::new("bare", |n| request(n, |_| Identity::new())),
                Case::new("**ours**", |n| request(n, RequestTokenLayer::new)),
                Case::new("**ours**, `.timeout(d)`", |n| request(n, ours_with_timeout)),
                Case::new("tower-http `TimeoutLayer`", |n| request(n, |_| timeout())),
                Case::new("tower-http, with `ResponseBodyDeadlineLayer`", |n| {
                    request(n, |_| (ResponseBodyDeadlineLayer::new(FAR), timeout()));
                }),
            ],
        },
        Row {
            work: "call of a client, pending once, body of one frame".to_owned(),
            has_bare: true,
            counted: Some([2_000, 6_000]),
            timed: 100_000,
            cases: vec![
                Case::new("bare", |n| request(n, |_| Identity::new())),
                Case::new("**ours**, no token", |n| {
                    request(n, |_| PropagateTokenLayer::new());
                }),
                Case::new("**ours**, a request's token", |n| {
                    request(n, |server| {
                        let server = RequestTokenLayer::new(server);
                        (server, PropagateTokenLayer::new())
                    });
                }),
            ],
        },
    ]
}

fn ours_with_timeout(server: &CancellationToken) -> RequestTokenLayer {
    RequestTokenLayer::new(server).timeout(FAR)
}

fn timeout() -> TimeoutLayer {
    TimeoutLayer::with_status_code(StatusCode::GATEWAY_TIMEOUT, FAR)
}

type Inner = fn(Request<()>) -> Handling;

type Handling =
    std::pin::Pin<Box<dyn Future<Output = Result<Response<Full<Bytes>>, Infallible>> + Send>>;

fn handle(_: Request<()>) -> Handling {
    let mut is_first = true;
    let halt = poll_fn(move |_| match std::mem::replace(&mut is_first, false) {
        true => Poll::Pending,
        false => Poll::Ready(()),
    });
    Box::pin(async {
        halt.await;
        Ok(Response::new(Full::from("hello")))
    })
}

/// One request after the other, each polled like a server does, until its body reports its end.
fn request<L, B>(n: u64, layer: impl FnOnce(&CancellationToken) -> L)
where
    L: Layer<tower::util::ServiceFn<Inner>>,
    L::Service: Service<Request<()>, Response = Response<B>, Error: std::fmt::Debug>,
    B: Body<Error: std::fmt::Debug>,
{
    let runtime = runtime();
    let _entered = runtime.enter();
    let server = CancellationToken::new();
    let mut service = layer(&server).layer(service_fn(handle as Inner));
    let mut cx = Context::from_waker(black_box(Waker::noop()));
    for _ in 0..n {
        let mut call = pin!(service.call(black_box(Request::new(()))));
        assert!(call.as_mut().poll(&mut cx).is_pending());
        let Poll::Ready(response) = call.as_mut().poll(&mut cx) else {
            panic!("pending twice");
        };
        let mut body = pin!(response.expect("no error").into_body());
        while !body.is_end_stream() {
            let frame = body.as_mut().poll_frame(&mut cx);
            assert!(matches!(black_box(frame), Poll::Ready(Some(Ok(_)))));
        }
    }
}
