//! Real servers and clients on loopback.

use crate::support::{Alive, BoxError, One, TestBody, TestError, boxed};
use bytes::Bytes;
use futures::future;
use http::{Request, Response};
use http_body::Body;
use http_body_util::Full;
use hyper::{
    body::Incoming,
    client::conn::{http1 as client_http1, http2 as client_http2},
    rt::Executor,
    server::conn::{http1, http2},
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    service::TowerToHyperService,
};
use std::{
    future::Future,
    mem,
    net::SocketAddr,
    pin::pin,
    sync::{Arc, Mutex},
    time::Duration,
};
use stopcock::CancellationToken;
use tokio::{
    net::{TcpListener, TcpStream},
    task::JoinHandle,
    time::timeout,
};
use tower::{Service, ServiceExt, util::BoxCloneService};

#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Protocol {
    Http1,
    /// For which a half-close of the client is not a hang-up.
    Http1HalfClose,
    Http2,
}

/// The longest wait for an event: a test that waits longer is stuck.
pub(crate) async fn soon<Fut: Future>(future: Fut) -> Fut::Output {
    let watchdog = timeout(Duration::from_secs(60), future);
    watchdog.await.expect("stuck")
}

/// Waits for a condition that nothing reports.
pub(crate) async fn until(what: &str, is_so: impl Fn() -> bool) {
    let watchdog = timeout(Duration::from_secs(60), async {
        while !is_so() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    });
    watchdog.await.unwrap_or_else(|_| panic!("never: {what}"));
}

pub(crate) type ErasedService = BoxCloneService<Request<Incoming>, Response<TestBody>, TestError>;

pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    pub(crate) connections: Alive,
    /// Cancelled, it accepts no more, and each connection ends after the response under way.
    pub(crate) graceful: CancellationToken,
    accept: JoinHandle<()>,
    protocol: Protocol,
}

impl Server {
    pub(crate) async fn start<S, B>(protocol: Protocol, service: S) -> Self
    where
        S: Service<Request<Incoming>, Response = Response<B>> + Clone + Send + 'static,
        S::Future: Send,
        S::Error: Into<BoxError>,
        B: Body<Data = Bytes> + Send + 'static,
        B::Error: Into<BoxError>,
    {
        // One type for all tests, as hyper takes long to compile for each.
        let service = service
            .map_response(|response| response.map(boxed))
            .map_err(|error| TestError::from(error.into()));
        Self::start_erased(protocol, BoxCloneService::new(service)).await
    }

    async fn start_erased(protocol: Protocol, service: ErasedService) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let connections = Alive::default();
        let graceful = CancellationToken::new();
        let accept = tokio::spawn({
            let (connections, graceful) = (connections.clone(), graceful.clone());
            async move {
                while let Some(accepted) = graceful.run_until_cancelled(listener.accept()).await {
                    let (socket, _) = accepted.unwrap();
                    let serve = serve(protocol, socket, service.clone(), graceful.clone());
                    tokio::spawn(count(connections.one(), serve));
                }
            }
        });
        Self {
            address,
            connections,
            graceful,
            accept,
            protocol,
        }
    }

    pub(crate) async fn client(&self) -> Client {
        Client::connect(self.protocol, self.address).await
    }

    /// Ends it as soon as there are no connections.
    pub(crate) async fn stop(self) {
        self.graceful.cancel();
        soon(self.accept).await.unwrap();
        until("the connections end", || self.connections.count() == 0).await;
    }
}

async fn count(one: One, serve: impl Future<Output = ()>) {
    let _one = one;
    serve.await;
}

async fn serve(
    protocol: Protocol,
    socket: TcpStream,
    service: ErasedService,
    graceful: CancellationToken,
) {
    /// The connections of both protocols have this method, each without a common trait.
    macro_rules! drive {
        ($connection:expr) => {{
            let mut connection = pin!($connection);
            let ended = graceful.run_until_cancelled(connection.as_mut()).await;
            if ended.is_none() {
                connection.as_mut().graceful_shutdown();
                let _ = connection.await;
            }
        }};
    }
    let socket = TokioIo::new(socket);
    let service = TowerToHyperService::new(service);
    match protocol {
        Protocol::Http1 => {
            drive!(
                http1::Builder::new()
                    .serve_connection(socket, service)
                    .with_upgrades()
            );
        }
        Protocol::Http1HalfClose => {
            let mut builder = http1::Builder::new();
            drive!(builder.half_close(true).serve_connection(socket, service));
        }
        Protocol::Http2 => {
            let builder = http2::Builder::new(TokioExecutor::new());
            drive!(builder.serve_connection(socket, service));
        }
    }
}

pub(crate) type ClientBody = http_body_util::Either<Full<Bytes>, TestBody>;

#[derive(Debug)]
enum Sender {
    Http1(client_http1::SendRequest<ClientBody>),
    Http2(client_http2::SendRequest<ClientBody>),
}

/// A connection to a server.
#[derive(Debug)]
pub(crate) struct Client {
    sender: Sender,
    tasks: Tasks,
}

/// The tasks of a connection. hyper spawns some itself, of which one owns the socket.
#[derive(Clone, Debug, Default)]
struct Tasks(Arc<Mutex<Vec<JoinHandle<()>>>>);

impl<Fut> Executor<Fut> for Tasks
where
    Fut: Future + Send + 'static,
{
    fn execute(&self, future: Fut) {
        let task = tokio::spawn(async {
            future.await;
        });
        self.0.lock().unwrap().push(task);
    }
}

impl Client {
    pub(crate) async fn connect(protocol: Protocol, address: SocketAddr) -> Self {
        let socket = TokioIo::new(TcpStream::connect(address).await.unwrap());
        match protocol {
            Protocol::Http1 | Protocol::Http1HalfClose => {
                let (sender, connection) = client_http1::handshake(socket).await.unwrap();
                let tasks = Tasks::default();
                tasks.execute(connection.with_upgrades());
                let sender = Sender::Http1(sender);
                Self { sender, tasks }
            }
            Protocol::Http2 => {
                let tasks = Tasks::default();
                let handshake = client_http2::handshake(tasks.clone(), socket);
                let (sender, connection) = handshake.await.unwrap();
                tasks.execute(connection);
                let sender = Sender::Http2(sender);
                Self { sender, tasks }
            }
        }
    }

    pub(crate) fn send(
        &mut self,
        request: Request<ClientBody>,
    ) -> impl Future<Output = hyper::Result<Response<Incoming>>> + Send + use<> {
        match &mut self.sender {
            Sender::Http1(sender) => future::Either::Left(sender.send_request(request)),
            Sender::Http2(sender) => future::Either::Right(sender.send_request(request)),
        }
    }

    /// Waits until it can send the next request.
    pub(crate) async fn ready(&mut self) {
        let ready = match &mut self.sender {
            Sender::Http1(sender) => soon(sender.ready()).await,
            Sender::Http2(sender) => soon(sender.ready()).await,
        };
        ready.unwrap();
    }

    /// Closes the socket at once.
    pub(crate) async fn hang_up(self) {
        let tasks = mem::take(&mut *self.tasks.0.lock().unwrap());
        for task in tasks {
            task.abort();
            let _ = task.await;
        }
    }
}

pub(crate) fn get() -> Request<ClientBody> {
    Request::get("http://localhost/").body(no_body()).unwrap()
}

pub(crate) fn no_body() -> ClientBody {
    ClientBody::Left(Full::default())
}
