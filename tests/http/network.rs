//! Hang-ups, slow clients and shutdowns of real servers.

use crate::{
    server::{Client, Protocol, Server, get, no_body, soon, until},
    support::{Alive, One, Script, TestBody, Then, boxed, empty, full, handler},
};
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt, StreamBody};
use hyper::body::Incoming;
use std::{
    convert::Infallible,
    future::{Future, pending, ready},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};
use stopcock::{CancellationToken, StopReason, http::RequestTokenLayer};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    sync::mpsc,
};
use tower::{Layer, service_fn, util::BoxCloneService};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A server with this handler, and what a test has to know of its requests.
struct Case {
    server: Server,
    token: CancellationToken,
    /// The requests' tokens, in the order of the requests.
    requests: mpsc::UnboundedReceiver<CancellationToken>,
    /// Owned by the handlers.
    alive: Alive,
}

impl Case {
    async fn start<F, Fut>(protocol: Protocol, handle: F) -> Self
    where
        F: Fn(CancellationToken, One) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<TestBody>> + Send + 'static,
    {
        Self::with_timeout(protocol, Duration::MAX, handle).await
    }

    async fn with_timeout<F, Fut>(protocol: Protocol, timeout: Duration, handle: F) -> Self
    where
        F: Fn(CancellationToken, One) -> Fut + Clone + Send + Sync + 'static,
        Fut: Future<Output = Response<TestBody>> + Send + 'static,
    {
        let token = CancellationToken::new();
        let alive = Alive::default();
        let (sender, requests) = mpsc::unbounded_channel();
        let counted = alive.clone();
        let inner = handler(move |token| {
            let _ = sender.send(token.clone());
            handle(token, counted.one())
        });
        let layer = RequestTokenLayer::new(&token).timeout(timeout);
        let inner: BoxCloneService<Request<Incoming>, _, _> = BoxCloneService::new(inner);
        let server = Server::start(protocol, layer.layer(inner)).await;
        Self {
            server,
            token,
            requests,
            alive,
        }
    }

    async fn request(&mut self) -> CancellationToken {
        soon(self.requests.recv()).await.unwrap()
    }

    /// Waits for the end of a request. Returns why it ended.
    async fn end_of(&self, request: &CancellationToken) -> StopReason {
        soon(request.cancelled()).await;
        until("what the handler had is dropped", || {
            self.alive.count() == 0
        })
        .await;
        request.stop_reason().unwrap()
    }

    /// Nothing is left.
    async fn finish(self) {
        self.server.stop().await;
        soon(self.token.cancel_and_settle()).await;
        assert_eq!(self.alive.count(), 0);
    }
}

/// An endless body of this chunk.
fn endless(one: One, chunk: usize) -> TestBody {
    endless_and(chunk, move || {
        let _ = &one;
    })
}

fn endless_and(chunk: usize, mut at_each: impl FnMut() + Send + 'static) -> TestBody {
    let chunk = Bytes::from(vec![b'x'; chunk]);
    boxed(StreamBody::new(stream::repeat_with(move || {
        at_each();
        Ok::<_, Infallible>(Frame::data(chunk.clone()))
    })))
}

/// A body of one chunk that never ends.
fn stalled(one: One) -> TestBody {
    let mut script = Script::new(["first"], Then::Waits);
    script.alive = Some(one);
    boxed(script)
}

#[tokio::test]
async fn a_client_hangs_up_before_the_head_of_the_response() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |_, _one| pending().await).await;
        let mut client = case.server.client().await;
        let response = tokio::spawn(client.send(get()));
        let request = case.request().await;
        assert_eq!(case.alive.count(), 1);
        client.hang_up().await;
        assert!(
            matches!(case.end_of(&request).await, StopReason::ConsumerDropped),
            "{protocol:?}"
        );
        assert!(soon(response).await.unwrap().is_err());
        case.finish().await;
    }
}

#[tokio::test]
async fn a_client_resets_one_request_of_a_connection() {
    let mut case = Case::start(Protocol::Http2, async |_, one| Response::new(stalled(one))).await;
    let mut client = case.server.client().await;
    let kept = soon(client.send(get())).await.unwrap();
    let kept_request = case.request().await;
    let response = soon(client.send(get())).await.unwrap();
    let request = case.request().await;
    drop(response);
    soon(request.cancelled()).await;
    assert!(matches!(
        request.stop_reason(),
        Some(StopReason::ConsumerDropped)
    ));
    assert!(!kept_request.is_cancelled());
    until("one body is dropped", || case.alive.count() == 1).await;
    drop(kept);
    assert!(matches!(
        case.end_of(&kept_request).await,
        StopReason::ConsumerDropped
    ));
    case.finish().await;
}

#[tokio::test]
async fn a_client_hangs_up_in_the_head_of_its_request() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |_, _one| pending().await).await;
        let mut socket = TcpStream::connect(case.server.address).await.unwrap();
        let half: &[u8] = match protocol {
            Protocol::Http2 => b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0\0\0\x10\x01",
            _ => b"GET / HTTP/1.1\r\nhost: lo",
        };
        socket.write_all(half).await.unwrap();
        until("the server has accepted", || {
            case.server.connections.count() == 1
        })
        .await;
        drop(socket);
        until("the connection ends", || {
            case.server.connections.count() == 0
        })
        .await;
        assert!(case.requests.try_recv().is_err(), "there was no request");
        case.finish().await;
    }
}

#[tokio::test]
async fn a_client_hangs_up_in_the_body_of_the_response() {
    for protocol in BOTH {
        for is_endless in [false, true] {
            let mut case = Case::start(protocol, move |_, one| {
                ready(Response::new(match is_endless {
                    true => endless(one, 1000),
                    false => stalled(one),
                }))
            })
            .await;
            let mut client = case.server.client().await;
            let mut response = soon(client.send(get())).await.unwrap();
            soon(response.frame()).await.unwrap().unwrap();
            let request = case.request().await;
            assert!(!request.is_cancelled());
            client.hang_up().await;
            let reason = case.end_of(&request).await;
            assert!(
                matches!(reason, StopReason::ConsumerDropped),
                "{protocol:?} {reason}"
            );
            case.finish().await;
        }
    }
}

#[tokio::test]
async fn a_half_close_is_a_hang_up_unless_the_server_allows_it() {
    let mut case = Case::start(Protocol::Http1, async |_, _one| pending().await).await;
    let mut socket = TcpStream::connect(case.server.address).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    let request = case.request().await;
    socket.shutdown().await.unwrap();
    assert!(matches!(
        case.end_of(&request).await,
        StopReason::ConsumerDropped
    ));
    case.finish().await;

    let mut case = Case::start(Protocol::Http1HalfClose, async |token, one| {
        // The half-close does not cancel the token, even after other tasks have run.
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
            token.check().unwrap();
        }
        drop(one);
        Response::new(full("complete"))
    })
    .await;
    let mut socket = TcpStream::connect(case.server.address).await.unwrap();
    socket
        .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
        .await
        .unwrap();
    socket.shutdown().await.unwrap();
    let mut response = String::new();
    soon(socket.read_to_string(&mut response)).await.unwrap();
    assert!(response.ends_with("complete"), "{response}");
    let request = case.request().await;
    assert!(matches!(case.end_of(&request).await, StopReason::Cancelled));
    case.finish().await;
}

/// hyper does not notice what it does not read: only the timeout and the server end such a request.
#[tokio::test]
async fn on_http_1_a_hang_up_is_not_seen_where_hyper_does_not_read() {
    let half_read = "POST / HTTP/1.1\r\nhost: localhost\r\ncontent-length: 1000000\r\n\r\nfirst";
    let pipelined =
        "GET / HTTP/1.1\r\nhost: localhost\r\n\r\nGET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let single = "GET / HTTP/1.1\r\nhost: localhost\r\n\r\n";
    let cases = [
        (Protocol::Http1, half_read),
        (Protocol::Http1, pipelined),
        (Protocol::Http1HalfClose, single),
    ];
    for (protocol, sent) in cases {
        let mut case = Case::start(protocol, async |_, _one| pending().await).await;
        let mut socket = TcpStream::connect(case.server.address).await.unwrap();
        socket.write_all(sent.as_bytes()).await.unwrap();
        let request = case.request().await;
        drop(socket);
        for _ in 0..100 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        assert!(
            !request.is_cancelled(),
            "hyper has learnt to see it: change the docs"
        );
        case.token.cancel_with("shutting down");
        assert_eq!(case.end_of(&request).await.to_string(), "shutting down");
        case.finish().await;
    }
}

#[tokio::test]
async fn where_a_half_close_is_allowed_a_hang_up_shows_when_a_write_fails() {
    let mut case = Case::start(Protocol::Http1HalfClose, async |_, one| {
        Response::new(endless(one, 1000))
    })
    .await;
    let mut client = case.server.client().await;
    let mut response = soon(client.send(get())).await.unwrap();
    soon(response.frame()).await.unwrap().unwrap();
    let request = case.request().await;
    client.hang_up().await;
    assert!(matches!(
        case.end_of(&request).await,
        StopReason::ConsumerDropped
    ));
    case.finish().await;
}

#[tokio::test]
async fn a_hang_up_in_the_request_body_is_seen_on_http_2() {
    let mut case = Case::start(Protocol::Http2, async |_, _one| pending().await).await;
    let mut client = case.server.client().await;
    let body = crate::server::ClientBody::Right(boxed(Script::new(["first"], Then::Waits)));
    let response =
        tokio::spawn(client.send(Request::post("http://localhost/").body(body).unwrap()));
    let request = case.request().await;
    client.hang_up().await;
    assert!(matches!(
        case.end_of(&request).await,
        StopReason::ConsumerDropped
    ));
    assert!(soon(response).await.unwrap().is_err());
    case.finish().await;
}

/// A client that sends a request and never reads. Its drop closes the connection.
async fn never_reading(
    case: &Case,
    protocol: Protocol,
) -> (Option<TcpStream>, Option<(Client, Response<Incoming>)>) {
    match protocol {
        Protocol::Http2 => {
            let mut client = case.server.client().await;
            let response = soon(client.send(get())).await.unwrap();
            (None, Some((client, response)))
        }
        _ => {
            let mut socket = TcpStream::connect(case.server.address).await.unwrap();
            socket
                .write_all(b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n")
                .await
                .unwrap();
            (Some(socket), None)
        }
    }
}

/// Waits until hyper no longer polls the body.
async fn until_stalled(frames: &AtomicUsize) {
    let mut still = 0;
    let mut last = 0;
    while still < 20 {
        tokio::time::sleep(Duration::from_millis(5)).await;
        let now = frames.load(Ordering::SeqCst);
        still = if now == last && now > 0 { still + 1 } else { 0 };
        last = now;
    }
}

#[tokio::test]
async fn the_body_of_a_client_that_never_reads_is_dropped_by_the_cancel() {
    for protocol in BOTH {
        let frames = Arc::new(AtomicUsize::new(0));
        let counted = Arc::clone(&frames);
        let mut case = Case::start(protocol, move |_, one| {
            let counted = Arc::clone(&counted);
            ready(Response::new(endless_and(10_000, move || {
                let _ = &one;
                counted.fetch_add(1, Ordering::SeqCst);
            })))
        })
        .await;
        let client = never_reading(&case, protocol).await;
        let request = case.request().await;
        until_stalled(&frames).await;
        assert_eq!(case.alive.count(), 1);
        assert!(!request.is_cancelled());
        case.token.cancel_with("shutting down");
        assert_eq!(case.alive.count(), 0, "dropped when `cancel` returns");
        soon(case.token.settled()).await;
        assert_eq!(request.stop_reason().unwrap().to_string(), "shutting down");
        drop(client);
        case.finish().await;
    }
}

#[tokio::test]
async fn the_body_of_a_client_that_never_reads_is_dropped_at_the_timeout() {
    for protocol in BOTH {
        let mut case = Case::with_timeout(protocol, Duration::from_millis(300), move |_, one| {
            ready(Response::new(endless(one, 10_000)))
        })
        .await;
        let client = never_reading(&case, protocol).await;
        let request = case.request().await;
        assert!(matches!(
            case.end_of(&request).await,
            StopReason::DeadlineExceeded
        ));
        drop(client);
        case.finish().await;
    }
}

#[tokio::test]
async fn a_handler_that_ignores_everything_is_dropped_and_the_client_gets_a_response() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |_, _one| {
            loop {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        })
        .await;
        let mut client = case.server.client().await;
        let response = tokio::spawn(client.send(get()));
        let request = case.request().await;
        case.token.cancel_with("shutting down");
        let response = soon(response).await.unwrap().unwrap();
        assert_eq!(response.status(), StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(case.end_of(&request).await.to_string(), "shutting down");
        case.finish().await;

        let timeout = Duration::from_millis(50);
        let mut case = Case::with_timeout(protocol, timeout, async |_, _one| pending().await).await;
        let mut client = case.server.client().await;
        let response = soon(client.send(get())).await.unwrap();
        assert_eq!(response.status(), StatusCode::GATEWAY_TIMEOUT);
        let request = case.request().await;
        assert!(matches!(
            case.end_of(&request).await,
            StopReason::DeadlineExceeded
        ));
        drop(client);
        case.finish().await;
    }
}

#[tokio::test]
async fn a_body_that_is_cut_is_an_error_for_the_client() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |_, one| Response::new(stalled(one))).await;
        let mut client = case.server.client().await;
        let response = soon(client.send(get())).await.unwrap();
        let request = case.request().await;
        let mut body = response.into_body();
        soon(body.frame()).await.unwrap().unwrap();
        case.token.cancel_with("shutting down");
        assert!(soon(body.frame()).await.unwrap().is_err(), "{protocol:?}");
        assert_eq!(case.end_of(&request).await.to_string(), "shutting down");
        drop((body, client));
        case.finish().await;
    }
}

#[tokio::test]
async fn a_task_on_the_side_ends_with_its_request() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |token, one| {
            let work = async move {
                let _one = one;
                pending::<()>().await;
            };
            tokio::spawn(token.run_until_cancelled_owned(work));
            Response::new(full("complete"))
        })
        .await;
        let mut client = case.server.client().await;
        let response = soon(client.send(get())).await.unwrap();
        assert_eq!(
            response.into_body().collect().await.unwrap().to_bytes(),
            "complete"
        );
        let request = case.request().await;
        assert!(matches!(case.end_of(&request).await, StopReason::Cancelled));
        drop(client);
        case.finish().await;
    }
}

/// hyper polls none of these to its end.
#[tokio::test]
async fn a_complete_response_is_no_hang_up() {
    let length = || {
        let mut script = Script::new(["abc"], Then::Waits);
        script.size = http_body::SizeHint::with_exact(3);
        Response::new(boxed(script))
    };
    let header = || {
        let response = Response::builder().header("content-length", "3");
        response
            .body(boxed(Script::new(["ab", "c"], Then::Waits)))
            .unwrap()
    };
    let no_content = || Response::builder().status(204).body(empty()).unwrap();
    type Respond = fn() -> Response<TestBody>;
    let responses: [(Method, Protocol, Respond); 8] = [
        (Method::GET, Protocol::Http1, length),
        (Method::GET, Protocol::Http1, header),
        (Method::GET, Protocol::Http1, no_content),
        (Method::GET, Protocol::Http2, no_content),
        (Method::HEAD, Protocol::Http1, length),
        (Method::HEAD, Protocol::Http2, length),
        (Method::HEAD, Protocol::Http1, || {
            Response::new(boxed(Script::new([], Then::Waits)))
        }),
        (Method::HEAD, Protocol::Http2, || {
            Response::new(boxed(Script::new([], Then::Waits)))
        }),
    ];
    for (method, protocol, respond) in responses {
        let mut case = Case::start(protocol, move |_, _| ready(respond())).await;
        let mut client = case.server.client().await;
        // Twice, on one connection.
        for _ in 0..2 {
            client.ready().await;
            let request = Request::builder().method(&method).uri("http://localhost/");
            let request = request.body(no_body()).unwrap();
            let response = soon(client.send(request)).await.unwrap();
            let body = soon(response.into_body().collect())
                .await
                .unwrap()
                .to_bytes();
            let expected = if method == Method::GET { 3 } else { 0 };
            assert!(body.len() == expected || body.is_empty());
            let request = case.request().await;
            let reason = case.end_of(&request).await;
            assert!(
                matches!(reason, StopReason::Cancelled),
                "{method} {protocol:?} {reason}"
            );
        }
        drop(client);
        case.finish().await;
    }
}

#[tokio::test]
async fn a_connection_of_another_protocol_is_left_to_the_server() {
    let timeout = Duration::from_secs(1);
    let (sender, mut requests) = mpsc::unbounded_channel();
    let token = CancellationToken::new();
    let inner = service_fn(move |mut request: Request<Incoming>| {
        let token = crate::support::token_of(&request);
        sender.send(token.clone()).unwrap();
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            let upgraded = upgrade.await.unwrap();
            let mut socket = hyper_util::rt::TokioIo::new(upgraded);
            socket.write_all(b"hello").await.unwrap();
            token.cancelled().await;
            socket.write_all(b"bye").await.unwrap();
            socket.shutdown().await.unwrap();
        });
        let response = Response::builder()
            .status(101)
            .header("connection", "upgrade");
        ready(Ok::<_, Infallible>(
            response.header("upgrade", "chat").body(empty()).unwrap(),
        ))
    });
    let service = RequestTokenLayer::new(&token).timeout(timeout).layer(inner);
    let server = Server::start(Protocol::Http1, service).await;
    let mut socket = TcpStream::connect(server.address).await.unwrap();
    let head = "GET / HTTP/1.1\r\nhost: localhost\r\nconnection: upgrade\r\nupgrade: chat\r\n\r\n";
    socket.write_all(head.as_bytes()).await.unwrap();
    let mut received = Vec::new();
    let mut buffer = [0; 1000];
    while !received.ends_with(b"\r\n\r\nhello") {
        let length = soon(socket.read(&mut buffer)).await.unwrap();
        assert!(length > 0);
        received.extend_from_slice(&buffer[..length]);
    }
    let request = soon(requests.recv()).await.unwrap();
    tokio::time::sleep(timeout * 2).await;
    assert!(!request.is_cancelled());
    token.cancel_with("shutting down");
    let mut rest = String::new();
    soon(socket.read_to_string(&mut rest)).await.unwrap();
    assert_eq!(rest, "bye");
    assert_eq!(request.stop_reason().unwrap().to_string(), "shutting down");
    server.stop().await;
}

#[tokio::test]
async fn a_shutdown_is_graceful_and_then_hard() {
    for protocol in BOTH {
        let finish = CancellationToken::new();
        let finished = finish.clone();
        let mut case = Case::start(protocol, move |_, one| {
            let finished = finished.clone();
            async move {
                // Of two requests the first is finished in time.
                finished.cancelled().await;
                Response::new(stalled(one))
            }
        })
        .await;
        let mut quick = case.server.client().await;
        let mut slow = case.server.client().await;
        let quick_response = tokio::spawn(quick.send(get()));
        let slow_response = tokio::spawn(slow.send(get()));
        let requests = [case.request().await, case.request().await];

        case.server.graceful.cancel();
        tokio::time::sleep(Duration::from_millis(20)).await;
        for request in &requests {
            assert!(
                !request.is_cancelled(),
                "a graceful shutdown leaves requests alone"
            );
        }
        finish.cancel();
        let mut quick_body = soon(quick_response).await.unwrap().unwrap().into_body();
        let mut slow_body = soon(slow_response).await.unwrap().unwrap().into_body();
        soon(quick_body.frame()).await.unwrap().unwrap();
        soon(slow_body.frame()).await.unwrap().unwrap();
        assert_eq!(case.server.connections.count(), 2);

        // Endless responses: after the grace period they are cut.
        soon(case.token.cancel_and_settle()).await;
        assert_eq!(case.alive.count(), 0);
        assert!(soon(quick_body.frame()).await.unwrap().is_err());
        assert!(soon(slow_body.frame()).await.unwrap().is_err());
        case.finish().await;
    }
}

#[tokio::test]
async fn nothing_is_left_after_10_000_requests() {
    for protocol in BOTH {
        let mut case = Case::start(protocol, async |token, one| {
            let work = async move {
                let _one = one;
                pending::<()>().await;
            };
            tokio::spawn(token.run_until_cancelled_owned(work));
            Response::new(boxed(StreamBody::new(
                stream::iter(["a", "b"])
                    .map(|text| Ok::<_, Infallible>(Frame::data(Bytes::from(text)))),
            )))
        })
        .await;
        let metrics = tokio::runtime::Handle::current().metrics();
        let tasks = metrics.num_alive_tasks();
        let mut clients = Vec::new();
        for _ in 0..10 {
            clients.push(case.server.client().await);
        }
        let heap = std::cell::Cell::new(None);
        for round in 0..1000 {
            for (number, client) in clients.iter_mut().enumerate() {
                client.ready().await;
                let response = soon(client.send(get())).await.unwrap();
                // Not kept, as its memory would count.
                drop(case.request().await);
                // Some hang up.
                if (round + number) % 50 == 0 {
                    drop(response);
                    *client = case.server.client().await;
                } else {
                    soon(response.into_body().collect()).await.unwrap();
                }
            }
            if round == 100 {
                until("the tasks of these requests end", || {
                    case.alive.count() == 0
                })
                .await;
                heap.set(Some(crate::heap::bytes()));
            }
        }
        until("the tasks of the requests end", || case.alive.count() == 0).await;
        let growth = crate::heap::bytes() - heap.get().unwrap();
        assert!(
            growth < 200_000,
            "{growth} bytes for 9,000 requests, {protocol:?}"
        );
        drop(clients);
        until("the connections end", || {
            case.server.connections.count() == 0
        })
        .await;
        until("the tasks end", || metrics.num_alive_tasks() <= tasks).await;
        case.finish().await;
    }
}
