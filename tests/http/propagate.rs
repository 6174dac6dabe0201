//! A client's calls under the token of a request, without a network.

use crate::support::{Alive, BoxError, Script, TestBody, Then, boxed, full, handler, reason_in};
use bytes::Bytes;
use http::{Request, Response};
use http_body::{Body, SizeHint};
use http_body_util::BodyExt;
use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    io,
    sync::{Arc, Mutex},
    time::Duration,
};
use stopcock::{
    CancellationToken, StopReason,
    http::{PropagateTokenBody, PropagateTokenLayer, RequestTokenLayer},
};
use tower::{Layer, Service, ServiceExt, service_fn};

fn request(token: Option<&CancellationToken>) -> Request<()> {
    let mut request = Request::new(());
    if let Some(token) = token {
        request.extensions_mut().insert(token.clone());
    }
    request
}

/// The header that a call under this token has, if the caller has set this one.
async fn header_under(token: &CancellationToken, own: Option<&str>) -> Option<String> {
    let seen = Mutex::new(None);
    let inner = service_fn(|request: Request<()>| {
        let header = request.headers().get("grpc-timeout");
        *seen.lock().unwrap() = header.map(|header| header.to_str().unwrap().to_owned());
        ready(Ok::<_, Infallible>(Response::new(full("abc"))))
    });
    let mut request = request(Some(token));
    if let Some(own) = own {
        request
            .headers_mut()
            .insert("grpc-timeout", own.parse().unwrap());
    }
    let service = PropagateTokenLayer::new().layer(inner);
    service.oneshot(request).await.unwrap();
    seen.into_inner().unwrap()
}

#[tokio::test(start_paused = true)]
async fn a_call_has_what_remains_of_the_tokens_time() {
    let table = [
        (Duration::from_nanos(1), "1n"),
        (Duration::from_nanos(99_999_999), "99999999n"),
        (Duration::from_nanos(100_000_999), "100000u"),
        (Duration::new(2, 1), "2000000u"),
        (Duration::new(99, 999_999_999), "99999999u"),
        (Duration::from_micros(100_000_001), "100000m"),
        (Duration::from_secs(30 * 3600), "108000S"),
        (Duration::from_secs(100_000_059), "1666667M"),
        (Duration::from_secs(60 * 100_000_000), "1666666H"),
    ];
    for (timeout, expected) in table {
        let token = CancellationToken::with_timeout(timeout);
        let header = header_under(&token, None).await;
        assert_eq!(header.as_deref(), Some(expected), "{timeout:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_earlier_timeout_of_a_call_counts() {
    let token = CancellationToken::with_timeout(Duration::from_secs(5));
    for (own, expected) in [
        ("3S", "3S"),
        ("5S", "5S"),
        ("5000001u", "5000000u"),
        ("7S", "5000000u"),
        ("soon", "5000000u"),
    ] {
        let header = header_under(&token, Some(own)).await;
        assert_eq!(header.as_deref(), Some(expected), "{own}");
    }
    let forever = CancellationToken::new();
    assert_eq!(
        header_under(&forever, Some("7S")).await.as_deref(),
        Some("7S")
    );
    assert_eq!(header_under(&forever, None).await, None);
}

#[tokio::test]
async fn a_call_without_a_token_is_not_changed() {
    let inner = handler(|_| ready(Response::new(full("abc"))));
    let inner = RequestTokenLayer::new(&CancellationToken::new()).layer(inner);
    let service = PropagateTokenLayer::new().layer(inner);
    let response = service.oneshot(request(None)).await.unwrap();
    let body = response.into_body();
    assert_eq!(body.size_hint().exact(), Some(3));
    assert_eq!(body.collect().await.unwrap().to_bytes(), "abc");
}

#[tokio::test]
async fn a_call_under_a_cancelled_token_is_not_made() {
    let token = CancellationToken::new();
    token.cancel_with("the client hung up");
    let inner = service_fn(
        |_: Request<()>| -> std::future::Ready<Result<Response<TestBody>, Infallible>> {
            panic!("called")
        },
    );
    let service = PropagateTokenLayer::new().layer(inner);
    let error = service.oneshot(request(Some(&token))).await.unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "the client hung up");
}

#[tokio::test]
async fn a_stop_drops_the_call() {
    let (token, alive) = (CancellationToken::new(), Alive::default());
    let inner = service_fn(|_: Request<()>| {
        let one = alive.one();
        async {
            let _one = one;
            pending::<Result<Response<TestBody>, Infallible>>().await
        }
    });
    let mut service = PropagateTokenLayer::new().layer(inner);
    let mut call = Box::pin(service.call(request(Some(&token))));
    assert!(futures::poll!(&mut call).is_pending());
    let mut settled = Box::pin(token.settled());
    token.cancel_with("the client hung up");
    assert!(futures::poll!(&mut settled).is_pending());
    let error = call.as_mut().await.unwrap_err();
    assert_eq!(alive.count(), 0);
    assert!(futures::poll!(&mut settled).is_ready());
    assert_eq!(reason_in(&*error).to_string(), "the client hung up");
}

/// A response's body under this token.
async fn body_under(token: &CancellationToken, script: Script) -> PropagateTokenBody<TestBody> {
    let script = Arc::new(Mutex::new(Some(script)));
    let inner = service_fn(move |_: Request<()>| {
        let script = script.lock().unwrap().take().unwrap();
        ready(Ok::<_, Infallible>(Response::new(boxed(script))))
    });
    let service = PropagateTokenLayer::new().layer(inner);
    let response = service.oneshot(request(Some(token))).await;
    response.unwrap().into_body()
}

#[tokio::test]
async fn a_stop_cuts_the_body_with_an_error_and_drops_it_unpolled() {
    let (token, alive) = (CancellationToken::new(), Alive::default());
    let script = Script::new(["a", "b"], Then::Ends).counted(&alive);
    let mut body = body_under(&token, script).await;
    body.frame().await.unwrap().unwrap();
    token.cancel_with("the client hung up");
    assert_eq!(alive.count(), 0);
    assert!(!body.is_end_stream());
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "the client hung up");
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn length_trailers_and_end_pass_through() {
    let token = CancellationToken::new();
    let mut script = Script::new(["a"], Then::Ends).with_trailer("checksum", "7");
    script.size = SizeHint::with_exact(1);
    script.knows_its_end = true;
    let body = body_under(&token, script).await;
    assert_eq!(body.size_hint().exact(), Some(1));
    let body = body.collect().await.unwrap();
    assert_eq!(body.trailers().unwrap()["checksum"], "7");
}

#[tokio::test]
async fn neither_the_end_nor_a_drop_of_a_call_cancels_the_token() {
    let token = CancellationToken::new();
    body_under(&token, Script::new(["a"], Then::Ends))
        .await
        .collect()
        .await
        .unwrap();
    drop(body_under(&token, Script::new(["a"], Then::Waits)).await);
    let inner = service_fn(|_: Request<()>| pending::<Result<Response<TestBody>, Infallible>>());
    drop(
        PropagateTokenLayer::new()
            .layer(inner)
            .call(request(Some(&token))),
    );
    assert!(token.stop_reason().is_none());
}

#[tokio::test]
async fn an_error_of_the_client_comes_out_as_it_is() {
    let token = CancellationToken::new();
    let inner = service_fn(|_: Request<()>| {
        let refused = io::Error::from(io::ErrorKind::ConnectionRefused);
        ready(Err::<Response<TestBody>, _>(refused))
    });
    let service = PropagateTokenLayer::new().layer(inner);
    let error = service.oneshot(request(Some(&token))).await.unwrap_err();
    let error = error.downcast::<io::Error>().unwrap();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

#[tokio::test]
async fn holders_show_where_the_layer_was_made() {
    let token = CancellationToken::new();
    token.track_holders();
    let (layer, line) = (PropagateTokenLayer::new(), line!());
    let inner = service_fn(|_: Request<()>| pending::<Result<Response<TestBody>, Infallible>>());
    let _call = layer.layer(inner).call(request(Some(&token)));
    let holders = token.holders();
    assert_eq!(holders.len(), 1);
    assert_eq!(holders[0].what(), "PropagateTokenLayer");
    assert_eq!(
        (holders[0].location().file(), holders[0].location().line()),
        (file!(), line)
    );
}

/// Calls from one service to the next in the same process, like over a network.
#[tokio::test(start_paused = true)]
async fn a_deadline_shrinks_and_a_stop_travels_from_service_to_service() {
    let (front, back) = (CancellationToken::new(), CancellationToken::new());
    let seen = Arc::new(Mutex::new(Vec::<CancellationToken>::new()));
    let noted = Arc::clone(&seen);
    let last = RequestTokenLayer::new(&back)
        .grpc_timeout()
        .layer(handler(move |token| {
            noted.lock().unwrap().push(token);
            pending()
        }));
    let noted = Arc::clone(&seen);
    let first = RequestTokenLayer::new(&front)
        .timeout(Duration::from_secs(10))
        .layer(handler(move |token| {
            noted.lock().unwrap().push(token.clone());
            let client = PropagateTokenLayer::new().layer(last.clone());
            async move {
                tokio::time::sleep(Duration::from_secs(4)).await;
                let response = client.oneshot(request(Some(&token))).await.unwrap();
                response.map(boxed)
            }
        }));
    let mut call = Box::pin(first.oneshot(request(None)));
    assert!(futures::poll!(&mut call).is_pending());
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert!(futures::poll!(&mut call).is_pending());
    let tokens = std::mem::take(&mut *seen.lock().unwrap());
    let remaining = tokens.iter().map(|token| token.remaining().unwrap());
    assert_eq!(remaining.collect::<Vec<_>>(), [Duration::from_secs(6); 2]);
    drop(call);
    for token in tokens {
        assert!(matches!(
            token.stop_reason(),
            Some(StopReason::ConsumerDropped)
        ));
    }
}

/// The bounds that tonic's clients have on a service.
#[test]
fn tonic_can_have_it() {
    fn check<T, C>(_: T)
    where
        T: Service<Request<()>, Response = Response<C>> + Clone + Send + Sync + 'static,
        T::Error: Into<BoxError>,
        T::Future: Future + Send + 'static,
        C: Body<Data = Bytes> + Send + 'static,
        C::Error: Into<BoxError> + Send,
    {
    }
    let inner = handler(|_| ready(Response::new(full("abc"))));
    check(PropagateTokenLayer::new().layer(inner));
}
