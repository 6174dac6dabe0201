//! The body of a response under the layer, without a network.

use crate::support::{Alive, Script, Then, boxed, handler, reason_in};
use http::{Request, Response};
use http_body::{Body, SizeHint};
use http_body_util::BodyExt;
use std::{
    sync::{Arc, Mutex},
    time::Duration,
};
use stopcock::{
    CancellationToken, StopReason,
    http::{RequestTokenBody, RequestTokenLayer},
};
use tokio::time::advance;
use tower::{Layer, ServiceExt};

/// The body of a response, under a token of a server.
async fn under(
    layer: RequestTokenLayer,
    script: Script,
) -> RequestTokenBody<crate::support::TestBody> {
    let script = Arc::new(Mutex::new(Some(script)));
    let inner = handler(move |_| {
        let script = script.lock().unwrap().take().unwrap();
        async { Response::new(boxed(script)) }
    });
    let response = layer.layer(inner).oneshot(Request::new(())).await;
    response.unwrap().into_body()
}

#[tokio::test]
async fn a_stop_cuts_the_body_with_an_error() {
    let server = CancellationToken::new();
    let mut body = under(
        RequestTokenLayer::new(&server),
        Script::new(["a", "b"], Then::Ends),
    )
    .await;
    body.frame().await.unwrap().unwrap();
    server.cancel_with("shutting down");
    assert!(!body.is_end_stream(), "not before the error was returned");
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "shutting down");
    assert!(body.frame().await.is_none());
    assert!(body.is_end_stream());
}

#[tokio::test]
async fn the_cancelling_thread_drops_a_body_that_is_not_polled() {
    let (server, alive) = (CancellationToken::new(), Alive::default());
    let script = Script::new(["a"], Then::Waits).counted(&alive);
    let mut body = under(RequestTokenLayer::new(&server), script).await;
    assert_eq!(alive.count(), 1);
    server.cancel_with("shutting down");
    assert_eq!(alive.count(), 0);
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "shutting down");
}

#[tokio::test(start_paused = true)]
async fn a_timeout_drops_a_body_that_is_not_polled() {
    let (server, alive) = (CancellationToken::new(), Alive::default());
    let script = Script::new(["a"], Then::Waits).counted(&alive);
    let layer = RequestTokenLayer::new(&server).timeout(Duration::from_secs(3));
    let mut body = under(layer, script).await;
    advance(Duration::from_secs(2)).await;
    tokio::task::yield_now().await;
    assert_eq!(alive.count(), 1);
    advance(Duration::from_secs(2)).await;
    for _ in 0..10 {
        tokio::task::yield_now().await;
    }
    assert_eq!(alive.count(), 0);
    let error = body.frame().await.unwrap().unwrap_err();
    assert!(matches!(reason_in(&*error), StopReason::DeadlineExceeded));
}

#[tokio::test]
async fn a_pending_body_is_woken_by_the_stop() {
    let server = CancellationToken::new();
    let mut body = under(
        RequestTokenLayer::new(&server),
        Script::new([], Then::Waits),
    )
    .await;
    let cancel = async {
        tokio::task::yield_now().await;
        server.cancel_with("shutting down");
    };
    let (frame, ()) = tokio::join!(body.frame(), cancel);
    let error = frame.unwrap().unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "shutting down");
}

#[tokio::test]
async fn an_end_after_the_stop_is_an_error() {
    let server = CancellationToken::new();
    let token = server.clone();
    let frames = futures::stream::poll_fn(move |_| {
        // Like a stream that the same token stops without an error.
        token.cancel_with("shutting down");
        std::task::Poll::Ready(None::<Result<_, std::convert::Infallible>>)
    });
    let frames = Mutex::new(Some(frames));
    let inner = tower::service_fn(|_: Request<()>| {
        let frames = frames.lock().unwrap().take().unwrap();
        let body = boxed(http_body_util::StreamBody::new(frames));
        async { Ok::<_, std::convert::Infallible>(Response::new(body)) }
    });
    let service = RequestTokenLayer::new(&server).layer(inner);
    let mut body = service.oneshot(Request::new(())).await.unwrap().into_body();
    let error = body.frame().await.unwrap().unwrap_err();
    assert_eq!(reason_in(&*error).to_string(), "shutting down");
}

#[tokio::test]
async fn length_trailers_and_end_pass_through() {
    let mut script = Script::new(["a", "bc"], Then::Waits).with_trailer("checksum", "7");
    script.knows_its_end = true;
    let mut size = SizeHint::new();
    size.set_lower(2);
    size.set_upper(5);
    script.size = size;
    let server = CancellationToken::new();
    let mut body = under(RequestTokenLayer::new(&server), script).await;
    assert_eq!(
        (body.size_hint().lower(), body.size_hint().upper()),
        (2, Some(5))
    );
    for expected in ["a", "bc"] {
        assert!(!body.is_end_stream());
        assert_eq!(
            body.frame().await.unwrap().unwrap().into_data().unwrap(),
            expected
        );
    }
    assert!(!body.is_end_stream());
    let trailers = body
        .frame()
        .await
        .unwrap()
        .unwrap()
        .into_trailers()
        .unwrap();
    assert_eq!(trailers["checksum"], "7");
    assert!(body.is_end_stream());
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn an_error_of_the_body_passes_through_and_ends_it() {
    let server = CancellationToken::new();
    let mut body = under(
        RequestTokenLayer::new(&server),
        Script::new(["a"], Then::Fails),
    )
    .await;
    body.frame().await.unwrap().unwrap();
    assert_eq!(
        body.frame().await.unwrap().unwrap_err().to_string(),
        "the body fails"
    );
    assert!(body.frame().await.is_none());
}

#[tokio::test]
async fn a_complete_body_is_not_cut() {
    let server = CancellationToken::new();
    let mut script = Script::new(["abc"], Then::Ends).with_trailer("checksum", "7");
    script.size = SizeHint::with_exact(3);
    let mut body = under(RequestTokenLayer::new(&server), script).await;
    body.frame().await.unwrap().unwrap();
    server.cancel_with("shutting down");
    assert!(body.frame().await.unwrap().unwrap().is_trailers());
    assert!(body.frame().await.is_none());
}

/// If another thread cancels during the reads, a body is complete or ends with an error.
#[test]
fn a_race_with_a_cancel_cuts_no_body_without_an_error() {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .build()
        .unwrap();
    let (sender, tokens) = std::sync::mpsc::channel::<(CancellationToken, u32)>();
    let canceller = std::thread::spawn(move || {
        for (token, spins) in tokens {
            (0..spins).for_each(|_| std::hint::spin_loop());
            token.cancel_with("shutting down");
        }
    });
    let alive = Alive::default();
    for round in 0..4000 {
        let mut script = Script::new(["a", "b", "c"], Then::Ends).counted(&alive);
        script = script.with_trailer("checksum", "7");
        if round % 2 == 0 {
            script.size = SizeHint::with_exact(3);
        }
        let server = CancellationToken::new();
        let body = runtime.block_on(under(RequestTokenLayer::new(&server), script));
        sender.send((server.clone(), round % 97 * 10)).unwrap();
        match runtime.block_on(body.collect()) {
            Ok(body) => {
                assert_eq!(body.trailers().unwrap()["checksum"], "7");
                assert_eq!(body.to_bytes(), "abc");
            }
            Err(error) => assert_eq!(reason_in(&*error).to_string(), "shutting down"),
        }
        runtime.block_on(server.settled());
        assert_eq!(alive.count(), 0);
    }
    drop(sender);
    canceller.join().unwrap();
}
