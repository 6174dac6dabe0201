//! A chain of three gRPC services. A deadline and a hang-up of the first client reach the last one.
//!
//! ```text
//! cargo run -p apps --bin grpc                  # all three in one process, and a client
//! cargo run -p apps --bin grpc -- 5003          # or each in a process of its own: the last one,
//! cargo run -p apps --bin grpc -- 5002 5003     # the one before it, ..
//! ```
//!
//! In Go `ctx` does that: the server makes one for each request, with the deadline that the client has sent, and a call that
//! is made with it sends the rest of the time. Here two layers do it, one around the server and one around the client. The
//! token in the extensions of a request is its context.

pub(crate) mod ticker;

use futures::TryStreamExt;
use std::{env, time::Duration};
use stopcock::{
    CancelTryStreamExt, CancellationToken, MapStop, SpawnedGenerator, StopReason,
    TryWithCancellation,
    http::{PropagateToken, PropagateTokenLayer, RequestTokenLayer},
    signal::{self, TokenSignal},
    spawn_generator,
};
use ticker::{
    Ask, Tick,
    ticker_client::TickerClient,
    ticker_server::{Ticker, TickerServer},
};
use tokio::{net::TcpListener, signal::ctrl_c, time::sleep};
use tonic::{
    Request, Response, Status, Streaming, async_trait,
    transport::{Channel, Endpoint, Server, server::TcpIncoming},
};
use tower::Layer;

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

#[tokio::main]
async fn main() -> Result<(), Error> {
    let server = CancellationToken::from_signal(signal::when(ctrl_c()));
    let mut ports = env::args().skip(1).map(|port| port.parse());
    if let Some(port) = ports.next() {
        let listener = TcpListener::bind(("127.0.0.1", port?)).await?;
        return serve(listener, ports.next().transpose()?, &server).await;
    }

    let mut next = None;
    for _ in 0..3 {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let server = server.clone();
        tokio::spawn(async move { serve(listener, next, &server).await });
        next = Some(port);
    }

    server.track_holders();
    let first = next.expect("there are three");
    let budget = CancellationToken::with_timeout(Duration::from_secs(1));
    match print_ticks(first, &budget).await {
        Ok(()) => println!("complete"),
        Err(status) => match StopReason::find_in(&status) {
            Some(reason) => println!("stopped: {reason}"),
            None => println!("failed: {status}"),
        },
    }
    // All three services have dropped what they had for the request.
    server.cancel_and_settle().await;
    println!("left: {}", server.holders().len());
    Ok(())
}

async fn print_ticks(port: u16, budget: &CancellationToken) -> Result<(), Status> {
    let ask = Ask {
        millis: 300,
        ..Ask::default()
    };
    let mut ticks = call(&mut connect(port), budget, ask).await?;
    while let Some(Tick { n, budgets }) = ticks.try_next().await? {
        println!("tick {n}, budgets on the way: {budgets:?} µs");
    }
    Ok(())
}

/// A service that passes its requests on to `next`. Without one it produces the ticks.
pub(crate) async fn serve(
    listener: TcpListener,
    next: Option<u16>,
    server: &CancellationToken,
) -> Result<(), Error> {
    let mut builder = Server::builder().layer(RequestTokenLayer::new(server).grpc_timeout());
    let service = match next {
        Some(port) => builder.add_service(TickerServer::new(Relay(connect(port)))),
        None => builder.add_service(TickerServer::new(Last)),
    };
    let incoming = TcpIncoming::from(listener);
    let served = service.serve_with_incoming_shutdown(incoming, server.cancelled());
    Ok(served.await?)
}

type Client = TickerClient<PropagateToken<Channel>>;

pub(crate) fn connect(port: u16) -> Client {
    let endpoint = Endpoint::from_shared(format!("http://127.0.0.1:{port}")).expect("it is a URL");
    TickerClient::new(PropagateTokenLayer::new().layer(endpoint.connect_lazy()))
}

/// Like `client.Ticks(ctx, ask)`. Dropping the stream hangs up.
pub(crate) async fn call(
    client: &mut Client,
    token: &CancellationToken,
    mut ask: Ask,
) -> Result<Streaming<Tick>, Status> {
    ask.note_budget(token);
    let mut request = Request::new(ask);
    request.extensions_mut().insert(token.clone());
    Ok(client.ticks(request).await?.into_inner())
}

/// The token of the layer around the server.
fn token_of(request: &Request<Ask>) -> Result<CancellationToken, Status> {
    let token = request.extensions().get().cloned();
    token.ok_or_else(|| Status::internal("there is no RequestTokenLayer"))
}

impl Ask {
    fn note_budget(&mut self, token: &CancellationToken) {
        let micros = token.remaining().map(|left| left.as_micros() as u64);
        self.budgets.extend(micros);
    }
}

struct Relay(Client);

#[async_trait]
impl Ticker for Relay {
    /// The layers stop it, and report the stop as an error.
    type TicksStream = Streaming<Tick>;

    async fn ticks(&self, request: Request<Ask>) -> Result<Response<Self::TicksStream>, Status> {
        let token = token_of(&request)?;
        let ticks = call(&mut self.0.clone(), &token, request.into_inner()).await?;
        Ok(Response::new(ticks))
    }
}

struct Last;

#[async_trait]
impl Ticker for Last {
    // tonic needs a name for the type, and every stream of this crate has one.
    type TicksStream = TryWithCancellation<
        SpawnedGenerator<Result<Tick, Status>>,
        TokenSignal,
        MapStop<fn(StopReason) -> Status>,
    >;

    async fn ticks(&self, request: Request<Ask>) -> Result<Response<Self::TicksStream>, Status> {
        let token = token_of(&request)?;
        let mut ask = request.into_inner();
        ask.note_budget(&token);
        let ticks = spawn_generator(&token, 1, async move |tx| {
            for n in 1.. {
                let budgets = ask.budgets.clone();
                tx.send(Ok(Tick { n, budgets })).await?;
                sleep(Duration::from_millis(ask.millis)).await;
            }
            Ok(())
        });
        let ticks = ticks.try_with_cancellation(&token);
        Ok(Response::new(ticks.map_stop(status as _)))
    }
}

fn status(reason: StopReason) -> Status {
    match reason.is_timeout() {
        true => Status::deadline_exceeded(reason.to_string()),
        false => Status::cancelled(reason.to_string()),
    }
}
