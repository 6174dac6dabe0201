//! A client that gives a slow server two seconds: for the whole streamed response, not only for its beginning.
//!
//! ```text
//! cargo run -p apps --bin two_seconds           # calls a server of its own, which is slow in five ways
//! cargo run -p apps --bin two_seconds -- URL..
//! ```
//!
//! In Go:
//!
//! ```go
//! ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
//! defer cancel()
//! request, err := http.NewRequestWithContext(ctx, "GET", url, nil)
//! response, err := http.DefaultClient.Do(request)
//! defer response.Body.Close()
//! n, err := io.Copy(file, response.Body)
//! ```
//!
//! Here the token is the context. Further requests may share it, and the rest of its time. An idle timeout is added: a
//! server that has stopped sending fails earlier than one that is slow, with an error of its own. There is no `defer`: at
//! the stop, or when the response is dropped, its connection is closed.

use axum::{Router, body::Body, extract::Path, routing::get};
use futures::{Stream, TryStreamExt};
use reqwest::Client;
use std::{
    env,
    future::{IntoFuture, pending},
    io::{self, Write},
    time::{Duration, Instant},
};
use stopcock::{
    CancelFutureExt, CancelTryStreamExt, CancellationToken, StopReason, generator, signal,
};
use tokio::{net::TcpListener, time::sleep};

pub(crate) type Error = Box<dyn std::error::Error + Send + Sync>;

const BUDGET: Duration = Duration::from_secs(2);
const IDLE: Duration = Duration::from_millis(500);

// On one thread: the deadline holds even for a server that sends without a pause.
#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Error> {
    let mut urls: Vec<String> = env::args().skip(1).collect();
    if urls.is_empty() {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        tokio::spawn(axum::serve(listener, slow_server()).into_future());
        let paces = ["quick", "slow", "trickling", "flooding", "silent"];
        urls.extend(paces.map(|pace| format!("http://{address}/{pace}")));
    }

    let client = Client::new();
    for url in urls {
        let begin = Instant::now();
        let budget = CancellationToken::with_timeout(BUDGET);
        let fetched = fetch(&client, &url, &budget, IDLE, &mut io::sink()).await;
        let outcome = match fetched {
            Ok(bytes) => format!("{bytes} bytes"),
            Err(error) => match StopReason::find_in(&*error) {
                Some(StopReason::IdleTimeout) => "given up, as nothing came any more".to_owned(),
                Some(StopReason::DeadlineExceeded) => "given up, as it took too long".to_owned(),
                _ => format!("failed: {error}"),
            },
        };
        println!("{url}: {outcome}, after {:.1?}", begin.elapsed());
    }
    Ok(())
}

/// Writes the whole body to `file`, or returns an error: `Ok` means that it is complete.
pub(crate) async fn fetch(
    client: &Client,
    url: &str,
    budget: &CancellationToken,
    idle: Duration,
    file: &mut impl Write,
) -> Result<u64, Error> {
    // The outer `Result` is that of the timeout, the inner one reqwest's.
    let head = client.get(url).send().with_cancellation(budget).await?;
    let mut pieces = head?
        .error_for_status()?
        .bytes_stream()
        .err_into::<Error>()
        .try_with_idle_timeout(idle)
        .try_with_cancellation(budget);

    let mut bytes = 0;
    while let Some(piece) = pieces.try_next().await? {
        file.write_all(&piece)?;
        bytes += piece.len() as u64;
    }
    Ok(bytes)
}

/// `/quick` and `/slow` send a complete response; the others never do.
pub(crate) fn slow_server() -> Router {
    Router::new().route(
        "/{pace}",
        get(async |Path(pace): Path<String>| Body::from_stream(response(pace))),
    )
}

fn response(pace: String) -> impl Stream<Item = io::Result<&'static str>> {
    // Its consumer is hyper, which drops it when the client hangs up.
    generator(signal::never(), async move |mut y| {
        for n in 1_u64.. {
            y.yield_item(Ok("a piece\n")).await;
            match pace.as_str() {
                "quick" | "slow" if n == 10 => break,
                "quick" | "flooding" => {}
                "slow" | "trickling" => sleep(Duration::from_millis(100)).await,
                _ => pending().await,
            }
        }
    })
}
