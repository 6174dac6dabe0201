//! The request's token: tower layers for HTTP servers and clients, such as axum, tonic, hyper and reqwest.
//!
//! - [`RequestTokenLayer`] gives every request of a server a [`CancellationToken`](crate::CancellationToken). It is
//!   cancelled when the client disconnects, when the request's timeout passes, with the server, and after the complete
//!   response. It is Go's `r.Context()`.
//! - [`PropagateTokenLayer`] passes that token on to the calls that a handler makes: a call gets the remaining time as
//!   its `grpc-timeout`, and is stopped with the token. It is Go's `http.NewRequestWithContext`.
//!
//! With both, a deadline and a disconnect propagate through any number of services.
//!
//! # axum
//!
//! The token is an `Extension`. Streams, tasks and blocking calls that are made with it, or with a child of it, end
//! with the request.
//!
//! ```no_run
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/stand_ins.rs"));
//! use axum::{Extension, Router, body::Body, routing::get};
//! use std::time::Duration;
//! use stopcock::{CancellationToken, http::RequestTokenLayer, spawn_generator};
//! use tokio::{net::TcpListener, signal::ctrl_c, time::sleep};
//!
//! async fn numbers(Extension(request): Extension<CancellationToken>) -> Body {
//!     // It runs in a task of its own, which ends when the client disconnects.
//!     let lines = spawn_generator(&request, 16, async |tx| {
//!         for n in 1.. {
//!             tx.send(format!("{n}\n")).await?;
//!         }
//!         Ok(())
//!     });
//!     Body::from_stream(lines)
//! }
//!
//! #[tokio::main]
//! async fn main() {
//!     let server = CancellationToken::new();
//!     let app = Router::new()
//!         .route("/numbers", get(numbers))
//!         .layer(RequestTokenLayer::new(&server).timeout(Duration::from_secs(30)));
//!
//!     // On Ctrl-C: accept no new requests. Requests in flight have ten seconds.
//!     let graceful = CancellationToken::new();
//!     tokio::spawn({
//!         let (graceful, server) = (graceful.clone(), server.clone());
//!         async move {
//!             ctrl_c().await.unwrap();
//!             graceful.cancel();
//!             sleep(Duration::from_secs(10)).await;
//!             server.cancel_with("shutting down");
//!         }
//!     });
//!     let listener = TcpListener::bind("127.0.0.1:3000").await.unwrap();
//!     axum::serve(listener, app)
//!         .with_graceful_shutdown(graceful.cancelled_owned())
//!         .await
//!         .unwrap();
//! }
//! ```
//!
//! # tonic
//!
//! The token is in `request.extensions()`. With [`grpc_timeout`](RequestTokenLayer::grpc_timeout), the deadline that
//! the client has set is the token's deadline. A client whose channel is under [`PropagateTokenLayer`] passes it on.
//!
//! ```no_run
//! # #![allow(dead_code)]
//! # include!(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/http/stand_ins.rs"));
//! # use quotes::QuotesClient;
//! use futures::{Stream, TryStreamExt};
//! use stopcock::{
//!     CancelTryStreamExt, CancellationToken, StopReason,
//!     http::{PropagateToken, PropagateTokenLayer, RequestTokenLayer},
//! };
//! use tonic::{Request, Response, Status, transport::{Channel, Server}};
//! use tower::Layer;
//!
//! // The methods of a trait that tonic generates look the same.
//! struct Prices {
//!     quotes: QuotesClient<PropagateToken<Channel>>,
//! }
//!
//! impl Prices {
//!     async fn watch(
//!         &self,
//!         request: Request<String>,
//!     ) -> Result<Response<impl Stream<Item = Result<u64, Status>> + use<>>, Status> {
//!         let token = request.extensions().get::<CancellationToken>();
//!         let token = token.cloned().unwrap_or_default();
//!
//!         // The outgoing call has the remaining time, and is stopped with this request.
//!         let mut onwards = Request::new(request.into_inner());
//!         onwards.extensions_mut().insert(token.clone());
//!         let quotes = self.quotes.clone().watch(onwards).await?.into_inner();
//!
//!         let prices = quotes.map_ok(|quote| quote * 100);
//!         Ok(Response::new(prices.try_with_cancellation(&token).map_stop(status)))
//!     }
//! }
//!
//! fn status(reason: StopReason) -> Status {
//!     match reason.is_timeout() {
//!         true => Status::deadline_exceeded(reason.to_string()),
//!         false => Status::unavailable(reason.to_string()),
//!     }
//! }
//!
//! #[tokio::main]
//! async fn main() {
//!     let server = CancellationToken::new();
//!     let channel = Channel::from_static("http://quotes:50051").connect_lazy();
//!     let prices = Prices {
//!         quotes: QuotesClient::new(PropagateTokenLayer::new().layer(channel)),
//!     };
//!     Server::builder()
//!         .layer(RequestTokenLayer::new(&server).grpc_timeout())
//!         .add_service(prices)
//!         .serve("127.0.0.1:50052".parse().unwrap())
//!         .await
//!         .unwrap();
//! }
//! ```

mod body_signal;
mod body_stream;
mod call;
mod grpc_timeout;
mod in_flight;
mod on_stop;
mod propagate_body;
mod propagate_future;
mod propagate_token;
mod request_body;
mod request_future;
mod request_info;
mod request_token;
mod stoppable_body;

pub use on_stop::{DefaultOnStop, OnStop};
pub use propagate_body::PropagateTokenBody;
pub use propagate_future::PropagateTokenFuture;
pub use propagate_token::{PropagateToken, PropagateTokenLayer};
pub use request_body::RequestTokenBody;
pub use request_future::RequestTokenFuture;
pub use request_token::{RequestToken, RequestTokenLayer};

use std::error::Error;

/// The error type of bodies and of calls.
type BoxError = Box<dyn Error + Send + Sync>;
