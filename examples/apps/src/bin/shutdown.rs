//! A server that Ctrl-C and SIGTERM stop: gracefully, then hard after a grace period, with a list of what was cut.
//!
//! ```text
//! cargo run -p apps --bin shutdown            # then: curl -N http://127.0.0.1:3000/ticks, and press Ctrl-C
//! cargo run -p apps --bin shutdown -- 0 5     # on a free port, with a grace period of five seconds
//! ```
//!
//! In Go that is `signal.NotifyContext`, `http.Server.Shutdown(ctx)`, and `Close()` if it fails. `Shutdown` does not end
//! a stream that is under way: one browser tab with live events makes it wait for the whole grace period.
//!
//! Here there are two tokens. `soft` ends responses that have no end of their own. Those for which a client waits continue,
//! and are only cut by `hard`: with an error, so that they do not look complete.
//!
//! ```text
//! hard ── soft     the grace period lasts until `soft` has settled
//! ```
//!
//! The exit code is 0 if the grace period was enough, and 1 if something had to be cut.

use axum::{Router, body::Body, extract::State, routing::get};
use futures::{Stream, StreamExt, stream};
use std::{convert::Infallible, env, future::IntoFuture, io, process::ExitCode, time::Duration};
use stopcock::{
    CancelFutureExt, CancelStreamExt, CancellationToken, generator, http::RequestTokenLayer, signal,
};
use tokio::{net::TcpListener, time::sleep};

#[tokio::main]
async fn main() -> io::Result<ExitCode> {
    let mut args = env::args()
        .skip(1)
        .map(|arg| arg.parse().expect("a number"));
    let port = args.next().unwrap_or(3000);
    let grace = Duration::from_secs(args.next().unwrap_or(10).into());

    // From here on Ctrl-C does not end the process by itself.
    let mut stop_signal = stop_signals()?;
    let listener = TcpListener::bind(("127.0.0.1", port)).await?;
    println!("listening on http://{}", listener.local_addr()?);

    let hard = CancellationToken::new();
    let soft = hard.child_token();
    soft.track_holders();
    let server = axum::serve(listener, app(&soft, &hard))
        .with_graceful_shutdown(soft.clone().cancelled_owned());
    let server = tokio::spawn(server.into_future());

    let reason = stop_signal().await;
    println!("{reason}: no new requests, and {grace:?} for those under way");
    soft.cancel_with(reason);

    let all = async {
        soft.settled().await;
        server.await
    };
    let again = signal::when(stop_signal()).with_reason("not waiting any longer");
    match all
        .with_cancellation(signal::any(signal::timeout(grace), again))
        .await
    {
        Ok(_) => {
            println!("everything has ended");
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            println!("{reason}, and these are still there:");
            for holder in soft.holders() {
                println!("  {holder}");
            }
            hard.cancel_with(reason);
            // All have been dropped, even where the client does not read.
            hard.settled().await;
            Ok(ExitCode::FAILURE)
        }
    }
}

fn app(soft: &CancellationToken, hard: &CancellationToken) -> Router {
    Router::new()
        .route("/ticks", get(ticks))
        .route("/report", get(report))
        .route("/stuck", get(stuck))
        // Cuts every response that is under way at the hard stop.
        .layer(RequestTokenLayer::new(hard))
        .with_state(soft.clone())
}

/// Endless lines. The soft stop ends them without an error: they are complete as they are.
async fn ticks(State(soft): State<CancellationToken>) -> Body {
    // `drop_on_cancel`, as hyper does not poll a body whose client does not read.
    let ticks = lines("tick", u64::MAX).take_until_cancelled(&soft);
    Body::from_stream(ticks.drop_on_cancel().map(Ok::<_, Infallible>))
}

/// Takes a second, for which the soft stop waits.
async fn report(State(soft): State<CancellationToken>) -> Body {
    // `soft` does not settle until this is dropped with the body, and lists it.
    let held = soft.hold();
    let rows = lines("row", 10).inspect(move |_| _ = &held);
    Body::from_stream(rows.map(Ok::<_, Infallible>))
}

/// A report that never ends.
async fn stuck(State(soft): State<CancellationToken>) -> Body {
    let held = soft.hold();
    // Owned by the whole stream: `chain` drops its first stream when that has ended.
    let rows = lines("row", 10).chain(stream::pending());
    let rows = rows.inspect(move |_| _ = &held);
    Body::from_stream(rows.map(Ok::<_, Infallible>))
}

fn lines(name: &'static str, count: u64) -> impl Stream<Item = String> + Send + 'static {
    generator(signal::never(), async move |mut y| {
        for n in 1..=count {
            y.yield_item(format!("{name} {n}\n")).await;
            sleep(Duration::from_millis(100)).await;
        }
    })
}

/// Waits for the next Ctrl-C or SIGTERM. Those that come meanwhile are not missed.
#[cfg(unix)]
fn stop_signals() -> io::Result<impl AsyncFnMut() -> &'static str> {
    use tokio::signal::unix::{SignalKind, signal};

    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    Ok(async move || {
        tokio::select! {
            _ = interrupt.recv() => "Ctrl-C",
            _ = terminate.recv() => "SIGTERM",
        }
    })
}

/// Waits for the next Ctrl-C.
#[cfg(not(unix))]
fn stop_signals() -> io::Result<impl AsyncFnMut() -> &'static str> {
    Ok(async || match tokio::signal::ctrl_c().await {
        Ok(()) => "Ctrl-C",
        Err(_) => std::future::pending().await,
    })
}
