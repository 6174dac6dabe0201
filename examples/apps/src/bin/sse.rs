//! Server-sent events, produced in three ways. Each producer ends when the browser's tab is closed.
//!
//! ```text
//! cargo run -p apps --bin sse      # then open http://127.0.0.1:3000 in two tabs, and close one; Ctrl-C ends it
//! ```
//!
//! In Go every handler has `r.Context()`, and passes it on: a goroutine or a call that does not watch it continues after
//! the client has hung up. Here [`RequestTokenLayer`] gives every request a token, and producers are made with it. They
//! also end when the response is dropped, so none can be forgotten.
//!
//! At a shutdown, endless responses are cut with an error: the browser connects again, to the next server.

use axum::{
    Extension, Router,
    extract::Path,
    response::{Html, Sse, sse::Event},
    routing::get,
};
use futures::{Stream, StreamExt, stream::BoxStream};
use std::{
    convert::Infallible,
    future::IntoFuture,
    io,
    pin::pin,
    sync::mpsc::{self, RecvTimeoutError},
    time::Duration,
};
use stopcock::{
    CancelFutureExt, CancellationToken, blocking_generator, generator, http::RequestTokenLayer,
    signal, spawn_generator,
};
use tokio::{net::TcpListener, signal::ctrl_c, time::sleep};

#[tokio::main]
async fn main() -> io::Result<()> {
    let listener = TcpListener::bind("127.0.0.1:3000").await?;
    println!("listening on http://{}", listener.local_addr()?);
    let ctrl_c = signal::when(ctrl_c()).with_reason("the server is shutting down");
    let server = CancellationToken::from_signal(ctrl_c);
    serve(listener, &server, Duration::from_secs(5)).await
}

/// Returns after the shutdown, at most `grace` after the last producer has been dropped.
pub(crate) async fn serve(
    listener: TcpListener,
    server: &CancellationToken,
    grace: Duration,
) -> io::Result<()> {
    // For the number of producers on the page.
    server.track_holders();
    let app = Router::new()
        .route("/", get(async || Html(include_str!("sse.html"))))
        .route("/events/{producer}/{millis}", get(events))
        .layer(RequestTokenLayer::new(server))
        .layer(Extension(Server(server.clone())));
    let serving =
        axum::serve(listener, app).with_graceful_shutdown(server.clone().cancelled_owned());

    let mut serving = pin!(serving.into_future());
    let served = tokio::select! {
        served = &mut serving => served,
        // No producer is left. But hyper may have bytes for a client that does not read, and keep its connection open until
        // the process ends.
        () = server.settled() => serving.with_timeout(grace).await.unwrap_or(Ok(())),
    };
    // The last connection may end before a producer on a task or a thread of its own.
    server.cancel_and_settle().await;
    served
}

#[derive(Clone)]
struct Server(CancellationToken);

impl Server {
    /// The number of producers, for all clients.
    fn producers(&self) -> usize {
        let holders = self.0.holders();
        holders
            .iter()
            .filter(|h| h.what().ends_with("generator"))
            .count()
    }
}

/// The token is that of the request, like `r.Context()`.
async fn events(
    Extension(request): Extension<CancellationToken>,
    Extension(server): Extension<Server>,
    Path((producer, millis)): Path<(String, u64)>,
) -> Sse<impl Stream<Item = Result<Event, Infallible>>> {
    let pace = Duration::from_millis(millis);
    let numbers = match producer.as_str() {
        "spawn_generator" => spawned(&request, pace),
        "blocking_generator" => blocking(&request, pace),
        _ => in_handler(&request, pace),
    };
    Sse::new(numbers.map(move |n| {
        let producers = server.producers();
        Ok(Event::default().data(format!("event {n}, producers: {producers}")))
    }))
}

/// Runs in hyper's poll of the body, and is dropped with it.
fn in_handler(request: &CancellationToken, pace: Duration) -> BoxStream<'static, u64> {
    let numbers = generator(request, async move |mut y| {
        for n in 1.. {
            y.yield_item(n).await;
            sleep(pace).await;
        }
    });
    numbers.boxed()
}

/// Runs on a task of its own, which is dropped wherever it waits.
fn spawned(request: &CancellationToken, pace: Duration) -> BoxStream<'static, u64> {
    let numbers = spawn_generator(request, 1, async move |tx| {
        for n in 1.. {
            tx.send(n).await?;
            sleep(pace).await;
        }
        Ok(())
    });
    numbers.boxed()
}

/// Runs on a thread of its own, which cannot be dropped: its next `send` fails.
fn blocking(request: &CancellationToken, pace: Duration) -> BoxStream<'static, u64> {
    let numbers = blocking_generator(request, 1, move |tx| {
        // A wait between two sends has to be interrupted. Here it is for a channel, which is closed.
        let (wake, ticks) = mpsc::channel::<Infallible>();
        let _closes = tx.token().on_cancel(move |_| drop(wake));
        for n in 1.. {
            tx.send(n)?;
            if let Err(RecvTimeoutError::Disconnected) = ticks.recv_timeout(pace) {
                break;
            }
        }
        Ok(())
    });
    numbers.boxed()
}
