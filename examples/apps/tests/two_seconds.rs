//! `two_seconds` against its server: the whole response or an error, and the connection is closed.

#[path = "../src/bin/two_seconds.rs"]
#[allow(dead_code, reason = "its `main` is not called here")]
mod two_seconds;

use apps::{Count, LONG_ENOUGH, WATCHDOG, check, eventually};
use futures::StreamExt;
use reqwest::Client;
use std::{future::IntoFuture, time::Duration};
use stopcock::{CancellationToken, StopReason};
use tokio::{
    net::TcpListener,
    sync::mpsc,
    task::JoinHandle,
    time::{sleep, timeout},
};
use two_seconds::{Error, fetch, slow_server};

const SHORT: Duration = Duration::from_millis(200);

struct Server {
    address: String,
    task: JoinHandle<std::io::Result<()>>,
}

impl Server {
    async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Self {
            address: format!("http://{address}"),
            task: tokio::spawn(axum::serve(listener, slow_server()).into_future()),
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// The bytes from a server with this pace, and how the response ended.
async fn fetch_from(
    server: &Server,
    pace: &str,
    budget: Duration,
    idle: Duration,
) -> (Vec<u8>, Result<u64, Error>) {
    // Kept until its connection has been closed.
    let client = Client::new();
    let before = Count::now();
    let budget = CancellationToken::with_timeout(budget);
    let url = format!("{}/{pace}", server.address);
    let mut file = Vec::new();
    let outcome = fetch(&client, &url, &budget, idle, &mut file).await;
    if outcome.is_err() {
        // Both ends of the connection, and the tasks that served them.
        eventually("open after the stop", before, async || Count::now()).await;
    }
    (file, outcome)
}

fn reason(outcome: &Result<u64, Error>) -> &StopReason {
    let error = outcome.as_ref().expect_err("it has ended");
    StopReason::find_in(&**error).expect("it has failed otherwise")
}

#[test]
fn a_whole_response_is_ok_although_it_is_slow() {
    check(async || {
        let server = Server::start().await;
        for pace in ["quick", "slow"] {
            let (file, outcome) = fetch_from(&server, pace, WATCHDOG, WATCHDOG).await;
            assert_eq!(file, "a piece\n".repeat(10).as_bytes());
            assert_eq!(outcome.unwrap(), file.len() as u64);
        }
    });
}

#[test]
fn a_response_that_takes_too_long_is_an_error() {
    check(async || {
        let server = Server::start().await;
        let (_, outcome) = fetch_from(&server, "trickling", SHORT, WATCHDOG).await;
        assert!(matches!(reason(&outcome), StopReason::DeadlineExceeded));
    });
}

#[test]
fn a_response_that_never_pauses_is_an_error() {
    check(async || {
        let server = Server::start().await;
        let (_, outcome) = fetch_from(&server, "flooding", SHORT, WATCHDOG).await;
        assert!(matches!(reason(&outcome), StopReason::DeadlineExceeded));
    });
}

#[test]
fn an_idle_source_is_distinguished_from_a_slow_one() {
    check(async || {
        let server = Server::start().await;
        let (_, outcome) = fetch_from(&server, "silent", WATCHDOG, SHORT).await;
        assert!(matches!(reason(&outcome), StopReason::IdleTimeout));
        let (_, outcome) = fetch_from(&server, "silent", SHORT, WATCHDOG).await;
        assert!(matches!(reason(&outcome), StopReason::DeadlineExceeded));
    });
}

#[test]
fn a_server_that_does_not_answer_is_an_error() {
    check(async || {
        // The system accepts the connection, and the request waits forever.
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let budget = CancellationToken::with_timeout(SHORT);
        let outcome = fetch(&Client::new(), &url, &budget, SHORT, &mut Vec::new()).await;
        assert!(matches!(reason(&outcome), StopReason::DeadlineExceeded));
    });
}

#[test]
fn requests_share_a_budget() {
    check(async || {
        let server = Server::start().await;
        let url = format!("{}/trickling", server.address);
        let budget = CancellationToken::with_timeout(SHORT);
        let client = Client::new();
        let mut fetched = futures::stream::FuturesUnordered::new();
        for _ in 0..40 {
            let (client, budget, url) = (client.clone(), budget.clone(), url.clone());
            fetched.push(async move {
                fetch(&client, &url, &budget, WATCHDOG, &mut std::io::sink()).await
            });
        }
        while let Some(outcome) = fetched.next().await {
            assert!(matches!(reason(&outcome), StopReason::DeadlineExceeded));
        }
    });
}

/// The naive version: a task that feeds a channel, and a timeout around what reads it.
#[test]
fn control_a_task_with_a_channel_keeps_its_connection() {
    check(async || {
        let server = Server::start().await;
        let before = Count::now();
        let mut tasks = Vec::new();
        for _ in 0..40 {
            let (tx, mut rx) = mpsc::channel(1);
            let url = format!("{}/silent", server.address);
            tasks.push(tokio::spawn(async move {
                let mut pieces = reqwest::get(url).await?.bytes_stream();
                while let Some(piece) = pieces.next().await {
                    if tx.send(piece?).await.is_err() {
                        break;
                    }
                }
                Ok::<_, reqwest::Error>(())
            }));
            assert!(rx.recv().await.is_some());
            let given_up = timeout(Duration::from_millis(1), rx.recv()).await;
            assert!(given_up.is_err());
        }

        sleep(LONG_ENOUGH).await;
        let ended = tasks.iter().filter(|task| task.is_finished()).count();
        assert_eq!(ended, 0, "the control does not leak");
        // Each connection has two ends.
        assert_eq!(Count::now().sockets, before.sockets + 2 * tasks.len());
        tasks.iter().for_each(JoinHandle::abort);
    });
}

/// The other naive version: a timeout around the request, which ends once the head has arrived.
#[test]
fn control_a_timeout_around_the_request_is_none_for_the_body() {
    check(async || {
        let server = Server::start().await;
        let request = reqwest::get(format!("{}/trickling", server.address));
        let response = timeout(WATCHDOG, request).await.unwrap().unwrap();
        let body = response.bytes_stream().for_each(async |_| {});
        let reading = timeout(LONG_ENOUGH, body).await;
        assert!(reading.is_err(), "the control does not leak");
    });
}
