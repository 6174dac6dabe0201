//! The token of a request and the response to one that was stopped, without a network.

use crate::support::{Alive, Script, TestBody, Then, boxed, empty, full, handler, token_of};
use http::{Method, Request, Response, StatusCode};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    sync::{Arc, Mutex},
    time::Duration,
};
use stopcock::{
    CancellationToken, StopReason,
    http::{RequestTokenBody, RequestTokenLayer},
};
use tokio::time::{Instant, advance};
use tower::{Layer, Service, ServiceExt, service_fn};

type TestResponse = Response<RequestTokenBody<TestBody>>;

/// Sends a request through the layer to a handler with this response. Returns the token and the response.
async fn respond(
    request: Request<()>,
    response: impl FnOnce() -> Response<TestBody>,
) -> (CancellationToken, TestResponse) {
    let server = CancellationToken::new();
    let seen = Arc::new(Mutex::new(None));
    let response = ready(response());
    let response = Mutex::new(Some(response));
    let inner = service_fn(|request: Request<()>| {
        *seen.lock().unwrap() = Some(token_of(&request));
        let response = response.lock().unwrap().take().unwrap();
        async { Ok::<_, Infallible>(response.await) }
    });
    let service = RequestTokenLayer::new(&server).layer(inner);
    let response = service.oneshot(request).await.unwrap();
    let token = seen.lock().unwrap().take().unwrap();
    (token, response)
}

fn get() -> Request<()> {
    Request::new(())
}

fn reason(token: &CancellationToken) -> Option<String> {
    token.stop_reason().map(|reason| reason.to_string())
}

#[tokio::test]
async fn a_token_is_cancelled_after_the_end_of_the_body() {
    let (token, response) = respond(get(), || {
        Response::new(boxed(Script::new(["a", "b"], Then::Ends)))
    })
    .await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    body.frame().await.unwrap().unwrap();
    assert_eq!(reason(&token), None);
    assert!(body.frame().await.is_none());
    assert_eq!(reason(&token).unwrap(), "cancelled");
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_body_that_reports_its_end_is_complete_at_once() {
    let (token, response) = respond(get(), || Response::new(empty())).await;
    assert_eq!(reason(&token).unwrap(), "cancelled");
    drop(response);

    let (token, response) = respond(get(), || Response::new(full("abc"))).await;
    assert_eq!(reason(&token), None);
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(reason(&token).unwrap(), "cancelled");
}

#[tokio::test]
async fn a_body_is_done_after_the_bytes_of_its_content_length() {
    let (token, response) = respond(get(), || {
        let response = Response::builder().header("content-length", "3");
        response
            .body(boxed(Script::new(["a", "bc"], Then::Waits)))
            .unwrap()
    })
    .await;
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    assert_eq!(reason(&token), None);
    body.frame().await.unwrap().unwrap();
    assert_eq!(reason(&token).unwrap(), "cancelled");
}

#[tokio::test]
async fn trailers_come_after_the_bytes_of_the_content_length() {
    let (token, response) = respond(get(), || {
        let response = Response::builder().header("content-length", "1");
        let body = Script::new(["a"], Then::Ends).with_trailer("checksum", "7");
        response.body(boxed(body)).unwrap()
    })
    .await;
    let body = response.into_body().collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["checksum"], "7");
    assert_eq!(reason(&token).unwrap(), "cancelled");
}

#[tokio::test]
async fn a_response_without_a_body_is_done_with_its_head() {
    let body = || boxed(Script::new(["a"], Then::Waits));
    let head = || Request::builder().method(Method::HEAD).body(()).unwrap();
    let (token, response) = respond(head(), || Response::new(body())).await;
    assert_eq!(reason(&token).unwrap(), "cancelled");
    drop(response);

    for status in [100, 103, 204, 304] {
        let response = || Response::builder().status(status).body(body()).unwrap();
        let (token, _response) = respond(get(), response).await;
        assert_eq!(reason(&token).unwrap(), "cancelled", "{status}");
    }
}

#[tokio::test]
async fn the_length_of_a_head_response_stays() {
    let head = Request::builder().method(Method::HEAD).body(()).unwrap();
    let (_, response) = respond(head, || Response::new(full("abc"))).await;
    let body = response.into_body();
    assert_eq!(http_body::Body::size_hint(&body).exact(), Some(3));
    assert!(!http_body::Body::is_end_stream(&body));
}

#[tokio::test]
async fn an_upgraded_request_is_left_to_the_server() {
    let connect = || Request::builder().method(Method::CONNECT).body(()).unwrap();
    let upgrade = || {
        Request::builder()
            .header("upgrade", "websocket")
            .body(())
            .unwrap()
    };
    for (request, status) in [(upgrade(), 101), (connect(), 200), (connect(), 204)] {
        let response = || Response::builder().status(status).body(empty()).unwrap();
        let (token, response) = respond(request, response).await;
        drop(response);
        assert_eq!(reason(&token), None, "{status}");
    }
    // Refused.
    let response = || Response::builder().status(403).body(empty()).unwrap();
    let (token, _) = respond(connect(), response).await;
    assert_eq!(reason(&token).unwrap(), "cancelled");
}

#[tokio::test(start_paused = true)]
async fn an_upgraded_request_outlives_the_timeout() {
    for (status, expected) in [(101, None), (200, Some("deadline exceeded"))] {
        let server = CancellationToken::new();
        let seen = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&seen);
        let inner = handler(move |token| {
            *noted.lock().unwrap() = Some(token);
            let response = Response::builder().status(status);
            ready(
                response
                    .body(boxed(Script::new(["a"], Then::Waits)))
                    .unwrap(),
            )
        });
        let service = RequestTokenLayer::new(&server)
            .timeout(Duration::from_secs(5))
            .layer(inner);
        let request = Request::builder()
            .header("upgrade", "websocket")
            .body(())
            .unwrap();
        let _response = service.oneshot(request).await.unwrap();
        let token = seen.lock().unwrap().take().unwrap();

        advance(Duration::from_secs(4)).await;
        tokio::task::yield_now().await;
        assert_eq!(reason(&token), None);
        advance(Duration::from_secs(4)).await;
        tokio::task::yield_now().await;
        assert_eq!(reason(&token).as_deref(), expected, "{status}");
        server.cancel_with("shutting down");
        assert_eq!(
            reason(&token).as_deref(),
            expected.or(Some("shutting down"))
        );
    }
}

#[tokio::test]
async fn dropping_the_future_or_the_body_is_the_consumers_drop() {
    let server = CancellationToken::new();
    let seen = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&seen);
    let inner = handler(move |token| {
        *noted.lock().unwrap() = Some(token);
        pending()
    });
    let mut service = RequestTokenLayer::new(&server).layer(inner);
    let future = service.call(get());
    let token = seen.lock().unwrap().take().unwrap();
    assert_eq!(reason(&token), None);
    drop(future);
    assert!(matches!(
        token.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
    assert_eq!(reason(&server), None);

    let (token, response) = respond(get(), || Response::new(full("abc"))).await;
    drop(response);
    assert!(matches!(
        token.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
}

#[tokio::test]
async fn the_handler_and_the_body_are_dropped_before_the_token_is_cancelled() {
    let server = CancellationToken::new();
    let alive = Alive::default();
    let counted = alive.clone();
    let at_cancel = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&at_cancel);
    let inner = handler(move |token| {
        let (one, alive, noted) = (counted.one(), counted.clone(), Arc::clone(&noted));
        token
            .on_cancel(move |_| *noted.lock().unwrap() = Some(alive.count()))
            .detach();
        async move {
            let _one = one;
            pending().await
        }
    });
    let mut service = RequestTokenLayer::new(&server).layer(inner);
    drop(service.call(get()));
    assert_eq!(at_cancel.lock().unwrap().take(), Some(0));

    // The callback is the token's first, before what drops the body at a cancel.
    let (counted, noted) = (alive.clone(), Arc::clone(&at_cancel));
    let inner = handler(move |token| {
        let (alive, noted) = (counted.clone(), Arc::clone(&noted));
        token
            .on_cancel(move |_| *noted.lock().unwrap() = Some(alive.count()))
            .detach();
        let body = Script::new(["a"], Then::Waits).counted(&counted);
        ready(Response::new(boxed(body)))
    });
    let service = RequestTokenLayer::new(&server).layer(inner);
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(alive.count(), 1);
    drop(response);
    assert_eq!(at_cancel.lock().unwrap().take(), Some(0));

    for then in [Then::Ends, Then::Fails] {
        let body = Script::new([], then).counted(&alive);
        let (token, response) = respond(get(), || Response::new(boxed(body))).await;
        let (alive, noted) = (alive.clone(), Arc::clone(&at_cancel));
        let _registration = token.on_cancel(move |_| *noted.lock().unwrap() = Some(alive.count()));
        let _ = response.into_body().frame().await;
        assert_eq!(at_cancel.lock().unwrap().take(), Some(0));
    }
}

#[tokio::test]
async fn a_request_that_is_stopped_has_a_response() {
    /// The status, and for gRPC the `grpc-status`.
    async fn check(content_type: &str, reason: StopReason, status: u16, grpc_status: Option<&str>) {
        let server = CancellationToken::new();
        let inner = handler(|_| pending());
        let mut service = RequestTokenLayer::new(&server).layer(inner);
        let request = Request::builder()
            .header("content-type", content_type)
            .body(())
            .unwrap();
        let response = service.call(request);
        server.cancel_with(reason);
        let response = response.await.unwrap();
        assert_eq!(response.status(), status, "{content_type}");
        let found = response.headers().get("grpc-status");
        assert_eq!(
            found.map(|status| status.to_str().unwrap()),
            grpc_status,
            "{content_type}"
        );
        assert!(http_body::Body::is_end_stream(response.body()));
    }
    let down = || StopReason::from("shutting down");
    check("text/plain", down(), 503, None).await;
    check("text/plain", StopReason::DeadlineExceeded, 504, None).await;
    check("text/plain", StopReason::IdleTimeout, 504, None).await;
    for grpc in [
        "application/grpc",
        "application/grpc+proto",
        "Application/gRPC; x=y",
    ] {
        check(grpc, down(), 200, Some("14")).await;
        check(grpc, StopReason::DeadlineExceeded, 200, Some("4")).await;
    }
    for other in [
        "application/grpc-web",
        "application/grpcx",
        "application/gr",
        "",
    ] {
        check(other, down(), 503, None).await;
    }
}

#[tokio::test]
async fn a_response_of_its_own_to_a_request_that_is_stopped() {
    let server = CancellationToken::new();
    let layer = RequestTokenLayer::new(&server).on_stop(|reason: &StopReason| {
        let body = full("come back later");
        let response = Response::builder().header("x-reason", reason.to_string());
        response.status(StatusCode::IM_A_TEAPOT).body(body).unwrap()
    });
    let mut service = layer.layer(handler(|_| pending()));
    let response = service.call(get());
    server.cancel_with("shutting down");
    let response = response.await.unwrap();
    assert_eq!(response.status(), StatusCode::IM_A_TEAPOT);
    assert_eq!(response.headers()["x-reason"], "shutting down");
    let body = response.into_body().collect().await.unwrap().to_bytes();
    assert_eq!(body, "come back later");
}

#[tokio::test]
async fn a_stopped_server_does_not_call_the_handler() {
    let server = CancellationToken::new();
    server.cancel();
    let inner = service_fn(
        |_: Request<()>| -> std::future::Ready<Result<Response<TestBody>, Infallible>> {
            panic!("called")
        },
    );
    let service = RequestTokenLayer::new(&server).layer(inner);
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
}

#[tokio::test(start_paused = true)]
async fn the_earlier_of_the_timeouts_counts() {
    /// After how long the request is stopped, with the layer's timeout and the request's own.
    async fn check(timeout: Option<u64>, grpc_timeout: Option<&str>, expected: Option<u64>) {
        let server = CancellationToken::new();
        let mut layer = RequestTokenLayer::new(&server).grpc_timeout();
        if let Some(timeout) = timeout {
            layer = layer.timeout(Duration::from_secs(timeout));
        }
        let service = layer.layer(handler(|token| async move {
            let remaining = token.remaining().map(|remaining| remaining.as_secs());
            let response = Response::builder().header("x-remaining", format!("{remaining:?}"));
            response.body(empty()).unwrap()
        }));
        let mut request = Request::builder();
        if let Some(grpc_timeout) = grpc_timeout {
            request = request.header("grpc-timeout", grpc_timeout);
        }
        let response = service.oneshot(request.body(()).unwrap()).await.unwrap();
        assert_eq!(
            response.headers()["x-remaining"],
            format!("{expected:?}").as_str()
        );
    }
    check(None, None, None).await;
    check(Some(5), None, Some(5)).await;
    check(None, Some("5S"), Some(5)).await;
    check(Some(5), Some("3S"), Some(3)).await;
    check(Some(5), Some("7S"), Some(5)).await;
    check(Some(5), Some("-3S"), Some(5)).await;
    check(None, Some("3"), None).await;
}

#[tokio::test(start_paused = true)]
async fn all_units_of_a_grpc_timeout_count_and_nothing_else_does() {
    async fn check(header: &[u8], expected: Option<Duration>) {
        let server = CancellationToken::new();
        let seen = Arc::new(Mutex::new(None));
        let noted = Arc::clone(&seen);
        let inner = handler(move |token| {
            *noted.lock().unwrap() = token.remaining();
            ready(Response::new(empty()))
        });
        let service = RequestTokenLayer::new(&server).grpc_timeout().layer(inner);
        let request = Request::builder().header("grpc-timeout", header);
        service.oneshot(request.body(()).unwrap()).await.unwrap();
        let remaining = seen.lock().unwrap().take();
        assert_eq!(remaining, expected, "{:?}", String::from_utf8_lossy(header));
    }
    const HOUR: u64 = 3600;
    let well_formed = [
        ("1H", Duration::from_secs(HOUR)),
        ("2M", Duration::from_secs(120)),
        ("3S", Duration::from_secs(3)),
        ("4m", Duration::from_millis(4)),
        ("5u", Duration::from_micros(5)),
        ("6n", Duration::from_nanos(6)),
        ("00000001S", Duration::from_secs(1)),
        ("99999999n", Duration::from_nanos(99_999_999)),
        ("99999999H", Duration::from_secs(99_999_999 * HOUR)),
    ];
    for (header, expected) in well_formed {
        check(header.as_bytes(), Some(expected)).await;
    }
    let malformed = [
        "",
        "1",
        "S",
        "123456789S",
        "+1S",
        "-1S",
        "1.5S",
        "1 S",
        " 1S",
        "1S ",
        "1s",
        "1h",
        "1U",
        "1N",
        "1ms",
        "1SS",
        "0x1S",
        "1é",
        "١S",
    ];
    for header in malformed {
        check(header.as_bytes(), None).await;
    }
    check(b"1\xff", None).await;
}

#[tokio::test]
async fn a_grpc_timeout_of_zero_is_over() {
    let server = CancellationToken::new();
    let service = RequestTokenLayer::new(&server)
        .grpc_timeout()
        .layer(handler(|_| pending()));
    let request = Request::builder()
        .header("grpc-timeout", "0S")
        .body(())
        .unwrap();
    let response = service.oneshot(request).await.unwrap();
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
}

#[tokio::test]
async fn without_grpc_timeout_the_header_does_not_count() {
    let server = CancellationToken::new();
    let service = RequestTokenLayer::new(&server).layer(handler(|_| ready(Response::new(empty()))));
    let request = Request::builder()
        .header("grpc-timeout", "0S")
        .body(())
        .unwrap();
    assert_eq!(
        service.oneshot(request).await.unwrap().status(),
        StatusCode::OK
    );
}

#[tokio::test(start_paused = true)]
async fn a_timeout_stops_the_handler() {
    let server = CancellationToken::new();
    let alive = Alive::default();
    let counted = alive.clone();
    let inner = handler(move |_| {
        let one = counted.one();
        async move {
            let _one = one;
            pending().await
        }
    });
    let start = Instant::now();
    let service = RequestTokenLayer::new(&server)
        .timeout(Duration::from_secs(2))
        .layer(inner);
    let response = service.oneshot(get()).await.unwrap();
    assert_eq!(start.elapsed(), Duration::from_secs(2));
    assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
    assert_eq!(alive.count(), 0);
    assert_eq!(reason(&server), None);
}

#[tokio::test]
async fn settled_waits_for_requests_under_way() {
    let server = CancellationToken::new();
    let inner = handler(|_| async { Response::new(boxed(Script::new(["a"], Then::Waits))) });
    let mut service = RequestTokenLayer::new(&server).layer(inner);
    let future = service.call(get());
    server.cancel();
    let mut settled = Box::pin(server.settled());
    assert!(futures::poll!(&mut settled).is_pending());
    drop(future);
    assert!(futures::poll!(&mut settled).is_ready());

    let server = CancellationToken::new();
    let inner = handler(|_| async { Response::new(boxed(Script::new(["a"], Then::Waits))) });
    let response = RequestTokenLayer::new(&server)
        .layer(inner)
        .oneshot(get())
        .await
        .unwrap();
    server.track_holders();
    let mut body = response.into_body();
    body.frame().await.unwrap().unwrap();
    // The body is dropped by the cancel.
    let mut settled = Box::pin(server.cancel_and_settle());
    assert!(futures::poll!(&mut settled).is_ready());
    assert!(body.frame().await.unwrap().is_err());
}

#[tokio::test]
async fn holders_show_where_the_layer_was_made() {
    let server = CancellationToken::new();
    server.track_holders();
    let (layer, line) = (RequestTokenLayer::new(&server), line!());
    let mut service = layer.layer(handler(|_| pending::<Response<TestBody>>()));
    let _future = service.call(get());
    let holders = server.holders();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].what(), "RequestTokenLayer");
    assert_eq!(holders[0].location().file(), file!());
    assert_eq!(holders[0].location().line(), line);
}

#[tokio::test]
async fn an_inner_layer_is_stopped_with_the_outer_one() {
    let (server, connection) = (CancellationToken::new(), CancellationToken::new());
    let seen = Arc::new(Mutex::new(None));
    let noted = Arc::clone(&seen);
    let inner = handler(move |token| {
        *noted.lock().unwrap() = Some(token);
        pending()
    });
    let mut service = RequestTokenLayer::new(&server).layer(inner);
    let mut request = get();
    request.extensions_mut().insert(connection.clone());
    let response = service.call(request);
    connection.cancel_with("the connection was closed");
    let token = seen.lock().unwrap().take().unwrap();
    assert_eq!(reason(&token).unwrap(), "the connection was closed");
    assert_eq!(
        response.await.unwrap().status(),
        StatusCode::SERVICE_UNAVAILABLE
    );
}

#[tokio::test]
async fn a_service_that_fails_ends_the_request() {
    let server = CancellationToken::new();
    let seen = Mutex::new(None);
    let inner = service_fn(|request: Request<()>| {
        *seen.lock().unwrap() = Some(token_of(&request));
        ready(Err::<Response<TestBody>, _>("no route"))
    });
    let service = RequestTokenLayer::new(&server).layer(inner);
    assert_eq!(service.oneshot(get()).await.unwrap_err(), "no route");
    let token = seen.lock().unwrap().take().unwrap();
    assert_eq!(reason(&token).unwrap(), "cancelled");
}

/// The bounds that axum and tonic have on a layer, its service, future and body.
#[test]
fn axum_and_tonic_can_have_them() {
    fn check<L, S, B>(layer: L, inner: S)
    where
        L: Layer<S> + Clone + Send + Sync + 'static,
        L::Service: Service<Request<()>, Response = Response<B>, Error = Infallible>
            + Clone
            + Send
            + Sync
            + 'static,
        <L::Service as Service<Request<()>>>::Future: Future + Send + 'static,
        B: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        B::Error: Into<crate::support::BoxError>,
    {
        let _ = layer.layer(inner);
    }
    let layer = RequestTokenLayer::new(&CancellationToken::new());
    let inner = handler(|_| ready(Response::new(empty())));
    check(layer.clone(), inner.clone());
    let with_answer = layer.clone().on_stop(|_| Response::new(empty()));
    check(with_answer, inner.clone());
    check(layer.clone(), layer.layer(inner));
}
