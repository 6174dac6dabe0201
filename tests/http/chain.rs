//! Services that call each other over the network: the layer for servers and the one for clients.

use crate::{
    server::{Client, ClientBody, Protocol, Server, get, no_body, soon, until},
    support::{Alive, BoxError, Script, TestBody, Then, boxed, empty, token_of},
};
use http::{Request, Response, StatusCode};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use std::{convert::Infallible, future::Future, net::SocketAddr, time::Duration};
use stopcock::{
    CancellationToken, StopReason,
    http::{PropagateTokenLayer, RequestTokenLayer},
};
use tokio::sync::mpsc;
use tower::{Layer, Service, ServiceExt, service_fn};

const BOTH: [Protocol; 2] = [Protocol::Http1, Protocol::Http2];

/// A client that connects for each call.
fn client(
    protocol: Protocol,
    address: SocketAddr,
) -> impl Service<
    Request<ClientBody>,
    Response = Response<
        impl http_body::Body<Data = bytes::Bytes, Error = BoxError> + Send + 'static,
    >,
    Error = BoxError,
    Future: Future + Send,
> + Clone
+ Send
+ Sync
+ 'static {
    let connect = service_fn(move |request: Request<ClientBody>| async move {
        let mut client = Client::connect(protocol, address).await;
        client.send(request).await
    });
    PropagateTokenLayer::new().layer(connect)
}

/// The request's token, when the request came in, and the rest of its time.
struct Seen {
    token: CancellationToken,
    remaining: Option<Duration>,
}

impl Seen {
    fn of(token: CancellationToken) -> Self {
        let remaining = token.remaining();
        Self { token, remaining }
    }
}

/// The front calls the middle, which calls the back, which answers with the body of this script.
struct Chain {
    servers: Vec<Server>,
    tokens: Vec<CancellationToken>,
    seen: mpsc::UnboundedReceiver<Seen>,
    alive: Alive,
}

impl Chain {
    async fn start(protocol: Protocol, has_head: bool) -> Self {
        let (sender, seen) = mpsc::unbounded_channel();
        let alive = Alive::default();
        let mut tokens = vec![CancellationToken::new()];
        let (counted, noted) = (alive.clone(), sender.clone());
        let back = service_fn(move |request: Request<Incoming>| {
            let one = counted.one();
            noted.send(Seen::of(token_of(&request))).unwrap();
            async move {
                if !has_head {
                    let _one = one;
                    return std::future::pending().await;
                }
                let mut script = Script::new(["first"], Then::Waits);
                script.alive = Some(one);
                Ok::<_, Infallible>(Response::new(boxed(script)))
            }
        });
        let layer = RequestTokenLayer::new(&tokens[0]).grpc_timeout();
        let mut servers = vec![Server::start(protocol, layer.layer(back)).await];
        for _ in 0..2 {
            let token = CancellationToken::new();
            let (counted, noted) = (alive.clone(), sender.clone());
            let call = client(protocol, servers[servers.len() - 1].address);
            let service = service_fn(move |request: Request<Incoming>| {
                let one = counted.one();
                let token = token_of(&request);
                noted.send(Seen::of(token.clone())).unwrap();
                let mut onwards = get();
                onwards.extensions_mut().insert(token);
                let call = call.clone();
                async move {
                    let _one = one;
                    let response: Response<TestBody> = match call.oneshot(onwards).await {
                        Ok(response) => response.map(boxed),
                        Err(_) => Response::builder().status(502).body(empty()).unwrap(),
                    };
                    Ok::<_, Infallible>(response)
                }
            });
            let layer = RequestTokenLayer::new(&token).grpc_timeout();
            servers.push(Server::start(protocol, layer.layer(service)).await);
            tokens.push(token);
        }
        Self {
            servers,
            tokens,
            seen,
            alive,
        }
    }

    /// From the front to the back.
    async fn seen(&mut self) -> [Seen; 3] {
        let mut seen = Vec::new();
        for _ in 0..3 {
            seen.push(soon(self.seen.recv()).await.unwrap());
        }
        match seen.try_into() {
            Ok(seen) => seen,
            Err(_) => unreachable!(),
        }
    }

    async fn client(&self) -> Client {
        self.servers[2].client().await
    }

    async fn finish(self) {
        until("all handlers and bodies are dropped", || {
            self.alive.count() == 0
        })
        .await;
        for server in self.servers {
            server.stop().await;
        }
        for token in self.tokens {
            soon(token.cancel_and_settle()).await;
        }
    }
}

#[tokio::test]
async fn a_hang_up_travels_to_the_last_service() {
    for protocol in BOTH {
        for has_head in [false, true] {
            let mut chain = Chain::start(protocol, has_head).await;
            let mut client = chain.client().await;
            let response = tokio::spawn(client.send(get()));
            let seen = chain.seen().await;
            let response = match has_head {
                true => {
                    let mut response = soon(response).await.unwrap().unwrap();
                    soon(response.frame()).await.unwrap().unwrap();
                    Some(response)
                }
                false => None,
            };
            client.hang_up().await;
            for Seen { token, .. } in seen {
                soon(token.cancelled()).await;
                let reason = token.stop_reason().unwrap();
                assert!(
                    matches!(reason, StopReason::ConsumerDropped),
                    "{protocol:?} {reason}"
                );
            }
            drop(response);
            chain.finish().await;
        }
    }
}

#[tokio::test]
async fn a_deadline_shrinks_from_service_to_service() {
    for protocol in BOTH {
        let mut chain = Chain::start(protocol, true).await;
        let mut client = chain.client().await;
        let request = Request::get("http://localhost/").header("grpc-timeout", "300S");
        let response = soon(client.send(request.body(no_body()).unwrap()))
            .await
            .unwrap();
        let remaining = chain.seen().await.map(|seen| seen.remaining.unwrap());
        assert!(remaining[0] <= Duration::from_secs(300));
        assert!(remaining[1] < remaining[0], "{remaining:?}");
        assert!(remaining[2] < remaining[1], "{remaining:?}");
        drop((response, client));
        chain.finish().await;
    }
}

#[tokio::test]
async fn a_deadline_ends_the_whole_chain() {
    for protocol in BOTH {
        for has_head in [false, true] {
            let mut chain = Chain::start(protocol, has_head).await;
            let mut client = chain.client().await;
            let request = Request::get("http://localhost/").header("grpc-timeout", "1S");
            let response = soon(client.send(request.body(no_body()).unwrap()))
                .await
                .unwrap();
            match response.status() {
                StatusCode::OK => assert!(soon(response.into_body().collect()).await.is_err()),
                // A later service may have answered first. On a slow machine the time may be over before the head.
                status => assert!(matches!(
                    status,
                    StatusCode::GATEWAY_TIMEOUT | StatusCode::BAD_GATEWAY
                )),
            }
            for Seen { token, .. } in chain.seen().await {
                soon(token.cancelled()).await;
            }
            drop(client);
            chain.finish().await;
        }
    }
}

#[tokio::test]
async fn a_service_that_is_stopped_is_an_error_further_up() {
    for protocol in BOTH {
        let mut chain = Chain::start(protocol, true).await;
        let mut client = chain.client().await;
        let mut response = soon(client.send(get())).await.unwrap();
        soon(response.frame()).await.unwrap().unwrap();
        let seen = chain.seen().await;
        chain.tokens[0].cancel_with("shutting down");
        assert!(soon(response.frame()).await.unwrap().is_err());
        for Seen { token, .. } in seen {
            soon(token.cancelled()).await;
        }
        drop((response, client));
        chain.finish().await;
    }
}
